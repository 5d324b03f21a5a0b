"""What every objective takes and answers, and the form that most of them have: a weighted squared error."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor, nn

from scorelab.denoisers import Denoiser, Estimate, Exact, Rates, ends_without_signal, has_velocity
from scorelab.errors import Refusal
from scorelab.schedules import Schedule
from scorelab.tensors import mean_except_batch

OF_NOISE = ("eps", "score")  # what x_t itself tells where alpha = 0


@dataclass(frozen=True)
class Example:
    """Data noised to their times: what a loss looks at.

    Attributes:
        noised: x_t (B, ...), with the x_0 and eps that made it.
        t: times (B,).
        label: classes (B,), where there are any.
        exact: the exact denoiser of the training data, for losses that ask for it (``Loss.needs_exact``).
    """

    noised: Estimate
    t: Tensor
    label: Tensor | None = None
    exact: Exact | None = None

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        exact: Exact | None = None,
    ) -> "Example":
        """Data x0 (B, ...) noised by eps (B, ...) to times t (B,) by this denoiser's process."""
        return cls(denoiser.noised(x0, t, eps), t, label, exact)

    @property
    def x0(self) -> Tensor:
        """The data (B, ...)."""
        return self.noised.x0

    @property
    def eps(self) -> Tensor:
        """The noise (B, ...)."""
        return self.noised.eps

    @property
    def x_t(self) -> Tensor:
        """What the denoiser is shown (B, ...)."""
        return self.noised.x_t


@dataclass(frozen=True)
class Terms:
    """What an objective says of each sample.

    Attributes:
        loss: the loss (B,).
        parts: the named parts (B,) it is made of, where there are several.
        eps_error: ||eps - eps^||^2 / d (B,), nothing to train on; None where a loss does not say.
    """

    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    eps_error: Tensor | None = None


@torch.no_grad()
def eps_error(example: Example, estimate: Estimate) -> Tensor:
    """||eps - eps^||^2 / d of each sample (B,), to be looked at: no gradient goes through it."""
    return mean_except_batch((example.eps - estimate.eps) ** 2)


class Loss(nn.Module, ABC):
    """An objective: deterministic given the denoiser, the example and the generator.

    A subclass must write ``forward``. It should write ``noise_weight``, without which the loss has no card, cannot be
    normalised (``normalize=False`` then), and has no row in the matrix of objectives. It need not write the rest:
    ``shortfall`` is for losses that differ from a weighted noise error by a constant, ``cost`` for those that take
    more than one pass through the network, ``needs_exact`` for those that ask for the exact denoiser, ``check`` for
    those that do not go with everything, ``trains_variance`` says that a learned variance gets a gradient from it,
    ``trains_schedule`` that a learned schedule gets one that makes it better rather than its noise easier.
    ``normalize`` is passed on by its constructor. A run's log shows the error of the noise beside a loss whose
    ``Terms`` say it, by ``eps_error(example, estimate)``. Most objectives are a ``WeightedError``, which writes one
    method.

    Args:
        normalize: whether training divides the loss by its mean weight on the noise error over the training times
            with log-SNR in [-4.8, 6.6] (see scorelab.losses.card), so that one learning rate and one clip mean the
            same to all objectives.
    """

    trains_variance: bool = False
    trains_schedule: bool = False

    @property
    def needs_exact(self) -> bool:
        """Whether an example must bring the exact denoiser: an argument, never a submodule."""
        return False

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    @abstractmethod
    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """The loss of each sample, (B,), in the data's precision; no sample's depends on another's.

        What is random beside the example comes from the generator, on the CPU, one sample after the other.
        """

    def noise_weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The weight (B,), float64, with which ||eps - eps^||^2 / d enters the loss at times t (B,).

        NaN where the loss is no such weighted square. A learned variance counts as networks start with it: at f = 1/2,
        or s^2 = 1.
        """
        return torch.full_like(t, torch.nan, dtype=torch.float64)

    def shortfall(self, floor: Tensor) -> Tensor:
        """By how much E[loss / w] falls short of E||eps - eps^||^2 / d for any denoiser; NaN where that is unknown.

        w is ``noise_weight``, ``floor`` (B,) is E||eps - E[eps | x_t]||^2 / d of the law of the data at the same times.
        """
        return torch.zeros_like(floor)

    def cost(self, dims: int) -> int:
        """What one sample's loss takes, without its gradient, in evaluations of the network."""
        return 1

    def check(self, denoiser: Denoiser) -> None:
        """Refuse a denoiser this objective cannot train.

        Raises:
            Refusal: one sentence that says what to change.
        """
        if denoiser.variance.outputs > 1 and not self.trains_variance:
            other = "" if denoiser.schedule.num_steps is None else ", or loss=hybrid"
            raise Refusal(f"this loss gives a learned variance no gradient: set variance=fixed_small{other}")
        if denoiser.schedule.learns and not self.trains_schedule:
            raise Refusal("under this loss a schedule would learn the noise that is easy: set loss=vlb")


