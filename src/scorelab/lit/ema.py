"""Averaged weights: a second denoiser that follows the trained one."""

import copy
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal

WARM_UP = 0.05  # of the images seen so far: the longest half-life


def make_ema(denoiser: Denoiser) -> Denoiser:
    """A copy that is never trained and always evaluates."""
    return copy.deepcopy(denoiser).requires_grad_(False).eval()


class Following:
    """An average that follows a trained denoiser: their parameters and buffers, listed once.

    To walk through the modules at every step would take longer than to follow.
    """

    def __init__(self, averaged: Denoiser, denoiser: Denoiser) -> None:
        self.mine: list[Tensor] = list(averaged.parameters())
        self.its: list[Tensor] = list(denoiser.parameters())
        self.my_buffers, self.its_buffers = list(averaged.buffers()), list(denoiser.buffers())

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """theta_avg <- decay theta_avg + (1 - decay) theta, for all parameters at once; buffers are copied."""
        torch._foreach_lerp_(self.mine, self.its, 1 - decay)
        if self.my_buffers:
            torch._foreach_copy_(self.my_buffers, self.its_buffers)


class AveragedWeights(Callback):
    """Exponential moving average of the weights, decay_k = min(decay, (1 + k)/(10 + k)) at step k.

    The warm-up forgets the random start: early averages span about a tenth of the steps taken so far. With
    ``half_life`` the length is told in images instead, so that it means the same at any batch size, and the warm-up is
    a twentieth of the images seen so far: decay_k = 2^(-batch / min(half_life, images / 20)) (Karras et al. 2022, EDM's
    training loop, with 500,000 images for CIFAR-10).

    Args:
        decay: of a step; not looked at where there is a half-life.
        half_life: after how many images, of all devices, what was averaged counts for half.

    Raises:
        Refusal: for a decay outside [0, 1), or a half-life that is not above 0.
    """

    def __init__(self, decay: float = 0.999, half_life: float | None = None) -> None:
        if not 0 <= decay < 1:
            raise Refusal(f"decay must lie in [0, 1), got {decay}")
        if half_life is not None and not half_life > 0:
            raise Refusal(f"half_life must be above 0 images, got {half_life}")
        self.decay, self.half_life = decay, half_life
        self.step = 0

    def decay_at(self, step: int, batch: int) -> float:
        """Of the update after so many steps (1, 2, ...) of so many images each."""
        if self.half_life is None:
            return min(self.decay, (1 + step) / (10 + step))
        return float(0.5 ** (batch / min(self.half_life, WARM_UP * step * batch)))

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Give the module its second denoiser before a checkpoint is read into it."""
        pl_module.average()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count from the step a continued run stands at."""
        self.step = trainer.global_step
        self.following = Following(pl_module.averaged, pl_module.denoiser)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Follow once per optimiser step."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            batch = 1 if self.half_life is None else len(pl_module.record.t)
            self.following.follow(self.decay_at(self.step, batch))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Lightning puts the whole module in training mode; the copy stays in evaluation mode."""
        pl_module.averaged.eval()
