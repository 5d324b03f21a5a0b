"""Weighted squared errors of what the denoiser predicts."""

from typing import Literal

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Estimate, Exact
from scorelab.losses.base import Loss, Terms, refuse_silence
from scorelab.tensors import mean_except_batch


class Simple(Loss):
    """L_simple = mean over dimensions of ||eps - eps^||^2 (Ho et al. 2020, eq. 14), whatever the network predicts.

    ``space`` measures the error in another quantity of the same Estimate. With S = alpha^2 / sigma^2 and
    a = alpha^2 + sigma^2, the error on x_0 is 1/S of that on eps, the error on v (a / alpha)^2 of it.
    """

    def __init__(self, space: Literal["eps", "x0", "v"] = "eps", normalize: bool = True) -> None:
        super().__init__(normalize)
        self.space = space

    def forward(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        exact: Exact | None = None,
        generator: Generator | None = None,
    ) -> Terms:
        """The mean squared error of each sample, (B,)."""
        target = denoiser.noised(x0, t, eps)
        estimate = denoiser(target.x_t, t, label)
        return Terms(mean_except_batch((getattr(target, self.space) - getattr(estimate, self.space)) ** 2))

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1 on eps, 1/S on x_0, (a / alpha)^2 on v: how far each moves when eps^ moves by one."""
        one = torch.ones_like(t, dtype=torch.float64)
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        x_t = torch.zeros_like(one)
        moved = Estimate.from_eps(x_t, alpha, sigma, one)
        return getattr(moved, self.space) ** 2

    def check(self, denoiser: Denoiser) -> None:
        """Refuse the noise as space where a process ends without signal: there x_t is the noise, and nothing to learn.

        Raises:
            Refusal: for space=eps and alpha = 0 at t = 1.
        """
        super().check(denoiser)
        if self.space == "eps":
            refuse_silence(denoiser.schedule)
