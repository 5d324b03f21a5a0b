"""Where the distance of a run's samples comes from: the network, the sampler, or the metric itself."""

import torch
from torch import Tensor

from scorelab.denoisers import Exact
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow
from scorelab.evaluation.samples import SampleYardstick, floor_of
from scorelab.metrics.fidelity import frechet_between
from scorelab.samplers import Sampler
from scorelab.tensors import generator


class ErrorBudget(SampleYardstick):
    """Fréchet distances of four sets of as many samples to the train split, from the same noise.

    ``budget_run``: this network, this sampler; ``budget_sampler``: the exact denoiser, this sampler: its error at this
    number of evaluations; ``budget_network``: this network at ``steps`` evaluations: its error with next to none of the
    sampler's; ``budget_floor``: independent samples of the law. The exact denoiser is that of the known law. Where only
    the training set's is known, it copies training images: its floor is then ``budget_copies``, the distance of
    training images drawn with replacement (of each sample's label where samples have labels), and ``budget_floor`` that
    of unseen images.

    Raises:
        Refusal: for steps < 1.
    """

    of_features = True
    names = ("budget_run", "budget_sampler", "budget_network", "budget_floor")
    rows = (
        TableRow(
            "budget_run",
            "error budget",
            "Fréchet: the exact score with this sampler {budget_sampler}, this network with many steps "
            "{budget_network}, floor {budget_floor}",
            12,
        ),
    )

    def __init__(self, steps: int = 1000) -> None:
        if steps < 1:
            raise Refusal(f"steps must be at least 1, got {steps}")
        self.steps = steps

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where no score is known."""
        return None if context.exact_held_out or context.exact_train else context.without_score

    def cost(self, context: EvaluationContext) -> int:
        """The context's own samples, and as many at ``steps``; the exact denoiser is no network."""
        return context.sampling_cost + context.count * self.long(context.sampler).evaluations(context.denoiser)

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """As many samples of the exact denoiser."""
        exact = context.exact_held_out or context.exact_train
        return {} if exact is None else {exact: context.count * context.sampler.evaluations(exact)}

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer samples, fewer steps for those of the network."""
        return "lower evaluation.samples or metrics.budget.steps"

    def long(self, sampler: Sampler) -> Sampler:
        """The same sampler at ``steps``."""
        return sampler.with_steps(self.steps)

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """All four, and what they depend on."""
        exact = context.exact_held_out or context.exact_train
        assert exact is not None
        evaluations = self.cost(context)
        train = context.train_features
        drawn = {
            "budget_run": context.samples,
            "budget_sampler": context.sampled(exact, context.sampler),
            "budget_network": context.sampled(context.denoiser, self.long(context.sampler)),
        }
        metrics: dict[str, float | None] = {
            name: frechet_between(context.features(samples), train) for name, samples in drawn.items()
        }
        floor, of_floor = floor_of(context)
        metrics["budget_floor"] = floor.value
        own = context.sampler.evaluations(context.denoiser)
        records: dict[str, object] = {
            "n": context.count,
            "evaluations_per_sample": own,
            "evaluations_per_sample_of_network": self.long(context.sampler).evaluations(context.denoiser),
            **of_floor,
        }
        if context.exact_held_out is None:
            metrics["budget_copies"] = frechet_between(train[copied(context)], train)
            records["sampler_floor"] = "copies: the exact denoiser of the training set draws its images"
        return Result(metrics, records, evaluations)


def copied(context: EvaluationContext) -> Tensor:
    """Rows of the train split, as many as samples, drawn with replacement: of their labels where they have labels."""
    draws, size = generator("copies", context.seed), len(context.train)
    if not context.conditional:
        return torch.randint(size, (context.count,), generator=draws)
    labels = context.train_labels
    wanted, counts = labels[torch.arange(context.count) % size], labels.bincount()
    first = counts.cumsum(0) - counts
    place = (torch.rand(context.count, generator=draws, dtype=torch.float64) * counts[wanted]).long()
    return labels.argsort()[first[wanted] + place]
