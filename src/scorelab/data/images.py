"""Data sets. One is a class with a shape, levels, classes and three splits; here those of images."""

import numpy as np
import torch

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
