"""Gaussian mixtures, whose noised marginals are Gaussian mixtures."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scorelab.errors import Refusal
from scorelab.laws.base import Drawn, Law, Moments, Posterior


@dataclass(frozen=True)
class Components:
    """Of B queries and K components: log p(x_t | k) (B, K), E[x_0 | x_t, k] (B, K, d), tr Cov(x_0 | x_t, k) (B, K)."""

    log_prob: Tensor
    mean: Tensor
    trace: Tensor


class Mixture(Law):
    """x_0 ~ sum_k p_k N(m_k, S_k), so x_t ~ sum_k p_k N(alpha m_k, C_k) with C_k = alpha^2 S_k + sigma^2 I.

    Given k, x_0 has mean m_k + alpha S_k C_k^-1 (x_t - alpha m_k) and covariance sigma^2 S_k C_k^-1; over k both are
    weighted by softmax_k(log p_k + log N(x_t; alpha m_k, C_k)). All in float64.

    Args:
        means: m_1 ... m_K (K, ...).
        weights: p_1 ... p_K (K,), in proportion; equal where None.
        labels: a label for each component (K,), or None.

    Raises:
        ValueError: for a weight that is not above 0, or another number of weights or labels.
    """

    means: Tensor
    log_weights: Tensor

    def __init__(self, means: Tensor, weights: Tensor | None = None, labels: Tensor | None = None) -> None:
        super().__init__()
        weights = torch.ones(len(means)) if weights is None else weights
        for name, given in (("weights", weights), ("labels", labels)):
            if given is not None and len(given) != len(means):
                raise ValueError(f"{len(means)} components, but {len(given)} {name}")
        if not bool((weights > 0).all()):
            raise ValueError("every weight of a mixture is above 0")
        self.shape = means.shape[1:]
        self.register_buffer("means", means.double().flatten(1), persistent=False)
        self.register_buffer("log_weights", torch.log_softmax(torch.log(weights.double()), 0), persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    @abstractmethod
    def components(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        """What each component says of x (B, d) at alpha and sigma (B,)."""

    @abstractmethod
    def covariance(self, k: int) -> Tensor:
        """S_k (d, d)."""

    def moments(self) -> Moments:
        """sum_k p_k m_k, and sum_k p_k (S_k + (m_k - m) (m_k - m)^T)."""
        p = self.log_weights.exp()
        mean = p @ self.means
        away = self.means - mean
        inner = sum(float(p[k]) * self.covariance(k) for k in range(len(p)))
        return Moments(mean, inner + (p[:, None] * away).mT @ away)

    @abstractmethod
    def noise(self, component: Tensor, generator: Generator | None) -> Tensor:
        """Draws (n, d) of N(0, S_k) for the components k (n,)."""

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x = alpha x_0 + sigma eps (B, ...), for alpha and sigma (B,), in float64.

        Raises:
            ValueError: for a label that no component has.
        """
        of = self.components(x.double().flatten(1), alpha, sigma)
        joint = of.log_prob + self._prior(label)
        share = torch.softmax(joint, 1)
        mean = torch.einsum("bk,bkd->bd", share, of.mean)
        spread = (of.mean - mean[:, None]).square().sum(2)
        return Posterior(mean.reshape(x.shape), (share * (of.trace + spread)).sum(1), torch.logsumexp(joint, 1))

    def _prior(self, label: Tensor | None) -> Tensor:
        """Log p_k, or log p(k | label), (1, K) or (B, K)."""
        if (chosen := self.chosen(label)) is None:
            return self.log_weights[None]
        return torch.log_softmax(self.log_weights.masked_fill(~chosen, -math.inf), 1)

    def draw(self, n: int, generator: Generator | None) -> Drawn:
        """N independent samples, float64."""
        component = torch.multinomial(self.log_weights.exp().cpu(), n, replacement=True, generator=generator)
        component = component.to(self.means.device)
        x0 = (self.means[component] + self.noise(component, generator)).reshape(n, *self.shape)
        return Drawn(x0, None if self.labels is None else self.labels[component])


