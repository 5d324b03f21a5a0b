"""Judging: named parts, run in turn within a budget of network evaluations."""

import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Exact
from scorelab.errors import Refusal
from scorelab.losses import Loss, Times
from scorelab.samplers import Sampler
from scorelab.tensors import as_data, generator, to_bytes, to_levels


class Unjudged(Exception):
    """A part found that it cannot tell its numbers; says why, and how many evaluations finding out has cost."""

    def __init__(self, reason: str, evaluations: int = 0) -> None:
        super().__init__(reason)
        self.evaluations = evaluations


class OverBudget(Unjudged):
    """A part needs more network evaluations than are left."""


@dataclass(frozen=True)
class Metric:
    """How to judge.

    Args:
        budget: network evaluations (one image, once through) that judging may take; None is no limit.
        bound: "sampled" draws times until the standard error is at most ``tolerance``; "exact" sums all of them.
        tolerance: bits/dim.
        samples: how many samples are drawn; None is as many as the train split has.
        chunk: images per network call.

    Raises:
        Refusal: for a number that cannot be.
    """

    budget: int | None = None
    bound: Literal["sampled", "exact"] = "sampled"
    tolerance: float = 0.01
    samples: int | None = None
    chunk: int = 256

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 0:
            raise Refusal(f"budget must be at least 0 network evaluations, got {self.budget}")
        if not self.tolerance > 0:
            raise Refusal(f"tolerance must be above 0 bits/dim, got {self.tolerance}")
        if self.samples is not None and self.samples < 2:
            raise Refusal(f"samples must be at least 2, got {self.samples}")
        if self.chunk < 1:
            raise Refusal(f"chunk must be at least 1, got {self.chunk}")


