"""Score matching without a target: the unknown score is traded for the divergence of the predicted one."""

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorelab.denoisers import Denoiser
from scorelab.losses.base import Example, Terms, eps_error
from scorelab.losses.score_matching import ScoreLoss
from scorelab.tensors import divergence, slope_along, standard_normal, sum_except_batch


class Implicit(ScoreLoss):
    """What the two have in common: E[loss / w] = E||eps - eps^||^2 / d - 1.

    For E||s - s_t||^2 = E||s||^2 + 2 E tr ds/dx + E||s_t||^2 by parts, and sigma^2 E||s_t||^2 + E||eps - E[eps|x_t]||^2
    = E||eps||^2 = d: no law needs to be known.
    """

    def shortfall(self, floor: Tensor) -> Tensor:
        """1, the power of the noise."""
        return torch.ones_like(floor)


class ISM(Implicit):
    """w(t) (||s||^2 + 2 tr ds/dx) / d at x_t (Hyvarinen 2005, "Estimation of non-normalized models", eq. 4).

    Its mean is that of w ||s - s_t||^2 / d less E w ||s_t||^2 / d, s_t the score of the marginal p_t: so it may be
    below 0. The trace takes one backward pass for each dimension, and training differentiates through them.
    """

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """The loss of each sample, (B,)."""
        x_t = example.x_t.detach().requires_grad_(True)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            estimate = denoiser(x_t, example.t, example.label)
            score = estimate.score
            each = sum_except_batch(score**2) + 2 * divergence(score, x_t)
        loss = self.weighted(denoiser, example.t, each / x_t[0].numel())
        return Terms(loss, eps_error=eps_error(example, estimate))

    def cost(self, dims: int) -> int:
        """Forward, and a backward pass of twice its work for each dimension."""
        return 1 + 2 * dims


class SSM(Implicit):
    """w(t) ((v . s)^2 + 2 v^T ds/dx v) / d at x_t, along one random v for each sample.

    Song et al. 2019, "Sliced score matching", eq. 7. E v v^T = I, so its mean is that of ``ISM``. Reduced, the first
    term is ||s||^2, its own mean over v (eq. 8).

    Args:
        weight: see ``ScoreLoss``.
        slices: the law of v: "rademacher", each entry -1 or 1, or "gaussian".
        reduced: whether the first term is replaced by its mean.
        normalize: see ``Loss``.
    """

    def __init__(
        self,
        weight: Literal["one", "sigma2", "g2"] = "sigma2",
        slices: Literal["rademacher", "gaussian"] = "rademacher",
        reduced: bool = True,
        normalize: bool = True,
    ) -> None:
        super().__init__(weight, normalize)
        self.slices, self.reduced = slices, reduced

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """The loss of each sample, (B,)."""
        x_t = example.x_t.detach().requires_grad_(True)
        v = standard_normal(x_t.shape, generator).to(x_t)
        if self.slices == "rademacher":
            v = torch.where(v < 0, -1.0, 1.0).to(x_t)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            estimate = denoiser(x_t, example.t, example.label)
            score = estimate.score
            square = sum_except_batch(score**2) if self.reduced else sum_except_batch(v * score) ** 2
            each = square + 2 * slope_along(score, x_t, v)
        loss = self.weighted(denoiser, example.t, each / x_t[0].numel())
        return Terms(loss, eps_error=eps_error(example, estimate))

    def cost(self, dims: int) -> int:
        """Forward, and a backward pass of twice its work."""
        return 3
