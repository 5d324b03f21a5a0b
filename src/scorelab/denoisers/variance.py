"""The variance s^2 of a reverse step p(x_s | x_t) = N(posterior mean at x^_0, s^2 I)."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from scorelab.denoisers.estimate import Estimate
from scorelab.errors import Refusal
from scorelab.schedules import Transition
from scorelab.tensors import like


class Variance(ABC):
    """How uncertain a reverse step is. Answers are log s^2, broadcastable to x.

    ``outputs`` is how many numbers per dimension a network must say for it: 1 for its prediction alone. ``bounded``
    says whether the process gives the least and the greatest that s^2 can be.
    """

    outputs: int = 1
    bounded: bool = True

    def read(self, estimate: Estimate, *said: Tensor) -> Estimate:
        """The estimate with what the network says of the variance, ``outputs`` - 1 tensors (B, ...)."""
        return estimate

    @abstractmethod
    def log_variance(self, step: Transition, estimate: Estimate) -> Tensor:
        """Log s^2 of the step from t to s > 0."""

    def log_decoder_variance(self, first: Transition, second: Transition, pixels: bool, estimate: Estimate) -> Tensor:
        """Log s^2 of the last step, from t_1 to the data.

        beta~ is 0 there; for pixels both published fixed variances take beta~ of the step before (``second``)
        instead, for points the Gaussian decoder has the variance sigma^2_{1|0} (of ``first``).
        """
        variance = second.posterior_variance if pixels else first.forward_variance
        return like(torch.log(variance), estimate.x_t)


class FixedSmall(Variance):
    """s^2 = beta~, right when x_0 is one point (Ho et al. 2020, section 3.2)."""

    def log_variance(self, step: Transition, estimate: Estimate) -> Tensor:
        """Log beta~."""
        return like(torch.log(step.posterior_variance), estimate.x_t)


class FixedLarge(Variance):
    """s^2 = sigma^2_{t|s}, right when x_0 is white noise (Ho et al. 2020, section 3.2: beta_t)."""

    def log_variance(self, step: Transition, estimate: Estimate) -> Tensor:
        """Log sigma^2_{t|s}."""
        return like(torch.log(step.forward_variance), estimate.x_t)


class Learned(Variance):
    """log s^2 = f log sigma^2_{t|s} + (1 - f) log beta~ in every dimension, f = (v + 1)/2, v the network's output.

    Nichol & Dhariwal 2021, eq. 15. v is meant for [-1, 1] and not cut to it.
    """

    outputs = 2

    def read(self, estimate: Estimate, *said: Tensor) -> Estimate:
        """F is (v + 1) / 2."""
        (v,) = said
        return replace(estimate, variance_fraction=(v + 1) / 2)

    def log_variance(self, step: Transition, estimate: Estimate) -> Tensor:
        """Between log beta~ and log sigma^2_{t|s}."""
        return _between(torch.log(step.posterior_variance), torch.log(step.forward_variance), estimate)

    def log_decoder_variance(self, first: Transition, second: Transition, pixels: bool, estimate: Estimate) -> Tensor:
        """Between the fixed variances' entry of the last step and log sigma^2_{1|0}."""
        low = second.posterior_variance if pixels else first.forward_variance
        return _between(torch.log(low), torch.log(first.forward_variance), estimate)


class LearnedFree(Variance):
    """log s^2 is the network's output, in every dimension: a diagonal without bounds (Nichol & Dhariwal 2021, eq. 14).

    The paper found it unstable; ``Learned`` is what it proposes instead.
    """

    outputs = 2
    bounded = False

    def read(self, estimate: Estimate, *said: Tensor) -> Estimate:
        """As it is said."""
        (log_variance,) = said
        return replace(estimate, log_variance=log_variance)

    def log_variance(self, step: Transition, estimate: Estimate) -> Tensor:
        """What was said."""
        if estimate.log_variance is None:
            raise Refusal("a learned variance needs a denoiser that says one")
        return estimate.log_variance

    def log_decoder_variance(self, first: Transition, second: Transition, pixels: bool, estimate: Estimate) -> Tensor:
        """What was said, too."""
        return self.log_variance(first, estimate)


def _between(low: Tensor, high: Tensor, estimate: Estimate) -> Tensor:
    if estimate.variance_fraction is None:
        raise Refusal("a learned variance needs a denoiser that says one")
    return torch.lerp(like(low, estimate.x_t), like(high, estimate.x_t), estimate.variance_fraction)