class WeightedError(Loss):
    """w(t) ||q - q^||^2 / d, q the noise, or another quantity of the Estimate: what most objectives are.

    A subclass must write ``weight`` and nothing else: the loss, its card and what it is normalised by follow from it,
    so they cannot disagree. The weight belongs to the loss: it is on the error of q whatever the network predicts,
    so one that a paper gives for x_0 or v is converted once, by ||eps - eps^||^2 = S ||x_0 - x^_0||^2 =
    (alpha / a)^2 ||v - v^||^2, with S = alpha^2 / sigma^2 and a = alpha^2 + sigma^2.

    Attributes:
        space: which quantity q is, by its name in the Estimate. An error on x0 or v has a finite weight where
            alpha = 0 too, where that on the noise would have to be infinite, or the loss is silent and is refused.
    """

    space: str = "eps"

    @abstractmethod
    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The weight w (B,), float64, on the squared error of q at times t (B,).

        Finite and not negative wherever training goes: ``schedule.log_snr`` is -inf where a process ends without
        signal.
        """

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """The weighted mean squared error of each sample, (B,)."""
        estimate = denoiser(example.x_t, example.t, example.label)
        error = mean_except_batch((getattr(example.noised, self.space) - getattr(estimate, self.space)) ** 2)
        seen = error.detach() if self.space == "eps" else eps_error(example, estimate)
        return Terms(self.weighted(denoiser, example.t, error), eps_error=seen)

    def weighted(self, denoiser: Denoiser, t: Tensor, each: Tensor) -> Tensor:
        """What each sample (B,) comes to, times w(t), in its own precision."""
        return (self.weight(denoiser, t) * each.double()).to(each.dtype)

    def noise_weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The weight times the square of how far q moves when eps^ moves by one; infinite on x_0 where alpha = 0."""
        one = torch.ones_like(t, dtype=torch.float64)
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        moved = replace(Estimate.from_eps(torch.zeros_like(one), alpha, sigma, one), rates=Rates(denoiser.schedule, t))
        return self.weight(denoiser, t) * getattr(moved, self.space) ** 2

    def check(self, denoiser: Denoiser) -> None:
        """Refuse an error of the noise where a process ends without signal: there is nothing to learn from it there.

        Raises:
            Refusal: for alpha = 0 at t = 1, where q is the noise or the score, or where there is no velocity.
        """
        super().check(denoiser)
        if self.space in OF_NOISE:
            refuse_silence(denoiser.schedule)
        if self.space == "velocity" and not has_velocity(denoiser.schedule):
            raise Refusal("this schedule has no velocity at an end of its training times: set loss.space=v or x0")


def refuse_silence(schedule: Schedule) -> None:
    """Where alpha = 0, x_t is the noise: its error and its score tell nothing of the data.

    Raises:
        Refusal: for a schedule with alpha = 0 at t = 1.
    """
    if ends_without_signal(schedule):
        raise Refusal("this loss is silent where alpha = 0: set loss=simple with loss.space=v or x0")
