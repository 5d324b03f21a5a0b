"""One currency for everything a denoiser can predict."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorelab.schedules import Schedule
from scorelab.tensors import mixed


@dataclass(frozen=True)
class Rates:
    """d alpha/dt and d sigma/dt at the times t (B,) of a schedule: computed when they are asked for.

    From dx = f x dt + g dw: alpha' = f alpha, and (sigma^2)' = 2 f sigma^2 + g^2. Not a number where alpha is 0.
    """

    schedule: Schedule
    t: Tensor

    @property
    def alpha(self) -> Tensor:
        """That of alpha (B,), float64."""
        level = self.schedule.at(self.t)
        return level.f * level.alpha

    @property
    def sigma(self) -> Tensor:
        """That of sigma (B,), float64."""
        level = self.schedule.at(self.t)
        return level.f * level.sigma + level.g2 / (2 * level.sigma)


@dataclass(frozen=True)
class Estimate:
    """What is believed of x_t = alpha x_0 + sigma eps: the data x0 and the noise eps in it.

    ``x0`` and ``eps`` (B, ...) are each computed from the formula that is well conditioned for what was predicted;
    ``alpha`` and ``sigma`` have shape (B, 1, ...). score = -eps / sigma; v = alpha eps - sigma x0
    (Salimans & Ho 2022, "Progressive distillation", appendix D); a = alpha^2 + sigma^2 is 1 only when the process
    preserves variance. ``variance_fraction`` (B, ...) is what a learned variance says: the place of log s^2 between
    log beta~ (0) and log sigma^2_{t|s} (1), whatever s the step goes to; ``log_variance`` (B, ...) what one says that
    is learned freely, log s^2 itself. Both None where the variance is not learned.
    ``rates`` say how alpha and sigma change with t, for ``velocity``; None where whoever made the estimate knew no
    schedule.
    """

    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    x0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None
    log_variance: Tensor | None = None
    rates: Rates | None = None

    @classmethod
    def from_eps(cls, x_t: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> "Estimate":
        """From the noise: x0 = (x_t - sigma eps) / alpha."""
        return cls(x_t, alpha, sigma, torch.addcmul(x_t, sigma, eps, value=-1) / alpha, eps)

    @classmethod
    def from_x0(cls, x_t: Tensor, alpha: Tensor, sigma: Tensor, x0: Tensor) -> "Estimate":
        """From the data: eps = (x_t - alpha x0) / sigma."""
        return cls(x_t, alpha, sigma, x0, torch.addcmul(x_t, alpha, x0, value=-1) / sigma)

    @classmethod
    def from_v(cls, x_t: Tensor, alpha: Tensor, sigma: Tensor, v: Tensor) -> "Estimate":
        """From v: x0 = (alpha x_t - sigma v) / a and eps = (sigma x_t + alpha v) / a."""
        a = alpha**2 + sigma**2
        return cls(x_t, alpha, sigma, (alpha * x_t - sigma * v) / a, (sigma * x_t + alpha * v) / a)

    @property
    def score(self) -> Tensor:
        """The gradient of log p_t at x_t, -eps / sigma."""
        return -self.eps / self.sigma

    @property
    def v(self) -> Tensor:
        """The mixture alpha eps - sigma x0."""
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def velocity(self) -> Tensor:
        """dx_t/dt along the path of this x0 and eps: alpha' x0 + sigma' eps (Lipman et al. 2023, eq. 14).

        With the posterior mean for x0 it is the drift f x_t - g^2/2 score of the probability-flow ODE.

        Raises:
            ValueError: for an estimate without rates.
        """
        if self.rates is None:
            raise ValueError("an estimate has no velocity without the rates of its schedule: Rates(schedule, t)")
        return mixed(self.rates.alpha, self.x0, self.rates.sigma, self.eps)

    def clipped(self) -> "Estimate":
        """With x0 cut to [-1, 1], and eps recomputed from it so that both still make up x_t."""
        x0 = self.x0.clamp(-1, 1)
        return replace(self, x0=x0, eps=torch.addcmul(self.x_t, self.alpha, x0, value=-1) / self.sigma)
