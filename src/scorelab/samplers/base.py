"""What all samplers share: how they ask, when, and the walk."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Estimate, Variance, ends_without_signal
from scorelab.errors import Refusal
from scorelab.samplers.spacing import SPACINGS
from scorelab.schedules import Schedule
from scorelab.tensors import standard_normal


class Ask:
    """A denoiser as one walk asks it: ``ask(x, t)`` is the estimate at x (B, ...) and times t (B,).

    The label is bound, and x^_0 is cut to [-1, 1] where the walk clips and the data are pixels: every call of a step
    sees the same. ``count`` is the number of calls.
    """

    def __init__(self, denoiser: Denoiser, label: Tensor | None = None, clip: bool = False) -> None:
        self._denoiser, self._label = denoiser, label
        self._clip = clip and denoiser.levels is not None
        self.count = 0

    @property
    def schedule(self) -> Schedule:
        """Whose alpha and sigma x has."""
        return self._denoiser.schedule

    @property
    def latest(self) -> float:
        """The greatest time that may be asked about."""
        return self._denoiser.time_range()[1]

    @property
    def variance(self) -> Variance:
        """Of the denoiser's reverse steps."""
        return self._denoiser.variance

    def along(self, times: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """The steps of a walk of x (B, ...) down the times (n,): t and s < t, each (B,), and whether s is 0.

        What ``schedule.at`` says of these is computed once, for all of them, on x's device.
        """
        ends = [time == 0 for time in times[1:].tolist()]
        with self.schedule.along(times.to(x.device), len(x)) as stops:
            yield from zip(stops, stops[1:], ends, strict=False)

    def __call__(self, x: Tensor, t: Tensor) -> Estimate:
        """The estimate, and one more in the count."""
        self.count += 1
        estimate = self._denoiser(x, t, self._label)
        return estimate.clipped() if self._clip else estimate


class Sampler(ABC):
    """Walks from x_1 ~ N(0, prior_std^2 I) to x_0 along ``times``, asking a denoiser on the way.

    To write one: a subclass with ``order`` and ``stochastic``, and a ``step`` from t to s > 0. The step to time 0 is
    the walk's own: it ends on x^_0, asked once. A step is given the estimate at x_t and may ask again, always through
    ``ask``, which clips, binds the label and counts; what is random comes from ``noise`` and the generator; alpha,
    sigma and lambda from ``ask.schedule.at(s)`` or ``.transition(s, t)``, which know them for the whole walk. A step
    that asks more than once says so in ``evaluations_per_step``, for what samples cost is told before they are drawn.
    ``spacing`` says at which times it stops (scorelab.samplers.spacing); ``times`` may choose others, which then fall
    from the latest of ``denoiser.time_range()`` (to rounding) past none before its earliest to 0; ``walk`` may keep
    what it was told in earlier steps, and then ``evaluations`` says how often it asks. One that is ``adaptive`` knows
    only about how often. Nothing that depends on ``steps`` is kept by the constructor.

    Args:
        steps: how many steps; None for the schedule's own T.
        clip: cuts every x^_0 to [-1, 1], for pixels only.
        spacing: trailing, leading, uniform, quadratic, log_snr or karras.

    Attributes:
        order: of the global error in the step size between two times (weak order where ``stochastic``).
        stochastic: whether a step draws noise.
        evaluations_per_step: how often a step to s > 0 asks, the call at x_t included.
        needs_signal: whether a step cannot begin where alpha is 0.

    Raises:
        Refusal: for steps < 1.
    """

    order: int
    stochastic: bool
    evaluations_per_step: int = 1
    adaptive: bool = False
    needs_signal: bool = False

    def __init__(self, steps: int | None, clip: bool = True, spacing: str = "trailing") -> None:
        if steps is not None and steps < 1:
            raise Refusal(f"steps must be at least 1, got {steps}")
        if spacing not in SPACINGS:
            raise Refusal(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing}")
        self.steps, self.clip, self.spacing = steps, clip, spacing

    def with_steps(self, steps: int) -> Self:
        """The same sampler at another number of steps.

        Raises:
            Refusal: for steps < 1.
        """
        other = copy.copy(self)
        Sampler.__init__(other, steps, self.clip, self.spacing)
        return other

    def times(self, denoiser: Denoiser) -> Tensor:
        """The walk's times t_n > ... > t_1 > 0, as ``spacing`` has them, and 0; float64.

        None is outside what the denoiser can be asked about; where it knows less than all noise, the walk starts
        from the most it knows.

        Raises:
            Refusal: when neither sampler nor schedule says how many steps.
        """
        steps = self.steps or denoiser.schedule.num_steps
        if steps is None:
            raise Refusal("a continuous schedule has no steps of its own: set sampler.steps")
        walk = SPACINGS[self.spacing](denoiser, steps, *denoiser.time_range())
        return torch.cat([walk, torch.zeros(1, dtype=torch.float64)])

    def evaluations(self, denoiser: Denoiser) -> int:
        """Network evaluations per sample: ``evaluations_per_step`` for each step, and one for the last.

        Raises:
            Refusal: for a process that ends without signal, where a step cannot begin there.
        """
        self.see_signal(denoiser)
        return self.evaluations_per_step * (len(self.times(denoiser)) - 2) + 1

    def see_signal(self, denoiser: Denoiser) -> None:
        """Refuse a process that ends without signal, where a step cannot begin there.

        Raises:
            Refusal: for one.
        """
        if self.needs_signal and ends_without_signal(denoiser.schedule):
            raise Refusal("this sampler needs some signal at the end of the process: set sampler=ddim or dpmpp_2m")

    @abstractmethod
    def step(self, ask: Ask, estimate: Estimate, s: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """x_s from the estimate at x_t, 0 < s < t, both (B,)."""

    def walk(self, ask: Ask, x: Tensor, times: Tensor, generator: Generator | None) -> Tensor:
        """From x (B, ...) at the first of the falling times (n,) to x at the last; at time 0 that is x^_0 itself."""
        for t, s, last in ask.along(times, x):
            estimate = ask(x, t)
            x = estimate.x0 if last else self.step(ask, estimate, s, t, generator)
        return x

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        shape: tuple[int, ...],
        label: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Samples x_0 of this shape (B, ...), all noise from the generator.

        Raises:
            RuntimeError: where the walk asked more or less often than ``evaluations`` says, or its times do not fall.
        """
        ask, times, name = Ask(denoiser, label, self.clip), self.times(denoiser), type(self).__name__
        if not bool((times.diff() < 0).all()) or float(times[-1]) != 0:  # nor where one is no number
            told = ", ".join(f"{t:.4g}" for t in times.tolist())
            raise RuntimeError(f"{name}.times must fall from each to the next, and end at 0, got {told}")
        x1 = denoiser.prior_std * standard_normal(shape, generator, device=denoiser.device)
        x0 = self.walk(ask, x1, times, generator)
        if not self.adaptive and ask.count != (said := self.evaluations(denoiser)):
            raise RuntimeError(
                f"{name} asked {ask.count} times where its evaluations() says {said}: see {name}.evaluations_per_step"
            )
        return x0


def noise(like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of a tensor's shape, from the generator: a sampler draws by this and nothing else."""
    return standard_normal(like.shape, generator, device=like.device, dtype=like.dtype)
