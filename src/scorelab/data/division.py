"""Train, val and test of a set that comes in one piece: by class where there are labels, by a seed of its own."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.tensors import generator


@dataclass(frozen=True)
class Division:
    """The rows of each part, int64, ascending; each row in exactly one."""

    train: Tensor
    val: Tensor
    test: Tensor


def by_class(labels: Tensor | None, n: int, val: float, test: float, seed: int) -> Division:
    """Draw val and test out of n items, every class in proportion; what is left is train.

    Class c of n_c items gives n_c m / n of the m held out, rounded such that the parts have the sizes asked for
    (largest remainders). A class keeps one item at least in train as long as others can give more.

    Args:
        labels: (n,), one for each item; None where there are none, and the items are one class.
        n: how many items there are.
        val: a share of all below 1, or a count from 1 on; 0 for no such part.
        test: the same.
        seed: of the draw.

    Raises:
        Refusal: for what is neither share nor count, and where a part would be empty.
    """
    asked = {"val": _count(val, n, "val"), "test": _count(test, n, "test")}
    parts = 1 + sum(each > 0 for each in asked.values())
    if n < parts:
        few = f"{n} item{'s are' if n != 1 else ' is'} too few"
        raise Refusal(f"{few} for {'train, val and test' if parts == 3 else f'{parts} parts'}: {parts} are needed")
    held = asked["val"] + asked["test"]
    if held >= n:
        told = " and ".join(f"{name}={count:,}" for name, count in asked.items() if count)
        raise Refusal(f"{told} of {n:,} items leave none to train on: ask for less")
    _, of_class, sizes = (torch.zeros(n, dtype=torch.long) if labels is None else labels).unique(
        return_inverse=True, return_counts=True
    )
    chance = torch.randperm(len(sizes), generator=generator("division", seed, "ties"))
    out = _apportioned(sizes, held, sizes - 1, chance)
    of_val = _apportioned(out, asked["val"], out, chance)
    rows: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    by_size = of_class.argsort(stable=True).split(sizes.tolist())
    for number, members in enumerate(by_size):
        drawn = members[torch.randperm(len(members), generator=generator("division", seed, number))]
        first, both = int(of_val[number]), int(out[number])
        for name, part in {"val": drawn[:first], "test": drawn[first:both], "train": drawn[both:]}.items():
            rows[name].append(part)
    return Division(**{name: torch.cat(each).sort().values for name, each in rows.items()})


def _count(asked: float, n: int, name: str) -> int:
    """How many items a share or a count stands for: of a share at least one."""
    if not 0 <= asked < math.inf or (asked >= 1 and asked % 1):
        raise Refusal(f"{name} is a share below 1 or a whole number of items, got {asked}")
    return int(asked) if asked >= 1 or asked == 0 else max(1, round(asked * n))


def _apportioned(sizes: Tensor, total: int, room: Tensor, chance: Tensor) -> Tensor:
    """How many each class gives of ``total``: in proportion to its size, by largest remainders, within its room.

    Equal remainders go by ``chance``. Where all the room there is does not suffice, classes give all they have.
    """
    quota = sizes.double() * total / max(int(sizes.sum()), 1)
    given = torch.minimum(quota.floor().long(), room)
    order = chance[(quota - quota.floor())[chance].argsort(descending=True, stable=True)]
    for most in (room, sizes):
        while (left := total - int(given.sum())) > 0 and (given < most).any():
            takers = order[(given < most)[order]][:left]
            given[takers] += 1
    return given
