"""Sampling along the probability-flow ODE."""

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Estimate
from scorelab.errors import Refusal
from scorelab.samplers.base import Ask, Sampler, noise
from scorelab.tensors import like, mixed


class DDIM(Sampler):
    """x_s = alpha_s x^_0 + sqrt(sigma_s^2 - eta^2 beta~) eps^ + eta sqrt(beta~) z (Song et al. 2021, eq. 12).

    eta = 0 follows the ODE, eta = 1 is ancestral sampling with s^2 = beta~.
    """

    order = 1

    def __init__(self, steps: int = 50, eta: float = 0.0, clip: bool = True, spacing: str = "trailing") -> None:
        if not 0 <= eta <= 1:
            raise Refusal(f"eta must lie in [0, 1], got {eta}")
        super().__init__(steps, clip, spacing)
        self.eta = eta
        self.stochastic = eta > 0

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """One DDIM step."""
        if not self.stochastic:
            alpha, sigma = ask.schedule.at(s).factors(estimate.x_t)
            return torch.addcmul(alpha * estimate.x0, sigma, estimate.eps)
        step = ask.schedule.transition(s, t)
        spread2 = self.eta**2 * step.posterior_variance
        along = torch.sqrt((step.sigma_s**2 - spread2).clamp(min=0))
        x = mixed(step.alpha_s, estimate.x0, along, estimate.eps)
        return x + like(torch.sqrt(spread2), x) * noise(x, generator)


class DPMpp2M(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2), of order 2 with one evaluation a step.

    With h the fall of -lambda/2 in the step, x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) D, where D = x^_0 at the
    first step and (1 + h / 2h') x^_0 - h / 2h' x^_0' after it, x^_0' and h' those of the step before. The last step
    ends on x^_0, so it is of order 1.
    """

    order = 2
    stochastic = False

    def __init__(self, steps: int = 20, clip: bool = True, spacing: str = "trailing") -> None:
        super().__init__(steps, clip, spacing)

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """A step without one before it."""
        return self._towards(ask, estimate.x0, estimate.x_t, s, t, _half_fall(ask, s, t))

    def walk(self, ask: Ask, x: Tensor, times: Tensor, generator: Generator | None) -> Tensor:
        """From step to step with what was said at the step before."""
        before: tuple[Tensor, Tensor] | None = None
        for t, s, last in ask.along(times, x):
            x0 = ask(x, t).x0
            if last:
                return x0
            length, towards = _half_fall(ask, s, t), x0
            if before is not None:
                earlier, length_before = before
                share = like(0.5 * length / length_before, x)
                towards = (1 + share) * x0 - share * earlier
            x, before = self._towards(ask, towards, x, s, t, length), (x0, length)
        return x

    def _towards(self, ask: Ask, x0: Tensor, x: Tensor, s: Tensor, t: Tensor, length: Tensor) -> Tensor:
        there, now = ask.schedule.at(s), ask.schedule.at(t)
        moved = -torch.expm1(-length) * there.alpha
        return mixed(there.sigma / now.sigma, x, moved, x0)


def _half_fall(ask: Ask, s: Tensor, t: Tensor) -> Tensor:
    """ln(alpha / sigma) at s less that at t."""
    return 0.5 * (ask.schedule.at(s).log_snr - ask.schedule.at(t).log_snr)
