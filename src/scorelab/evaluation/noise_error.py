"""The yardstick that every run has: the error of the predicted noise by log-SNR."""

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.evaluation.base import EvaluationContext, Result, Yardstick
from scorelab.evaluation.curves import Curve, Mean, bins_in_range, by_bin, in_bin, integral, plain_curve, standard_error
from scorelab.likelihood import bits_per_dim, level_decoder_nll, marginal_kl
from scorelab.log_snr import COMMON, LOWEST, SIMPLE, WIDTH
from scorelab.tensors import generator, mean_except_batch


@torch.no_grad()
def noise_error(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int = 256) -> Curve:
    """Every image once in every bin, at a lambda uniform in it.

    Noise and lambda depend on the bin and the image's place in its split alone: they are the same in every run, so
    the difference of two runs is paired.
    """
    bins = bins_in_range(denoiser)
    return Curve(*by_bin(bins, len(x0), lambda bin: errors_in_bin(denoiser, x0, labels, bin, chunk), columns=2))


def errors_in_bin(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, bin: int, chunk: int = 256) -> Tensor:
    """||eps - eps^||^2 / d of every image in one bin, as it is and with x^_0 cut for pixels: (2, N), float64, CPU."""

    def look(made: Estimate, t: Tensor, label: Tensor | None) -> Tensor:
        estimate = denoiser(made.x_t, t, label)
        both = (estimate, estimate if denoiser.levels is None else estimate.clipped())
        return torch.stack([mean_except_batch((each.eps - made.eps).double() ** 2) for each in both])

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


class NoiseError(Yardstick):
    """``simple``: the mean error of the predicted noise over lambda ~ U[-4.8, 6.6], and its curve by lambda.

    ``vlb_common``: the integral of that curve as a bound, the same for every schedule and number of steps.
    """

    names = ("simple", "vlb_common")

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
        record = curve_record(curve)
        if not curve.errors.reaches(COMMON):
            low, high = context.denoiser.log_snr_range()
            needed = "[-4.8, 9.0]" if curve.errors.reaches(SIMPLE) else "[-4.8, 6.6]"
            record["missing"] = f"the schedule's log-SNR [{low:.1f}, {high:.1f}] does not contain {needed}"
        found = {"simple": curve.simple}
        if context.denoiser.levels is not None:
            bound = common_bound(context.denoiser, curve, x0)
            found["vlb_common"] = None if bound is None else bound.value
            record["vlb_common_se"] = None if bound is None else bound.se
        return Result(found, record, self.cost(context))


def curve_record(curve: Curve) -> dict[str, object]:
    """The curve in plain values; None where it is missing."""
    centres = [round(value, 3) for value in Curve.centres().tolist()]
    return {"log_snr": centres, "error": plain_curve(curve.errors.mean), "simple_se": curve.simple_se}
