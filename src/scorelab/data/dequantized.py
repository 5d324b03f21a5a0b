"""Levels as numbers that have a density: each with uniform noise over its bin, drawn anew whenever it is seen."""

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from scorelab.tensors import generator, spread_over_bins


class Placed(Sampler[tuple[int, list[int]]]):
    """Batches of rows, each with the place of its first row in the order of all that is ever shown, by any process.

    Step k of ``rank`` of ``world`` processes, which each take ``size`` rows, begins at (k world + rank) size.
    """

    def __init__(self, batches: Sampler, size: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        self.batches, self.size, self.rank, self.world, self.start = batches, size, rank, world, start

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """One batch after another."""
        for step, rows in zip(count(self.start), self.batches, strict=False):
            yield (step * self.world + self.rank) * self.size, rows


class Dequantized(Dataset):
    """Another data set's batches as x + Delta (u - 1/2), see ``spread_over_bins``; an index is a place and its rows.

    The u of an item depends on (seed, place) alone: how many processes and workers there are, how large a batch is and
    where a run was interrupted change none.
    """

    def __init__(self, inner: Dataset, levels: int, seed: int) -> None:
        self.inner, self.levels, self.seed = inner, levels, seed

    def __getitem__(self, index: tuple[int, list[int]]) -> tuple[Tensor, Tensor]:
        """Data as float32 (B, ...), and labels (B,)."""
        place, rows = index
        x, labels = self.inner[rows]
        keys = range(place, place + len(x))
        u = [torch.rand(x.shape[1:], generator=generator("dequantize", self.seed, key)) for key in keys]
        return spread_over_bins(x, torch.stack(u), self.levels), labels
