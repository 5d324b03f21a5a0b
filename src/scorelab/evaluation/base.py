"""What is evaluated, and what a yardstick of evaluating is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Exact
from scorelab.errors import Refusal
from scorelab.evaluation.features import features_input, features_of, reference_features
from scorelab.losses import Loss, TimestepSampler
from scorelab.samplers import Sampler, draw_samples
from scorelab.tensors import as_data, generator


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate.

    Args:
        budget: network evaluations (one image, once through) that evaluation may take; None is no limit.
        bound: "sampled" draws times until the standard error is at most ``tolerance``; "exact" sums all of them.
        tolerance: bits/dim.
        samples: how many samples are drawn; None is as many as the train split has.
        repeats: sets of so many samples, each from noise of its own: the mean of what is told of them is told, and its
            standard error.
        held_out: how many held-out items are looked at, the same for every seed; None is all, as is a number that is
            larger.
        chunk: images per network call.
        every: steps between two cheap estimates while training, val/simple; None is a twentieth of the run.

    Raises:
        Refusal: for a number that cannot be.
    """

    budget: int | None = None
    bound: Literal["sampled", "exact"] = "sampled"
    tolerance: float = 0.01
    samples: int | None = None
    repeats: int = 1
    held_out: int | None = None
    chunk: int = 256
    every: int | None = None

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 0:
            raise Refusal(f"budget must be at least 0 network evaluations, got {self.budget}")
        if not self.tolerance > 0:
            raise Refusal(f"tolerance must be above 0 bits/dim, got {self.tolerance}")
        if self.samples is not None and self.samples < 2:
            raise Refusal(f"samples must be at least 2, got {self.samples}")
        if self.repeats < 1:
            raise Refusal(f"repeats must be at least 1, got {self.repeats}")
        if self.held_out is not None and self.held_out < 2:
            raise Refusal(f"held_out must be at least 2, got {self.held_out}")
        if self.chunk < 1:
            raise Refusal(f"chunk must be at least 1, got {self.chunk}")
        if self.every is not None and self.every < 1:
            raise Refusal(f"every must be at least 1 step, got {self.every}")


@dataclass
class EvaluationContext:
    """What is evaluated: a denoiser, its sampler and its objective, against the train split and held-out data.

    Splits are values (N, ...), levels in uint8 or data in float32, and labels (N,). Samples are drawn once, when first
    asked for; so are the features of the train split.

    Attributes:
        exact_train: the exact denoiser of the law that training data follow: of the training set, or of a known law
            that is drawn from endlessly; None where there is none.
        exact_held_out: that of the law held-out data follow, where it is known.
        other: another run's denoiser, to compare with.
        mirrored: whether the train split's mirror images are trained on too.
        conditional: whether samples have the labels they are given; else their classes are drawn by chance.
        chance: how much chance the train split's class counts hold, as ``Split`` says; None where it is not known.
        dequantized: whether the denoiser was trained on levels with uniform noise over their bins.
    """

    denoiser: Denoiser
    sampler: Sampler
    settings: EvaluationSettings
    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    labels: Tensor
    extractor: Any
    loss: Loss
    timesteps: TimestepSampler
    seed: int = 0
    exact_train: Exact | None = None
    exact_held_out: Exact | None = None
    other: Denoiser | None = None
    mirrored: bool = False
    conditional: bool = False
    chance: float | None = None
    dequantized: bool = False

    @property
    def count(self) -> int:
        """How many samples are drawn."""
        return self.settings.samples or len(self.train)

    @property
    def seeds(self) -> list[int]:
        """Of the noise of each set of samples: the run's own first."""
        more = (generator("repeat", self.seed, k).initial_seed() for k in range(1, self.settings.repeats))
        return [self.seed, *more]

    @property
    def evaluations_per_sample(self) -> int:
        """Network evaluations that go into one."""
        return self.sampler.evaluations(self.denoiser) * self.denoiser.evaluations

    @property
    def sampling_cost(self) -> int:
        """Network evaluations that the samples still cost: none once they are drawn."""
        drawn = "sample_sets" in self.__dict__
        return 0 if drawn else self.settings.repeats * self.count * self.evaluations_per_sample

    @property
    def samples(self) -> Tensor:
        """The first set of samples (n, ...) of the denoiser as values, labels in the train split's order."""
        return self.sample_sets[0]

    @cached_property
    def sample_sets(self) -> list[Tensor]:
        """All sets of samples, one for each of ``seeds``."""
        return [self.sampled(self.denoiser, self.sampler, seed) for seed in self.seeds]

    def sampled(self, denoiser: Denoiser, sampler: Sampler, seed: int | None = None) -> Tensor:
        """As many samples of another denoiser, or by another sampler, from the same noise, or by another seed."""
        seed = self.seed if seed is None else seed
        return draw_samples(denoiser, sampler, self.train.shape[1:], self.sample_labels, seed, self.settings.chunk)

    @property
    def sample_labels(self) -> Tensor:
        """Of the samples: the train split's in its order, over and over; of the last round, if cut, at random."""
        rounds, rest = divmod(self.count, len(self.train))
        order = torch.randperm(len(self.train), generator=generator("labels"))
        return torch.cat([self.train_labels.repeat(rounds), self.train_labels[order[:rest]]])

    def data(self, values: Tensor) -> Tensor:
        """Values as data, where the denoiser is."""
        return as_data(values, self.denoiser.levels).to(self.denoiser.device)

    def held_out_data(self) -> tuple[Tensor, Tensor]:
        """The held-out data and their labels, where the denoiser is."""
        return self.data(self.held_out), self.labels.to(self.denoiser.device)

    def features_input(self, values: Tensor) -> Tensor:
        """Values as the feature extractor takes them: bytes, or data."""
        return features_input(values, self.denoiser.levels, self.extractor)

    def features(self, values: Tensor) -> Tensor:
        """The features (n, f) of values."""
        return features_of(values, self.denoiser.levels, self.extractor)

    @cached_property
    def train_features(self) -> Tensor:
        """Those of the train split (N, f), with which samples are compared."""
        return reference_features(self.train, self.denoiser.levels, self.extractor)

    @property
    def without_score(self) -> str:
        """Why no exact score is known, where none is."""
        if self.dequantized:
            return "no exact score is computed of dequantised levels (data.dequantize=true)"
        return "this data has no exact score"

    @property
    def finite(self) -> bool:
        """Whether what is trained on is a finite set."""
        return self.exact_train is not None and self.exact_train is not self.exact_held_out


