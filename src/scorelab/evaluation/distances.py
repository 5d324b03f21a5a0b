"""Distances between the laws of samples and of data, in the data's own coordinates."""

import math

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, Result, TableRow
from scorelab.evaluation.samples import SampleYardstick
from scorelab.metrics.points import energy_distance, sliced_wasserstein
from scorelab.tensors import generator

MOST = 5000  # points of a distance that looks at all pairs


class Distances(SampleYardstick):
    """``energy`` and ``sliced_wasserstein`` of the samples to held-out data, and what fresh draws of the law have.

    The floors are means over ``floors`` sets of as many fresh draws; there are none where the law is unknown. The
    records have their standard errors, and ``floor_spread``, by how much one perfect set of samples differs from the
    next: all of them against the same held-out data.

    Raises:
        Refusal: for fewer than 2 floors.
    """

    names = ("energy", "energy_floor", "sliced_wasserstein", "sliced_wasserstein_floor")
    rows = (
        TableRow("energy", "energy distance", "to held-out data; fresh draws have {energy_floor}", 10),
        TableRow(
            "sliced_wasserstein",
            "sliced Wasserstein",
            "to held-out data; fresh draws have {sliced_wasserstein_floor}",
            11,
        ),
    )

    def __init__(self, floors: int = 10) -> None:
        if floors < 2:
            raise Refusal(f"floors must be at least 2, got {floors}")
        self.floors = floors

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where pixels have levels."""
        return None if context.denoiser.levels is None else "images of levels are compared by features: metrics=[fid]"

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Floors where fresh draws can be made."""
        return self.names if context.exact_held_out is not None else self.names[::2]

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both distances, their floors, and the floors' standard errors."""
        evaluations = context.sampling_cost
        samples, held_out = context.samples[:MOST].cpu(), context.held_out[:MOST].cpu()
        metrics: dict[str, float | None] = dict(zip(self.names[::2], _both(samples, held_out), strict=True))
        records: dict[str, object] = {"n": len(samples), "reference": f"held-out, {len(held_out)}"}
        if context.exact_held_out is not None:
            law = context.exact_held_out.law.cpu()
            draws = [law.draw(len(samples), generator("floor", k)).x0.float() for k in range(self.floors)]
            law.to(context.denoiser.device)
            found = torch.tensor([_both(each, held_out) for each in draws], dtype=torch.float64)
            metrics |= dict(zip(self.names[1::2], found.mean(0).tolist(), strict=True))
            records["floor_se"] = (found.std(0) / math.sqrt(self.floors)).tolist()
            records["floor_spread"] = found.std(0).tolist()
        return Result(metrics, records, evaluations)


def _both(x: Tensor, y: Tensor) -> list[float]:
    return [energy_distance(x, y), sliced_wasserstein(x, y, generator("directions"))]
