"""What every objective takes and answers."""

from abc import abstractmethod
from dataclasses import dataclass, field

from torch import Generator, Tensor, nn

from scorelab.denoisers import Denoiser


@dataclass(frozen=True)
class Terms:
    """A loss per sample (B,), and the named parts (B,) it is made of where there are several."""

    loss: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Loss(nn.Module):
    """An objective: deterministic given the data, the times, the noise and the generator."""

    @abstractmethod
    def forward(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        truth: Denoiser | None = None,
        generator: Generator | None = None,
    ) -> Terms:
        """The loss of each sample x0 (B, ...) noised by eps (B, ...) to time t (B,)."""

    def check(self, denoiser: Denoiser) -> None:
        """Refuse a denoiser this objective cannot train.

        Raises:
            ValueError: one sentence that says what to change.
        """
        return