@dataclass
class Case:
    """What is judged: a denoiser, its sampler and its objective, against the train split and held-out data.

    Splits are values (N, ...), levels in uint8 or data in float32, and labels (N,). Samples are drawn once, when first
    asked for.

    Attributes:
        truth: the exact denoiser of the law that training data follow: of the training set, or of a known law that
            is drawn from endlessly; None where there is none.
        law: that of the law held-out data follow, where it is known.
        other: another run's denoiser, to compare with.
        training: what is trained on, where that is more than the train split: mirror images too.
        conditional: whether samples have the labels they are given; else their classes are drawn by chance.
        chance: how much chance the train split's class counts hold, as ``Split`` says; None where it is not known.
    """

    denoiser: Denoiser
    sampler: Sampler
    metric: Metric
    train: Tensor
    train_labels: Tensor
    held_out: Tensor
    labels: Tensor
    extractor: Any
    loss: Loss
    times: Times
    seed: int = 0
    truth: Exact | None = None
    law: Exact | None = None
    other: Denoiser | None = None
    training: Tensor | None = None
    conditional: bool = False
    chance: float | None = None

    @property
    def count(self) -> int:
        """How many samples are drawn."""
        return self.metric.samples or len(self.train)

    @property
    def sampling_cost(self) -> int:
        """Network evaluations that the samples still cost, whole chunks each: none once they are drawn."""
        if "samples" in self.__dict__:
            return 0
        chunk = self.metric.chunk
        return -(-self.count // chunk) * chunk * self.sampler.evaluations(self.denoiser)

    @cached_property
    def samples(self) -> Tensor:
        """Samples (n, ...) of the denoiser as values, labels in the train split's order, by the case's seed."""
        return self.sampled(self.denoiser, self.sampler)

    def sampled(self, denoiser: Denoiser, sampler: Sampler) -> Tensor:
        """As many samples of another denoiser, or by another sampler, from the same noise."""
        labels = self.train_labels.repeat(-(-self.count // len(self.train)))[: self.count]
        return draw_samples(denoiser, sampler, self.train.shape[1:], labels, self.seed, self.metric.chunk)

    def data(self, values: Tensor) -> Tensor:
        """Values as data, where the denoiser is."""
        return as_data(values, self.denoiser.levels).to(self.denoiser.device)

    def held_out_data(self) -> tuple[Tensor, Tensor]:
        """The held-out data and their labels, where the denoiser is."""
        return self.data(self.held_out), self.labels.to(self.denoiser.device)

    def shown(self, values: Tensor) -> Tensor:
        """Values as the feature extractor takes them: bytes, or data as they are."""
        return to_bytes(values, self.denoiser.levels) if self.extractor.of_bytes else values

    @property
    def finite(self) -> bool:
        """Whether what is trained on is a finite set."""
        return self.truth is not None and self.truth is not self.law


def draw_samples(
    denoiser: Denoiser, sampler: Sampler, shape: tuple[int, ...], labels: Tensor, seed: int, chunk: int
) -> Tensor:
    """Samples as values (n, *shape) on the CPU, levels in uint8 or float32 data, one for each label.

    ``chunk`` at a time, each with a generator of its own, so the first n samples do not depend on how many follow.
    """
    drawn = []
    for number, part in enumerate(labels.split(chunk)):
        noise = generator("samples", seed, number, device=denoiser.device)
        whole = torch.cat([part, part.new_zeros(chunk - len(part))]).to(denoiser.device)
        x0 = sampler(denoiser, (chunk, *shape), whole, noise)[: len(part)]
        drawn.append((x0 if denoiser.levels is None else to_levels(x0, denoiser.levels)).cpu())
    return torch.cat(drawn)


@dataclass(frozen=True)
class Result:
    """What one part found: numbers by name (None where there is none), their circumstances, and what it cost."""

    metrics: dict[str, float | None]
    records: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 0


class Part:
    """One thing to judge. ``names`` are its numbers; ``of_samples`` says whether it looks at the case's samples.

    A number is of the test split, where its name does not say another.
    """

    names: tuple[str, ...]
    of_samples: bool = False

    def check(self, denoiser: Denoiser, metric: Metric) -> None:
        """Refuse a denoiser this part cannot judge in this way, before anything is trained.

        Raises:
            Refusal: one sentence that says what to change.
        """
        return

    @abstractmethod
    def cost(self, case: Case) -> int:
        """The least number of network evaluations it takes."""

    @abstractmethod
    def run(self, case: Case, left: int | None) -> Result:
        """Judge, within ``left`` evaluations (None: no limit).

        Raises:
            OverBudget: when more would be needed.
            Unjudged: when there is no number to tell.
        """


@dataclass
class Verdict:
    """Numbers and circumstances of all parts."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def judge(parts: dict[str, Part], case: Case, say: Callable[[str], None]) -> Verdict:
    """Run the parts in turn. One that does not fit the budget is left out by name: None, and the reason in records.

    Says the cost and the seconds to expect before starting.
    """
    left = case.metric.budget
    say(forecast(parts, case))
    verdict = Verdict()
    for name, part in parts.items():
        started = time.perf_counter()
        cost = part.cost(case)
        try:
            if left is not None and cost > left:
                raise OverBudget(f"needs at least {cost:,} network evaluations, {left:,} are left")
            result = part.run(case, left)
        except (Unjudged, Refusal) as failed:  # one part that cannot tell its numbers must not take the others along
            error = failed if isinstance(failed, Unjudged) else Unjudged(str(failed))
            hint = ": raise metric.budget (null is no limit)" if isinstance(error, OverBudget) else ""
            say(f"{name} skipped: {error}{hint}")
            result = Result(dict.fromkeys(part.names), {"skipped": f"{error}{hint}"}, error.evaluations)
        left = None if left is None else left - result.evaluations
        verdict.metrics |= {key if "/" in key else f"test/{key}": value for key, value in result.metrics.items()}
        spent = {"evaluations": result.evaluations, "seconds": round(time.perf_counter() - started, 2)}
        verdict.records[name] = result.records | spent
    return verdict


def forecast(parts: dict[str, Part], case: Case) -> str:
    """One line: what each part costs at least, and how long that takes at the speed of one call measured now."""
    costs = {name: part.cost(case) for name, part in parts.items() if not part.of_samples}
    if sampled := {name: part for name, part in parts.items() if part.of_samples}:
        costs["samples"] = case.sampling_cost
        costs |= {name: part.cost(case) - case.sampling_cost for name, part in sampled.items()}
    total = sum(costs.values())
    seconds = total / evaluations_per_second(case)
    listed = ", ".join(f"{name} {cost:,}" for name, cost in costs.items() if cost)
    limit = "no limit" if case.metric.budget is None else f"budget {case.metric.budget:,}"
    return f"judging: at least {total:,} network evaluations ({listed}; {limit}), about {seconds:.0f} s"


def evaluations_per_second(case: Case) -> float:
    """Images per second through the network, from the second of two calls."""
    x = torch.zeros(case.metric.chunk, *case.train.shape[1:], device=case.denoiser.device)
    t = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for _ in range(2):
        started = time.perf_counter()
        float(case.denoiser(x, t).x0.sum())
    return len(x) / (time.perf_counter() - started)