@dataclass(frozen=True)
class Result:
    """What one yardstick found: numbers by name (None where there is none), their circumstances, and what it cost."""

    metrics: dict[str, float | None]
    records: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 0


@dataclass(frozen=True)
class TableRow:
    """How the table at a run's end shows a number: its title, and a note in which {other} numbers are told.

    A note may name any number of the same split, and those in the yardstick's own records; ``place`` is the row's
    among all.
    """

    number: str
    title: str
    note: str
    place: int = 100


class Yardstick(ABC):
    """One thing to evaluate. ``names`` are its numbers; ``of_samples`` says whether it looks at the context's samples,
    ``of_features`` whether through the extractor's features, without which it has no number.

    A number is of the test split, where its name does not say another. ``rows`` are those that the table shows.
    """

    names: tuple[str, ...]
    rows: tuple[TableRow, ...] = ()
    of_samples: bool = False
    of_features: bool = False

    def check(self, denoiser: Denoiser, settings: EvaluationSettings) -> None:
        """Refuse a denoiser this yardstick cannot evaluate in this way, before anything is trained.

        Raises:
            Refusal: one sentence that says what to change.
        """
        return

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Why there is nothing of this kind to tell of such a context; None where there is. It is not run then."""
        return None

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Which of its numbers such a context has."""
        return self.names

    def rows_of(self, context: EvaluationContext) -> tuple[TableRow, ...]:
        """How the table shows the numbers of such a context: by other words where they mean another thing."""
        return self.rows

    def caution(self, context: EvaluationContext) -> str | None:
        """What whoever reads its numbers should know of such a context; None where all is as it should be."""
        return None

    @abstractmethod
    def cost(self, context: EvaluationContext) -> int:
        """The least number of network evaluations it takes; ``context.sampling_cost`` is in it where ``of_samples``."""

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """How many items it asks which exact denoiser about: no evaluations of a network, but they take their time."""
        return {}

    def turn(self, settings: EvaluationSettings) -> int:
        """When it is run: first (0) what costs just what it says, then (1) what costs more as the denoiser has it.

        Last (2) is what goes on drawing for as long as it may.
        """
        return 0

    def worth(self, context: EvaluationContext) -> int:
        """Evaluations that one image, once through the network, counts for here: more where gradients are taken."""
        return 1

    def cheaper(self, settings: EvaluationSettings) -> str:
        """What to change, beside the budget, for it to cost less; empty where there is nothing."""
        return ""

    @abstractmethod
    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Evaluate, within ``left`` evaluations (None: no limit), where it is applicable.

        Raises:
            OverBudget: when more would be needed.
            Unavailable: when there is no number to tell.
        """