class GaussianMixture(Mixture):
    """A mixture with full covariances S_k (K, d, d), by their eigenvectors; arguments as for ``Mixture``.

    Raises:
        Refusal: for covariances that are not symmetric and positive semidefinite.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__(means, weights, labels)
        covariances = covariances.double()
        if covariances.shape != (*self.means.shape, self.means.shape[1]):
            raise ValueError(f"covariances of shape {tuple(covariances.shape)} do not fit means {tuple(means.shape)}")
        if not torch.allclose(covariances, covariances.mT, atol=1e-8):
            raise Refusal("a covariance is not symmetric")
        values, vectors = torch.linalg.eigh(covariances)
        if float(values.min()) < -1e-8 * float(values.max()):
            raise Refusal(f"a covariance has the eigenvalue {float(values.min()):.3g}, below 0")
        self.register_buffer("eigenvalues", values.clamp(min=0), persistent=False)
        self.register_buffer("eigenvectors", vectors, persistent=False)
        self.has_density = float(values.min()) > 1e-12 * float(values.max())

    def components(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        """In each component's own axes, where everything is a product over dimensions."""
        alpha, sigma = alpha[:, None, None], sigma[:, None, None]
        away = torch.einsum("bkd,kde->bke", x[:, None] - alpha * self.means, self.eigenvectors)
        total = alpha**2 * self.eigenvalues + sigma**2
        log_prob = -0.5 * (away**2 / total + torch.log(2 * math.pi * total)).sum(2)
        inner = torch.einsum("bke,kde->bkd", alpha * self.eigenvalues / total * away, self.eigenvectors)
        return Components(log_prob, self.means + inner, (sigma**2 * self.eigenvalues / total).sum(2))

    def covariance(self, k: int) -> Tensor:
        """From its axes."""
        return (self.eigenvectors[k] * self.eigenvalues[k]) @ self.eigenvectors[k].mT

    def noise(self, component: Tensor, generator: Generator | None) -> Tensor:
        """The eigenvectors, scaled by the roots of their eigenvalues, times white noise."""
        white = torch.randn(len(component), self.means.shape[1], generator=generator, dtype=torch.float64)
        scaled = white.to(self.means.device) * self.eigenvalues[component].sqrt()
        return torch.einsum("ne,nde->nd", scaled, self.eigenvectors[component])


class LowRankMixture(Mixture):
    """A mixture with S_k = F_k F_k^T + diag(D_k), for images, whose full covariances would be too large.

    With A = alpha^2 D + sigma^2 (d,) and M = I + alpha^2 F^T A^-1 F (r, r): C^-1 = A^-1 - alpha^2 A^-1 F M^-1 F^T A^-1
    and log det C = sum log A + log det M (the matrix inversion and determinant lemmas).

    Args:
        means: (K, ...).
        factors: F (K, d, r).
        diagonals: D (K, ...), at least 0.
        weights: as for ``Mixture``.
        labels: as for ``Mixture``.

    Raises:
        ValueError: for shapes that do not fit, or a negative diagonal.
    """

    factors: Tensor
    diagonals: Tensor

    def __init__(
        self,
        means: Tensor,
        factors: Tensor,
        diagonals: Tensor,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__(means, weights, labels)
        diagonals = diagonals.double().flatten(1)
        if factors.shape[:2] != self.means.shape or diagonals.shape != self.means.shape:
            raise ValueError(f"factors {tuple(factors.shape)} and diagonals do not fit means {tuple(means.shape)}")
        if bool((diagonals < 0).any()):
            raise ValueError("a diagonal is below 0")
        self.register_buffer("factors", factors.double(), persistent=False)
        self.register_buffer("diagonals", diagonals, persistent=False)

    def components(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        """One component after the other; memory goes as B d r."""
        found = [self._component(k, x, alpha[:, None], sigma[:, None]) for k in range(len(self.means))]
        names = ("log_prob", "mean", "trace")
        return Components(*(torch.stack([getattr(each, name) for each in found], 1) for name in names))

    def _component(self, k: int, x: Tensor, alpha: Tensor, sigma: Tensor) -> Components:
        factor, diagonal, away = self.factors[k], self.diagonals[k], x - alpha * self.means[k]
        inverse = 1 / (alpha**2 * diagonal + sigma**2)
        gram = torch.einsum("dr,bd,ds->brs", factor, inverse, factor)
        root = torch.linalg.cholesky(torch.eye(gram.shape[1]).to(gram) + alpha[:, None] ** 2 * gram)
        seen = (inverse * away) @ factor
        solved = torch.cholesky_solve(seen[..., None], root)[..., 0]
        whitened = inverse * (away - alpha**2 * solved @ factor.T)  # C^-1 (x - alpha m)
        log_det = -torch.log(inverse).sum(1) + 2 * torch.log(root.diagonal(dim1=1, dim2=2)).sum(1)
        log_prob = -0.5 * ((away * whitened).sum(1) + log_det + x.shape[1] * math.log(2 * math.pi))
        mean = self.means[k] + alpha * (diagonal * whitened + (whitened @ factor) @ factor.T)
        # tr S C^-1 = tr M^-1 G + sum D/A - alpha^2 tr M^-1 F^T A^-1 D A^-1 F, G = F^T A^-1 F
        inner = torch.einsum("dr,bd,ds->brs", factor, inverse**2 * diagonal, factor)
        of_factor = torch.cholesky_solve(gram - alpha[:, None] ** 2 * inner, root).diagonal(dim1=1, dim2=2).sum(1)
        trace = sigma[:, 0] ** 2 * (of_factor + (diagonal * inverse).sum(1))
        return Components(log_prob, mean, trace)

    def covariance(self, k: int) -> Tensor:
        """F F^T + diag(D)."""
        return self.factors[k] @ self.factors[k].mT + torch.diag(self.diagonals[k])

    def noise(self, component: Tensor, generator: Generator | None) -> Tensor:
        """F u + sqrt(D) v, u and v white noise."""
        factors, diagonals = self.factors[component], self.diagonals[component]
        u = torch.randn(len(component), factors.shape[2], generator=generator, dtype=torch.float64).to(factors)
        v = torch.randn(diagonals.shape, generator=generator, dtype=torch.float64).to(factors)
        return torch.einsum("ndr,nr->nd", factors, u) + diagonals.sqrt() * v
