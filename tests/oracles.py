"""Denoisers that are exact for a known law of x_0, to put where a network goes; and small helpers beside them."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from scorelab.denoisers import Denoiser, Estimate, Variance
from scorelab.schedules import Schedule, Transition
from scorelab.tensors import like

Numbers = Tensor | Sequence[float] | float


class GaussianOracle(Denoiser):
    """E[x_0 | x_t] for x_0 ~ N(mean, diag(std^2)), at any alpha and sigma, computed in float64."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        schedule: Schedule,
        variance: Variance,
        mean: Numbers,
        std: Numbers,
        levels: int | None = None,
    ) -> None:
        super().__init__(schedule, variance, levels)
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
        return Estimate(x_t, *(part.to(x_t.dtype) for part in (alpha, sigma, x0, eps)))

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


class Watched(Denoiser):
    """Another denoiser, and the times it was asked about."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner = inner
        self.times: list[Tensor] = []
        self.images = 0

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        self.times.append(t.clone())
        self.images += len(x_t)
        return self.inner(x_t, t, label)


class Says(nn.Module):
    """A network that always gives the same answer, and remembers the times it saw."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.time = torch.empty(0)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        self.time = time
        return self.answer


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
