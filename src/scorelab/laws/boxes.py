"""The uniform law over boxes, whose noised marginals are differences of Gaussian distribution functions."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scorelab.laws.base import Drawn, Law, Moments, Posterior
from scorelab.tensors import log_interval

NODES = 24  # of a Gauss-Legendre rule, exact to rounding where the exponent changes by at most 2


@dataclass(frozen=True)
class Truncated:
    """A standard normal variable kept to [low, high]: log of its probability to be there, its mean and variance."""

    log_mass: Tensor
    mean: Tensor
    variance: Tensor


def truncated(low: Tensor, high: Tensor) -> Truncated:
    """Moments of N(0, 1) given low <= u <= high, elementwise in float64.

    mean r = (phi(low) - phi(high)) / Z and variance 1 + (low phi(low) - high phi(high)) / Z - r^2. Where the interval
    is so short that both cancel, a Gauss-Legendre rule.
    """
    short = (high - low) * torch.maximum(low.abs(), high.abs()).clamp(min=1) <= 2
    # each way is given harmless ends where the other counts, for the sake of gradients
    one = torch.ones_like(low)
    found = _by_rule(torch.where(short, low, -one), torch.where(short, high, one))
    closed = _in_closed_form(torch.where(short, -one, low), torch.where(short, one, high))
    return Truncated(*(torch.where(short, *pair) for pair in zip(_fields(found), _fields(closed), strict=True)))


def _in_closed_form(low: Tensor, high: Tensor) -> Truncated:
    log_mass = log_interval(low, high)
    at_low, at_high = (torch.exp(-0.5 * u**2 - 0.5 * math.log(2 * math.pi) - log_mass) for u in (low, high))
    mean = at_low - at_high
    return Truncated(log_mass, mean, (1 + low * at_low - high * at_high - mean**2).clamp(min=0))


def _fields(found: Truncated) -> tuple[Tensor, Tensor, Tensor]:
    return found.log_mass, found.mean, found.variance


def _by_rule(low: Tensor, high: Tensor) -> Truncated:
    """The same by quadrature, about the interval's middle."""
    nodes, weights = legendre(NODES)
    middle, half = (low + high) / 2, (high - low) / 2
    away = half[..., None] * nodes.to(low)
    density = torch.exp(-away * (middle[..., None] + 0.5 * away)) * weights.to(low)  # relative to the middle's
    mass = density.sum(-1)
    mean = (density * away).sum(-1) / mass
    variance = (density * away**2).sum(-1) / mass - mean**2
    log_mass = torch.log(half * mass) - 0.5 * middle**2 - 0.5 * math.log(2 * math.pi)
    return Truncated(log_mass, middle + mean, variance)


def legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss-Legendre rule on [-1, 1] (Golub & Welsch 1969)."""
    k = torch.arange(1, n, dtype=torch.float64)
    beside = k / torch.sqrt(4 * k**2 - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, 2 * vectors[0] ** 2


class Boxes(Law):
    """x_0 uniform over one of K boxes [l_k, h_k], each as likely.

    p_t(x) = mean_k prod_i [Phi((h_ki - x_i/alpha)/s) - Phi((l_ki - x_i/alpha)/s)] / (alpha (h_ki - l_ki)), s =
    sigma/alpha: given the box, every coordinate of x_0 is normal about x_i/alpha and kept to its side.

    Args:
        low: l (K, D).
        high: h (K, D), above l.

    Raises:
        ValueError: for a box without room.
    """

    low: Tensor
    high: Tensor
    labels = None

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        if low.shape != high.shape or not bool((low < high).all()):
            raise ValueError("every side of a box needs low < high")
        self.shape = low.shape[1:]
        self.register_buffer("low", low.double(), persistent=False)
        self.register_buffer("high", high.double(), persistent=False)

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x = alpha x_0 + sigma eps (B, D), for alpha and sigma > 0 (B,), in float64."""
        centre, scale = (x.double() / alpha[:, None])[:, None], (sigma / alpha)[:, None, None]
        of = truncated((self.low - centre) / scale, (self.high - centre) / scale)
        sides = torch.log(self.high - self.low).sum(1) + x.shape[1] * torch.log(alpha)[:, None]
        joint = of.log_mass.sum(2) - sides - math.log(len(self.low))
        share = torch.softmax(joint, 1)
        means = centre + scale * of.mean
        mean = torch.einsum("bk,bkd->bd", share, means)
        spread = (scale**2 * of.variance + (means - mean[:, None]) ** 2).sum(2)
        return Posterior(mean, (share * spread).sum(1), torch.logsumexp(joint, 1))

    def moments(self) -> Moments:
        """Of the boxes' middles, and of each box width^2 / 12 along its sides."""
        middle = (self.low + self.high) / 2
        mean = middle.mean(0)
        inner = torch.diag(((self.high - self.low) ** 2 / 12).mean(0))
        return Moments(mean, inner + (middle - mean).mT @ (middle - mean) / len(middle))

    def draw(self, n: int, generator: Generator | None) -> Drawn:
        """N independent samples, float64."""
        box = torch.randint(len(self.low), (n,), generator=generator).to(self.low.device)
        place = torch.rand((n, *self.shape), generator=generator, dtype=torch.float64).to(self.low)
        return Drawn(torch.lerp(self.low[box], self.high[box], place), None)

    def log_prob(self, x0: Tensor, label: Tensor | None = None) -> Tensor:
        """Log of the mean over boxes of 1/volume where x_0 lies within: nats (B,)."""
        inside = ((x0[:, None] >= self.low) & (x0[:, None] <= self.high)).all(2)
        return torch.log((inside / (self.high - self.low).prod(1)).mean(1))
