"""The one LightningDataModule: resident data, or endless draws, in an order that depends on seed and step alone."""

import hashlib
import signal
from collections.abc import Iterator
from functools import cached_property
from itertools import count
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from scorelab.data.base import Source, Split
from scorelab.data.dequantized import Dequantized, Placed
from scorelab.data.synthetic import Synthetic
from scorelab.errors import Refusal
from scorelab.laws import FiniteSet, Law
from scorelab.mapped import Reader, in_chunks
from scorelab.tensors import as_data, generator


class SplitDataset(Dataset):
    """A split of N items, in memory or mapped; an index is a whole batch of rows. With ``flip``, row N + i is the
    mirror image of row i.
    """

    def __init__(self, split: Split, levels: int | None, flip: bool = False) -> None:
        self.split, self.levels, self.flip = split, levels, flip
        self.reader = Reader(split.values)

    def __len__(self) -> int:
        """How many rows there are, mirror images among them."""
        return len(self.split) * (2 if self.flip else 1)

    def __getitem__(self, rows: Tensor | list[int]) -> tuple[Tensor, Tensor]:
        """Data as float32 (B, ...), and labels (B,)."""
        if not self.flip:
            return as_data(self.reader[rows], self.levels), self.split.labels[rows]
        rows = torch.as_tensor(rows)
        own, mirrored = rows % len(self.split), rows >= len(self.split)
        values = self.reader[own]
        values[mirrored] = values[mirrored].flip(-1)
        return as_data(values, self.levels), self.split.labels[own]


class Batches(Sampler[Tensor]):
    """Rows of the batches of steps start, start + 1, ...: the epochs' permutations, cut into batches, without end.

    A batch depends on (seed, step, rank) alone, so a run continued at step k sees what it would have seen.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        self.rows, self.batch_size, self.seed, self.rank, self.world = rows, batch_size, seed, rank, world
        self.start = start

    def __iter__(self) -> Iterator[Tensor]:
        """Rows (batch_size,) of this rank."""
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        for step in count(self.start):
            place = (step * self.world + self.rank) * self.batch_size
            rows, filled = (
                torch.empty(self.batch_size, dtype=torch.long),
                0,
            )  # at once: too many fail at once
            while filled < self.batch_size:
                number, start = divmod(place + filled, self.rows)
                if number != epoch:
                    epoch = number
                    order = torch.randperm(self.rows, generator=generator("order", self.seed, epoch))
                part = order[start : start + self.batch_size - filled]
                rows[filled : filled + len(part)] = part
                filled += len(part)
            yield rows


class ByValue(Sampler[list[int]]):
    """The rows of another sampler as plain numbers, for workers: a tensor would be shared with each through a socket,
    and one that dies would leave the traceback of a broken connection.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        """Rows of one batch after another."""
        return (rows.tolist() for rows in self.batches)


class EndlessDataset(Dataset):
    """Fresh draws of a known law; an index is the step whose batch is drawn, by (seed, step, rank) alone."""

    def __init__(self, source: Synthetic, batch_size: int, seed: int, rank: int = 0) -> None:
        self.source, self.batch_size, self.seed, self.rank = source, batch_size, seed, rank

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Data as float32 (B, ...), and labels (B,)."""
        drawn = self.source.drawn(self.batch_size, "train", self.seed, step, self.rank)
        return drawn.values, drawn.labels


class StepNumbers(Sampler[int]):
    """The steps start, start + 1, ... without end."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        """One after the other."""
        return count(self.start)


def ignore_ending(worker: int) -> None:
    """Ignore what ends a run: they often reach a whole group of processes (Ctrl-C, a closed terminal, Slurm)."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)


