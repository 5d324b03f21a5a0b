"""Regression onto scores: denoising score matching under any weight, and with the weight of the likelihood."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.losses.base import WeightedError
from scorelab.schedules import Schedule

WEIGHTS: dict[str, Callable[[Schedule, Tensor], Tensor]] = {
    "one": lambda schedule, t: torch.ones_like(t, dtype=torch.float64),
    "sigma2": lambda schedule, t: schedule.sigma(t) ** 2,
    "g2": lambda schedule, t: schedule.g2(t),
}


class ScoreLoss(WeightedError):
    """A squared distance to a score, or what differs from one by a constant, times w(t).

    Args:
        weight: w: "one"; "sigma2", which makes it the error of the noise; or "g2", in proportion to ``Likelihood``.
        normalize: see ``Loss``.

    Raises:
        Refusal: for another weight.
    """

    space = "score"

    def __init__(self, weight: Literal["one", "sigma2", "g2"] = "sigma2", normalize: bool = True) -> None:
        super().__init__(normalize)
        if weight not in WEIGHTS:
            raise Refusal(f"weight must be one of {', '.join(WEIGHTS)}, got {weight}")
        self.named = weight

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The one that is named."""
        return WEIGHTS[self.named](denoiser.schedule, t)


class DSM(ScoreLoss):
    """w(t) mean ||s^ - s(x_t | x_0)||^2 over dimensions, s(x_t | x_0) = -eps / sigma the conditional score.

    Vincent 2011, "A connection between score matching and denoising autoencoders", eq. 9-11; Song et al. 2021, eq. 7.
    """

    def __init__(self, weight: Literal["one", "sigma2", "g2"] = "one", normalize: bool = True) -> None:
        super().__init__(weight, normalize)


class Likelihood(WeightedError):
    """(t_max - t_min)/2 g^2 ||s^ - s(x_t | x_0)||^2 in bits/dim, for t ~ U[t_min, t_max].

    The weight that makes score matching maximum likelihood (Song et al. 2021, "Maximum likelihood training of
    score-based diffusion models", eq. 7-8): the diffusion part of the continuous bound, written in scores. With
    num_steps set, the same rate at grid times, where g^2 is that of the step that ends there.
    """

    space = "score"

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """(t_max - t_min) g^2/(2 ln 2); on the noise, (t_max - t_min)(-dlambda/dt)/(2 ln 2)."""
        schedule = denoiser.schedule
        return schedule.duration * schedule.g2(t) / (2 * math.log(2))
