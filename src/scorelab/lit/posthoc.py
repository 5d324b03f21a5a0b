"""Averaged weights of several lengths at once, kept so that one of any length can be made after training."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.lit.actions import EverySteps, RunContext, kept
from scorelab.lit.ema import Following
from scorelab.lit.profile import Profile
from scorelab.lit.snapshots import write_snapshot

APART = 1.1  # a length over the next shorter: of nearer ones only the difference would tell more, and that is rounding


class PowerAverages(EverySteps):
    """Averages of the weights under powers of time, decay_n = (1 - 1/n)^(gamma + 1) at step n (``profile.Profile``).

    The first is the module's averaged denoiser, which is evaluated, sampled from and kept in checkpoints as any average
    is; the others are kept beside it, and from time to time all are written into the run's directory, from which
    ``snapshots.take_average`` makes an average of another length (Karras et al. 2024, arXiv 2312.02696, section 3).
    A length is relative to the steps taken, so no warm-up is needed, and the batch does not matter.

    Args:
        every: steps between two snapshots; left open, there are eight in a run.
        sigma_rel: the lengths, as standard deviations of the profiles over the steps taken.

    Raises:
        Refusal: for every < 1, for no length at all, two that are nearly the same, or one outside (0, 1/sqrt(12)].
    """

    times = 8

    def __init__(self, every: int | None = None, sigma_rel: tuple[float, ...] = (0.1, 0.05)) -> None:
        super().__init__(every)
        ordered = sorted(sigma_rel)
        if not ordered or any(long < APART * short for short, long in pairwise(ordered)):
            raise Refusal(f"sigma_rel must be one or more lengths, a tenth apart at least, got {list(sigma_rel)}")
        self.first, *self.others = (Profile(1, each).sigma_rel for each in sigma_rel)
        self.beside: list[dict[str, Tensor]] = []  # the averages of the other lengths, by the names of parameters
        self.step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its second denoiser before a checkpoint is read into it; begin the others."""
        module: Any = pl_module
        module.average()
        start = dict(module.averaged.named_parameters())
        self.beside = [{name: value.detach().clone() for name, value in start.items()} for _ in self.others]

    def state_dict(self) -> dict[str, Any]:
        """When the last snapshot was written, and the averages that the module does not hold."""
        return super().state_dict() | {"beside": self.beside}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.beside = kept(self, state_dict, "beside")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from the step a continued run stands at, on its device."""
        module: Any = pl_module
        self.step = trainer.global_step
        self.following = Following(module.averaged, module.denoiser)
        self.beside = [{name: value.to(pl_module.device) for name, value in each.items()} for each in self.beside]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Follow once per optimiser step."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.following.follow(Profile(self.step, self.first).decay)
            for sigma_rel, mine in zip(self.others, self.beside, strict=True):
                weight = 1 - Profile(self.step, sigma_rel).decay
                torch._foreach_lerp_(list(mine.values()), self.following.its, weight)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning puts the whole module in training mode; the copy stays in evaluation mode."""
        averaged: Any = pl_module.averaged
        averaged.eval()

    def act(self, run: RunContext, step: int) -> None:
        """Write a snapshot of all averages."""
        assert run.module.averaged is not None
        names = [name for name, _ in run.module.denoiser.named_parameters()]  # the other is spread over processes now
        first: Mapping[str, Tensor] = dict(zip(names, run.module.averaged.parameters(), strict=True))
        averages = dict(zip([self.first, *self.others], [first, *self.beside], strict=True))
        write_snapshot(run.directory, step, averages)
