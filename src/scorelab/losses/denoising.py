"""The squared error of what the denoiser predicts, unweighted."""

from typing import Literal

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.losses.base import WeightedError


class Simple(WeightedError):
    """L_simple = mean over dimensions of ||eps - eps^||^2 (Ho et al. 2020, eq. 14), whatever the network predicts.

    ``space`` measures the error in another quantity of the same Estimate. With S = alpha^2 / sigma^2 and
    a = alpha^2 + sigma^2, the error on x_0 is 1/S of that on eps, the error on v (a / alpha)^2 of it.
    """

    def __init__(self, space: Literal["eps", "x0", "v"] = "eps", normalize: bool = True) -> None:
        super().__init__(normalize)
        self.space = space

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)
