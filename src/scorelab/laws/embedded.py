"""A law in few dimensions, turned into many."""

import torch
from torch import Generator, Tensor

from scorelab.errors import Refusal
from scorelab.laws.base import Drawn, Law, Moments, Posterior


class Embedding(Law):
    """x_0 = Q y in D dimensions, for y of a law in d of them and an orthonormal Q (D, d).

    What lies beside Q's columns is noise alone, so with u = Q^T x, which is alpha y + sigma times white noise, the
    posterior of x_0 given x is Q times that of y given u, of the same trace, and
    log p(x) = log p(u) - (D - d)/2 ln(2 pi sigma^2) - ||x - Q u||^2 / 2 sigma^2. There is no density of x_0 itself
    where D > d.

    Raises:
        Refusal: where Q's columns are not orthonormal, or not as many as the law has dimensions.
    """

    basis: Tensor

    def __init__(self, of: Law, basis: Tensor) -> None:
        super().__init__()
        basis = basis.double()
        if basis.shape[1:] != of.shape:
            raise Refusal(f"a basis of {tuple(basis.shape)} does not fit a law of shape {tuple(of.shape)}")
        if not torch.allclose(basis.mT @ basis, torch.eye(basis.shape[1]).double(), atol=1e-8):
            raise Refusal("the columns of a basis are orthonormal")
        self.of = of
        self.shape = basis.shape[:1]
        self.has_density = of.has_density and len(basis) == basis.shape[1]
        self.register_buffer("basis", basis, persistent=False)

    @property
    def labels(self) -> Tensor | None:  # type: ignore[override]
        """The inner law's."""
        return self.of.labels

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x = alpha x_0 + sigma eps (B, D), for alpha and sigma (B,), in float64."""
        x = x.double()
        inner = x @ self.basis
        found = self.of.posterior(inner, alpha, sigma, label)
        more = len(self.basis) - self.basis.shape[1]
        log_prob = found.log_prob
        if more:
            beside = (x - inner @ self.basis.mT).square().sum(1)
            log_prob = log_prob - 0.5 * (more * torch.log(2 * torch.pi * sigma**2) + beside / sigma**2)
        return Posterior(found.mean @ self.basis.mT, found.trace, log_prob)

    def moments(self) -> Moments:
        """The inner law's, turned."""
        inner = self.of.moments()
        return Moments(self.basis @ inner.mean, self.basis @ inner.covariance @ self.basis.mT)

    def draw(self, n: int, generator: Generator | None) -> Drawn:
        """The inner law's draws, turned."""
        drawn = self.of.draw(n, generator)
        return Drawn(drawn.x0 @ self.basis.mT, drawn.label)
