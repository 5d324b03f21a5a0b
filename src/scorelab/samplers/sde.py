"""Samplers of the reverse SDE dx = (f x - g^2 score) dt + g dw (Song et al. 2021, eq. 6)."""

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Estimate
from scorelab.errors import Refusal
from scorelab.samplers.base import Ask, Sampler, noise
from scorelab.tensors import like


class EulerMaruyama(Sampler):
    """x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) z, f and g those of t."""

    order = 1
    stochastic = True
    needs_signal = True

    def __init__(self, steps: int = 500, clip: bool = True, spacing: str = "trailing") -> None:
        super().__init__(steps, clip, spacing)

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """One step of the reverse equation."""
        x, length, now = estimate.x_t, t - s, ask.schedule.at(t)
        drift = like(now.f, x) * x - like(now.g2, x) * estimate.score
        return x - like(length, x) * drift + like(torch.sqrt(now.g2 * length), x) * noise(x, generator)


class PredictorCorrector(Sampler):
    """A step of Langevin dynamics at t, then one of reverse diffusion to s (Song et al. 2021, algorithms 2-5).

    Corrector: x + e score + sqrt(2 e) z with e = 2 (snr sigma)^2. (The paper divides by the norm of the batch's scores,
    which is about sigma^-1 sqrt(d), so that a sample depends on those beside it; here it does not.) Predictor:
    x_s = (2 - alpha_{t|s}) x + sigma^2_{t|s} score + sigma_{t|s} z. Two evaluations a step; the last ends on x^_0,
    without noise.

    Raises:
        Refusal: for snr outside (0, 1).
    """

    order = 1
    stochastic = True
    evaluations_per_step = 2

    def __init__(self, steps: int = 500, snr: float = 0.16, clip: bool = True, spacing: str = "trailing") -> None:
        super().__init__(steps, clip, spacing)
        if not 0 < snr < 1:
            raise Refusal(f"snr must lie in (0, 1), got {snr}")
        self.snr = snr

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """Corrected at t, asked again, predicted at s."""
        x, step = estimate.x_t, ask.schedule.transition(s, t)
        along = like(2 * (self.snr * step.sigma_t) ** 2, x)
        x = x + along * estimate.score + torch.sqrt(2 * along) * noise(x, generator)
        score, variance = ask(x, t).score, like(step.forward_variance, x)
        mean = like(2 - step.alpha_t / step.alpha_s, x) * x + variance * score
        return mean + torch.sqrt(variance) * noise(x, generator)
