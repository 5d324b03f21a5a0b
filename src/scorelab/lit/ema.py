"""Averaged weights: a second denoiser that follows the trained one."""

import copy
from typing import Any

import torch
from lightning import Callback, Trainer

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal


def make_ema(denoiser: Denoiser) -> Denoiser:
    """A copy that is never trained and always evaluates."""
    return copy.deepcopy(denoiser).requires_grad_(False).eval()


@torch.no_grad()
def update_ema(averaged: Denoiser, denoiser: Denoiser, decay: float) -> None:
    """theta_avg <- decay theta_avg + (1 - decay) theta, for all parameters at once; buffers are copied."""
    mine, its = ([p.detach() for p in either.parameters()] for either in (averaged, denoiser))
    torch._foreach_lerp_(mine, its, 1 - decay)
    for buffer, source in zip(averaged.buffers(), denoiser.buffers(), strict=True):
        buffer.copy_(source)


class AveragedWeights(Callback):
    """Exponential moving average of the weights, decay_k = min(decay, (1 + k)/(10 + k)) at step k.

    The warm-up forgets the random start: early averages span about a tenth of the steps taken so far.

    Raises:
        Refusal: for a decay outside [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise Refusal(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.step = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Give the module its second denoiser before a checkpoint is read into it."""
        pl_module.average()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count from the step a continued run stands at."""
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Follow once per optimiser step."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            update_ema(pl_module.averaged, pl_module.denoiser, min(self.decay, (1 + self.step) / (10 + self.step)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Lightning puts the whole module in training mode; the copy stays in evaluation mode."""
        pl_module.averaged.eval()
