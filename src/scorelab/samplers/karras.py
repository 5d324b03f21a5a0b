"""EDM's samplers, in x / alpha and sigma~ = sigma / alpha, of any schedule: Euler and Heun, with noise stirred in."""

import math

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Estimate
from scorelab.errors import Refusal
from scorelab.samplers.base import Ask, Sampler, noise
from scorelab.tensors import like


class Euler(Sampler):
    """x~_s = x~_t + (sigma~_s - sigma~_t) eps^ (Karras et al. 2022, algorithm 2 without its correction).

    Without ``churn`` it is ``ddim`` with eta = 0: along sigma~ the flow is dx~ / dsigma~ = eps^.

    Args:
        steps: how many.
        churn: how much noise is added over the whole walk: before each step sigma~ grows by min(churn / n, sqrt(2) - 1)
            of itself, and x~ by as much noise as that takes; 0 for none. Never beyond what the denoiser knows.
        churn_min, churn_max: the sigma~ between which it is.
        churn_noise: the standard deviation of that noise, in units of what it should be.
        clip: cuts x^_0 to [-1, 1], for pixels only.
        spacing: see ``Sampler``.

    Raises:
        Refusal: for a negative number among them.
    """

    order = 1

    def __init__(
        self,
        steps: int = 50,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        churn_noise: float = 1.0,
        clip: bool = True,
        spacing: str = "trailing",
    ) -> None:
        super().__init__(steps, clip, spacing)
        for name, value in (("churn", churn), ("churn_min", churn_min), ("churn_noise", churn_noise)):
            if not 0 <= value < math.inf:
                raise Refusal(f"{name} must be at least 0 and finite, got {value}")
        self.churn, self.churn_min, self.churn_max, self.churn_noise = churn, churn_min, churn_max, churn_noise
        self.stochastic = churn > 0

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """alpha_s x^_0 + sigma_s eps^, which is that step, also from where alpha is 0."""
        alpha, sigma = ask.schedule.at(s).factors(estimate.x_t)
        return torch.addcmul(alpha * estimate.x0, sigma, estimate.eps)

    def walk(self, ask: Ask, x: Tensor, times: Tensor, generator: Generator | None) -> Tensor:
        """The walk of all samplers, with noise stirred in before each step."""
        for t, s, last in ask.along(times, x):
            if self.churn:
                x, t = self._stirred(ask, x, t, len(times) - 1, generator)
            estimate = ask(x, t)
            x = estimate.x0 if last else self.step(ask, estimate, s, t, generator)
        return x

    def _stirred(
        self, ask: Ask, x: Tensor, t: Tensor, steps: int, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """X and its time after noise was added."""
        schedule = ask.schedule
        now = torch.exp(-0.5 * schedule.log_snr(t))
        growth = 1 + min(self.churn / steps, math.sqrt(2) - 1)
        inside = (now >= self.churn_min) & (now <= self.churn_max)
        more = torch.where(inside, growth, 1.0) * now
        later = torch.where(inside, schedule.inverse(-2 * torch.log(more)), t).clamp(max=ask.latest)
        ratio = torch.where(later > t, schedule.alpha(later) / schedule.alpha(t), 1.0)  # no number where both are 0
        added = (schedule.sigma(later) ** 2 - (ratio * schedule.sigma(t)) ** 2).clamp(min=0)
        return like(ratio, x) * x + like(self.churn_noise * torch.sqrt(added), x) * noise(x, generator), later


class Heun(Euler):
    """Euler's step, and again along the mean of the noise told at both its ends (Karras et al. 2022, algorithm 2).

    Two evaluations a step, one for the last: 35 for 18 steps.

    Raises:
        Refusal: for a negative number among its arguments.
    """

    order = 2
    evaluations_per_step = 2
    needs_signal = True

    def __init__(
        self,
        steps: int = 18,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        churn_noise: float = 1.0,
        clip: bool = True,
        spacing: str = "karras",
    ) -> None:
        super().__init__(steps, churn, churn_min, churn_max, churn_noise, clip, spacing)

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """There, asked again, and once more from the start along the mean."""
        there = ask(super().step(ask, estimate, s, t, generator), s)
        before, now, x = ask.schedule.at(s), ask.schedule.at(t), estimate.x_t
        ratio = before.alpha / now.alpha
        along = like(before.sigma - now.sigma * ratio, x)  # alpha_s (sigma~_s - sigma~_t)
        return like(ratio, x) * x + along * 0.5 * (estimate.eps + there.eps)
