"""Denoisers that are exact for a known law of x_0, to put where a network goes; and small helpers beside them."""

import math
from collections.abc import Sequence

import torch
from conftest import choose
from torch import Generator, Tensor, nn

from scorelab.denoisers import Denoiser, Estimate, Exact, NetworkDenoiser, Variance
from scorelab.laws import FiniteSet
from scorelab.losses import Example, Loss
from scorelab.networks import UNet
from scorelab.schedules import Schedule, Transition
from scorelab.tensors import from_levels, like

Numbers = Tensor | Sequence[float] | float


class GaussianOracle(Denoiser):
    """E[x_0 | x_t] for x_0 ~ N(mean, diag(std^2)), at any alpha and sigma, computed in float64.

    Of a learned variance it says v for the fraction it is given, 2 f - 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        schedule: Schedule,
        variance: Variance,
        mean: Numbers,
        std: Numbers,
        levels: int | None = None,
        fraction: float = 0.5,
    ) -> None:
        super().__init__(schedule, variance, levels)
        self.variance_fraction = fraction
        mean, std = (torch.as_tensor(values, dtype=torch.float64) for values in (mean, std))
        mean, std = torch.broadcast_tensors(mean, std)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha and sigma at times (B,), each (B, 1, ...)."""
        shape = (-1, *[1] * self.mean.dim())
        return self.schedule.alpha(t).reshape(shape), self.schedule.sigma(t).reshape(shape)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        alpha, sigma = self.coefficients(t)
        pull = (x_t.double() - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)
        x0, eps = self.mean + alpha * self.std**2 * pull, sigma * pull
        said = [torch.full_like(x_t, 2 * self.variance_fraction - 1)] * (self.variance.outputs - 1)
        return self.variance.read(Estimate(x_t, *(part.to(x_t.dtype) for part in (alpha, sigma, x0, eps))), *said)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Samples of x_0 (n, ...) in float64."""
        white = torch.randn((n, *self.mean.shape), generator=generator, dtype=torch.float64)
        return self.mean + self.std * white

    def marginal(self, t: Tensor) -> torch.distributions.Normal:
        """The law of x_t at times (B,), dimension by dimension."""
        alpha, sigma = self.coefficients(t)
        return torch.distributions.Normal(alpha * self.mean, torch.sqrt(alpha**2 * self.std**2 + sigma**2))

    def nll(self, x0: Tensor) -> Tensor:
        """-log p(x_0) in nats, (B,)."""
        return -torch.distributions.Normal(self.mean, self.std).log_prob(x0).flatten(1).sum(1)

    def posterior_variance(self, t: Tensor) -> Tensor:
        """Var(x_0 | x_t) at times (B,), dimension by dimension."""
        alpha, sigma = self.coefficients(t)
        return self.std**2 * sigma**2 / (alpha**2 * self.std**2 + sigma**2)


class ExactReverse(Variance):
    """Var(x_s | x_t) = beta~ + (alpha_s sigma^2_{t|s} / sigma_t^2)^2 Var(x_0 | x_t) for x_0 ~ N(., diag(std^2))."""

    def __init__(self, std: Numbers) -> None:
        self.variance = torch.as_tensor(std, dtype=torch.float64) ** 2

    def of_x0(self, step: Transition, x_t: Tensor) -> Tensor:
        alpha, sigma = like(step.alpha_t, x_t), like(step.sigma_t, x_t)
        return self.variance * sigma**2 / (alpha**2 * self.variance + sigma**2)

    def log_variance(self, step: Transition, estimate: Estimate) -> Tensor:
        x_t = estimate.x_t
        weight = like(step.alpha_s * step.forward_variance / step.sigma_t**2, x_t)
        return torch.log(like(step.posterior_variance, x_t) + weight**2 * self.of_x0(step, x_t))

    def log_decoder_variance(self, first: Transition, second: Transition, pixels: bool, estimate: Estimate) -> Tensor:
        return torch.log(self.of_x0(first, estimate.x_t))


class FiniteSetOracle(Denoiser):
    """E[x_0 | x_t] for x_0 uniform over points (N, ...), by the softmax of -||x_t - alpha x_i||^2 / 2 sigma^2."""

    points: Tensor

    def __init__(self, schedule: Schedule, variance: Variance, points: Tensor, levels: int | None = None) -> None:
        super().__init__(schedule, variance, levels)
        self.register_buffer("points", points.double())

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        x = x_t.double()
        alpha, sigma = like(self.schedule.alpha(t), x), like(self.schedule.sigma(t), x)
        away = (x.unsqueeze(1) - alpha.unsqueeze(1) * self.points).flatten(2)
        weights = torch.softmax(-away.square().sum(2) / (2 * sigma.reshape(-1, 1) ** 2), 1)
        x0 = torch.einsum("bn,n...->b...", weights, self.points)
        eps = (x - alpha * x0) / sigma
        return Estimate(x_t, *(part.to(x_t.dtype) for part in (alpha, sigma, x0, eps)))


class Exploding(Schedule):
    """alpha = 1 and sigma geometric between two ends: a process that does not preserve variance."""

    def __init__(self, num_steps: int | None = None, least: float = 0.001, most: float = 50.0) -> None:
        super().__init__(num_steps)
        self.least, self.ratio, self.prior_std = least, math.log(most / least), most

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return self.least * torch.exp(t.double() * self.ratio)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.log(self.sigma(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        return (-log_snr.double() / 2 - math.log(self.least)) / self.ratio

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)

    def g2(self, t: Tensor) -> Tensor:
        return 2 * self.ratio * self.sigma(t) ** 2


class Straight(Schedule):
    """alpha = 1 - t and sigma = t: neither preserves variance nor leaves any signal at t = 1, its last time."""

    log_snr_ends = (-math.inf, 13.3)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.double()

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def inverse(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr.double() / 2)

    def f(self, t: Tensor) -> Tensor:
        return -1 / self.alpha(t)

    def g2(self, t: Tensor) -> Tensor:
        return 2 * self.sigma(t) / self.alpha(t)


class Watched(Denoiser):
    """Another denoiser, the times it was asked about, and what it said last."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner = inner
        self.times: list[Tensor] = []
        self.images = 0

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        self.times.append(t.clone())
        self.images += len(x_t)
        self.said = self.inner(x_t, t, label)
        return self.said


