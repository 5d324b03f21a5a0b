"""Weighted squared errors of what the denoiser predicts."""

from typing import Literal

from torch import Generator, Tensor

from scorelab.denoisers import Denoiser
from scorelab.losses.base import Loss, Terms
from scorelab.tensors import mean_rest


class Simple(Loss):
    """L_simple = mean over dimensions of ||eps - eps^||^2 (Ho et al. 2020, eq. 14), whatever the network predicts.

    ``space`` measures the error in another quantity of the same Estimate. With S = alpha^2 / sigma^2 and
    a = alpha^2 + sigma^2, the error on x_0 is 1/S of that on eps, the error on v (a / alpha)^2 of it.
    """

    def __init__(self, space: Literal["eps", "x0", "v"] = "eps") -> None:
        super().__init__()
        self.space = space

    def forward(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        truth: Denoiser | None = None,
        generator: Generator | None = None,
    ) -> Terms:
        """The mean squared error of each sample, (B,)."""
        target = denoiser.noised(x0, t, eps)
        estimate = denoiser(target.x_t, t, label)
        return Terms(mean_rest((getattr(target, self.space) - getattr(estimate, self.space)) ** 2))
