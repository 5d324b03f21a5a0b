"""Weights on the error of the noise that are functions of the signal-to-noise ratio S = alpha^2 / sigma^2 alone."""

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.losses.base import WeightedError


class MinSNR(WeightedError):
    """min(S, gamma) / S on the noise, so min(S, gamma) on x_0: clean times, all alike, do not outweigh the others.

    Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy", section 3.4.
    """

    def __init__(self, gamma: float = 5.0, normalize: bool = True) -> None:
        super().__init__(normalize)
        if not gamma > 0:
            raise Refusal(f"gamma must be above 0, got {gamma}")
        self.gamma = gamma

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1 where S is at most gamma, also where there is no signal."""
        return (self.gamma * torch.exp(-denoiser.schedule.log_snr(t))).clamp(max=1)
