"""The probability flow by a solver that chooses its own steps."""

from typing import Self

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.errors import Refusal
from scorelab.samplers.base import Ask, Sampler
from scorelab.samplers.spacing import NEAR
from scorelab.tensors import like

LONGEST = 1.0  # step in u: where all is noise the rates are nearly nothing, and a solver would leap over what follows
ABOUT = 100  # evaluations at a tolerance of 1e-5, of networks trained on images


class RK45(Sampler):
    """Dormand & Prince, of order 5, along u = -lambda/2 (torchdiffeq), then x^_0 (Song et al. 2021, section 4.3).

    In z = x / sqrt(a) the flow is dz/du = s (eps^ - s z), s = sigma / sqrt(a), in every family. Steps are those of all
    samples that are drawn together, so a sample depends on the others within the tolerance. How often it asks is known
    only afterwards; about 100 times is what is told before.

    Args:
        tolerance: absolute and relative, of a step's error.
        clip: cuts every x^_0 to [-1, 1], for pixels only, which makes the flow less smooth.

    Raises:
        Refusal: for a tolerance that is not above 0.
    """

    order = 5
    stochastic = False
    adaptive = True
    needs_signal = True

    def __init__(self, tolerance: float = 1e-5, clip: bool = False) -> None:
        super().__init__(None, clip)
        if not 0 < tolerance < 1:
            raise Refusal(f"tolerance must lie in (0, 1), got {tolerance}")
        self.tolerance = tolerance

    def with_steps(self, steps: int) -> Self:
        """Itself: it has no number of steps."""
        return self

    def times(self, denoiser: Denoiser) -> Tensor:
        """The latest time, the earliest, and 0."""
        earliest, latest = denoiser.time_range()
        return torch.tensor([latest, max(earliest, NEAR), 0.0], dtype=torch.float64)

    def evaluations(self, denoiser: Denoiser) -> int:
        """About how often; see above.

        Raises:
            Refusal: for a schedule that ends without signal, at u = infinity.
        """
        self.see_signal(denoiser)
        return ABOUT

    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """All of it: from t to s."""
        from torchdiffeq import odeint

        schedule, x = ask.schedule, estimate.x_t
        u = -0.5 * schedule.log_snr(torch.stack([t[0], s[0]]))
        low, high = -2 * u

        def power(t: Tensor) -> Tensor:
            return torch.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)

        def rate(u: Tensor, z: Tensor) -> Tensor:
            at = schedule.inverse((-2 * u).clamp(low, high).expand(len(x)))
            spread = like(schedule.sigma(at) / power(at), z)
            eps = ask((like(power(at), z) * z).to(x.dtype), at).eps.to(z.dtype)
            return spread * (eps - spread * z)

        begin = x.double() / like(power(t), x.double())
        exact = {"rtol": self.tolerance, "atol": self.tolerance, "options": {"max_step": LONGEST}}
        z = odeint(rate, begin, u, method="dopri5", **exact)
        return (like(power(s), begin) * z[-1]).to(x.dtype)
