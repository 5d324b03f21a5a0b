"""Where along the noise levels the data are decided, and what that suggests for training."""

import math

import torch
from torch import Tensor

from scorelab.denoisers import Estimate, Exact
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import bins_in_range, by_bin, by_log_snr, missing
from scorelab.log_snr import LOWEST, WIDTH
from scorelab.tensors import generator, mean_except_batch

ITEMS = 512  # that the exact score is asked about in every bin
TAIL = 0.005  # of the information, left out at either end of the suggested range


class NoiseProfile(Yardstick):
    """dI(x_0; x_t) / dlambda = 1/2 E||eps - E[eps | x_t]||^2, nats per unit of log-SNR, and what follows from it.

    The least possible noise error is the rate at which x_t tells of x_0 (Guo, Shamai & Verdu 2005, "Mutual information
    and minimum mean-square error in Gaussian channels", eq. 1, on the axis of the log-SNR). It is exact where the law
    of the training data, or the list of them, is known; else the network's own noise error stands for it, which lies
    above. As a density over log-SNR, within what the schedule reaches of [-12, 12], it suggests

    - ``p_mean``, ``p_std``: the mean and spread of ln(sigma / alpha), for timesteps=lognormal;
    - ``log_snr_low``, ``log_snr_high``: between which 99 % of it lies;
    - ``log_snr_shift``: of the schedule, for its uniform times to have the same mean.

    Of continuous data the rate tends to half their dimensions where the noise is small, and does not end: then the
    greatest log-SNR that is trained decides, and no more is suggested than to look there too.
    """

    names = ("p_mean", "p_std", "log_snr_low", "log_snr_high", "log_snr_shift")
    rows = (
        TableRow(
            "p_mean",
            "noise profile",
            "mean of ln(sigma/alpha) by what the noise decides; spread {p_std:.2f}, 99 % of it at log-SNR "
            "[{log_snr_low:.1f}, {log_snr_high:.1f}], schedule.log_snr_shift {log_snr_shift:+.1f}",
            24,
        ),
    )

    def exact(self, context: EvaluationContext) -> Exact | None:
        """The denoiser of the law that training data follow, where it is known."""
        return context.exact_train

    def cost(self, context: EvaluationContext) -> int:
        """The network in every bin, where no law is known."""
        return 0 if self.exact(context) is not None else len(bins_in_range(context.denoiser)) * self.count(context)

    def count(self, context: EvaluationContext) -> int:
        """How many items are looked at."""
        return ITEMS if self.exact(context) is not None else len(context.held_out)

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """Every item in every bin."""
        exact = self.exact(context)
        return {} if exact is None else {exact: len(bins_in_range(context.denoiser)) * self.count(context)}

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The profile by log-SNR, and the five numbers."""
        exact = self.exact(context)
        labels: Tensor | None
        if exact is None:
            x0, labels = context.held_out_data()
        else:
            drawn = exact.law.draw(self.count(context), generator("noise profile"))
            x0, labels = drawn.x0.float().to(context.denoiser.device), drawn.label

        def look(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
            if exact is None:
                said = context.denoiser(made.x_t, t, label)
                return [mean_except_batch((said.eps - made.eps).double() ** 2)]
            trace = exact.posterior(made.x_t, t, label).trace
            return [((made.alpha / made.sigma).double() ** 2).flatten() * trace / x0[0].numel()]

        (found,) = by_bin(look, context.denoiser, x0, labels, context.settings.chunk)
        rate = 0.5 * x0[0].numel() * found.mean
        of = "the exact score of the training data" if exact else "the network, from above"
        records = by_log_snr(rate=rate, rate_se=0.5 * x0[0].numel() * found.se) | missing(context.denoiser)
        numbers = suggested(rate, _mean_log_snr(context))
        return Result(dict(numbers), records | {"of": of, "n": len(x0)}, self.cost(context))


def suggested(rate: Tensor, mean_log_snr: float) -> dict[str, float]:
    """The five numbers of a profile by bin (40,), NaN where there is none; ``mean_log_snr`` is of uniform times."""
    here = rate.isfinite()
    p = rate[here].clamp(min=0)
    p = p / p.sum()
    middle = LOWEST + WIDTH * (torch.arange(len(rate), dtype=torch.float64)[here.cpu()] + 0.5)
    p = p.to(middle)
    mean = float(p @ middle)
    spread = math.sqrt(float(p @ (middle - mean) ** 2) + WIDTH**2 / 12)
    edges, mass = middle + WIDTH / 2, p.cumsum(0)
    low, high = (_quantile(edges, mass, q) for q in (TAIL, 1 - TAIL))
    return {
        "p_mean": -mean / 2,
        "p_std": spread / 2,
        "log_snr_low": low,
        "log_snr_high": high,
        "log_snr_shift": mean - mean_log_snr,
    }


def _quantile(edges: Tensor, mass: Tensor, share: float) -> float:
    """Where so much of the mass lies below, evenly within a bin."""
    place = int(torch.searchsorted(mass, torch.tensor(share, dtype=mass.dtype)).clamp(max=len(mass) - 1))
    before = float(mass[place - 1]) if place else 0.0
    inside = (share - before) / max(float(mass[place]) - before, 1e-300)
    return float(edges[place]) - WIDTH * (1 - min(max(inside, 0.0), 1.0))


def _mean_log_snr(context: EvaluationContext) -> float:
    """The mean log-SNR of uniform training times, within the bins."""
    schedule = context.denoiser.schedule
    t = schedule.training_time((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    return float(schedule.log_snr(t).clamp(LOWEST, -LOWEST).mean())
