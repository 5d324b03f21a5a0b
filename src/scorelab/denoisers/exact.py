"""Laws of the data whose noised marginals are known in closed form, and the exact denoiser of any of them."""

import torch
from torch import Tensor

from scorelab.denoisers.base import Denoiser
from scorelab.denoisers.estimate import Estimate, Rates
from scorelab.denoisers.variance import Variance
from scorelab.errors import Refusal
from scorelab.laws import GaussianMixture, Law, Posterior
from scorelab.schedules import Schedule


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

    @property
    def label_free(self) -> bool:
        """Whether the law is told labels: -1 is the whole of it."""
        return self.conditional

    def posterior(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x_t (B, ...) at times t (B,), in float64, mixed precision or not."""
        with torch.autocast(x_t.device.type, enabled=False):
            level = self.schedule.at(t)
            return self.law.posterior(x_t, level.alpha, level.sigma, self.label_for_law(label))

    def label_for_law(self, label: Tensor | None) -> Tensor | None:
        """What of the label the law is told."""
        return label if self.conditional else None

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The posterior mean, and the noise that goes with it."""
        alpha, sigma = self.schedule.at(t).factors(x_t.double())
        mean = self.posterior(x_t, t, label).mean
        eps = (x_t.double() - alpha * mean) / sigma
        alpha, sigma, mean, eps = (part.to(x_t.dtype) for part in (alpha, sigma, mean, eps))
        return Estimate(x_t, alpha, sigma, mean, eps, rates=Rates(self.schedule, t))

    def check(self) -> None:
        """Refuse a learned variance, of which the law says nothing.

        Raises:
            Refusal: for one.
        """
        if self.variance.outputs > 1:
            raise Refusal(
                "an exact denoiser says nothing of a learned variance: set variance=fixed_small or fixed_large"
            )


class BestLinear(Exact):
    """The exact denoiser of the Gaussian that has a law's mean and covariance: of all that are affine in x_t the best.

    x^_0 = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha m). What a network does better than it is not in the
    data's first two moments. Labels are not looked at.
    """

    def __init__(
        self,
        schedule: Schedule,
        variance: Variance,
        law: Law,
        levels: int | None = None,
    ) -> None:
        super().__init__(schedule, variance, gaussian(law), levels)


def gaussian(law: Law) -> GaussianMixture:
    """The Gaussian of a law's mean and covariance."""
    moments = law.moments()
    return GaussianMixture(moments.mean.reshape(1, *law.shape), moments.covariance[None])
