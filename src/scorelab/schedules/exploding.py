"""Schedules that leave the signal as it is and add noise to it: alpha = 1."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.schedules.base import Schedule


class VarianceExploding(Schedule):
    """x_t = x_0 + sigma eps: everything follows from sigma(t), f = 0, g^2 = d sigma^2 / dt (Song et al. 2021, eq. 9).

    ``sigma_max`` is the standard deviation of what sampling starts from. With num_steps set, t = 0 is the data
    themselves: sigma(0) = 0, though the noise just after it is not small. A log-SNR shift s turns sigma into
    sigma e^{-s/2}.

    Raises:
        Refusal: unless 0 < sigma_min < sigma_max, or for num_steps < 1.
    """

    def __init__(self, num_steps: int | None, sigma_min: float, sigma_max: float, log_snr_shift: float = 0.0) -> None:
        super().__init__(num_steps, log_snr_shift)
        if not 0 < sigma_min < sigma_max < math.inf:
            raise Refusal(f"0 < sigma_min < sigma_max is needed, got {sigma_min} and {sigma_max}")
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.scale = math.exp(-log_snr_shift / 2)
        self.prior_std = sigma_max * self.scale

    @abstractmethod
    def noise(self, t: Tensor) -> Tensor:
        """The standard deviation before the shift, from sigma_min at t = 0 to sigma_max at 1; t in float64."""

    @abstractmethod
    def rise(self, t: Tensor) -> Tensor:
        """The slope of ln(noise) in t; t in float64."""

    @abstractmethod
    def at_noise(self, noise: Tensor) -> Tensor:
        """The time at which the standard deviation before the shift is this."""

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        """The noise, after the shift."""
        t = t.to(torch.float64)
        sigma = self.scale * self.noise(t)
        return sigma if self.num_steps is None else torch.where(t > 0, sigma, 0.0)

    def log_snr(self, t: Tensor) -> Tensor:
        """-2 ln(sigma)."""
        return -2 * torch.log(self.sigma(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        """Where sigma = e^{-lambda/2}."""
        noise = torch.exp(-0.5 * log_snr.to(torch.float64)) / self.scale
        return self.at_noise(noise.clamp(self.sigma_min, self.sigma_max)).clamp(0, 1)

    def f(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def g2(self, t: Tensor) -> Tensor:
        """The slope of sigma^2."""
        return 2 * self.sigma(t) ** 2 * self.rise(t.to(torch.float64))


class VE(VarianceExploding):
    """sigma(t) = sigma_min (sigma_max / sigma_min)^t, geometric between 0.01 and 50 (Song et al. 2021, eq. 30-31)."""

    def __init__(
        self,
        num_steps: int | None = None,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        log_snr_shift: float = 0.0,
    ) -> None:
        super().__init__(num_steps, sigma_min, sigma_max, log_snr_shift)
        self.growth = math.log(sigma_max / sigma_min)

    def noise(self, t: Tensor) -> Tensor:
        """Geometric."""
        return self.sigma_min * torch.exp(t * self.growth)

    def rise(self, t: Tensor) -> Tensor:
        """The same at all times."""
        return torch.full_like(t, self.growth)

    def at_noise(self, noise: Tensor) -> Tensor:
        """Its logarithm's share."""
        return torch.log(noise / self.sigma_min) / self.growth


class EDM(VarianceExploding):
    """sigma(t) = (sigma_min^{1/rho} + t (sigma_max^{1/rho} - sigma_min^{1/rho}))^rho: EDM's sampling steps as a path.

    Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", eq. 5, with 0.002, 80 and
    rho = 7. Which noise levels are trained on is the choice of ``timesteps``.

    Raises:
        Refusal: as for all of them, or for rho <= 0.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
        log_snr_shift: float = 0.0,
    ) -> None:
        super().__init__(num_steps, sigma_min, sigma_max, log_snr_shift)
        if not 0 < rho < math.inf:
            raise Refusal(f"rho must be above 0 and finite, got {rho}")
        self.rho = rho
        self.first, self.last = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def noise(self, t: Tensor) -> Tensor:
        """A power of what is linear in t."""
        return torch.lerp(torch.full_like(t, self.first), torch.full_like(t, self.last), t) ** self.rho

    def rise(self, t: Tensor) -> Tensor:
        """Rho over the place, times its slope."""
        return self.rho * (self.last - self.first) / (self.first + t * (self.last - self.first))

    def at_noise(self, noise: Tensor) -> Tensor:
        """Its root's share."""
        return (noise ** (1 / self.rho) - self.first) / (self.last - self.first)
