"""Data sets. One is a class with a shape, levels, classes and three splits; here those of images."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorelab.denoisers import Law
from scorelab.errors import Refusal


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
    extractor: Mapping[str, Any] = {"_target_": "scorelab.metrics.features.DigitsExtractor"}

    def __init__(self, split_seed: int = 0) -> None:
        if not 0 <= split_seed < 2**32:
            raise Refusal(f"split_seed must lie in 0 ... {2**32 - 1}, got {split_seed}")
        self.split_seed = split_seed

    def splits(self) -> dict[str, Split]:
        """The train, val and test splits, by name."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        rows = np.arange(len(labels))
        train, rest = train_test_split(rows, test_size=360, random_state=self.split_seed, stratify=labels)
        val, test = train_test_split(rest, test_size=180, random_state=self.split_seed, stratify=labels[rest])
        levels = torch.from_numpy(images.astype(np.uint8)).reshape(-1, *self.shape)
        targets = torch.from_numpy(labels.astype(np.int64))
        return {
            name: Split(levels[index], targets[index], chance=0.0)
            for name, index in {"train": train, "val": val, "test": test}.items()
        }
