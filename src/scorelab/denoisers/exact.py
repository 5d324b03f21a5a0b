"""Laws of the data whose noised marginals are known in closed form, and the exact denoiser of any of them."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from scorelab.denoisers.base import Denoiser
from scorelab.denoisers.estimate import Estimate
from scorelab.denoisers.variance import Variance
from scorelab.errors import Refusal
from scorelab.schedules import Schedule
from scorelab.tensors import like


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


class Law(nn.Module):
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
        """Which points or components each query (B,) may have come from, (B, K); None for all.

        Raises:
            Refusal: for a label that nothing carries.
        """
        if label is None or self.labels is None:
            return None
        found = self.labels[None] == label[:, None]
        if not bool(found.any(1).all()):
            raise Refusal("a label was given that no point and no component has")
        return found


class Exact(Denoiser):
    """The denoiser of a law under a schedule: x^_0 is the posterior mean E[x_0 | x_t], its score that of p_t.

    Trains nothing. The law is told the label only where ``conditional``.
    """

    def __init__(
        self,
        schedule: Schedule,
        variance: Variance,
        law: Law,
        levels: int | None = None,
        conditional: bool = False,
    ) -> None:
        super().__init__(schedule, variance, levels)
        if conditional and law.labels is None:
            raise Refusal("a conditional denoiser needs a law with labels")
        self.law, self.conditional = law, conditional

    def posterior(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x_t (B, ...) at times t (B,), in float64, mixed precision or not."""
        with torch.autocast(x_t.device.type, enabled=False):
            return self.law.posterior(x_t, self.schedule.alpha(t), self.schedule.sigma(t), self.seen(label))

    def seen(self, label: Tensor | None) -> Tensor | None:
        """What of the label the law is told."""
        return label if self.conditional else None

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The posterior mean, and the noise that goes with it."""
        alpha, sigma = like(self.schedule.alpha(t), x_t.double()), like(self.schedule.sigma(t), x_t.double())
        mean = self.posterior(x_t, t, label).mean
        eps = (x_t.double() - alpha * mean) / sigma
        return Estimate(x_t, *(part.to(x_t.dtype) for part in (alpha, sigma, mean, eps)))

    def check(self) -> None:
        """Refuse a learned variance, of which the law says nothing.

        Raises:
            Refusal: for one.
        """
        if self.variance.outputs > 1:
            raise Refusal(
                "an exact denoiser says nothing of a learned variance: set variance=fixed_small or fixed_large"
            )
