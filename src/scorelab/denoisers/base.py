"""The noun that losses, samplers, likelihoods and yardsticks all take."""

from abc import abstractmethod
from itertools import chain

import torch
from torch import Tensor, nn

from scorelab.denoisers.estimate import Estimate
from scorelab.denoisers.variance import Variance
from scorelab.schedules import Schedule
from scorelab.tensors import like


class Denoiser(nn.Module):
    """Maps (x_t, t) to an Estimate. Holds the one schedule, the variance of its reverse steps, and the data's lattice.

    A trained network is a denoiser, the exact posterior mean of a known law is another. ``levels`` is how many values
    a pixel has, which makes the decoder p(x_0 | x_1) a law over them; None for points, whose decoder is a density.
    """

    def __init__(self, schedule: Schedule, variance: Variance, levels: int | None = None) -> None:
        super().__init__()
        if levels is not None and levels < 2:
            raise ValueError(f"a pixel has at least 2 levels, got {levels}")
        self.schedule = schedule
        self.variance = variance
        self.levels = levels

    @property
    def device(self) -> torch.device:
        """Where the weights and tables are."""
        return next(chain(self.parameters(), self.buffers())).device

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The estimate of x_0 and eps from x_t (B, ...) at times t (B,) in (0, 1]."""

    def noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Estimate:
        """The truth at time t: x_t = alpha x_0 + sigma eps, with the x_0 and eps that made it."""
        alpha, sigma = like(self.schedule.alpha(t), x0), like(self.schedule.sigma(t), x0)
        return Estimate(alpha * x0 + sigma * eps, alpha, sigma, x0, eps)
