"""The end of a step: what is due is done, what has been reached is saved, and a signal ends the run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import distributed
from torch.optim import Optimizer

from scorelab.errors import Interrupted, Refusal
from scorelab.lit.actions import EverySteps, RunContext
from scorelab.lit.checkpoint_io import Checkpoints
from scorelab.lit.guard import DivergenceGuard
from scorelab.lit.spread import serve, spread
from scorelab.run.machine import of_memory
from scorelab.run.processes import FOREVER, see_complete
from scorelab.run.signals import SIGNALS
from scorelab.tracking.logger import RunLogger


class Checkpointing(Callback):
    """Keeps a run: does what is due, writes last.ckpt after it (but not for a line of the log), best.ckpt if it is.

    Of several processes the first does it; all compute what it asks the network (``spread``).

    A checkpoint is also written when ``minutes`` have passed since the last one, and when a signal asks the run to
    stop; when it is written changes nothing of what is computed. A signal cuts short what is done between steps: the
    checkpoint then says that it is still to be done.

    Of all callbacks its hooks have to be called last.

    Args:
        actions: what is done between steps, in this order.
        guard: is asked whether the numbers are sound, before and after every update, and before they are kept.
        logger: is told what actions find, and how many steps were skipped.
        checkpoints: the trainer's way of writing them.
        minutes: between two checkpoints, at most.

    Raises:
        Refusal: for minutes that are not above 0.
    """

    def __init__(
        self,
        actions: Sequence[EverySteps],
        guard: DivergenceGuard,
        logger: RunLogger,
        checkpoints: Checkpoints,
        minutes: float = 10,
    ) -> None:
        if not minutes > 0:
            raise Refusal(f"minutes must be above 0, got {minutes}")
        self.actions, self.guard, self.logger, self.checkpoints = actions, guard, logger, checkpoints
        self.minutes = minutes
        self.seen, self.saved = 0, -1
        self.at = time.monotonic()
        self.group: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """See that all processes are there; have a way for them to agree that keeps no GPU waiting."""
        see_complete(trainer.num_devices * trainer.num_nodes, trainer.num_nodes)
        if trainer.world_size > 1:
            self.group = distributed.new_group(backend="gloo", timeout=FOREVER)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Make up for what an interruption came before. Lightning has just taken SIGTERM; it is ours again."""
        SIGNALS.take_back()
        self.guard.begin(pl_module, trainer.global_step)
        self.seen = self.saved = trainer.global_step
        self.at = time.monotonic()
        self.end_of_step(trainer, pl_module, trainer.global_step == trainer.max_steps)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Have the guard look at the gradients; say how many steps were skipped."""
        if self.guard.skips(pl_module, optimizer, trainer.global_step + 1):
            self.logger.log_metrics({"train/skipped": self.guard.skipped}, trainer.global_step + 1)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Have the guard look; act where an optimiser step has just been taken."""
        self.guard.after_batch(pl_module, trainer.global_step)
        if trainer.global_step != self.seen:
            self.seen = trainer.global_step
            self.end_of_step(trainer, pl_module, trainer.global_step == trainer.max_steps)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Act where time ended the run, or where all steps had been taken but not what comes after the last.

        All of it is on disk then.
        """
        self.end_of_step(trainer, pl_module, True)
        self.checkpoints.wait()

    def end_of_step(self, trainer: Trainer, module: Any, last: bool) -> None:
        """Do what is due, save if there is reason to, stop if a signal says so.

        Raises:
            Interrupted: then, once all is on disk.
        """
        step, acted = trainer.global_step, int(self.act(trainer, module, last))
        self.checkpoints.check()
        late = int(time.monotonic() - self.at > 60 * self.minutes)
        signum, late, acted = self.all_reduce_max(SIGNALS.received or 0, late, acted)
        if acted or late or signum:
            self.save(trainer, step, again=bool(acted))
        if signum:
            self.checkpoints.wait()
            raise Interrupted(signum)

    def act(self, trainer: Trainer, module: Any, last: bool) -> bool:
        """Do what is due in turn, until a signal comes in; whether any of it is worth saving for."""
        step, acted = trainer.global_step, False
        due = [each for each in self.actions if each.due(step, last)]
        if due:
            self.guard.look()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning attaches it without declaring it
        run = RunContext(module, data, self.logger, Path(trainer.default_root_dir))
        shared = any(not each.brief for each in due)
        if not trainer.is_global_zero:
            with evaluating(module):
                if shared:
                    serve(module.evaluated)
            for each in due:
                each.done = step
            return shared
        with spread(module.evaluated) if shared else nullcontext():
            for each in due:
                try:
                    with SIGNALS.waiting(each.brief), evaluating(module), self.aside(not each.brief):
                        each.act(run, step)
                except Interrupted:
                    break
                except Exception as error:
                    if short := of_memory(error, each.memory):
                        raise short from error
                    raise
                each.done = step
                acted = acted or not each.brief
        return acted

    def all_reduce_max(self, *mine: int) -> tuple[int, ...]:
        """The greatest of what the processes say, so that all do the same; of one alone, what it says."""
        if self.group is None:
            return mine
        said = torch.tensor(mine)
        distributed.all_reduce(said, distributed.ReduceOp.MAX, group=self.group)
        return tuple(said.tolist())

    def save(self, trainer: Trainer, step: int, again: bool) -> None:
        """Write last.ckpt unless it is of this step already; best.ckpt with it where the last validation improved."""
        if self.saved == step and not again:
            return
        self.guard.look()
        found = [each.take_best() for each in self.actions]
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        with self.aside():
            trainer.save_checkpoint(path, weights_only=False, storage_options={"best": any(found)})
        self.saved, self.at = step, time.monotonic()

    @contextmanager
    def aside(self, long: bool = True) -> Iterator[None]:
        """What is done here, if it is ``long``, counts as no training in the speed that is logged."""
        began = time.perf_counter()
        yield
        for each in self.actions if long else ():
            each.leave_out(time.perf_counter() - began)

    def figures(self) -> dict[str, float]:
        """What the actions tell of the run in the end."""
        return {name: value for each in self.actions for name, value in each.figures().items()}


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """The denoiser without dropout, as what is done between steps wants it."""
    training = module.denoiser.training
    module.denoiser.eval()
    try:
        yield
    finally:
        module.denoiser.train(training)
