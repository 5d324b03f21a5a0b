"""T-step schedules: tables of beta_i, read between their grid points."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from scorelab.schedules.base import Schedule


class Table(Schedule):
    """A variance-preserving process given by beta_1 ... beta_T: alpha_bar_i = prod_{j <= i} (1 - beta_j).

    alpha^2 = alpha_bar, sigma^2 = 1 - alpha_bar (Ho et al. 2020, eq. 4). Between grid points ln(alpha_bar) is
    linear in t, that is beta(t) = -T ln(1 - beta_i) is constant on each interval; so every t has an exact inverse.
    All in float64.

    Raises:
        ValueError: when a beta lies outside (0, 1), or num_steps < 1.
    """

    log_alpha_bar: Tensor

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.num_steps = num_steps
        betas = self.betas(num_steps)
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"a beta of this schedule lies outside (0, 1) at num_steps={num_steps}")
        log_alpha_bar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
        self.register_buffer("log_alpha_bar", log_alpha_bar, persistent=False)

    @abstractmethod
    def betas(self, num_steps: int) -> Tensor:
        """beta_1 ... beta_T, each in (0, 1), float64."""

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The interval i - 1 in 0 ... T-1 that holds t, and the place within it in [0, 1]."""
        place = t.to(torch.float64) * len(self.log_alpha_bar[1:])
        left = place.floor().clamp(0, len(self.log_alpha_bar) - 2)
        return left.long(), place - left

    def _log_alpha_bar(self, t: Tensor) -> Tensor:
        left, share = self._interval(t)
        return torch.lerp(self.log_alpha_bar[left], self.log_alpha_bar[left + 1], share)

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar)."""
        return torch.exp(0.5 * self._log_alpha_bar(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar)."""
        return torch.sqrt(-torch.expm1(self._log_alpha_bar(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(alpha_bar) - ln(1 - alpha_bar)."""
        log_alpha_bar = self._log_alpha_bar(t)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def inverse(self, log_snr: Tensor) -> Tensor:
        """Solve ln(alpha_bar) = -softplus(-lambda) on the interval that holds it: exact, no iteration."""
        target = -torch.nn.functional.softplus(-log_snr.to(torch.float64))
        falling = self.log_alpha_bar
        left = (torch.searchsorted(-falling, -target, right=True) - 1).clamp(0, len(falling) - 2)
        share = (target - falling[left]) / (falling[left + 1] - falling[left])
        return (left + share) / (len(falling) - 1)

    def f(self, t: Tensor) -> Tensor:
        """-beta(t) / 2."""
        return -0.5 * self.g2(t)

    def g2(self, t: Tensor) -> Tensor:
        """beta(t) = -T ln(1 - beta_i) on the interval i that holds t."""
        left, _ = self._interval(t)
        steps = len(self.log_alpha_bar) - 1
        return steps * (self.log_alpha_bar[left] - self.log_alpha_bar[left + 1])


class Linear(Table):
    """beta rises linearly from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020, section 4).

    For other T both ends scale by 1000 / T, so the process between noise and data stays the same.

    Raises:
        ValueError: for T <= 20, where beta_T would reach 1.
    """

    def __init__(self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        self.beta_start, self.beta_end = beta_start, beta_end
        super().__init__(num_steps)

    def betas(self, num_steps: int) -> Tensor:
        """beta_start ... beta_end in equal steps, times 1000 / T."""
        first, last = self.beta_start * 1000 / num_steps, self.beta_end * 1000 / num_steps
        if last >= 1:
            raise ValueError(f"beta reaches {last:.2g} at num_steps={num_steps}: take more steps, or schedule=cosine")
        return torch.linspace(first, last, num_steps, dtype=torch.float64)


class Cosine(Table):
    """alpha_bar(t) = f(t) / f(0), f(t) = cos^2(pi/2 (t + s) / (1 + s)), beta clipped at 0.999.

    Nichol & Dhariwal 2021, "Improved denoising diffusion probabilistic models", eq. 17.
    """

    def __init__(self, num_steps: int = 1000, s: float = 0.008, beta_max: float = 0.999) -> None:
        if s < 0:
            raise ValueError(f"s must be at least 0, got {s}")
        self.s, self.beta_max = s, beta_max
        super().__init__(num_steps)

    def betas(self, num_steps: int) -> Tensor:
        """1 - alpha_bar(t_i) / alpha_bar(t_{i-1}), clipped; the table multiplies the clipped ones up again."""
        t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        alpha_bar = torch.cos((t + self.s) / (1 + self.s) * (math.pi / 2)) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=self.beta_max)
