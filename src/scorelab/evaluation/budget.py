"""Where the distance of a run's samples comes from: the network, the sampler, or the metric itself."""

import copy

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.evaluation.base import Case, Metric, Result
from scorelab.evaluation.samples import SamplePart, floor_of, kind, spread
from scorelab.metrics.fidelity import frechet
from scorelab.samplers import Sampler
from scorelab.tensors import generator


class ErrorBudget(SamplePart):
    """Fréchet distances of four sets of as many samples to the train split, from the same noise.

    ``budget_run``: this network, this sampler; ``budget_sampler``: the exact denoiser, this sampler: its error at this
    number of evaluations; ``budget_network``: this network at ``steps`` evaluations: its error with next to none of the
    sampler's; ``budget_floor``: independent samples of the truth. The exact denoiser is that of the known law. Where
    only the training set's is known, it copies training images: its floor is then ``budget_copies``, the distance of
    training images drawn with replacement (of each sample's label where samples have labels), and ``budget_floor`` that
    of unseen images.

    Raises:
        Refusal: for steps < 1.
    """

    names = ("budget_run", "budget_sampler", "budget_network", "budget_floor")

    def __init__(self, steps: int = 1000) -> None:
        if steps < 1:
            raise Refusal(f"steps must be at least 1, got {steps}")
        self.steps = steps

    def inapplicable(self, case: Case) -> str | None:
        """Where no score is known."""
        return None if case.law or case.truth else "this data has no exact score"

    def cost(self, case: Case) -> int:
        """The case's own samples, and as many at ``steps``; the exact denoiser is no network."""
        return case.sampling_cost + case.count * self.long(case.sampler).evaluations(case.denoiser)

    def cheaper(self, metric: Metric) -> str:
        """Fewer samples, fewer steps for those of the network."""
        return "lower metric.samples or judge.budget.steps"

    def long(self, sampler: Sampler) -> Sampler:
        """The same sampler at ``steps``."""
        other = copy.copy(sampler)
        other.steps = self.steps
        return other

    def run(self, case: Case, left: int | None) -> Result:
        """All four, and what they depend on."""
        truth = case.law or case.truth
        assert truth is not None
        evaluations = self.cost(case)
        train = case.shown(case.train)
        drawn = {
            "budget_run": case.samples,
            "budget_sampler": case.sampled(truth, case.sampler),
            "budget_network": case.sampled(case.denoiser, self.long(case.sampler)),
        }
        metrics: dict[str, float | None] = {
            name: frechet(train, case.shown(samples), case.extractor) for name, samples in drawn.items()
        }
        floor = floor_of(case)
        metrics["budget_floor"] = floor.value
        own = case.sampler.evaluations(case.denoiser)
        records: dict[str, object] = {
            "n": case.count,
            "evaluations_per_sample": own,
            "evaluations_per_sample_of_network": self.long(case.sampler).evaluations(case.denoiser),
            "floor": kind(case),
            **spread(floor),
        }
        if case.law is None:
            metrics["budget_copies"] = frechet(train, train[copied(case)], case.extractor)
            records["sampler_floor"] = "copies: the exact denoiser of the training set draws its images"
        return Result(metrics, records, evaluations)


def copied(case: Case) -> Tensor:
    """Rows of the train split, as many as samples, drawn with replacement: of their labels where they have labels."""
    draws, size = generator("copies", case.seed), len(case.train)
    if not case.conditional:
        return torch.randint(size, (case.count,), generator=draws)
    labels = case.train_labels
    wanted, counts = labels[torch.arange(case.count) % size], labels.bincount()
    first = counts.cumsum(0) - counts
    place = (torch.rand(case.count, generator=draws, dtype=torch.float64) * counts[wanted]).long()
    return labels.argsort()[first[wanted] + place]
