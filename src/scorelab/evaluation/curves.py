"""Items seen by log-SNR: the one walk over bins and chunks that all yardsticks share, and what it has found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.log_snr import BINS, COMMON, LOWEST, SIMPLE, WIDTH, ends
from scorelab.tensors import generator, mean_except_batch


@dataclass(frozen=True)
class Mean:
    """A mean over items, and its standard error: the scatter over fresh items, each with fresh noise; or None of both.

    One item alone has a mean and no error. The same noise stands at the same places in every run: over fresh items
    alone the mean scatters less, if anything.
    """

    value: float | None = None
    se: float | None = None

    def scaled(self, by: Callable[[float], float]) -> "Mean":
        """Both in another unit; ``by`` multiplies."""
        return Mean(*(None if each is None else by(each) for each in (self.value, self.se)))


def standard_error(each: Tensor) -> float | None:
    """Of the mean of independent items (N,); None of one alone."""
    return float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else None


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
        """Of the mean in one bin, (40,); NaN of one item alone."""
        n = self.each.shape[1]
        return self.each.std(1) / math.sqrt(n) if n > 1 else torch.full_like(self.mean, torch.nan)

    def reaches(self, bins: slice) -> bool:
        """Whether the schedule reaches all of these bins."""
        return set(range(bins.start, bins.stop)) <= set(self.reached)

    def over(self, bins: slice) -> Mean:
        """The mean over these bins, where all are reached."""
        if not self.reaches(bins):
            return Mean()
        return Mean(float(self.mean[bins].mean()), standard_error(self.each[bins].mean(0)))


def bins_in_range(*denoisers: Denoiser) -> list[int]:
    """The bins that lie wholly inside the [lambda_T, lambda_1] of every schedule."""
    low, high = log_snr_range(*denoisers)
    edges = [LOWEST + WIDTH * bin for bin in range(BINS + 1)]
    return [bin for bin in range(BINS) if low <= edges[bin] and edges[bin + 1] <= high]


def log_snr_range(*denoisers: Denoiser) -> tuple[float, float]:
    """The log-SNRs that all of them can be asked about."""
    lows, highs = zip(*(each.log_snr_range() for each in denoisers), strict=True)
    return max(lows), min(highs)


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
def by_bin(
    look: Callable[[Estimate, Tensor, Tensor | None], Sequence[Tensor]],
    denoiser: Denoiser,
    x0: Tensor,
    labels: Tensor | None,
    chunk: int = 256,
    columns: int = 1,
    bins: list[int] | None = None,
) -> list[ByBin]:
    """Every item once in every bin, at a lambda uniform in it: what ``look`` sees, column by column.

    Noise and lambda depend on the bin and the item's place in its split alone: they are the same in every run, so the
    difference of two runs is paired.

    Args:
        look: is shown x_t and what it was made of, t and labels, a chunk (B) at a time; its columns are (B,).
        denoiser: under whose schedule x_t is made.
        x0: the items (N, ...).
        labels: theirs (N,).
        chunk: how many are shown at once.
        columns: how many ``look`` has.
        bins: by default all that the schedule reaches.
    """
    bins = bins_in_range(denoiser) if bins is None else bins
    found = torch.full((columns, BINS, len(x0)), torch.nan, dtype=torch.float64)
    for bin in bins:
        draws, chunks = yardstick_draws(denoiser, x0, bin), []
        for rows in torch.arange(len(x0), device=x0.device).split(chunk):
            t = draws.t[rows]
            made = denoiser.noised(x0[rows], t, draws.eps[rows])
            seen = look(made, t, None if labels is None else labels[rows])
            chunks.append(torch.stack([column.double() for column in seen]))
        found[:, bin] = torch.cat(chunks, 1).cpu()
    return [ByBin(each, bins) for each in found]


def squared(a: Tensor, b: Tensor) -> Tensor:
    """||a - b||^2 / d of each item (B,), the square in float64."""
    return mean_except_batch((a - b).double() ** 2)


def integral(by_bin: Tensor) -> Tensor:
    """1/2 int dlambda over [-4.8, 9.0] of what is known by bin, (40, ...), in bits."""
    return WIDTH / 2 * by_bin[COMMON].sum(0) / math.log(2)


def centres() -> Tensor:
    """The middle of each bin, (40,)."""
    return LOWEST + WIDTH * (torch.arange(BINS, dtype=torch.float64) + 0.5)


def plain(**curves: Tensor) -> dict[str, object]:
    """Curves as records: six digits of each value, None where it is missing."""
    return {
        name: [None if math.isnan(value) else float(f"{value:.6g}") for value in curve.tolist()]
        for name, curve in curves.items()
    }


def by_log_snr(**curves: Tensor) -> dict[str, object]:
    """Records of curves (40,), beside the middle of each bin."""
    return {"log_snr": [round(value, 3) for value in centres().tolist()], **plain(**curves)}


def missing(*denoisers: Denoiser, needed: Sequence[slice] = (SIMPLE,)) -> dict[str, object]:
    """The record of why a number is missing: the first range that the schedules do not all reach; empty without one."""
    reached = set(bins_in_range(*denoisers))
    for bins in needed:
        if not set(range(bins.start, bins.stop)) <= reached:
            (low, high), (first, last) = log_snr_range(*denoisers), ends(bins)
            whose = "the schedule's" if len(denoisers) == 1 else "both schedules'"
            told = f"{whose} log-SNR [{low:.1f}, {high:.1f}] does not contain [{first:.1f}, {last:.1f}]"
            return {"missing": told}
    return {}
