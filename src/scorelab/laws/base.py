"""Laws of the data whose noised marginals are known in closed form."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from scorelab.errors import Refusal


@dataclass(frozen=True)
class Posterior:
    """The law of x_0 given x_t: its mean (B, ...), the trace of its covariance (B,), log p_t(x_t) in nats (B,)."""

    mean: Tensor
    trace: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Drawn:
    """Samples x0 (n, ...) of a law, and their labels (n,) where it has any."""

    x0: Tensor
    label: Tensor | None


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of x_0 as one row of numbers, float64."""

    mean: Tensor
    covariance: Tensor


class Law(nn.Module, ABC):
    """A law of x_0 whose marginal under x_t = alpha x_0 + sigma eps is known for every alpha and sigma.

    Where it has labels, one given to it leaves only what carries that label; where it has none, labels are ignored.
    Nothing of it is in a state dict: a law is given, not learned.

    Attributes:
        shape: of one x_0.
        labels: of its points or components, or None.
        has_density: whether x_0 itself has a density.
    """

    shape: torch.Size
    labels: Tensor | None
    has_density: bool = True

    @abstractmethod
    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x = alpha x_0 + sigma eps (B, ...), for alpha and sigma (B,), in float64."""

    @abstractmethod
    def draw(self, n: int, generator: Generator | None) -> Drawn:
        """N independent samples, on the law's device, from a generator on the CPU."""

    @abstractmethod
    def moments(self) -> Moments:
        """Mean and covariance of x_0."""

    def references(self, n: int, generator: Generator | None) -> Drawn:
        """N points for an average over the law: independent draws, or distinct points of a finite set."""
        return self.draw(n, generator)

    def log_prob(self, x0: Tensor, label: Tensor | None = None) -> Tensor:
        """Log density of x_0 itself, nats (B,), float64.

        Raises:
            ValueError: for a law without a density.
        """
        if not self.has_density:
            raise ValueError(f"{type(self).__name__} has no density")
        one = torch.ones(len(x0), dtype=torch.float64, device=x0.device)
        return self.posterior(x0, one, torch.zeros_like(one), label).log_prob

    def chosen(self, label: Tensor | None) -> Tensor | None:
        """Which points or components each query (B,) may have come from, (B, K); None for all; -1 is no label.

        Raises:
            Refusal: for a label that nothing carries.
        """
        if label is None or self.labels is None:
            return None
        found = (self.labels[None] == label[:, None]) | (label < 0)[:, None]
        if not bool(found.any(1).all()):
            raise Refusal("a label was given that no point and no component has")
        return found
