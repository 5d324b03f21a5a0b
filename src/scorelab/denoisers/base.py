"""The noun that losses, samplers, likelihoods and yardsticks all take."""

from abc import ABC, abstractmethod
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from scorelab.denoisers.estimate import Estimate, Rates
from scorelab.denoisers.variance import Variance
from scorelab.schedules import Schedule
from scorelab.tensors import like


class Denoiser(nn.Module, ABC):
    """Maps (x_t, t) to an Estimate. Holds the one schedule, the variance of its reverse steps, and the data's lattice.

    A trained network is a denoiser, the exact posterior mean of a known law is another. ``levels`` is how many values
    a pixel has, which makes the decoder p(x_0 | x_1) a law over them; None for points, whose decoder is a density.
    """

    def __init__(self, schedule: Schedule, variance: Variance, levels: int | None = None) -> None:
        super().__init__()
        if levels is not None and levels < 2:
            raise ValueError(f"a pixel has at least 2 levels, got {levels}")
        self.schedule = schedule
        self.variance = variance
        self.levels = levels

    @property
    def evaluations(self) -> int:
        """Evaluations of a network that one question takes, at most."""
        return 1

    @property
    def guided(self) -> bool:
        """Whether it has left E[x_0 | x_t] for what looks better: samples then, but neither error nor likelihood."""
        return False

    @property
    def label_free(self) -> bool:
        """Whether it takes labels and knows what to do without one (-1)."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the weights and tables are."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def prior_std(self) -> float:
        """The standard deviation of the law that sampling starts from, at the greatest time of ``time_range``."""
        return self.schedule.prior_std

    def time_range(self) -> tuple[float, float]:
        """The least and greatest time it can be asked about."""
        return self.schedule.t_min, self.schedule.t_max

    def log_snr_range(self) -> tuple[float, float]:
        """The least and greatest lambda it can be asked about."""
        return self.schedule.log_snr_range()

    def check(self) -> None:
        """Refuse a schedule it cannot work under.

        Raises:
            Refusal: one sentence that says what to change.
        """
        return

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The estimate of x_0 and eps from x_t (B, ...) at times t (B,) within ``time_range``."""

    def noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Estimate:
        """The estimate that is right at time t: x_t = alpha x_0 + sigma eps, with the x_0 and eps that made it."""
        alpha, sigma = self.schedule.at(t).factors(x0)
        return Estimate(alpha * x0 + sigma * eps, alpha, sigma, x0, eps, rates=Rates(self.schedule, t))


class Rescheduled(Denoiser):
    """A denoiser trained under one schedule, A, asked in the (x, t) of another, B.

    x_t / sqrt(a) with a = alpha^2 + sigma^2 has the same law under both where the log-SNR is the same, so the inner
    denoiser is asked at t_A with lambda_A(t_A) = lambda_B(t), about x sqrt(a_A / a_B); x^_0 and eps^ are its own
    (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", section 2).
    """

    def __init__(self, inner: Denoiser, schedule: Schedule) -> None:
        super().__init__(schedule, inner.variance, inner.levels)
        self.inner = inner

    @property
    def prior_std(self) -> float:
        """B's own where the walk begins at B's end; else that of the inner schedule's end, in B's units there."""
        _, latest = self.time_range()
        if abs(latest - self.schedule.t_max) < 1e-9:
            return self.schedule.prior_std
        _, inner_latest = self.inner.time_range()
        return self.inner.prior_std * (_power(self.schedule, latest) / _power(self.inner.schedule, inner_latest)) ** 0.5

    def log_snr_range(self) -> tuple[float, float]:
        """What the inner denoiser can be asked about, as far as B reaches it in [0, 1]."""
        low, high = self.inner.log_snr_range()
        after_0 = torch.finfo(torch.float64).tiny  # a grid begins without noise, even where the next time has some
        end, start = self.schedule.log_snr(torch.tensor([1.0, after_0], dtype=torch.float64)).tolist()
        return max(low, end), min(high, start)

    def time_range(self) -> tuple[float, float]:
        """Where B has those log-SNRs."""
        latest, earliest = self.schedule.inverse(torch.tensor(self.log_snr_range(), dtype=torch.float64)).tolist()
        return earliest, min(1.0, latest)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The inner denoiser's estimate, in B's coefficients.

        Raises:
            ValueError: at a log-SNR outside what the inner denoiser can be asked about.
        """
        level, (low, high) = self.schedule.at(t), self.inner.log_snr_range()
        log_snr = level.log_snr
        if bool(((log_snr < low - 1e-6) | (log_snr > high + 1e-6)).any()):
            raise ValueError(f"a denoiser of log-SNR [{low:.2f}, {high:.2f}] was asked about one outside of it")
        inner_t = self.inner.schedule.inverse(log_snr.clamp(low, high))
        # both alphas share a ratio with both sigmas, so either gives sqrt(a_A / a_B); sigma is never 0 here
        ratio = self.inner.schedule.sigma(inner_t) / level.sigma
        said = self.inner(like(ratio, x_t) * x_t, inner_t, label)
        alpha, sigma = level.factors(x_t)
        return replace(said, x_t=x_t, alpha=alpha, sigma=sigma, rates=Rates(self.schedule, t))


def _power(schedule: Schedule, t: float) -> float:
    """The power a = alpha^2 + sigma^2 at time t."""
    at = torch.tensor([t], dtype=torch.float64)
    return float(schedule.alpha(at) ** 2 + schedule.sigma(at) ** 2)
