"""What a data set is: a class with a shape, levels, classes and three splits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.laws import Law
from scorelab.mapped import in_chunks


@dataclass(frozen=True)
class Split:
    """One split: values (N, ...) and labels (N,) as int64.

    Values are pixel levels as uint8 in 0 ... levels-1 where the data has levels, float32 data where it has none.
    ``chance`` is how much of the chance of independent draws its class counts hold: 0 where it was split by class.
    """

    values: Tensor
    labels: Tensor
    chance: float = 1.0

    def __len__(self) -> int:
        return len(self.values)

    def only(self, rows: Tensor) -> "Split":
        """Some of it, drawn at random without replacement: the more is left out, the more class counts are chance."""
        chance = 1 - (1 - self.chance) * len(rows) / len(self)
        return Split(self.values[rows], self.labels[rows], chance)


class Source(ABC):
    """A data set. To write one: a subclass that says ``shape``, ``levels`` and ``classes``, and gives ``splits``.

    The three may stand in the class or be set by the constructor, from its arguments; they are asked of the object
    before anything is read or trained, so a constructor is quick and leaves the reading of data to ``splits``. Splits
    are the same every time, by the constructor's arguments alone.

    Attributes:
        shape: of one item, (C, H, W) or (D,).
        levels: values per pixel; None for data without levels, which lie about [-1, 1].
        classes: how many labels there are; None without labels.
    """

    shape: tuple[int, ...]
    levels: int | None
    classes: int | None

    @abstractmethod
    def splits(self) -> dict[str, Split]:
        """The splits by name, train, val and test, none of them empty."""

    def law(self) -> Law | None:
        """What the data was drawn from, where that is known."""
        return None

    def told(self) -> dict[str, Any]:
        """What the records say of it, as plain values: where its splits come from, what was left out, what was done."""
        return {}

    def checked_splits(self) -> dict[str, Split]:
        """The splits, seen to be what ``Source`` and ``Split`` say.

        Raises:
            Refusal: where they are not.
        """
        splits = self.splits()
        if splits.keys() != {"train", "val", "test"}:
            raise Refusal(f"{type(self).__name__}: splits are train, val and test, got {', '.join(splits) or 'none'}")
        for name, split in splits.items():
            if (wrong := self._wrong_with(split)) is not None:
                raise Refusal(f"{type(self).__name__}: the {name} split {wrong}")
        return splits

    def _wrong_with(self, split: Split) -> str | None:
        values, labels, classes = split.values, split.labels, self.classes or 1
        dtype = torch.float32 if self.levels is None else torch.uint8
        if not len(values):
            return "is empty"
        if values.dtype != dtype or values.shape[1:] != tuple(self.shape):
            found = f"{values.dtype} (N, {', '.join(map(str, values.shape[1:]))})"
            return f"holds {found}, of shape={self.shape} and levels={self.levels} {dtype} is needed"
        if self.levels is not None and (most := _most(values, self.levels)) >= self.levels:
            return f"holds the level {most}, and levels={self.levels}"
        if labels.dtype != torch.int64 or labels.shape != (len(values),):
            return f"needs labels int64 ({len(values)},), 0 without classes, not {labels.dtype} {tuple(labels.shape)}"
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            return f"holds labels {int(labels.min())} ... {int(labels.max())}, and classes={self.classes}"
        return None


def _most(values: Tensor, levels: int) -> int:
    """The highest level that is held; of bytes that may all occur it need not be looked for."""
    return levels - 1 if levels > 255 else max(int(chunk.max()) for chunk in in_chunks(values))