class Says(nn.Module):
    """A network that always gives the same answer, and remembers the times it saw."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.time = torch.empty(0)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        self.time = time
        return self.answer


class Beside(nn.Module):
    """A network, and beside its answer the same number everywhere, where the variance is read."""

    def __init__(self, network: nn.Module, number: float) -> None:
        super().__init__()
        self.network, self.number = network, number

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        answer = self.network(x, time, label)
        return torch.cat([answer, torch.full_like(answer, self.number)], 1)


def seeded(seed: int = 0) -> Generator:
    """A generator that starts at this seed."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every parameter drawn anew, so that no layer is zero."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def tiny_unet(seed: int = 0, outputs: int = 1, side: int = 8) -> UNet:
    """A U-Net for images of side x side, none of whose layers is zero."""
    return shaken(UNet((1, side, side), channels=4, multipliers=[1, 2], outputs=outputs), seed)


def digits_like(n: int, seed: int = 0, side: int = 8) -> Tensor:
    """Random images (n, 1, side, side) of 17 levels."""
    return from_levels(torch.randint(0, 17, (n, 1, side, side), generator=seeded(seed)), 17)


def truth_of(denoiser: Denoiser, points: Tensor) -> Exact:
    """The exact denoiser of these points under a denoiser's schedule, for losses that ask for the truth."""
    return Exact(denoiser.schedule, denoiser.variance, FiniteSet(points), denoiser.levels)


def losses_of(
    loss: Loss,
    denoiser: Denoiser,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    label: Tensor | None = None,
    exact: Denoiser | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """An objective's loss of each sample, (B,)."""
    return loss(denoiser, Example.of(denoiser, x0, t, eps, label, exact), generator).loss


def network(
    schedule: str,
    prediction: str = "eps",
    variance: str = "fixed_small",
    steps: int | None = 1000,
    seed: int = 0,
    side: int = 8,
) -> NetworkDenoiser:
    """A tiny network as a denoiser of such images."""
    law = choose("variance", variance)
    return NetworkDenoiser(
        choose("schedule", schedule, num_steps=steps),
        tiny_unet(seed, law.outputs, side),
        choose("prediction", prediction),
        law,
        levels=17,
    )


def says(
    schedule: Schedule, answer: Tensor, variance: str = "fixed_small", levels: int | None = None
) -> NetworkDenoiser:
    """A denoiser that predicts this noise, whatever it is shown."""
    law = choose("variance", variance)
    return NetworkDenoiser(schedule, Says(answer), choose("prediction", "eps"), law, levels)


def answer(prediction: str, truth: Estimate) -> Tensor:
    """What a network must say to be read as this: what its prediction is named for, else solved for.

    Every estimate is affine in the output.
    """
    if hasattr(truth, prediction):
        return getattr(truth, prediction)
    head, given = choose("prediction", prediction), (truth.x_t, truth.alpha, truth.sigma, truth.rates)
    low, high = (head.estimate(value * torch.ones_like(truth.x0), *given) for value in (0.0, 1.0))
    pair = ("x0", "eps")
    slopes = [(getattr(high, name) - getattr(low, name), getattr(truth, name) - getattr(low, name)) for name in pair]
    return sum(slope * wanted for slope, wanted in slopes) / sum(slope**2 for slope, _ in slopes)


class Offset(Denoiser):
    """Another denoiser whose noise is off by the same amount everywhere."""

    def __init__(self, inner: Denoiser, off: float) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner, self.off = inner, off

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        said = self.inner(x_t, t, label)
        return Estimate.from_eps(x_t, said.alpha, said.sigma, said.eps + self.off)
