"""What every objective takes and answers."""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from scorelab.denoisers import Denoiser, Exact, ends_without_signal
from scorelab.errors import Refusal
from scorelab.schedules import Schedule


@dataclass(frozen=True)
class Terms:
    """A loss per sample (B,), and the named parts (B,) it is made of where there are several."""

    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Loss(nn.Module):
    """An objective: deterministic given the data, the times, the noise and the generator.

    ``trains_variance`` says whether a learned variance gets a gradient from it; ``needs_exact``, whether it asks for
    the exact denoiser of the training data, which is an argument and never a submodule.

    Args:
        normalize: whether training divides the loss by its mean weight on the noise error over the training times
            with log-SNR in [-4.8, 6.6] (see scorelab.losses.card), so that one learning rate and one clip mean the
            same to all objectives.
    """

    trains_variance: bool = False

    @property
    def needs_exact(self) -> bool:
        """Whether ``forward`` must be given the exact denoiser."""
        return False

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    @abstractmethod
    def forward(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        exact: Exact | None = None,
        generator: Generator | None = None,
    ) -> Terms:
        """The loss of each sample x0 (B, ...) noised by eps (B, ...) to time t (B,).

        ``exact`` is the exact denoiser of the training data, for losses that need it. What else is random comes from
        the generator, on the CPU.
        """

    def weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The weight w (B,), float64, with which ||eps - eps^||^2 / d enters the loss at times t (B,).

        NaN where the loss is no such weighted square. A learned variance counts at f = 1/2, where networks start.
        """
        return torch.full_like(t, torch.nan, dtype=torch.float64)

    def shortfall(self, floor: Tensor) -> Tensor:
        """By how much E[loss / w] falls short of E||eps - eps^||^2 / d for any denoiser; NaN where that is unknown.

        ``floor`` (B,) is E||eps - E[eps | x_t]||^2 / d of the law of the data at the same times.
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


def refuse_silence(schedule: Schedule) -> None:
    """Where alpha = 0, x_t is the noise: its error and its score tell nothing of the data.

    Raises:
        Refusal: for a schedule with alpha = 0 at t = 1.
    """
    if ends_without_signal(schedule):
        raise Refusal("this loss is silent where alpha = 0: set loss=simple with loss.space=v or x0")
