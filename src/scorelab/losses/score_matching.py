"""Regression onto scores: denoising score matching under any weight, and with the weight of the likelihood."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Exact
from scorelab.errors import Refusal
from scorelab.losses.base import Loss, Terms, refuse_silence
from scorelab.schedules import Schedule
from scorelab.tensors import mean_except_batch

WEIGHTS: dict[str, Callable[[Schedule, Tensor], Tensor]] = {
    "one": lambda schedule, t: torch.ones_like(t, dtype=torch.float64),
    "sigma2": lambda schedule, t: schedule.sigma(t) ** 2,
    "g2": lambda schedule, t: schedule.g2(t),
}


class ScoreLoss(Loss):
    """A squared distance to a score, or what differs from one by a constant, times w(t).

    Args:
        weight: w: "one"; "sigma2", which makes it the error of the noise; or "g2", in proportion to ``Likelihood``.
        normalize: see ``Loss``.

    Raises:
        Refusal: for another weight.
    """

    def __init__(self, weight: Literal["one", "sigma2", "g2"] = "sigma2", normalize: bool = True) -> None:
        super().__init__(normalize)
        if weight not in WEIGHTS:
            raise Refusal(f"weight must be one of {', '.join(WEIGHTS)}, got {weight}")
        self.named = weight

    def weighted(self, denoiser: Denoiser, t: Tensor, each: Tensor) -> Tensor:
        """What each sample (B,) comes to, times w(t)."""
        return (WEIGHTS[self.named](denoiser.schedule, t) * each.double()).to(each.dtype)

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The score's weight over sigma^2."""
        return WEIGHTS[self.named](denoiser.schedule, t) / denoiser.schedule.sigma(t) ** 2

    def check(self, denoiser: Denoiser) -> None:
        """Refuse what gives no gradient."""
        super().check(denoiser)
        refuse_silence(denoiser.schedule)


class DSM(ScoreLoss):
    """w(t) mean ||s^ - s(x_t | x_0)||^2 over dimensions, s(x_t | x_0) = -eps / sigma the conditional score.

    Vincent 2011, "A connection between score matching and denoising autoencoders", eq. 9-11; Song et al. 2021, eq. 7.
    """

    def __init__(self, weight: Literal["one", "sigma2", "g2"] = "one", normalize: bool = True) -> None:
        super().__init__(weight, normalize)

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
        """The weighted error of each sample's score, (B,)."""
        return Terms(self.weighted(denoiser, t, score_error(denoiser, x0, t, eps, label)))


class Likelihood(Loss):
    """(t_max - t_min)/2 g^2 ||s^ - s(x_t | x_0)||^2 in bits/dim, for t ~ U[t_min, t_max].

    The weight that makes score matching maximum likelihood (Song et al. 2021, "Maximum likelihood training of
    score-based diffusion models", eq. 7-8): the diffusion part of the continuous bound, written in scores. With
    num_steps set, the same rate at grid times, where g^2 is that of the step that ends there.
    """

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
        """The weighted error of each sample's score, (B,), bits/dim."""
        rate = self._rate(denoiser.schedule, t)
        return Terms((rate * score_error(denoiser, x0, t, eps, label).double()).to(x0.dtype))

    @staticmethod
    def _rate(schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.duration * schedule.g2(t) / (2 * math.log(2))

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """(t_max - t_min)(-dlambda/dt)/(2 ln 2)."""
        return self._rate(denoiser.schedule, t) / denoiser.schedule.sigma(t) ** 2

    def check(self, denoiser: Denoiser) -> None:
        """Refuse what gives no gradient."""
        super().check(denoiser)
        refuse_silence(denoiser.schedule)


def score_error(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, label: Tensor | None) -> Tensor:
    """Mean over dimensions of ||s^ - s(x_t | x_0)||^2, (B,)."""
    target = denoiser.noised(x0, t, eps)
    return mean_except_batch((target.score - denoiser(target.x_t, t, label).score) ** 2)
