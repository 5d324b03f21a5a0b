"""The variance of a loss's gradient under other laws of times, from what is known of each bin of log-SNR."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bin:
    """The gradient g of one image's loss, its time in one bin of log-SNR.

    Attributes:
        levels: the card's levels that fall into it.
        probability: p, of a training time to be in it.
        t_low, t_high: the times between which it lies.
        variance: trace of the covariance of g given the bin.
        mean_square: ||E[g | bin]||^2, unbiased, so it may come out below 0.
        error: by how much the square of the bin's estimated mean exceeds ``mean_square`` on average.
        loss_square: E[L^2 | bin].
    """

    levels: Tensor
    probability: float
    t_low: float
    t_high: float
    variance: float
    mean_square: float
    error: float
    loss_square: float

    @property
    def second_moment(self) -> float:
        """E[||g||^2 | bin]."""
        return self.variance + self.mean_square


@dataclass(frozen=True)
class Noise:
    """The variance of one image's gradient under laws of times that leave the expected gradient what it is.

    With p the probability of each bin under uniform times and M = E[||g||^2 | bin]: a law q divided by its density
    has variance sum p^2 M / q - ||E g||^2; stratified times, sum p Var(g | bin). ``mean`` is the estimate of E g.
    """

    bins: list[Bin]
    mean: Tensor

    @property
    def mean_square(self) -> float:
        """||E g||^2, unbiased."""
        return float(self.mean.square().sum()) - sum(each.probability**2 * each.error for each in self.bins)

    def under(self, q: list[float]) -> float:
        """The variance when bins are drawn in proportion to q."""
        total = sum(q)
        found = zip(self.bins, q, strict=True)
        return sum(b.probability**2 * b.second_moment * total / each for b, each in found) - self.mean_square

    @property
    def uniform(self) -> float:
        """Independent uniform times."""
        return self.under([each.probability for each in self.bins])

    @property
    def stratified(self) -> float:
        """One time in each of many equal parts: what varies between the bins is gone."""
        return sum(each.probability * each.variance for each in self.bins)

    @property
    def importance(self) -> float:
        """Times drawn in proportion to the root of the mean squared loss, a thousandth uniform."""
        q = [each.probability * math.sqrt(each.loss_square) for each in self.bins]
        return self.under([0.999 * b / sum(q) + 0.001 * each.probability for b, each in zip(q, self.bins, strict=True)])

    @property
    def logitnormal(self) -> float:
        """Times t = 1 / (1 + e^-z), z ~ N(0, 1), a tenth of the times uniform, without which the weights have no bound.

        The logit-normal law of Esser et al. 2024, "Scaling rectified flow transformers", eq. 19.
        """
        ends = torch.tensor([[each.t_low, each.t_high] for each in self.bins], dtype=torch.float64)
        cdf = torch.special.ndtr(torch.logit(ends))
        law = (cdf[:, 1] - cdf[:, 0]) / (cdf[:, 1] - cdf[:, 0]).sum()
        return self.under([0.9 * q + 0.1 * each.probability for q, each in zip(law.tolist(), self.bins, strict=True)])

    @property
    def least(self) -> float:
        """The best law over these bins, in proportion to p sqrt(M)."""
        return self.under([each.probability * math.sqrt(max(each.second_moment, 1e-30)) for each in self.bins])