class DataModule(LightningDataModule):
    """Serves a source's splits; ``shape``, ``levels`` and ``classes`` are the source's.

    Args:
        source: the data set.
        batch_size: of a training step on one device.
        limit: train on so many of the train split's items alone, the same for every seed and nested in each other;
            of a known law, on so many draws instead of endless ones.
        half: train on one of two disjoint halves of it; ``limit`` then counts in the half.
        flip: train on every image and its mirror image.
        dequantize: train on levels with uniform noise over their bins, drawn anew each time (``Dequantized``): on a law
            with a density, whose likelihood a probability flow can tell. Held-out data stay levels, and samples are
            rounded to them, which undoes it.
        workers: processes that make batches ahead; how many there are changes no batch.
        extractor: of the features in which samples are compared with the data (see ``metrics.features``).
        seed: of the order of batches, or of the draws.

    Raises:
        Refusal: for a batch size below 1, fewer workers than none, a limit that is not there, halves of endless
            draws, mirrored points, noise over the bins of data without levels, a source that does not keep to its
            contract.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        limit: int | None = None,
        half: Literal["A", "B"] | None = None,
        flip: bool = False,
        dequantize: bool = False,
        workers: int = 0,
        extractor: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise Refusal(f"batch_size must be at least 1, got {batch_size}")
        if workers < 0:
            raise Refusal(f"workers must be at least 0, got {workers}")
        if flip and len(source.shape) != 3:
            raise Refusal("flip mirrors images; this data has none")
        if dequantize and source.levels is None:
            raise Refusal("dequantize spreads levels over their bins; this data has none: leave it out")
        self.source, self.batch_size, self.flip, self.workers = source, batch_size, flip, workers
        self.shape, self.levels, self.classes = source.shape, source.levels, source.classes
        self.dequantize, self.extractor, self.seed = dequantize, extractor, seed
        self.endless = isinstance(source, Synthetic) and limit is None
        if self.endless and (half is not None or flip):
            raise Refusal("endless draws have no halves and no mirror images: set data.limit")
        self.splits = source.checked_splits()
        if isinstance(source, Synthetic) and limit is not None:
            self.splits["train"] = source.first(limit, half or "A")
        elif not self.endless:
            self.splits["train"] = part(self.splits["train"], limit, half)

    @property
    def chance(self) -> float | None:
        """How much chance the class counts of the train split hold; None where nothing tells of classes."""
        return self.splits["train"].chance if self.classes or self.law() is not None else None

    def training_law(self) -> Law | None:
        """The law of what is trained on: uniform over the training set, or the known law that draws it endlessly.

        None of dequantised levels: uniform over as many boxes as there are items, which is too much to ask for a score.
        """
        law = self.law()
        if self.dequantize:
            return None
        if self.endless and law is not None:
            return law
        train = self.splits["train"]
        labels = train.labels if self.classes else None
        return FiniteSet(train.values, labels, levels=self.levels, mirrored=self.flip)

    def law(self) -> Law | None:
        """The law of held-out data, where it is known."""
        return self.source.law()

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits of the hash of the train split's values."""
        hashed = hashlib.sha256()
        for chunk in in_chunks(self.splits["train"].values):
            array: Any = chunk.contiguous().numpy()
            hashed.update(array.data)
        return hashed.hexdigest()[:12]

    def records(self) -> dict[str, Any]:
        """What was trained and judged on, as plain values: sizes, what the source tells, the fingerprint.

        Of endless draws "train" is none, and the fingerprint that of the sample they are compared with.
        """
        sizes = {name: len(split) for name, split in self.splits.items()}
        endless = {"train": None} if self.endless else {}
        trained = {}
        if self.dequantize and self.levels is not None:
            trained = {"trained_on": f"levels + 2/{self.levels - 1} (u - 1/2), u uniform"}
        return {**sizes, **endless, **trained, **self.source.told(), "fingerprint": self.fingerprint}

    def train_dataloader(self) -> DataLoader:
        """Endless batches, from the trainer's step on."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        start = trainer.global_step * trainer.accumulate_grad_batches if trainer else 0
        if self.endless:
            assert isinstance(self.source, Synthetic)
            return self.served(EndlessDataset(self.source, self.batch_size, self.seed, rank), StepNumbers(start))
        train = SplitDataset(self.splits["train"], self.levels, self.flip)
        rows = Batches(len(train), self.batch_size, self.seed, rank, world, start)
        batches: Sampler[Any] = ByValue(rows) if self.workers else rows
        if not self.dequantize or self.levels is None:
            return self.served(train, batches)
        placed = Placed(batches, self.batch_size, rank, world, start)
        return self.served(Dequantized(train, self.levels, self.seed), placed)

    def served(self, dataset: Dataset, sampler: Sampler[Any]) -> DataLoader:
        """Whole batches in the sampler's order. Workers leave it to the main process what a signal means."""
        return DataLoader(
            dataset, sampler=sampler, batch_size=None, num_workers=self.workers, worker_init_fn=ignore_ending
        )


def first(split: Split, most: int | None) -> Split:
    """At most so many items, the first in an order that is always the same; all where there are no more."""
    return split if most is None or most >= len(split) else part(split, most, None)


def part(split: Split, limit: int | None, half: str | None) -> Split:
    """The first ``limit`` items of one half, or of all, in an order that is always the same.

    Raises:
        Refusal: when there are not so many.
    """
    if limit is None and half is None:
        return split
    order = torch.randperm(len(split), generator=generator("part", len(split)))
    mine = order if half is None else order[: len(order) // 2] if half == "A" else order[len(order) // 2 :]
    if limit is not None and not 1 <= limit <= len(mine):
        raise Refusal(f"limit must lie in 1 ... {len(mine)}, got {limit}")
    return split.only(mine[:limit])
