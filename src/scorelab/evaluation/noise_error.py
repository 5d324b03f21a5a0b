"""The yardstick that every run has: the error of the predicted noise by log-SNR."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import (
    ByBin,
    Mean,
    bins_in_range,
    by_bin,
    by_log_snr,
    integral,
    missing,
    squared,
    standard_error,
)
from scorelab.likelihood import bits_per_dim, common_figure, level_decoder_nll, marginal_kl
from scorelab.log_snr import COMMON, SIMPLE, ends
from scorelab.tensors import generator


@dataclass(frozen=True)
class NoiseErrorCurve:
    """||eps - eps^||^2 / d of every image by log-SNR, and the same with x^_0 cut to [-1, 1], for pixels."""

    errors: ByBin
    cut: ByBin

    @property
    def simple(self) -> float | None:
        """The mean over lambda ~ U[-4.8, 6.6]; None where the schedule does not reach a bin of it."""
        return self.errors.over(SIMPLE).value

    @property
    def integral(self) -> float | None:
        """1/2 int ||eps - eps^||^2 / d dlambda over [-4.8, 9.0], x^_0 cut, bits/dim; None where not all is reached."""
        return float(integral(self.cut.mean)) if self.cut.reaches(COMMON) else None


def noise_error(
    denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int = 256, bins: list[int] | None = None
) -> NoiseErrorCurve:
    """Every image once in every bin that the schedule reaches, or in these ``bins``."""

    def look(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
        estimate = denoiser(made.x_t, t, label)
        cut = estimate if denoiser.levels is None else estimate.clipped()
        return [squared(each.eps, made.eps) for each in (estimate, cut)]

    return NoiseErrorCurve(*by_bin(look, denoiser, x0, labels, chunk, 2, bins))


@torch.no_grad()
def common_bound(denoiser: Denoiser, curve: NoiseErrorCurve, x0: Tensor) -> Mean:
    """``vlb_common``: the bound of one process that every schedule can be read as, x/sqrt(a) from lambda = -4.8 to 9.0.

    KL of the marginal at -4.8 to N(0, I), plus the curve's integral, plus the softmax over levels at 9.0: bits/dim.
    There is none for points, and where the schedule does not reach all of the interval.
    """
    if denoiser.levels is None or curve.integral is None:
        return Mean()
    x0 = x0.cpu()
    low, high = (torch.full((len(x0),), end, dtype=torch.float64) for end in ends(COMMON))
    prior = marginal_kl(torch.sigmoid(low).sqrt(), torch.sigmoid(-low).sqrt(), 1.0, x0)
    eps = torch.randn(x0.shape, generator=generator("yardstick", "decoder"))
    decoder = level_decoder_nll(high, x0, eps, denoiser.levels)
    of_ends = bits_per_dim(prior + decoder, x0[0].numel())
    return Mean(curve.integral + float(of_ends.mean()), standard_error(integral(curve.cut.each) + of_ends))


class NoiseError(Yardstick):
    """``simple``: the mean error of the predicted noise over lambda ~ U[-4.8, 6.6], and its curve by lambda.

    ``vlb_common``: the integral of that curve as a bound, the same for every schedule and number of steps.
    """

    names = ("simple", "vlb_common")
    rows = (
        TableRow("simple", "simple", "noise error over log-SNR in [-4.8, 6.6]", 2),
        TableRow("vlb_common", "common bound", "bits/dim, over log-SNR in [-4.8, 9.0]: the same for every schedule", 3),
    )

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """The common bound is one of levels."""
        return self.names if context.denoiser.levels is not None else self.names[:1]

    def cost(self, context: EvaluationContext) -> int:
        """Every held-out image once in every bin."""
        return len(context.held_out) * len(bins_in_range(context.denoiser))

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both, and in the records the curve and why a number is missing where it is."""
        x0, labels = context.held_out_data()
        curve = noise_error(context.denoiser, x0, labels, context.settings.chunk)
        simple = curve.errors.over(SIMPLE)
        records = by_log_snr(error=curve.errors.mean) | missing(context.denoiser, needed=(SIMPLE, COMMON))
        metrics = {"simple": simple.value}
        if context.denoiser.levels is not None:
            bound = common_bound(context.denoiser, curve, x0)
            metrics["vlb_common"], records["vlb_common_se"] = bound.value, bound.se
            records["vlb_common"] = common_figure(context.denoiser, ends(COMMON)[1]).record()
        return Result(metrics, records | {"n": len(x0), "simple_se": simple.se}, self.cost(context))
