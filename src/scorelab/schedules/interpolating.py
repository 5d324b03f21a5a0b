"""Schedules between signal and noise that preserve neither the variance nor the signal."""

import math

import torch
from torch import Tensor

from scorelab.schedules.base import Schedule
from scorelab.schedules.continuous import VP


class Flow(Schedule):
    """alpha = 1 - t, sigma = t: straight paths from data to noise (Lipman et al. 2023, "Flow matching", example II).

    A log-SNR shift s leaves alpha + sigma = 1 and moves the time: t becomes r t / (1 + (r - 1) t), r = e^{-s/2}
    (Esser et al. 2024, "Scaling rectified flow transformers", eq. 23). The process is trained where the log-SNR lies in
    [-20, 13.3], short of both ends.

    Raises:
        Refusal: for num_steps < 1.
    """

    def __init__(self, num_steps: int | None = None, log_snr_shift: float = 0.0) -> None:
        super().__init__(num_steps, log_snr_shift)
        self.ratio = math.exp(-log_snr_shift / 2)

    def _sum(self, t: Tensor) -> Tensor:
        return 1 + (self.ratio - 1) * t

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t, where nothing is shifted."""
        t = t.to(torch.float64)
        return (1 - t) / self._sum(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Time itself, where nothing is shifted."""
        t = t.to(torch.float64)
        return self.ratio * t / self._sum(t)

    def inverse(self, log_snr: Tensor) -> Tensor:
        """From (1 - t) / t = r e^{lambda/2}."""
        return torch.sigmoid(-0.5 * log_snr.to(torch.float64) - math.log(self.ratio))

    def f(self, t: Tensor) -> Tensor:
        """-1 / (1 - t), where nothing is shifted."""
        t = t.to(torch.float64)
        return -1 / (1 - t) - (self.ratio - 1) / self._sum(t)

    def g2(self, t: Tensor) -> Tensor:
        """2 sigma^2 / (t (1 - t)), for d lambda / dt is the same after any shift."""
        t = t.to(torch.float64)
        return 2 * self.ratio * self.sigma(t) / (self._sum(t) * (1 - t))


class SubVP(Schedule):
    """alpha = sqrt(alpha_bar) and sigma = 1 - alpha_bar, alpha_bar that of ``VP`` (Song et al. 2021, eq. 13-14).

    sigma is a standard deviation: the variance is (1 - alpha_bar)^2, below that of VP at all times, and
    sigma = 1 - alpha^2. A log-SNR shift keeps to that.

    Raises:
        Refusal: for num_steps < 1, or unless 0 < beta_start < beta_end.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        beta_start: float = 0.1,
        beta_end: float = 20.0,
        log_snr_shift: float = 0.0,
    ) -> None:
        super().__init__(num_steps, log_snr_shift)
        self.path = VP(num_steps, beta_start, beta_end)
        self.scale = math.exp(-log_snr_shift / 2)

    def _noise_to_signal(self, t: Tensor) -> Tensor:
        """The ratio p = sigma / alpha, which by sigma = 1 - alpha^2 says both."""
        value = self.path.log_alpha_bar(t)
        return -torch.expm1(value) * torch.exp(-0.5 * value) * self.scale

    def alpha(self, t: Tensor) -> Tensor:
        """2 / (p + sqrt(p^2 + 4))."""
        return _alpha(self._noise_to_signal(t))

    def sigma(self, t: Tensor) -> Tensor:
        """The ratio p times alpha."""
        p = self._noise_to_signal(t)
        return p * _alpha(p)

    def log_snr(self, t: Tensor) -> Tensor:
        """-2 ln p."""
        return -2 * torch.log(self._noise_to_signal(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        """From alpha^2 = 1 - p alpha before the shift, by whichever side keeps its digits."""
        p = torch.exp(-0.5 * log_snr.to(torch.float64)) / self.scale
        alpha = _alpha(p)
        value = torch.where(p < 1, torch.log1p(-p * alpha), 2 * torch.log(alpha))
        return self.path.at_log_alpha_bar(value).clamp(0, 1)

    def _fall(self, t: Tensor) -> Tensor:
        """-d lambda / dt = beta (1 + alpha_bar) / (1 - alpha_bar)."""
        value = self.path.log_alpha_bar(t)
        return self.path.beta(t) * (1 + torch.exp(value)) / -torch.expm1(value)

    def f(self, t: Tensor) -> Tensor:
        """By way of p; -beta / 2 where nothing is shifted."""
        p = self._noise_to_signal(t)
        return -p * self._fall(t) / (2 * torch.sqrt(p**2 + 4))

    def g2(self, t: Tensor) -> Tensor:
        """-sigma^2 d lambda / dt, beta (1 - alpha_bar^2) where nothing is shifted."""
        return self.sigma(t) ** 2 * self._fall(t)


def _alpha(p: Tensor) -> Tensor:
    """The alpha for which 1 - alpha^2 = p alpha."""
    return 2 / (p + torch.sqrt(p**2 + 4))
