"""What a step says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """What an optimiser step has said so far, of all processes: the one channel from the module to its callbacks.

    Attributes:
        loss: the weighted mean loss of its last batch, a scalar, before the normaliser.
        parts: the weighted means of the loss's named parts, likewise.
        t: times (n,) of all its batches.
        losses: the samples' losses (n,) at these times, without weights.
        gradient_norm: of all gradients, before clipping; 0 before it is measured, and where the step was left out.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    t: Tensor
    losses: Tensor
    gradient_norm: Tensor = field(default_factory=lambda: torch.zeros(()))

    def after(self, earlier: "StepRecord") -> "StepRecord":
        """This batch's record with the samples of the step's earlier batches before its own."""
        t, losses = (torch.cat(both) for both in ((earlier.t, self.t), (earlier.losses, self.losses)))
        return StepRecord(self.loss, self.parts, t, losses)
