"""The one LightningDataModule: resident images, batches in an order that depends on seed and step alone."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from scorelab.data.images import Source, Split
from scorelab.denoisers import Denoiser
from scorelab.denoisers.exact import ExactDenoiser, FiniteSet
from scorelab.tensors import from_levels, generator


class Resident(Dataset):
    """A split in memory; an index is a whole batch of rows."""

    def __init__(self, split: Split, levels: int) -> None:
        self.split, self.levels = split, levels

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Data in [-1, 1] as float32 (B, C, H, W), and labels (B,)."""
        return from_levels(self.split.levels[rows], self.levels), self.split.labels[rows]


class Batches(Sampler[Tensor]):
    """Rows of the batches of steps start, start + 1, ...: the epochs' permutations, cut into batches, without end.

    A batch depends on (seed, step, rank) alone, so a run continued at step k sees what it would have seen.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.rows, self.batch_size, self.seed, self.rank, self.world = rows, batch_size, seed, rank, world
        self.start = 0

    def __iter__(self) -> Iterator[Tensor]:
        """Rows (batch_size,) of this rank."""
        step, total = self.start, self.batch_size * self.world
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        while True:
            place = step * total + self.rank * self.batch_size + torch.arange(self.batch_size)
            rows = torch.empty_like(place)
            for number in (place // self.rows).unique().tolist():
                if number != epoch:
                    epoch = number
                    order = torch.randperm(self.rows, generator=generator("order", self.seed, epoch))
                here = place // self.rows == number
                rows[here] = order[place[here] % self.rows]
            yield rows
            step += 1


class DataModule(LightningDataModule):
    """Serves a source's splits; ``shape``, ``levels`` and ``classes`` are the source's.

    Raises:
        ValueError: for a batch size below 1.
    """

    def __init__(self, source: Source, batch_size: int = 64) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.source, self.batch_size = source, batch_size
        self.shape, self.levels, self.classes = source.shape, source.levels, source.classes
        self.extractor: Any = None  # the feature space its images are compared in: set where the run is built
        self.splits = source.splits()
        self.seed = 0

    def train_dataloader(self) -> DataLoader:
        """Endless batches of the train split, from the trainer's step on."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        train = self.splits["train"]
        batches = Batches(len(train), self.batch_size, self.seed, rank, world)
        batches.start = trainer.global_step * trainer.accumulate_grad_batches if trainer else 0
        return DataLoader(Resident(train, self.levels), sampler=batches, batch_size=None)

    def truth(self, denoiser: Denoiser, labelled: bool) -> ExactDenoiser:
        """The exact denoiser of the train split under this one's schedule; ``labelled``: of each label's own images."""
        x0, labels = self.data("train")
        return FiniteSet(denoiser.schedule, denoiser.variance, x0, labels if labelled else None, denoiser.levels)

    def data(self, split: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """A whole split as (data in [-1, 1], labels)."""
        held = self.splits[split]
        return from_levels(held.levels, self.levels).to(device), held.labels.to(device)
