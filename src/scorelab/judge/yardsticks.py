"""The error of the predicted noise, on one axis of log-SNR that all schedules and objectives share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.judge.base import Case, Part, Result
from scorelab.tensors import generator, mean_rest

LOWEST, WIDTH, BINS = -12.0, 0.6, 40
SIMPLE = slice(12, 31)  # the 19 whole bins of [-4.8, 6.6]


@dataclass(frozen=True)
class Curve:
    """Mean ||eps - eps^||^2 / d in each of 40 bins of lambda on [-12, 12], NaN where the schedule does not reach.

    ``reached`` are the bins it does reach.
    """

    error: Tensor
    se: Tensor
    reached: list[int]

    @staticmethod
    def centres() -> Tensor:
        """The middle of each bin."""
        return LOWEST + WIDTH * (torch.arange(BINS, dtype=torch.float64) + 0.5)

    @property
    def simple(self) -> float | None:
        """The mean over lambda ~ U[-4.8, 6.6]; None where the schedule does not reach a bin of it."""
        return float(self.error[SIMPLE].mean()) if self.whole else None

    @property
    def whole(self) -> bool:
        """Whether the schedule reaches all of [-4.8, 6.6]."""
        return set(range(SIMPLE.start, SIMPLE.stop)) <= set(self.reached)

    @property
    def simple_se(self) -> float | None:
        """The standard error of ``simple`` over images, lambda and noise, bins taken as independent."""
        return float(self.se[SIMPLE].square().sum().sqrt()) / (SIMPLE.stop - SIMPLE.start) if self.whole else None


def bins_in_range(denoiser: Denoiser) -> list[int]:
    """The bins that lie wholly inside the schedule's [lambda_T, lambda_1]."""
    low, high = denoiser.log_snr_range()
    edges = [LOWEST + WIDTH * bin for bin in range(BINS + 1)]
    return [bin for bin in range(BINS) if low <= edges[bin] and edges[bin + 1] <= high]


@torch.no_grad()
def noise_error(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int = 256) -> Curve:
    """Every image once in every bin, at a lambda uniform in it.

    Noise and lambda depend on the bin and the image's place in its split alone: they are the same in every run, so
    the difference of two runs is paired.
    """
    error = torch.full((BINS,), float("nan"), dtype=torch.float64)
    se = error.clone()
    reached = bins_in_range(denoiser)
    for bin in reached:
        draws = generator("yardstick", bin)
        place = torch.rand(len(x0), generator=draws, dtype=torch.float64)
        eps = torch.randn(x0.shape, generator=draws).to(x0.device)
        t = denoiser.schedule.inverse((LOWEST + WIDTH * (bin + place)).to(x0.device))
        found = []
        for rows in torch.arange(len(x0), device=x0.device).split(chunk):
            truth = denoiser.noised(x0[rows], t[rows], eps[rows])
            estimate = denoiser(truth.x_t, t[rows], None if labels is None else labels[rows])
            found.append(mean_rest((estimate.eps - truth.eps).double() ** 2))
        each = torch.cat(found)
        error[bin], se[bin] = each.mean(), each.std() / math.sqrt(len(each))
    return Curve(error.cpu(), se.cpu(), reached)


class NoiseError(Part):
    """``simple``: the mean error of the predicted noise over lambda ~ U[-4.8, 6.6], and its curve by lambda."""

    names = ("simple",)

    def cost(self, case: Case) -> int:
        """Every held-out image once in every bin."""
        return len(case.held_out) * len(bins_in_range(case.denoiser))

    def run(self, case: Case, left: int | None) -> Result:
        """The number, and in the records the curve and why the number is missing where it is."""
        curve = noise_error(case.denoiser, *case.held_out_data(), case.metric.chunk)
        record = curve_record(curve)
        if curve.simple is None:
            low, high = case.denoiser.log_snr_range()
            record["missing"] = f"the schedule's log-SNR [{low:.1f}, {high:.1f}] does not contain [-4.8, 6.6]"
        return Result({"simple": curve.simple}, record, self.cost(case))


def curve_record(curve: Curve) -> dict[str, object]:
    """The curve in plain values; None where it is missing."""
    plain = [None if math.isnan(value) else round(value, 6) for value in curve.error.tolist()]
    centres = [round(value, 3) for value in Curve.centres().tolist()]
    return {"log_snr": centres, "error": plain, "simple_se": curve.simple_se}
