"""What stops a run whose numbers have gone wrong, before it spoils its checkpoints."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import Callback
from torch import Tensor
from torch.optim import Optimizer

from scorelab.errors import Refusal, UserError
from scorelab.lit.actions import kept
from scorelab.lit.module import DiffusionModule
from scorelab.schedules import Schedule


@dataclass(frozen=True)
class Watched:
    """One step's numbers, ``finite`` on its way to the host: whether all losses and the gradients' norm were."""

    step: int
    schedule: Schedule
    t: Tensor
    losses: Tensor
    norm: Tensor
    finite: Tensor
    arrived: Any

    @property
    def well(self) -> bool:
        """Whether all was finite; waits for the number to arrive where it comes from a GPU."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(self.finite)

    def __str__(self) -> str:
        """What was wrong, where: the worst loss, its time and its log-SNR."""
        bad = ~self.losses.isfinite()
        worst = int(bad.double().argmax() if bad.any() else self.losses.abs().argmax())
        value, t = float(self.losses[worst]), float(self.t[worst])
        log_snr = float(self.schedule.log_snr(self.t[worst : worst + 1]))
        at = f"at t = {t:.6g}, log-SNR {log_snr:.3g}"
        if bad.any():
            return f"the loss is {value} in step {self.step} {at} ({int(bad.sum())} of {len(bad)} samples)"
        return f"the gradients' norm is {float(self.norm)} in step {self.step}; its largest loss, {value:.4g}, {at}"


def watch(module: DiffusionModule, step: int) -> Watched:
    """The numbers of the step just taken; nothing waits for them yet."""
    t, losses, norm = module.record.t, module.record.losses, module.record.gradient_norm
    finite = torch.isfinite(losses).all() & torch.isfinite(norm)
    arrived = None
    if finite.is_cuda:
        finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
    return Watched(step, module.denoiser.schedule, t, losses, norm, finite, arrived)


class DivergenceGuard(Callback):
    """Stops a run at a loss or gradient that is not finite, and where the smoothed loss says that it diverges.

    ``on_nan="skip"`` leaves such a step's update out instead, at most ``most`` steps in a row. It looks at every step
    before its update is made; "stop" looks one step later on a GPU, so that the device need not be waited for, and
    always before anything is saved.

    The smoothed loss is the mean over ``every`` steps. The run diverges where it exceeds the first such mean by
    ``factor`` times the most it ever lay below that, or by as many spreads of single batches at the start where that
    is more: infinity (``factor=inf``) never. What goes wrong before the first mean is known is its scale, so unseen.

    A callback for the checkpoint alone: ``Checkpointing`` asks it, before and after every update and before it saves.

    Raises:
        Refusal: for numbers that cannot be.
    """

    def __init__(
        self, on_nan: Literal["stop", "skip"] = "stop", most: int = 10, every: int = 50, factor: float = 5
    ) -> None:
        if most < 1 or every < 2 or not factor > 0:
            raise Refusal(
                f"most must be at least 1, every at least 2, factor above 0, got {most}, {every} and {factor}"
            )
        self.on_nan, self.most, self.every, self.factor = on_nan, most, every, factor
        self.watched: Watched | None = None
        self.skipped, self.in_a_row = 0, 0
        self.sums: Any = torch.zeros(3, dtype=torch.float64)  # batches, losses, their squares
        self.first: float | None = None
        self.least, self.spread = math.inf, 0.0
        self.seen = 0

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, for the checkpoint."""
        keys = ("skipped", "in_a_row", "first", "least", "spread")
        return {key: getattr(self, key) for key in keys} | {"sums": self.sums.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.skipped, self.in_a_row = (kept(self, state_dict, key) for key in ("skipped", "in_a_row"))
        self.first, self.least, self.spread = (kept(self, state_dict, key) for key in ("first", "least", "spread"))
        self.sums = torch.tensor(kept(self, state_dict, "sums"), dtype=torch.float64)

    def begin(self, module: DiffusionModule, step: int) -> None:
        """Count from the step a run stands at."""
        self.seen = step
        self.sums = self.sums.to(module.device)

    def skips(self, module: DiffusionModule, optimizer: Optimizer, step: int) -> bool:
        """Look before the update of a step is made, where bad ones are skipped; whether it has nothing left to do.

        Raises:
            UserError: where too many in a row would be skipped.
        """
        if self.on_nan == "stop":
            return False
        module.measure_gradients(optimizer)
        seen = watch(module, step)
        if seen.well:
            self.in_a_row = 0
            return False
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row > self.most:
            raise UserError(f"{seen}; so were the {self.most} steps before, which were skipped: lower optimizer.lr")
        optimizer.zero_grad(set_to_none=True)  # a parameter without a gradient is passed over, moments and all
        return True

    def after_batch(self, module: DiffusionModule, step: int) -> None:
        """Add the loss up; after an optimiser step look at the one before, and at the mean when it is due.

        Raises:
            UserError: where the run is to stop.
        """
        loss = module.record.loss.double()
        if self.on_nan == "stop" or bool(loss.isfinite()):
            self.sums += torch.stack([torch.ones_like(loss), loss, loss**2])
        if step == self.seen:
            return
        self.seen = step
        if self.on_nan == "stop":
            self.look()
            self.watched = watch(module, self.seen)
            if not module.on_gpu:
                self.look()
        if self.seen % self.every == 0:
            self.weigh(self.sums)
            self.sums = torch.zeros_like(self.sums)

    def look(self) -> None:
        """Stop where the step last watched was not well.

        Raises:
            UserError: then, with its time and log-SNR.
        """
        watched, self.watched = self.watched, None
        if watched is not None and not watched.well:
            raise UserError(f"{watched}: lower optimizer.lr, or on_nan=skip passes over such steps")

    def weigh(self, sums: Tensor) -> None:
        """Compare the mean loss since the last time with the first one.

        Raises:
            UserError: where the run diverges.
        """
        batches, total, squares = sums.tolist()
        if batches == 0:
            return
        mean = total / batches
        if self.first is None:
            self.first, self.spread = mean, math.sqrt(max(0.0, squares / batches - mean**2))
        limit = self.first + self.factor * max(self.first - min(self.least, mean), self.spread)
        if mean > limit:
            told = f"the run diverges: its loss is {mean:.4g} over the last {self.every} steps (to step {self.seen})"
            raise UserError(f"{told}, was {self.first:.4g} at first and {self.least:.4g} at best: lower optimizer.lr")
        self.least = min(self.least, mean)
