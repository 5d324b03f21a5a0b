"""Sampling along the probability-flow ODE."""

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Estimate
from scorelab.errors import Refusal
from scorelab.samplers.base import Ask, Sampler, noise
from scorelab.tensors import like


class DDIM(Sampler):
    """x_s = alpha_s x^_0 + sqrt(sigma_s^2 - eta^2 beta~) eps^ + eta sqrt(beta~) z (Song et al. 2021, eq. 12).

    eta = 0 follows the ODE, eta = 1 is ancestral sampling with s^2 = beta~.
    """

    order = 1

    def __init__(self, steps: int = 50, eta: float = 0.0, clip: bool = True) -> None:
        if not 0 <= eta <= 1:
            raise Refusal(f"eta must lie in [0, 1], got {eta}")
        super().__init__(steps, clip)
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """One DDIM step."""
        step = ask.schedule.transition(s, t)
        spread2 = self.eta**2 * step.posterior_variance
        along = torch.sqrt((step.sigma_s**2 - spread2).clamp(min=0))
        x = like(step.alpha_s, estimate.x_t) * estimate.x0 + like(along, estimate.x_t) * estimate.eps
        if self.stochastic:
            x = x + like(torch.sqrt(spread2), x) * noise(x, generator)
        return x
