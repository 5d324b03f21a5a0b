"""What a schedule says at some times and between them, nothing computed twice."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from torch import Tensor, device, dtype

from scorelab.tensors import like

Kind = tuple[dtype, device, int]


@dataclass(frozen=True)
class Level:
    """How noisy x_t is at times t (B,): what the schedule's methods of these names answer there, (B,) in float64.

    Each is asked when it is first looked at, by ``answer``, and kept.
    """

    t: Tensor
    answer: Callable[[str], Tensor]

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The factors alpha and sigma (B, 1, ...) of x_0 and eps in x (B, ...), in its precision and on its device."""
        return like(self.alpha, x), like(self.sigma, x)

    @cached_property
    def alpha(self) -> Tensor:
        """The signal's coefficient."""
        return self.answer("alpha")

    @cached_property
    def sigma(self) -> Tensor:
        """The noise's standard deviation."""
        return self.answer("sigma")

    @cached_property
    def log_snr(self) -> Tensor:
        """Lambda = log(alpha^2 / sigma^2)."""
        return self.answer("log_snr")

    @cached_property
    def f(self) -> Tensor:
        """The drift's coefficient."""
        return self.answer("f")

    @cached_property
    def g2(self) -> Tensor:
        """The squared diffusion coefficient."""
        return self.answer("g2")


@dataclass(frozen=True)
class Transition:
    """One step of the process between the times s < t, for every sample of a batch; all tensors (B,), float64.

    With lambda = log(alpha^2 / sigma^2) and 1 - e^(lambda_t - lambda_s) written ``gain``:

    - q(x_t | x_s) = N(alpha_t / alpha_s x_s, sigma^2_{t|s} I), sigma^2_{t|s} = sigma_t^2 gain
    - q(x_s | x_t, x_0) = N(c_t x_t + c_0 x_0, beta~ I), c_t = (alpha_t / alpha_s) sigma_s^2 / sigma_t^2,
      c_0 = alpha_s gain, beta~ = sigma_s^2 gain

    (Kingma et al. 2021, "Variational diffusion models", appendix A; Ho et al. 2020, eqs. 6-7 in DDPM's letters.)
    """

    alpha_s: Tensor
    sigma_s: Tensor
    alpha_t: Tensor
    sigma_t: Tensor
    gain: Tensor

    @property
    def forward_variance(self) -> Tensor:
        """sigma^2_{t|s}, the variance of x_t given x_s."""
        return self.sigma_t**2 * self.gain

    @property
    def posterior_variance(self) -> Tensor:
        """beta~, the variance of x_s given x_t and x_0."""
        return self.sigma_s**2 * self.gain

    @property
    def mean_of_x0(self) -> Tensor:
        """c_0, the weight of x_0 in the posterior mean."""
        return self.alpha_s * self.gain

    @property
    def mean_of_xt(self) -> Tensor:
        """c_t, the weight of x_t in the posterior mean."""
        return self.alpha_t / self.alpha_s * (self.sigma_s / self.sigma_t) ** 2


@dataclass(frozen=True)
class Stop(Level):
    """The level of a time that a walk stops at; ``cut`` takes its factors out of those of all stops."""

    cut: Callable[[Tensor], tuple[Tensor, Tensor]]

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As of any level, for x of as many samples as walk."""
        return self.cut(x)


def levels(answer: Callable[[str, Tensor], Tensor], times: Tensor, size: int) -> list[Stop]:
    """The levels of times (n,), each of which ``size`` samples have in common.

    What is looked at in one of them is answered for all n at once: a walk asks a schedule as often as it has methods,
    not as often as it has steps.
    """
    whole = Level(times, lambda name: answer(name, times))
    answered: dict[str, tuple[Tensor, ...]] = {}
    factors: dict[Kind, list[tuple[Tensor, Tensor]]] = {}

    def each(values: Tensor) -> tuple[Tensor, ...]:
        return values.unsqueeze(1).expand(-1, size, *values.shape[1:]).unbind()

    def answer_at(place: int, name: str) -> Tensor:
        if name not in answered:
            answered[name] = each(getattr(whole, name))
        return answered[name][place]

    def factors_at(place: int, x: Tensor) -> tuple[Tensor, Tensor]:
        if (kind := kind_of(x)) not in factors:
            alpha, sigma = whole.factors(x)
            factors[kind] = list(zip(each(alpha), each(sigma), strict=True))
        return factors[kind][place]

    return [Stop(t, partial(answer_at, i), partial(factors_at, i)) for i, t in enumerate(each(times))]


def kind_of(x: Tensor) -> Kind:
    """What of a tensor decides how factors are shaped for it."""
    return x.dtype, x.device, x.dim()
