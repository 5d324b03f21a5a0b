"""What a step says of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from scorelab.losses import Terms


@dataclass(frozen=True)
class StepRecord:
    """What an optimiser step has said so far, of all processes: the one channel from the module to its callbacks.

    Attributes:
        loss: the weighted mean loss of its last batch, a scalar, before the normaliser.
        parts: the weighted means of the loss's named parts, likewise.
        eps_error: the mean of ||eps - eps^||^2 / d over its samples, without weights; None where the loss does not say.
        t: times (n,) of all its batches.
        losses: the samples' losses (n,) at these times, without weights.
        errors: their ||eps - eps^||^2 / d (n,); None where the loss does not say.
        gradient_norm: of all gradients, before clipping; 0 before it is measured, and where the step was left out.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    t: Tensor
    losses: Tensor
    eps_error: Tensor | None = None
    errors: Tensor | None = None
    gradient_norm: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def of(cls, terms: Terms, t: Tensor, weight: Tensor, gather: Callable[[list[Tensor]], Any]) -> "StepRecord":
        """What a batch's terms at times t with these weights (B,) say, ``gather`` bringing in every process's.

        All processes have the same record, so that all come to the same conclusions.
        """
        mine = [(weight * part.detach()).mean() for part in (terms.loss, *terms.parts.values())]
        mine += [] if terms.eps_error is None else [terms.eps_error.mean()]
        each = [] if terms.eps_error is None else [terms.eps_error.detach()]
        times, losses, told, *errors = gather([t, terms.loss.detach(), torch.stack(mine), *each])
        mean, *means = told.view(-1, len(mine)).mean(0)
        error = None if terms.eps_error is None else means.pop()
        parts = dict(zip(terms.parts, means, strict=True))
        of_each = errors[0].flatten() if errors else None
        return cls(mean, parts, times.flatten(), losses.flatten(), error, of_each)

    def after(self, earlier: "StepRecord") -> "StepRecord":
        """This batch's record with the samples of the step's earlier batches before its own."""
        t, losses = (torch.cat(both) for both in ((earlier.t, self.t), (earlier.losses, self.losses)))
        told = [each for each in (earlier.errors, self.errors) if each is not None]
        errors = torch.cat(told) if len(told) == 2 else None
        return replace(self, t=t, losses=losses, errors=errors)
