"""Sampling by the reverse chain itself."""

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Estimate
from scorelab.samplers.base import Ask, Sampler, noise
from scorelab.tensors import mixed


class DDPM(Sampler):
    """x_s ~ N(c_t x_t + c_0 x^_0, s^2 I), with the denoiser's own s^2.

    Ho et al. 2020, algorithm 2, for any steps s < t. ``steps`` of None takes the schedule's own T.
    """

    order = 1
    stochastic = True

    def __init__(self, steps: int | None = None, clip: bool = True, spacing: str = "trailing") -> None:
        super().__init__(steps, clip, spacing)

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """One ancestral step."""
        x_t, step = estimate.x_t, ask.schedule.transition(s, t)
        mean = mixed(step.mean_of_xt, x_t, step.mean_of_x0, estimate.x0)
        spread = torch.exp(0.5 * ask.variance.log_variance(step, estimate))
        return mean + spread * noise(mean, generator)
