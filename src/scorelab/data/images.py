"""Data sets. One is a class with a shape, levels, classes and three splits; here those of images."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scorelab.data.base import Source, Split
from scorelab.errors import Refusal


class Digits(Source):
    """The 1,797 real scans of handwritten digits that ship with scikit-learn: 8x8 pixels of 17 levels, 10 classes.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998. Split 1,437 / 180 / 180 into train,
    val and test, stratified by class, by ``split_seed`` alone: every run sees the same three sets.

    Raises:
        Refusal: for a seed that is none.
    """

    shape = (1, 8, 8)
    levels = 17
    classes = 10

    def __init__(self, split_seed: int = 0) -> None:
        if not 0 <= split_seed < 2**32:
            raise Refusal(f"split_seed must lie in 0 ... {2**32 - 1}, got {split_seed}")
        self.split_seed = split_seed

    def splits(self) -> dict[str, Split]:
        """The train, val and test splits, by name."""
        images, labels = scans()
        train, rest = stratified(labels, 360, self.split_seed)
        val, test = (rest[part] for part in stratified(labels[rest], 180, self.split_seed))
        levels = torch.from_numpy(images.copy()).reshape(-1, *self.shape)
        targets = torch.from_numpy(labels.astype(np.int64))
        return {
            name: Split(levels[index], targets[index], chance=0.0)
            for name, index in {"train": train, "val": val, "test": test}.items()
        }


@cache
def scans() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The digits' pixels (1797, 64) and classes (1797,), from scikit-learn's file.

    scikit-learn itself is not imported: with pandas behind it, that takes longer than all else a run begins with.
    """
    found = find_spec("sklearn")
    assert found is not None and found.origin is not None
    table = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", np.uint8, delimiter=",")
    return table[:, :-1], table[:, -1]


def stratified(labels: NDArray[np.uint8], held_out: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that stay and those held out, each class in proportion: scikit-learn's train_test_split, draw for draw.

    The draws are of one NumPy generator, in this order: which classes give one more to either part, then for each
    class an order of its rows, whose first stay and whose next are held out, and an order of each part.
    """
    draw, rows = np.random.RandomState(seed), np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    sizes = sizes[sizes > 0]
    stay = _shares(sizes, len(labels) - held_out, draw)
    leave = _shares(sizes - stay, held_out, draw)
    parts: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = [], []
    for of_class, first, then in zip(np.split(rows, sizes.cumsum()[:-1]), stay, leave, strict=True):
        mixed = of_class[draw.permutation(len(of_class))]
        parts[0].append(mixed[:first])
        parts[1].append(mixed[first : first + then])
    kept, out = (draw.permutation(np.concatenate(part)) for part in parts)
    return kept, out


def _shares(sizes: NDArray[np.int64], total: int, draw: np.random.RandomState) -> NDArray[np.int64]:
    """How many of ``total`` each class gives: rounded down, and one more by largest remainder, equal ones by lot."""
    exact = sizes / sizes.sum() * total
    shares = np.floor(exact)
    left = exact - shares
    for remainder in np.unique(left)[::-1]:
        more = int(total - shares.sum())
        if more == 0:
            break
        tied = np.flatnonzero(left == remainder)
        shares[draw.choice(tied, size=min(len(tied), more), replace=False)] += 1
    return shares.astype(np.int64)
