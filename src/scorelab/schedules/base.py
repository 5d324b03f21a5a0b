"""The forward process x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 data."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Transition:
    """One step of the process between the times s < t, for every sample of a batch; all tensors (B,), float64.

    With lambda = log(alpha^2 / sigma^2) and 1 - e^(lambda_t - lambda_s) written ``gain``:

    - q(x_t | x_s) = N(alpha_t / alpha_s x_s, sigma^2_{t|s} I), sigma^2_{t|s} = sigma_t^2 gain
    - q(x_s | x_t, x_0) = N(c_t x_t + c_0 x_0, beta~ I), c_t = (alpha_t / alpha_s) sigma_s^2 / sigma_t^2,
      c_0 = alpha_s gain, beta~ = sigma_s^2 gain

    (Kingma et al. 2021, "Variational diffusion models", appendix A; Ho et al. 2020, eqs. 6-7 in DDPM's letters.)
    """

    alpha_s: Tensor
    sigma_s: Tensor
    alpha_t: Tensor
    sigma_t: Tensor
    gain: Tensor

    @property
    def forward_variance(self) -> Tensor:
        """sigma^2_{t|s}, the variance of x_t given x_s."""
        return self.sigma_t**2 * self.gain

    @property
    def posterior_variance(self) -> Tensor:
        """beta~, the variance of x_s given x_t and x_0."""
        return self.sigma_s**2 * self.gain

    @property
    def mean_of_x0(self) -> Tensor:
        """c_0, the weight of x_0 in the posterior mean."""
        return self.alpha_s * self.gain

    @property
    def mean_of_xt(self) -> Tensor:
        """c_t, the weight of x_t in the posterior mean."""
        return self.alpha_t / self.alpha_s * (self.sigma_s / self.sigma_t) ** 2


class Schedule(nn.Module):
    """A noise schedule. Methods take times (B,) in [0, 1] and answer (B,) in float64.

    ``num_steps`` is T where training and the bound live on the grid t_i = i / T, i = 1 ... T, and None for a
    continuous process. ``prior_std`` is the standard deviation of the law p(x_1) that sampling starts from.
    """

    num_steps: int | None
    prior_std: float = 1.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's coefficient."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t) = log(alpha^2 / sigma^2), strictly falling; +inf at t = 0 where sigma is 0 there."""

    @abstractmethod
    def inverse(self, log_snr: Tensor) -> Tensor:
        """The time t at which lambda(t) = log_snr."""

    @abstractmethod
    def f(self, t: Tensor) -> Tensor:
        """The drift's coefficient d ln(alpha) / dt in dx = f x dt + g dw."""

    @abstractmethod
    def g2(self, t: Tensor) -> Tensor:
        """The squared diffusion coefficient g^2 = -sigma^2 d lambda / dt."""

    def grid(self) -> Tensor:
        """The times t_0 = 0, t_1, ..., t_T = 1 of a T-step process, (T + 1,).

        Raises:
            ValueError: for a continuous schedule, which has no grid of its own.
        """
        if self.num_steps is None:
            raise ValueError("this schedule is continuous and has no T-step grid: set schedule.num_steps")
        return torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps

    def training_time(self, u: Tensor) -> Tensor:
        """The time at quantile u in [0, 1) of the uniform law over training times: t_i, i = floor(T u) + 1."""
        steps = len(self.grid()) - 1
        return (torch.floor(steps * u.to(torch.float64)) + 1).clamp(max=steps) / steps

    def log_snr_range(self) -> tuple[float, float]:
        """The least and greatest lambda at which a denoiser of this schedule was trained: [lambda_T, lambda_1]."""
        ends = self.log_snr(self.grid()[[-1, 1]])
        return float(ends[0]), float(ends[1])

    def transition(self, s: Tensor, t: Tensor) -> Transition:
        """The coefficients of the step between the times s < t, each (B,)."""
        gain = -torch.expm1(self.log_snr(t) - self.log_snr(s))
        return Transition(self.alpha(s), self.sigma(s), self.alpha(t), self.sigma(t), gain)
