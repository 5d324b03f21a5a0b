"""The forward process x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 data."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.schedules.level import Level, Transition, levels


class Schedule(nn.Module, ABC):
    """A noise schedule: ``alpha`` and ``sigma`` suffice to write one, all else follows from them.

    Methods take times (B,) in [0, 1], of any floating dtype, and answer (B,) in float64, the number at each time
    from that time alone. The contract, which ``check`` sees to:

    - alpha and sigma are finite and at least 0 on [0, 1], both ends included, and never 0 together;
    - lambda = log(alpha^2 / sigma^2) falls strictly, and is finite inside (0, 1); it may be +inf at t = 0 (no noise)
      and -inf at t = 1 (no signal). Nothing asks that alpha^2 + sigma^2 = 1;
    - alpha and sigma are differentiable inside (0, 1), by autograd where ``f`` and ``g2`` are left to follow.

    ``log_snr``, ``inverse``, ``f`` and ``g2`` may be replaced by closed forms: they are faster, and exact where
    rounding eats alpha or sigma (1 - t has 16 digits of t, not of 1 - t).

    ``num_steps`` is T where training and the bound live on the grid t_i = i / T, i = 1 ... T, read along the same
    alpha and sigma (or from a table, see ``discretized``), and None for a continuous process. That one is trained
    where lambda lies in ``log_snr_ends``, as far as the schedule reaches them: at the times of ``t_min`` to
    ``t_max``. ``prior_std`` is the standard deviation of the law that sampling starts from there.

    ``log_snr_shift`` is added to lambda by every schedule of this package, each within its own family: alpha = 1 stays
    1, alpha^2 + sigma^2 = 1 stays so. Larger images want less of it, 2 ln(64 / side) (Hoogeboom et al. 2023, "Simple
    diffusion", section 3.1).

    Raises:
        Refusal: for num_steps < 1, or a shift that is not finite.
    """

    prior_std: float = 1.0
    log_snr_ends: tuple[float, float] = (-20.0, 13.3)

    def __init__(self, num_steps: int | None = None, log_snr_shift: float = 0.0) -> None:
        super().__init__()
        self._known: Mapping[int, Level] = {}  # by the identity of their times, which they keep alive
        if num_steps is not None and num_steps < 1:
            raise Refusal(f"num_steps must be at least 1, got {num_steps}")
        if not abs(log_snr_shift) < math.inf:
            raise Refusal(f"log_snr_shift must be finite, got {log_snr_shift}")
        self.num_steps, self.log_snr_shift = num_steps, log_snr_shift

    @property
    def learns(self) -> bool:
        """Whether it has parameters of its own."""
        return next(self.parameters(), None) is not None

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The signal's coefficient."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation."""

    def log_density(self, t: Tensor) -> Tensor:
        """Ln p(lambda), p = -dt / dlambda, of times t (B,): what a continuous schedule that learns is trained by.

        See ``LearnedSchedule``.

        Raises:
            Refusal: for one that does not say it.
        """
        raise Refusal(f"{type(self).__name__} learns a continuous process: write log_density(), or set num_steps")

    def log_snr(self, t: Tensor) -> Tensor:
        """lambda(t) = log(alpha^2 / sigma^2), strictly falling; +inf at t = 0 where sigma is 0 there."""
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """ln(alpha^2 / (alpha^2 + sigma^2)), the signal's share of the power: that of x_t / sqrt(alpha^2 + sigma^2)."""
        return log_sigmoid(self.log_snr(t))

    @torch.no_grad()
    def inverse(self, log_snr: Tensor) -> Tensor:
        """The time t at which lambda(t) = log_snr; beyond the ends of [0, 1] the nearer of them.

        By bisection, all times at once: t to 2^-65, or to a rounding where that is more.
        """
        log_snr = log_snr.to(torch.float64)
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        start, end = self.log_snr(low), self.log_snr(high)
        for _ in range(64):
            middle = (low + high) / 2
            later = self.log_snr(middle) > log_snr
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        t = torch.where(log_snr >= start, 0.0, torch.where(log_snr <= end, 1.0, (low + high) / 2))
        return torch.where(log_snr.isnan(), log_snr, t)

    def f(self, t: Tensor) -> Tensor:
        """The drift's coefficient d ln(alpha) / dt in dx = f x dt + g dw."""
        return self.slope(lambda at: torch.log(self.alpha(at)), t)

    def g2(self, t: Tensor) -> Tensor:
        """The squared diffusion coefficient g^2 = -sigma^2 d lambda / dt."""
        return -(self.sigma(t) ** 2) * self.slope(self.log_snr, t)

    def slope(self, function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
        """The derivative of a function of time, by autograd in float64; also where no gradients are kept.

        With parameters of its own, a schedule can be trained through it; t itself cannot.
        """
        kept = torch.is_grad_enabled() and self.learns
        with torch.inference_mode(False), torch.enable_grad():
            at = t.detach().to(torch.float64).clone().requires_grad_()
            value = function(at)
            if not value.requires_grad:
                return torch.zeros_like(value)
            (slope,) = torch.autograd.grad(value.sum(), at, create_graph=kept, materialize_grads=True)
        return slope

    def grid(self) -> Tensor:
        """The times t_0 = 0, t_1, ..., t_T = 1 of a T-step process, (T + 1,).

        Raises:
            Refusal: for a continuous schedule, which has no grid of its own.
        """
        if self.num_steps is None:
            raise Refusal("this schedule is continuous and has no T-step grid: set schedule.num_steps")
        return torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps

    @property
    def t_min(self) -> float:
        """The least training time: t_1 of a grid; in a continuous process where lambda is the upper end."""
        return 1 / self.num_steps if self.num_steps is not None else self._ends()[0]

    @property
    def t_max(self) -> float:
        """The greatest training time: 1 on a grid; in a continuous process where lambda is the lower end."""
        return 1.0 if self.num_steps is not None else self._ends()[1]

    @property
    def duration(self) -> float:
        """What turns a mean over training times into the integral over t; on a grid 1, the whole of it."""
        return 1.0 if self.num_steps is not None else self.t_max - self.t_min

    def _ends(self) -> tuple[float, float]:
        """The times of ``log_snr_ends``, the cleaner first: found once, or, where training moves them, every time."""
        return self._found_ends() if self.learns else self._fixed_ends

    @cached_property
    def _fixed_ends(self) -> tuple[float, float]:
        return self._found_ends()

    def _found_ends(self) -> tuple[float, float]:
        low, high = self.log_snr_ends
        return self._time_at(high), self._time_at(low)

    @torch.no_grad()
    def _time_at(self, log_snr: float) -> float:
        """Where lambda is this value, 0 or 1 where it is not in between."""
        start, end = self.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        if log_snr >= start or log_snr <= end:
            return 0.0 if log_snr >= start else 1.0
        return float(self.inverse(torch.tensor([log_snr], dtype=torch.float64)))

    def training_time(self, u: Tensor) -> Tensor:
        """The time at quantile u in [0, 1) of the uniform law over training times.

        t_i with i = floor(T u) + 1 on a grid, t_min + u (t_max - t_min) in a continuous process.
        """
        u = u.to(torch.float64)
        if self.num_steps is None:
            return torch.lerp(torch.full_like(u, self.t_min), torch.full_like(u, self.t_max), u)
        return (torch.floor(self.num_steps * u) + 1).clamp(max=self.num_steps) / self.num_steps

    @torch.no_grad()
    def log_snr_range(self) -> tuple[float, float]:
        """The least and greatest lambda at which a denoiser of this schedule was trained: [lambda_T, lambda_1]."""
        low, high = self.log_snr(torch.tensor([self.t_max, self.t_min], dtype=torch.float64)).tolist()
        return low, high

    def transition(self, s: Tensor, t: Tensor) -> Transition:
        """The coefficients of the step between the times s < t, each (B,)."""
        before, now = self.at(s), self.at(t)
        gain = -torch.expm1(now.log_snr - before.log_snr)
        return Transition(before.alpha, before.sigma, now.alpha, now.sigma, gain)

    def at(self, t: Tensor) -> Level:
        """What it says at times t (B,), each number computed once; inside of ``along`` for all its times at once."""
        known = self._known.get(id(t))
        return known if known is not None and known.t is t else Level(t, lambda name: self._answer(name, t))

    @contextmanager
    def along(self, times: Tensor, size: int) -> Iterator[list[Tensor]]:
        """The times (n,) of a walk, one by one as (B,), B = ``size``; ``at`` knows these very tensors inside of it."""
        walk = levels(self._answer, times, size)
        with self._knowing(walk):
            yield [level.t for level in walk]

    @contextmanager
    def staying(self, t: Tensor) -> Iterator[None]:
        """Inside of it ``at`` knows this very tensor of times (B,): what several ask is computed once."""
        with self._knowing([self.at(t)]):
            yield

    @contextmanager
    def _knowing(self, found: Sequence[Level]) -> Iterator[None]:
        before = self._known
        self._known = {**before, **{id(level.t): level for level in found}}
        try:
            yield
        finally:
            self._known = before

    def _answer(self, name: str, t: Tensor) -> Tensor:
        answer: Tensor = getattr(self, name)(t)
        return answer


class VariancePreserving(Schedule):
    """alpha^2 + sigma^2 = 1, so everything follows from ln(alpha_bar) = ln(alpha^2), which suffices to write one.

    dx = -beta/2 x dt + sqrt(beta) dw with beta(t) = -d ln(alpha_bar) / dt (Song et al. 2021, "Score-based generative
    modeling through SDEs", eq. 11).
    """

    @abstractmethod
    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """ln(alpha_bar)."""

    def beta(self, t: Tensor) -> Tensor:
        """-d ln(alpha_bar) / dt."""
        return -self.slope(self.log_alpha_bar, t)

    def at_log_alpha_bar(self, value: Tensor) -> Tensor:
        """The time t at which ln(alpha_bar) is this value."""
        return super().inverse(logit(value))

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar)."""
        return torch.exp(0.5 * self.log_alpha_bar(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar)."""
        return torch.sqrt(-torch.expm1(self.log_alpha_bar(t)))

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(alpha_bar) - ln(1 - alpha_bar)."""
        return logit(self.log_alpha_bar(t))

    def inverse(self, log_snr: Tensor) -> Tensor:
        """Where ln(alpha_bar) = -softplus(-lambda)."""
        return self.at_log_alpha_bar(log_sigmoid(log_snr.to(torch.float64)))

    def f(self, t: Tensor) -> Tensor:
        """-beta(t) / 2."""
        return -0.5 * self.beta(t)

    def g2(self, t: Tensor) -> Tensor:
        """beta(t)."""
        return self.beta(t)


def logit(log_p: Tensor) -> Tensor:
    """ln(p / (1 - p)) from ln p, exact at both ends."""
    return log_p - torch.log(-torch.expm1(log_p))


def log_sigmoid(x: Tensor) -> Tensor:
    """ln(1 / (1 + e^-x)), the inverse of ``logit``; torch's softplus would drop 2e-9 below x = -20."""
    return torch.nn.functional.logsigmoid(x)
