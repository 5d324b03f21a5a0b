"""The loop all samplers share."""

from abc import abstractmethod

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.errors import Refusal
from scorelab.tensors import standard_normal


class Sampler:
    """Walks from x_1 ~ N(0, prior_std^2 I) to x_0 in ``steps`` evaluations of a denoiser, or fewer.

    The last step is to x^_0 itself. ``clip`` cuts x^_0 to [-1, 1] before each step, for pixels only. ``order`` is the
    order of the global error in the step size (weak order where ``stochastic``).

    Raises:
        Refusal: for steps < 1.
    """

    order: int
    stochastic: bool

    def __init__(self, steps: int | None, clip: bool) -> None:
        if steps is not None and steps < 1:
            raise Refusal(f"steps must be at least 1, got {steps}")
        self.steps, self.clip = steps, clip

    def times(self, denoiser: Denoiser) -> Tensor:
        """The walk's times 1 = t_n > ... > t_1 > 0, evenly spaced, and 0.

        None is outside what the denoiser can be asked about; where it knows less than all noise, the walk starts
        from the most it knows.

        Raises:
            Refusal: when neither sampler nor schedule says how many steps.
        """
        steps = self.steps or denoiser.schedule.num_steps
        if steps is None:
            raise Refusal("a continuous schedule has no steps of its own: set sampler.steps")
        walk = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
        earliest, latest = denoiser.time_range()
        inside = walk[(walk >= earliest * (1 - 1e-9)) & (walk < latest * (1 - 1e-9))]
        return torch.cat([torch.tensor([latest], dtype=torch.float64), inside, walk[-1:]])

    def evaluations(self, denoiser: Denoiser) -> int:
        """Network evaluations per sample."""
        return len(self.times(denoiser)) - 1

    @abstractmethod
    def step(self, denoiser: Denoiser, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """x_s from the estimate at x_t, 0 < s < t, both (B,)."""

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        shape: tuple[int, ...],
        label: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Samples x_0 of this shape (B, ...), all noise from the generator."""
        device = denoiser.device
        x = denoiser.prior_std * standard_normal(shape, generator, device=device)
        walk = self.times(denoiser).to(device).unsqueeze(1).expand(-1, shape[0])
        for number, t in enumerate(walk[:-1], start=1):
            estimate = denoiser(x, t, label)
            if self.clip and denoiser.levels is not None:
                estimate = estimate.clipped()
            last = number == len(walk) - 1
            x = estimate.x0 if last else self.step(denoiser, estimate, walk[number], t, generator)
        return x


def noise(like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of a tensor's shape, from the generator: a sampler draws by this and nothing else."""
    return standard_normal(like.shape, generator, device=like.device, dtype=like.dtype)
