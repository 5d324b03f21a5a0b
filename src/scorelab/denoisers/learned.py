"""Networks as denoisers: what the network's output stands for."""

from abc import abstractmethod

from torch import Tensor, nn

from scorelab.denoisers.base import Denoiser
from scorelab.denoisers.estimate import Estimate
from scorelab.denoisers.variance import Variance
from scorelab.schedules import Schedule
from scorelab.tensors import like


class Prediction:
    """What a network predicts, as the map from its output to an Estimate."""

    @abstractmethod
    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        """The estimate that this output (B, ...) stands for at x_t (B, ...)."""


class Eps(Prediction):
    """The network predicts the noise (Ho et al. 2020, eq. 11)."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        """eps^ is the output."""
        return Estimate.from_eps(x_t, alpha, sigma, output)


class X0(Prediction):
    """The network predicts the data."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        """x^_0 is the output."""
        return Estimate.from_x0(x_t, alpha, sigma, output)


class V(Prediction):
    """The network predicts v = alpha eps - sigma x_0 (Salimans & Ho 2022, section 4)."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Estimate:
        """v^ is the output."""
        return Estimate.from_v(x_t, alpha, sigma, output)


class NetworkDenoiser(Denoiser):
    """A network (x_t, 1000 t, label) -> output, read by a prediction.

    The network may compute in a lower precision (autocast); the estimate is in x_t's own.
    """

    def __init__(
        self,
        schedule: Schedule,
        network: nn.Module,
        prediction: Prediction,
        variance: Variance,
        levels: int | None = None,
    ) -> None:
        super().__init__(schedule, variance, levels)
        self.network = network
        self.prediction = prediction

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The network's estimate at times t (B,) in (0, 1]."""
        alpha, sigma = like(self.schedule.alpha(t), x_t), like(self.schedule.sigma(t), x_t)
        output = self.network(x_t, 1000.0 * t.to(x_t), label)
        return self.prediction.estimate(output.to(x_t.dtype), x_t, alpha, sigma)
