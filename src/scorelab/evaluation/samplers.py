"""Every sampler at several numbers of evaluations, on one network and on the exact denoiser."""

import statistics
from collections.abc import Sequence
from typing import Any

from scorelab.denoisers import Denoiser, Exact
from scorelab.errors import Refusal, Unavailable
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.samples import circumstances, floor_of
from scorelab.metrics.fidelity import frechet_between
from scorelab.samplers import Sampler


class SamplerComparison(Yardstick):
    """``sampler_NAME``: the least Fréchet distance of NAME's samples over several numbers of network evaluations.

    Each sampler takes as many steps as fit into each number, from the same noise; one that chooses its steps is there
    once, at what it took. Beside it, in the records and the note, the same by the exact denoiser of held-out data, or
    of the training set: that is the sampler's error alone. Means over the context's seeds.

    Args:
        evaluations: how many there may be for a sample.
        samplers: by name; one that is None is left out.

    Raises:
        Refusal: for no number or one below 2, no sampler, or what is none.
    """

    of_features = True

    def __init__(self, evaluations: Sequence[int] = (10, 20, 50, 100), **samplers: Sampler | None) -> None:
        rows = {name: sampler for name, sampler in samplers.items() if sampler is not None}
        if wrong := [name for name, sampler in rows.items() if not isinstance(sampler, Sampler)]:
            raise Refusal(f"{wrong[0]} is no sampler: give it a _target_, or null to leave it out")
        if not rows or not evaluations or min(evaluations) < 2:
            raise Refusal(f"a sampler, and 2 evaluations at least, are needed, got {len(rows)} and {list(evaluations)}")
        self.evaluations, self.samplers = sorted(evaluations), rows
        self.names = tuple(f"sampler_{name}" for name in rows)
        self.rows = tuple(TableRow(name, name.replace("_", " ", 1), f"{{{name}_told}}") for name in self.names)

    def walks(self, denoiser: Denoiser) -> dict[str, list[Sampler]]:
        """Each sampler at each number of evaluations that it can keep to; those that do not go with it are left out."""
        found = {}
        for name, sampler in self.samplers.items():
            try:
                kept = [fitting(sampler, denoiser, most) for most in self.evaluations]
            except Refusal:
                continue
            steps = {None if one.adaptive else one.steps: one for one in kept if one is not None}
            if steps:
                found[name] = list(steps.values())
        return found

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Those that go with the schedule."""
        return tuple(f"sampler_{name}" for name in self.walks(context.denoiser))

    def cost(self, context: EvaluationContext) -> int:
        """All samples of all of them."""
        walks = [one for each in self.walks(context.denoiser).values() for one in each]
        each = sum(one.evaluations(context.denoiser) for one in walks) * context.denoiser.evaluations
        return context.settings.repeats * context.count * each

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """As many by the exact denoiser."""
        exact = known(context)
        return {} if exact is None else {exact: self.cost(context)}

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer samples, numbers or samplers."""
        return "lower evaluation.samples, or name fewer metrics.samplers.evaluations"

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """All distances."""
        metrics: dict[str, float | None] = {}
        records: dict[str, Any] = {"by_sampler": {}}
        for name, walks in self.walks(context.denoiser).items():
            lines = [self.line(context, one) for one in walks]
            metrics[f"sampler_{name}"] = min((line["fid"] for line in lines if line["fid"] is not None), default=None)
            records[f"sampler_{name}_told"] = told(lines)
            records["by_sampler"][name] = lines
        floor, of_floor = floor_of(context)
        kept = circumstances(context) | of_floor | {"floor_value": floor.value}
        return Result(metrics, records | kept, self.cost(context))

    def line(self, context: EvaluationContext, sampler: Sampler) -> dict[str, Any]:
        """One sampler at one number of steps: evaluations, and the mean distance of either denoiser over seeds."""
        line: dict[str, Any] = {"evaluations": sampler.evaluations(context.denoiser), "steps": sampler.steps}
        for name, denoiser in (("fid", context.denoiser), ("exact_fid", known(context))):
            found = [] if denoiser is None else [distance(context, denoiser, sampler, seed) for seed in context.seeds]
            each = [value for value in found if value is not None]
            line[name] = statistics.mean(each) if len(each) == len(found) > 0 else None
            line[f"{name}_se"] = statistics.stdev(each) / len(each) ** 0.5 if len(each) == len(found) > 1 else None
        return line


def known(context: EvaluationContext) -> Exact | None:
    """The exact denoiser of the law of held-out data, else of the training set."""
    return context.exact_held_out or context.exact_train


def fitting(sampler: Sampler, denoiser: Denoiser, most: int) -> Sampler | None:
    """The sampler at as many steps as fit into ``most`` evaluations; itself where it chooses them; None where none do.

    Raises:
        Refusal: where it does not go with the denoiser.
    """
    if sampler.adaptive:
        sampler.evaluations(denoiser)
        return sampler
    steps = range(min(most, denoiser.schedule.num_steps or most), 0, -1)
    fits = (sampler.with_steps(number) for number in steps)
    return next((one for one in fits if one.evaluations(denoiser) <= most), None)


def distance(context: EvaluationContext, denoiser: Denoiser, sampler: Sampler, seed: int) -> float | None:
    """Of its samples to the train split; None where they are no numbers."""
    try:
        samples = context.sampled(denoiser, sampler, seed)
    except Unavailable:
        return None
    return frechet_between(context.features(samples), context.train_features)


def told(lines: Sequence[dict[str, Any]]) -> str:
    """Distances by evaluations, and those of the exact denoiser, in words."""
    at = ", ".join(str(line["evaluations"]) for line in lines)
    mine, exact = (
        ", ".join("–" if line[name] is None else f"{line[name]:.2f}" for line in lines) for name in ("fid", "exact_fid")
    )
    beside = f"; the exact score {exact}" if any(line["exact_fid"] is not None for line in lines) else ""
    return f"at {at} evaluations: {mine}{beside}"
