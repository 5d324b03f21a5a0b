"""The error of the predicted noise, on one axis of log-SNR that all schedules and objectives share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.log_snr import BINS, COMMON, LOWEST, SIMPLE, WIDTH
from scorelab.tensors import generator


@dataclass(frozen=True)
class Mean:
    """A mean over items, and its standard error: the scatter over fresh items, each with fresh noise.

    The same noise stands at the same places in every run: over fresh items alone the mean scatters less, if anything.
    """

    value: float
    se: float


def standard_error(each: Tensor) -> float:
    """Of the mean of independent items (N,)."""
    return float(each.std()) / math.sqrt(len(each))


@dataclass(frozen=True)
class ByBin:
    """Something of every item in each of the 40 bins of lambda on [-12, 12]: (40, N), NaN in those not ``reached``.

    The same items stand in every bin, and one that is hard is hard in many: bins are not independent, items are. So
    what is told of several bins has the error of the items' own means over them.
    """

    each: Tensor
    reached: list[int]

    @property
    def mean(self) -> Tensor:
        """By bin, (40,)."""
        return self.each.mean(1)

    @property
    def se(self) -> Tensor:
        """Of the mean in one bin, (40,)."""
        return self.each.std(1) / math.sqrt(self.each.shape[1])

    def reaches(self, bins: slice) -> bool:
        """Whether the schedule reaches all of these bins."""
        return set(range(bins.start, bins.stop)) <= set(self.reached)

    def over(self, bins: slice) -> Mean | None:
        """The mean over these bins; None where one is not reached."""
        if not self.reaches(bins):
            return None
        return Mean(float(self.mean[bins].mean()), standard_error(self.each[bins].mean(0)))


def by_bin(bins: list[int], items: int, look: Callable[[int], Tensor], columns: int = 1) -> list[ByBin]:
    """What ``look`` sees in each of these bins, (columns, items), column by column."""
    seen = torch.full((columns, BINS, items), torch.nan, dtype=torch.float64)
    for bin in bins:
        seen[:, bin] = look(bin)
    return [ByBin(each, bins) for each in seen]


@dataclass(frozen=True)
class Curve:
    """||eps - eps^||^2 / d of every image by log-SNR, and the same with x^_0 cut to [-1, 1], for pixels."""

    errors: ByBin
    cut: ByBin

    @staticmethod
    def centres() -> Tensor:
        """The middle of each bin."""
        return LOWEST + WIDTH * (torch.arange(BINS, dtype=torch.float64) + 0.5)

    @property
    def simple(self) -> float | None:
        """The mean over lambda ~ U[-4.8, 6.6]; None where the schedule does not reach a bin of it."""
        over = self.errors.over(SIMPLE)
        return None if over is None else over.value

    @property
    def simple_se(self) -> float | None:
        """The standard error of ``simple`` over images, lambda and noise."""
        over = self.errors.over(SIMPLE)
        return None if over is None else over.se

    @property
    def integral(self) -> float | None:
        """1/2 int ||eps - eps^||^2 / d dlambda over [-4.8, 9.0], x^_0 cut, bits/dim; None where not all is reached."""
        return float(integral(self.cut.mean)) if self.cut.reaches(COMMON) else None


def integral(by_bin: Tensor) -> Tensor:
    """1/2 int dlambda over [-4.8, 9.0] of what is known by bin, (40, ...), in bits."""
    return WIDTH / 2 * by_bin[COMMON].sum(0) / math.log(2)


def bins_in_range(denoiser: Denoiser) -> list[int]:
    """The bins that lie wholly inside the schedule's [lambda_T, lambda_1]."""
    low, high = denoiser.log_snr_range()
    edges = [LOWEST + WIDTH * bin for bin in range(BINS + 1)]
    return [bin for bin in range(BINS) if low <= edges[bin] and edges[bin + 1] <= high]


@dataclass(frozen=True)
class BinDraws:
    """Times (N,) and noise (N, ...) at which N items are looked at in one bin."""

    t: Tensor
    eps: Tensor


def yardstick_draws(denoiser: Denoiser, x0: Tensor, bin: int) -> BinDraws:
    """By the bin and an item's place alone, so the same in every run; on x0's device."""
    draws = generator("yardstick", bin)
    place = torch.rand(len(x0), generator=draws, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=draws).to(x0.device)
    return BinDraws(denoiser.schedule.inverse((LOWEST + WIDTH * (bin + place)).to(x0.device)), eps)


@torch.no_grad()
def in_bin(
    denoiser: Denoiser,
    x0: Tensor,
    labels: Tensor | None,
    bin: int,
    chunk: int,
    look: Callable[[Estimate, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """What ``look`` sees in one bin, (columns, N), float64, CPU: it is shown x_t and what it was made of, t and labels.

    Answers of a chunk (B) are (columns, B).
    """
    draws = yardstick_draws(denoiser, x0, bin)
    seen = []
    for rows in torch.arange(len(x0), device=x0.device).split(chunk):
        t = draws.t[rows]
        made = denoiser.noised(x0[rows], t, draws.eps[rows])
        seen.append(look(made, t, None if labels is None else labels[rows]).double())
    return torch.cat(seen, 1).cpu()


def plain_curve(curve: Tensor) -> list[float | None]:
    """Six digits of each value; None where it is missing."""
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in curve.tolist()]
