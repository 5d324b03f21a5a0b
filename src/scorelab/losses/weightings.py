"""Weights on the error that are functions of the signal-to-noise ratio S = alpha^2 / sigma^2 alone."""

import math

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.losses.base import WeightedError


class MinSNR(WeightedError):
    """min(S, gamma) / S on the noise, so min(S, gamma) on x_0: clean times, all alike, do not outweigh the others.

    Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy", section 3.4.

    Raises:
        Refusal: for gamma <= 0.
    """

    def __init__(self, gamma: float = 5.0, normalize: bool = True) -> None:
        super().__init__(normalize)
        self.gamma = positive("gamma", gamma)

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1 where S is at most gamma, also where there is no signal."""
        return (self.gamma * torch.exp(-denoiser.schedule.log_snr(t))).clamp(max=1)


class SoftMinSNR(WeightedError):
    """gamma / (S + gamma) on the noise, so S gamma / (S + gamma) on x_0: min-SNR without its corner.

    Crowson et al. 2024, "Scalable high-resolution pixel-space image synthesis with hourglass diffusion transformers",
    section 3.4.

    Raises:
        Refusal: for gamma <= 0.
    """

    def __init__(self, gamma: float = 4.0, normalize: bool = True) -> None:
        super().__init__(normalize)
        self.gamma = positive("gamma", gamma)

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """From S / gamma, as a sigmoid of its logarithm."""
        return torch.sigmoid(math.log(self.gamma) - denoiser.schedule.log_snr(t))


class P2(WeightedError):
    """1 / (k + S)^gamma on the noise: little weight where only details are left (Choi et al. 2022, eq. 8).

    Raises:
        Refusal: for k <= 0 or gamma < 0.
    """

    def __init__(self, gamma: float = 1.0, k: float = 1.0, normalize: bool = True) -> None:
        super().__init__(normalize)
        if not 0 <= gamma < math.inf:
            raise Refusal(f"gamma must be at least 0 and finite, got {gamma}")
        self.gamma, self.k = gamma, positive("k", k)

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1 / k^gamma where there is no signal."""
        return (self.k + torch.exp(denoiser.schedule.log_snr(t))) ** -self.gamma


class SigmoidWeight(WeightedError):
    """1/2 (-dlambda/dt) sigmoid(b - lambda) on the noise: the bound, up to where the eye sees.

    Kingma & Gao 2023, "Understanding diffusion objectives as the ELBO with simple data augmentation"; b = 2 there, and
    in Hoogeboom et al. 2024, "Simpler diffusion". Any b gives a monotone weight, so a bound on augmented data.

    Raises:
        Refusal: for a bias that is not finite.
    """

    def __init__(self, bias: float = 2.0, normalize: bool = True) -> None:
        super().__init__(normalize)
        if not abs(bias) < math.inf:
            raise Refusal(f"bias must be finite, got {bias}")
        self.bias = bias

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The rate of the bound, times the sigmoid."""
        schedule = denoiser.schedule
        rate = 0.5 * schedule.g2(t) / schedule.sigma(t) ** 2
        return rate * torch.sigmoid(self.bias - schedule.log_snr(t))


class EDMWeight(WeightedError):
    """(sigma~^2 + d^2) / (sigma~ d)^2 on x_0, sigma~ = sigma / alpha: 1 on the output of ``prediction=edm``.

    Karras et al. 2022, table 1, with d = ``sigma_data`` the standard deviation of the data, and, as part of the
    objective, times of ``timesteps=lognormal``, which it brings.

    Raises:
        Refusal: for sigma_data <= 0.
    """

    space = "x0"

    def __init__(self, sigma_data: float = 0.5, normalize: bool = True) -> None:
        super().__init__(normalize)
        self.sigma_data = positive("sigma_data", sigma_data)

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """S + 1/d^2."""
        return torch.exp(denoiser.schedule.log_snr(t)) + 1 / self.sigma_data**2


def positive(name: str, value: float) -> float:
    """The value.

    Raises:
        Refusal: unless it is above 0 and finite.
    """
    if not 0 < value < math.inf:
        raise Refusal(f"{name} must be above 0 and finite, got {value}")
    return value
