"""The LightningModule: a denoiser, a loss, a law of times, and how to step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from scorelab.denoisers import Denoiser, Exact
from scorelab.lit.ema import make_ema
from scorelab.lit.record import StepRecord
from scorelab.losses import Example, Loss, TimestepSampler
from scorelab.run.signals import SIGNALS
from scorelab.samplers import Sampler
from scorelab.tensors import generator, seed_layers, share_of, standard_normal


class DiffusionModule(LightningModule):
    """Trains a denoiser under a loss at times drawn by a law.

    All randomness of a step (times, noise, dropout) is a function of (seed, step, rank), so a continued run draws
    what the uninterrupted one would have. ``averaged``, where ``average`` was called, is a second denoiser with
    averaged weights; it is the one that is evaluated and sampled from. ``sampler`` is for pictures along the way.
    ``exact`` is that of the training data where the loss asks for it, ``known`` that of the law of held-out data where
    it is known: arguments, not submodules, so in no checkpoint and no copy. ``normalizer`` divides the loss that is
    trained on, not the one that is told. ``record`` is of the last step, ``origin`` of the run that the first weights
    came from. One evaluated alone has no optimiser.
    """

    averaged: Denoiser | None
    record: StepRecord

    def __init__(
        self,
        denoiser: Denoiser,
        loss: Loss,
        timesteps: TimestepSampler,
        sampler: Sampler,
        optimizer: Callable[[list[nn.Parameter]], Optimizer] | None,
        lr_schedule: Callable[[Optimizer], LRScheduler] | None,
        seed: int,
        normalizer: float = 1.0,
        exact: Exact | None = None,
        known: Exact | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.loss, self.timesteps = denoiser, loss, timesteps
        self.averaged = None
        self.sampler, self.make_optimizer, self.make_lr_schedule = sampler, optimizer, lr_schedule
        self.seed, self.normalizer = seed, normalizer
        self.origin: dict[str, Any] | None = None
        self._beside = (exact, known)  # a tuple, which nn.Module does not look into

    @property
    def exact(self) -> Exact | None:
        """The exact denoiser of the training data, where the loss asks for it."""
        return self._beside[0]

    @property
    def known(self) -> Exact | None:
        """The exact denoiser of the law of held-out data, where it is known."""
        return self._beside[1]

    def on_fit_start(self) -> None:
        """Bring the exact denoisers to where the data will be."""
        _ = [exact.to(self.device) for exact in self._beside if exact is not None]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the signals back, too: Lightning calls this soon after it has put in a handler of SIGTERM."""
        SIGNALS.take_back()
        super().zero_grad(set_to_none)

    def average(self) -> None:
        """Have a second denoiser for averaged weights: a copy of the first as it is, if there is none yet."""
        if self.averaged is None:
            self.averaged = make_ema(self.denoiser)

    def remember_origin(self, run: str, step: int) -> None:
        """Know that the weights it begins with are those of another run at a step."""
        self.origin = {"run": run, "step": step}

    @property
    def evaluated(self) -> Denoiser:
        """The denoiser to evaluate and to sample from: the averaged one where there is one."""
        return self.denoiser if self.averaged is None else self.averaged

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The weighted mean loss of one batch to train on; what there is to look at goes into ``record``."""
        x0, label = batch
        trainer = self.trainer
        step, parts = trainer.global_step, trainer.accumulate_grad_batches
        part, rank, world = index % parts, trainer.global_rank, trainer.world_size
        seed_layers(generator("dropout", self.seed, step, rank, part).initial_seed(), self.device)
        # ranks and accumulated batches are shares of one draw, in the order of the data: what is trained on, and a law
        # of times over the whole batch, are those of one process that takes it at once
        share, shares = part * world + rank, parts * world
        times = generator("times", self.seed, step)
        draw = self.timesteps.draw(self.denoiser.schedule, len(x0), step, share, shares, times)
        t, weight = draw.t.to(x0.device), draw.weight.to(x0.device)
        noise = share_of("noise", self.seed, step, rows=len(x0), share=share, shares=shares, device=x0.device)
        eps = standard_normal(x0.shape, noise, device=x0.device, dtype=x0.dtype)
        own = share_of("loss", self.seed, step, rows=len(x0), share=share, shares=shares)
        with self.denoiser.schedule.staying(t):
            terms = self.loss(self.denoiser, Example.of(self.denoiser, x0, t, eps, label, self.exact), own)
        loss = (weight * terms.loss).mean()
        record = StepRecord.of(terms, t, weight, self.all_gather)
        self.record = record.after(self.record) if part else record
        if part == parts - 1:  # of the whole batch at once, as one process does
            self.timesteps.update(self.record.t, self.record.losses)
            self.timesteps.see(self.denoiser.schedule, self.record.t, self.record.errors)
        return loss / self.normalizer

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients; Lightning's own way refuses fused optimisers under mixed precision."""
        parameters = self.measure_gradients(optimizer)
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self.record.gradient_norm)

    def measure_gradients(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """Put the gradients' norm on record; the parameters that have a gradient."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])  # of none at all, a zero on the CPU
        self.record = replace(self.record, gradient_norm=norm.to(self.device))
        return parameters

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the first weights came from."""
        checkpoint["origin"] = self.origin

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know it again."""
        self.origin = checkpoint["origin"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of the denoiser's, its schedule's and the loss's parameters, its rate set every step."""
        parameters = [p for part in (self.denoiser, self.loss) for p in part.parameters() if p.requires_grad]
        assert self.make_optimizer and self.make_lr_schedule, "made to be evaluated"
        optimizer = self.make_optimizer(parameters)
        schedule = self.make_lr_schedule(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
