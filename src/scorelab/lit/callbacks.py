"""What happens while a run trains: the bar, the history, validation, checkpoints, pictures, the heartbeat."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from tqdm import tqdm

from scorelab.data.module import DataModule
from scorelab.judge.base import draw_samples
from scorelab.judge.yardsticks import Curve, noise_error
from scorelab.lit.config import UserError
from scorelab.lit.pictures import save_samples
from scorelab.metrics.fidelity import running_frechet
from scorelab.report.status import write_status
from scorelab.tensors import to_bytes


def data_of(trainer: Trainer) -> DataModule:
    """The data module the trainer fits; Lightning attaches it without declaring it."""
    return trainer.datamodule  # type: ignore[attr-defined]


def record(trainer: Trainer, metrics: dict[str, float], step: int) -> None:
    """Send numbers to every logger."""
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step)


class EverySteps(Callback):
    """Acts after every ``every``-th optimiser step and after the last one.

    Raises:
        ValueError: for every < 1.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.every = every
        self.seen = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from the step a continued run stands at."""
        self.seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act where a step that counts has just been taken."""
        step = trainer.global_step
        if step == self.seen:
            return
        self.seen = step
        if step % self.every == 0 or step == trainer.max_steps:
            self.act(trainer, pl_module, step)

    def act(self, trainer: Trainer, module: Any, step: int) -> None:
        """What is done after ``step`` steps."""
        raise NotImplementedError


class TrainingLog(EverySteps):
    """The running mean of the loss and its parts, the gradient's norm, the share of clipped steps, the rate, the speed.

    To the loggers; the loss and the time left, on a bar. Sums stay on the device and are read every ``every`` steps.
    """

    def __init__(self, every: int = 50, bar: bool = True) -> None:
        super().__init__(every)
        self.bar = bar

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the bar."""
        super().on_train_start(trainer, pl_module)
        self.sums: dict[str, Any] = {}
        self.batches = 0
        self.started = (time.perf_counter(), trainer.global_step)
        self.shown = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc="training",
            unit="it",
            mininterval=0.5 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
            disable=not (self.bar and trainer.is_global_zero),
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the losses up; after an optimiser step, the norms too."""
        found = {name.removeprefix("shown/"): value for name, value in outputs.items() if name.startswith("shown/")}
        if trainer.global_step != self.seen:
            norm: Any = pl_module.gradient_norm
            found |= {"grad_norm": norm, "clipped": norm > (trainer.gradient_clip_val or math.inf)}
        self.sums |= {name: self.sums.get(name, 0) + value for name, value in found.items()}
        self.batches += 1
        self.shown.update(trainer.global_step - self.shown.n)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def act(self, trainer: Trainer, module: Any, step: int) -> None:
        """Read the sum, and start over."""
        steps = step - self.started[1]
        over = {name: steps if name in ("grad_norm", "clipped") else self.batches for name in self.sums}
        means = {name: float(total) / over[name] for name, total in self.sums.items()}
        now = time.perf_counter()
        speed = steps / (now - self.started[0])
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        means |= {"lr": rate, "it_per_s": speed}
        record(trainer, {f"train/{name}": value for name, value in means.items()}, step)
        self.shown.set_postfix_str(f"loss {means['loss']:.4f}", refresh=False)
        self.sums, self.batches, self.started = {}, 0, (now, step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self.shown.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar before an error is printed."""
        if hasattr(self, "shown"):
            self.shown.close()


class Validation(EverySteps):
    """``val/simple`` of the judged weights on the common log-SNR grid; last.ckpt, and best.ckpt where it is least.

    Where a schedule does not reach the whole of that grid, the newest checkpoint counts as the best.
    """

    def __init__(self, every: int = 500, chunk: int = 256) -> None:
        super().__init__(every)
        self.chunk = chunk
        self.best, self.simple = math.inf, math.nan
        self.curve: Curve | None = None

    def act(self, trainer: Trainer, module: Any, step: int) -> None:
        """Validate and save."""
        x0, labels = data_of(trainer).data("val", module.device)
        self.curve = noise_error(module.judged, x0, labels, self.chunk)
        value = self.curve.simple
        if value is not None and not math.isfinite(value):
            raise UserError(f"the run diverged: val/simple is {value} after {step} steps; lower optimizer.lr")
        if value is not None:
            record(trainer, {"val/simple": value}, step)
        self.simple = math.nan if value is None else value
        better = value is None or value < self.best
        self.best = min(self.best, math.inf if value is None else value)
        folder = Path(trainer.default_root_dir) / "checkpoints"
        if better:  # first: the last checkpoint knows of the best one
            trainer.save_checkpoint(folder / "best.ckpt")
        trainer.save_checkpoint(folder / "last.ckpt")

    def state_dict(self) -> dict[str, float]:
        """The best value so far, and the latest."""
        return {"best": self.best, "simple": self.simple}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from there."""
        self.best, self.simple = state_dict["best"], state_dict["simple"]


class SampleGrid(EverySteps):
    """A picture of samples from the same noise each time, and their Fréchet distance to the train split.

    ``val/fid`` is of ``samples`` images only, so its bias is large: for the trend, not for comparison.
    """

    def __init__(self, every: int = 1000, samples: int = 256, shown: int = 64, chunk: int = 256) -> None:
        super().__init__(every)
        if not 2 <= shown <= samples:
            raise ValueError(f"shown must lie between 2 and samples={samples}, got {shown}")
        self.samples, self.shown, self.chunk = samples, shown, chunk
        self.metric: Any = None

    def act(self, trainer: Trainer, module: Any, step: int) -> None:
        """Draw, save, measure."""
        data, denoiser = data_of(trainer), module.judged
        labels = torch.arange(self.samples) % (data.classes or 1)
        drawn = draw_samples(denoiser, module.sampler, data.shape, labels, module.seed, self.chunk)
        path = Path(trainer.default_root_dir) / "samples" / f"step_{step:07d}.png"
        save_samples(drawn, data, path, self.shown)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [str(path)], step)
        seen, train = drawn, data.splits["train"].values
        if len(train) < 2:  # one item has no covariance
            return
        if data.extractor.of_bytes:
            seen, train = (to_bytes(each, data.levels) for each in (drawn, train))
        if self.metric is None:
            self.metric = running_frechet(data.extractor)
            self.metric.update(train, real=True)
        self.metric.reset()
        self.metric.update(seen, real=False)
        record(trainer, {"val/fid": float(self.metric.compute())}, step)


class Heartbeat(Callback):
    """status.json, every ``seconds``: state, step, speed, host, pid, time."""

    def __init__(self, seconds: float = 30) -> None:
        self.seconds = seconds
        self.written = (-math.inf, 0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Write when it is time."""
        now, (then, step) = time.monotonic(), self.written
        if trainer.is_global_zero and now - then >= self.seconds:
            speed = (trainer.global_step - step) / (now - then)
            write_status(Path(trainer.default_root_dir), "running", trainer.global_step, speed)
            self.written = (now, trainer.global_step)
