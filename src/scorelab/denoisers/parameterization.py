"""Networks as denoisers: what the network is fed, and what its output stands for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scorelab.denoisers.base import Denoiser
from scorelab.denoisers.estimate import Estimate, Rates
from scorelab.denoisers.variance import Variance
from scorelab.errors import Refusal
from scorelab.schedules import Schedule


@dataclass(frozen=True)
class NetworkInput:
    """What a network is given: x (B, ...), and ``condition`` (B,), a number that tells it the noise level."""

    x: Tensor
    condition: Tensor


class Parameterization(ABC):
    """What a network is fed and what its output means.

    To write one: a subclass with ``estimate``, and with ``inputs`` where the network is fed something else than x_t
    and 1000 t. Both are in x_t's precision, elementwise, and finite at every training time; ``estimate`` is affine in
    the output, and its x0 and eps make up x_t, each by the formula that does not lose digits at either end of the
    process. A schedule under which the output would say nothing of the data is refused by ``check``.
    """

    def inputs(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, t: Tensor) -> NetworkInput:
        """What the network is fed for x_t (B, ...), alpha and sigma (B, 1, ...) at times t (B,): x_t and 1000 t."""
        return NetworkInput(x_t, 1000.0 * t.to(x_t))

    @abstractmethod
    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """The estimate that this output (B, ...) stands for at x_t (B, ...), alpha and sigma (B, 1, ...).

        ``rates`` are alpha' and sigma' (B,), for outputs that stand for a velocity.
        """

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule under which the output would say nothing of the data.

        Raises:
            Refusal: one sentence that says what to change.
        """
        return


class NetworkDenoiser(Denoiser):
    """A network (x, condition, label) -> output (B, C, ...), fed and read by a prediction.

    Where the variance is learned, the output has twice the channels: the prediction, then what the variance reads. The
    network may compute in a lower precision (autocast); the estimate is in x_t's own.
    """

    def __init__(
        self,
        schedule: Schedule,
        network: nn.Module,
        prediction: Parameterization,
        variance: Variance,
        levels: int | None = None,
    ) -> None:
        super().__init__(schedule, variance, levels)
        self.network = network
        self.prediction = prediction

    @property
    def label_free(self) -> bool:
        """Whether training took labels away."""
        return bool(getattr(self.network, "label_dropout", 0))

    def check(self) -> None:
        """Refuse a schedule under which the network's output would say nothing of the data, or is no number."""
        self.prediction.check(self.schedule)
        _check_contract(self.prediction, self.schedule)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The network's estimate at times t (B,) in (0, 1].

        Raises:
            ValueError: when the network says another number of channels than prediction and variance take.
        """
        alpha, sigma = self.schedule.at(t).factors(x_t)
        given = self.prediction.inputs(x_t, alpha, sigma, t)
        output = self.network(given.x, given.condition, label)
        channels = self.variance.outputs * x_t.shape[1]
        if output.shape[1] != channels:
            raise ValueError(f"the network says {output.shape[1]} channels where {channels} are needed")
        said, *of_variance = output.to(x_t.dtype).chunk(self.variance.outputs, 1)
        rates = Rates(self.schedule, t)
        estimate = replace(self.prediction.estimate(said, x_t, alpha, sigma, rates), rates=rates)
        return self.variance.read(estimate, *of_variance)


def _check_contract(prediction: Parameterization, schedule: Schedule) -> None:
    """Look at what a prediction feeds and reads at the two ends of training.

    Raises:
        Refusal: one sentence that names the method, the time, and what is wrong there.
    """
    of = type(prediction).__name__
    t = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    x_t = torch.ones(2, 1, 1, 1)
    alpha, sigma = schedule.at(t).factors(x_t)
    given = prediction.inputs(x_t, alpha, sigma, t)
    if given.condition.shape != t.shape:
        raise Refusal(f"{of}.inputs must answer a condition (B,), got {tuple(given.condition.shape)} for B = 2")
    said = prediction.estimate(torch.ones_like(x_t), x_t, alpha, sigma, Rates(schedule, t))
    for name, value in (
        ("inputs: x", given.x),
        ("inputs: condition", given.condition),
        ("estimate: x0", said.x0),
        ("estimate: eps", said.eps),
    ):
        bad = ~value.flatten(1).isfinite().all(1) if value.ndim > 1 else ~value.isfinite()
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            where = f"t = {t[at]:.4g}, alpha = {alpha[at].item():.4g}, sigma = {sigma[at].item():.4g}"
            raise Refusal(f"{of}.{name} is not finite at {where}: mend it, or refuse such a schedule in {of}.check")
