"""The squared error of what the denoiser predicts, unweighted."""

from typing import Literal

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.losses.base import WeightedError


class Simple(WeightedError):
    """L_simple = mean over dimensions of ||eps - eps^||^2 (Ho et al. 2020, eq. 14), whatever the network predicts.

    ``space`` measures the error in another quantity of the same Estimate. With S = alpha^2 / sigma^2 and
    a = alpha^2 + sigma^2, the error on x_0 is 1/S of that on eps, the error on v (a / alpha)^2 of it, that on the score
    1/sigma^2, that on the velocity (sigma lambda' / 2)^2.
    """

    def __init__(self, space: Literal["eps", "x0", "v", "score", "velocity"] = "eps", normalize: bool = True) -> None:
        super().__init__(normalize)
        self.space = space

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)


class FlowMatching(WeightedError):
    """The mean squared error of the velocity, ||u - u^||^2 / d (Lipman et al. 2023, eq. 14), under any schedule.

    On the noise it weighs (sigma lambda' / 2)^2: under ``flow`` 1 / (1 - t)^2, as does the error of eps - x_0.
    """

    space = "velocity"

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)
