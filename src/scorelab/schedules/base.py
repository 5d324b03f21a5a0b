"""The forward process x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 data."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorelab.errors import Refusal


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
    continuous process, which is trained up to the log-SNR ``log_snr_max``. ``prior_std`` is the standard deviation
    of the law p(x_1) that sampling starts from.

    Raises:
        Refusal: for num_steps < 1.
    """

    prior_std: float = 1.0
    log_snr_max: float = 13.3

    def __init__(self, num_steps: int | None) -> None:
        super().__init__()
        if num_steps is not None and num_steps < 1:
            raise Refusal(f"num_steps must be at least 1, got {num_steps}")
        self.num_steps = num_steps

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
            Refusal: for a continuous schedule, which has no grid of its own.
        """
        if self.num_steps is None:
            raise Refusal("this schedule is continuous and has no T-step grid: set schedule.num_steps")
        return torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps

    @property
    def t_min(self) -> float:
        """The least training time: t_1 of a grid; where the log-SNR is ``log_snr_max`` of a continuous process."""
        if self.num_steps is not None:
            return 1 / self.num_steps
        return float(self.inverse(torch.tensor([self.log_snr_max], dtype=torch.float64)))

    def training_time(self, u: Tensor) -> Tensor:
        """The time at quantile u in [0, 1) of the uniform law over training times.

        t_i with i = floor(T u) + 1 on a grid, t_min + u (1 - t_min) in a continuous process.
        """
        u = u.to(torch.float64)
        if self.num_steps is None:
            return torch.lerp(torch.full_like(u, self.t_min), torch.ones_like(u), u)
        return (torch.floor(self.num_steps * u) + 1).clamp(max=self.num_steps) / self.num_steps

    def log_snr_range(self) -> tuple[float, float]:
        """The least and greatest lambda at which a denoiser of this schedule was trained: [lambda_T, lambda_1]."""
        ends = self.log_snr(torch.tensor([1.0, self.t_min], dtype=torch.float64))
        return float(ends[0]), float(ends[1])

    def transition(self, s: Tensor, t: Tensor) -> Transition:
        """The coefficients of the step between the times s < t, each (B,)."""
        gain = -torch.expm1(self.log_snr(t) - self.log_snr(s))
        return Transition(self.alpha(s), self.sigma(s), self.alpha(t), self.sigma(t), gain)


class VariancePreserving(Schedule):
    """alpha^2 + sigma^2 = 1, so everything follows from ln(alpha_bar) = ln(alpha^2) and its slope.

    dx = -beta/2 x dt + sqrt(beta) dw with beta(t) = -d ln(alpha_bar) / dt (Song et al. 2021, "Score-based generative
    modeling through SDEs", eq. 11).
    """

    @abstractmethod
    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """ln(alpha_bar)."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """-d ln(alpha_bar) / dt."""

    @abstractmethod
    def at_log_alpha_bar(self, value: Tensor) -> Tensor:
        """The time t at which ln(alpha_bar) is this value."""

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar)."""
        return torch.exp(0.5 * self.log_alpha_bar(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar)."""
        return torch.sqrt(-torch.expm1(self.log_alpha_bar(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(alpha_bar) - ln(1 - alpha_bar)."""
        return logit(self.log_alpha_bar(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        """Where ln(alpha_bar) = -softplus(-lambda)."""
        return self.at_log_alpha_bar(log_sigmoid(log_snr.to(torch.float64)))

    def f(self, t: Tensor) -> Tensor:
        """-beta(t) / 2."""
        return -0.5 * self.beta(t)

    def g2(self, t: Tensor) -> Tensor:
        """beta(t)."""
        return self.beta(t)


def logit(log_p: Tensor) -> Tensor:
    """ln(p / (1 - p)) from ln p, exact at both ends."""
    return log_p - torch.log(-torch.expm1(log_p))


def log_sigmoid(x: Tensor) -> Tensor:
    """ln(1 / (1 + e^-x)), the inverse of ``logit``."""
    return -torch.nn.functional.softplus(-x)
