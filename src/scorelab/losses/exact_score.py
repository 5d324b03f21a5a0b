"""Regression onto the marginal score itself, known or averaged over references."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.errors import Refusal
from scorelab.losses.base import Example, Terms, eps_error
from scorelab.losses.score_matching import ScoreLoss
from scorelab.tensors import mean_except_batch


class ESM(ScoreLoss):
    """w(t) mean ||s^ - s_t(x_t)||^2 over dimensions, s_t = grad log p_t the marginal score (Vincent 2011, eq. 3).

    E ||s^ - s(x_t | x_0)||^2 = E ||s^ - s_t||^2 + E tr Var(s(x_t | x_0) | x_t): the minimiser of ``DSM``, without the
    noise of its target.

    With ``references`` of M, s_t is averaged over M points only, the sample's own x_0 among them:
    s = sum_j w_j (alpha x_j - x_t) / sigma^2, w = softmax_j(-||x_t - alpha x_j||^2 / 2 sigma^2) (Xu et al. 2023,
    "Stable target field for reduced variance score estimation", eq. 8). M = 1 is ``DSM``; all points of a finite set
    are exact. Between, the target is calmer, and its mean given x_t is s_t still: the own point and the others are
    exchangeable, so w_j is the probability that x_t was made of x_j.

    Args:
        weight: see ``ScoreLoss``.
        references: M; None for the exact score.
        normalize: see ``Loss``.

    Raises:
        Refusal: for fewer than 1 reference.
    """

    def __init__(
        self,
        weight: Literal["one", "sigma2", "g2"] = "sigma2",
        references: int | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__(weight, normalize)
        if references is not None and references < 1:
            raise Refusal(f"references must be at least 1, or null for the exact score, got {references}")
        self.references = references

    @property
    def needs_exact(self) -> bool:
        """Whether the law of the training data is asked: for all but the sample's own point."""
        return self.references != 1

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """The weighted error of each sample's score, (B,)."""
        with torch.no_grad():
            score = self.target(example, generator)
        estimate = denoiser(example.x_t, example.t, example.label)
        each = self.weighted(denoiser, example.t, mean_except_batch((estimate.score - score) ** 2))
        return Terms(each, eps_error=eps_error(example, estimate))

    def shortfall(self, floor: Tensor) -> Tensor:
        """The floor itself, or 0 of one reference; unknown between."""
        return {None: floor, 1: torch.zeros_like(floor)}.get(self.references, torch.full_like(floor, math.nan))

    def target(self, example: Example, generator: Generator | None = None) -> Tensor:
        """The score that is regressed onto, (B, ...), at x_t made of x_0 and eps.

        Raises:
            ValueError: without the exact denoiser, where more than the sample's own point is asked for.
        """
        exact, label = example.exact, example.label
        if self.references == 1:
            return example.noised.score
        if exact is None:
            raise ValueError("the exact score needs the exact denoiser of the training data")
        if self.references is None:
            return exact(example.x_t, example.t, label).score
        drawn = exact.law.references(self.references, generator)
        wrong = None
        if exact.conditional and label is not None and drawn.label is not None:
            wrong = drawn.label[None] != label[:, None]
        return averaged_score(example.noised, drawn.x0, wrong)


def averaged_score(target: Estimate, references: Tensor, wrong: Tensor | None = None) -> Tensor:
    """The score of the uniform law over a sample's own x_0 and M references, at x_t (B, ...) made of that x_0.

    The own point takes the place of the last reference, unless it is one of them already. ``wrong`` (B, M) are
    references of another label, which do not count.
    """
    x0, points = target.x0.double().flatten(1), references.double().flatten(1)
    x_t, alpha, sigma = (
        target.x_t.double().flatten(1),
        target.alpha.double().flatten(1),
        target.sigma.double().flatten(1),
    )
    exact = "donot_use_mm_for_euclid_dist"  # products would cancel where noise is small
    same = torch.cdist(x0, points, compute_mode=exact) == 0
    away = alpha * torch.cdist(x_t / alpha, points, compute_mode=exact)
    logits = -(away**2) / (2 * sigma**2)
    if wrong is not None:
        same, logits = same & ~wrong, logits.masked_fill(wrong, -math.inf)
    known = same.any(1)
    logits[~known, -1] = -math.inf
    own = -(x_t - alpha * x0).square().sum(1, keepdim=True) / (2 * sigma**2)
    own = own.masked_fill(known[:, None], -math.inf)
    weights = torch.softmax(torch.cat([own, logits], 1), 1)
    mean = weights[:, :1] * x0 + weights[:, 1:] @ points
    return ((alpha * mean - x_t) / sigma**2).reshape(target.x_t.shape).to(target.x_t.dtype)
