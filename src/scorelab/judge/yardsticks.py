"""The error of the predicted noise, on one axis of log-SNR that all schedules and objectives share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.judge.base import Case, Part, Result
from scorelab.likelihood import bits_per_dim, level_decoder_nll, marginal_kl
from scorelab.tensors import generator, mean_rest

LOWEST, WIDTH, BINS = -12.0, 0.6, 40
SIMPLE = slice(12, 31)  # the 19 whole bins of [-4.8, 6.6]
COMMON = slice(12, 35)  # the 23 whole bins of [-4.8, 9.0]


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


@torch.no_grad()
def noise_error(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int = 256) -> Curve:
    """Every image once in every bin, at a lambda uniform in it.

    Noise and lambda depend on the bin and the image's place in its split alone: they are the same in every run, so
    the difference of two runs is paired.
    """
    bins = bins_in_range(denoiser)
    return Curve(*by_bin(bins, len(x0), lambda bin: errors_in_bin(denoiser, x0, labels, bin, chunk), columns=2))


@dataclass(frozen=True)
class Draws:
    """Times (N,) and noise (N, ...) at which N items are looked at in one bin."""

    t: Tensor
    eps: Tensor


def yardstick_draws(denoiser: Denoiser, x0: Tensor, bin: int) -> Draws:
    """By the bin and an item's place alone, so the same in every run; on x0's device."""
    draws = generator("yardstick", bin)
    place = torch.rand(len(x0), generator=draws, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=draws).to(x0.device)
    return Draws(denoiser.schedule.inverse((LOWEST + WIDTH * (bin + place)).to(x0.device)), eps)


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


def errors_in_bin(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, bin: int, chunk: int = 256) -> Tensor:
    """||eps - eps^||^2 / d of every image in one bin, as it is and with x^_0 cut for pixels: (2, N), float64, CPU."""

    def look(made: Estimate, t: Tensor, label: Tensor | None) -> Tensor:
        estimate = denoiser(made.x_t, t, label)
        both = (estimate, estimate if denoiser.levels is None else estimate.clipped())
        return torch.stack([mean_rest((each.eps - made.eps).double() ** 2) for each in both])

    return in_bin(denoiser, x0, labels, bin, chunk, look)


@torch.no_grad()
def common_bound(denoiser: Denoiser, curve: Curve, x0: Tensor) -> Mean | None:
    """``vlb_common``: the bound of one process that every schedule can be read as, x/sqrt(a) from lambda = -4.8 to 9.0.

    KL of the marginal at -4.8 to N(0, I), plus the curve's integral, plus the softmax over levels at 9.0: bits/dim.
    None for points, and where the schedule does not reach all of the interval.
    """
    if denoiser.levels is None or curve.integral is None:
        return None
    x0 = x0.cpu()
    low, high = (
        torch.full((len(x0),), LOWEST + WIDTH * bin, dtype=torch.float64) for bin in (COMMON.start, COMMON.stop)
    )
    prior = marginal_kl(torch.sigmoid(low).sqrt(), torch.sigmoid(-low).sqrt(), 1.0, x0)
    eps = torch.randn(x0.shape, generator=generator("yardstick", "decoder"))
    decoder = level_decoder_nll(high, x0, eps, denoiser.levels)
    ends = bits_per_dim(prior + decoder, x0[0].numel())
    return Mean(curve.integral + float(ends.mean()), standard_error(integral(curve.cut.each) + ends))


class NoiseError(Part):
    """``simple``: the mean error of the predicted noise over lambda ~ U[-4.8, 6.6], and its curve by lambda.

    ``vlb_common``: the integral of that curve as a bound, the same for every schedule and number of steps.
    """

    names = ("simple", "vlb_common")

    def names_of(self, case: Case) -> tuple[str, ...]:
        """The common bound is one of levels."""
        return self.names if case.denoiser.levels is not None else self.names[:1]

    def cost(self, case: Case) -> int:
        """Every held-out image once in every bin."""
        return len(case.held_out) * len(bins_in_range(case.denoiser))

    def run(self, case: Case, left: int | None) -> Result:
        """Both, and in the records the curve and why a number is missing where it is."""
        x0, labels = case.held_out_data()
        curve = noise_error(case.denoiser, x0, labels, case.metric.chunk)
        record = curve_record(curve)
        if not curve.errors.reaches(COMMON):
            low, high = case.denoiser.log_snr_range()
            needed = "[-4.8, 9.0]" if curve.errors.reaches(SIMPLE) else "[-4.8, 6.6]"
            record["missing"] = f"the schedule's log-SNR [{low:.1f}, {high:.1f}] does not contain {needed}"
        found = {"simple": curve.simple}
        if case.denoiser.levels is not None:
            bound = common_bound(case.denoiser, curve, x0)
            found["vlb_common"] = None if bound is None else bound.value
            record["vlb_common_se"] = None if bound is None else bound.se
        return Result(found, record, self.cost(case))


def curve_record(curve: Curve) -> dict[str, object]:
    """The curve in plain values; None where it is missing."""
    centres = [round(value, 3) for value in Curve.centres().tolist()]
    return {"log_snr": centres, "error": plain_curve(curve.errors.mean), "simple_se": curve.simple_se}


def plain_curve(curve: Tensor) -> list[float | None]:
    """Six digits of each value; None where it is missing."""
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in curve.tolist()]
