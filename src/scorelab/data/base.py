"""What a data set is: a class with a shape, levels, classes and three splits."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scorelab.laws import Law


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


class Source:
    """A data set: its shape, values per pixel (None for data without levels), classes (None without labels).

    ``extractor`` is the config node of the features in which its samples are compared.
    """

    shape: tuple[int, ...]
    levels: int | None
    classes: int | None
    extractor: Mapping[str, Any]

    @abstractmethod
    def splits(self) -> dict[str, Split]:
        """The train, val and test splits, by name."""

    def law(self) -> Law | None:
        """What the data was drawn from, where that is known."""
        return None
