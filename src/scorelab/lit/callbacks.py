"""What happens while a run trains: the bar, the history, validation, pictures."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from tqdm import tqdm

from scorelab.data.module import first
from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal, Unavailable, UserError
from scorelab.evaluation.curves import bins_in_range
from scorelab.evaluation.features import features_of, reference_features
from scorelab.evaluation.noise_error import noise_error
from scorelab.lit.actions import EverySteps, RunContext, affordable, kept
from scorelab.lit.floor import LeastError, LeastOfDrawn
from scorelab.lit.pictures import save_samples
from scorelab.log_snr import SIMPLE
from scorelab.metrics.fidelity import running_frechet
from scorelab.samplers import draw_samples
from scorelab.tensors import as_data

log = logging.getLogger("scorelab")


class TrainingLog(EverySteps):
    """The running mean of the loss and its parts, the gradient's norm, the share of clipped steps, the rate, the speed.

    To the loggers; on a bar the loss, and beside it what it is to be judged by: ``eps_error``, the mean of
    ||eps - eps^||^2 / d over what was drawn, and where draws of a known law are trained on, ``eps_floor``, the least
    it can be on average at the times that were drawn. Numbers stay on the device and are read every ``every`` steps.
    What is not finite, or of a step that was left out, is not in them. The rate is the one that the step was taken
    with; the speed leaves out what is done between steps (``leave_out``): validation, pictures, checkpoints.
    """

    brief = True

    def __init__(self, every: int = 50, bar: bool = True) -> None:
        super().__init__(every)
        self.bar = bar
        self.told: dict[str, list[Tensor]] = {}
        self.seen = 0
        self.rate, self.clip = math.nan, math.inf
        self.aside = 0.0
        self.least: LeastError | None = None
        self.drawn = LeastOfDrawn()

    def state_dict(self) -> dict[str, Any]:
        """The numbers so far, and the last rate, for the checkpoint."""
        told = {name: torch.stack(values) for name, values in self.told.items()}
        return super().state_dict() | {"told": told, "rate": self.rate, "drawn": self.drawn.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.told = {name: list(values) for name, values in kept(self, state_dict, "told").items()}
        self.rate = kept(self, state_dict, "rate")
        self.drawn.load_state_dict(kept(self, state_dict, "drawn"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the bar."""
        device = pl_module.device  # a checkpoint's are the CPU's
        self.told = {name: [value.to(device) for value in values] for name, values in self.told.items()}
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        known: Any = pl_module.known
        if known is not None and data.endless and trainer.is_global_zero:
            self.least = LeastError(known)
        self.drawn.to(pl_module.device)
        self.seen, self.clip = trainer.global_step, trainer.gradient_clip_val or math.inf
        self.started, self.aside = (time.perf_counter(), trainer.global_step), 0.0
        self.shown = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc="training",
            unit="it",
            mininterval=0.5 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
            disable=not (self.bar and trainer.is_global_zero),
        )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note the rate of this step; the schedule sets the next one's before the step's end."""
        self.rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the losses; after an optimiser step, the norm too."""
        record: Any = pl_module.record
        found = {"loss": record.loss, **record.parts}
        if record.eps_error is not None:
            found["eps_error"] = record.eps_error
        if trainer.global_step != self.seen:
            found["grad_norm"] = record.gradient_norm
            if self.least is not None and record.eps_error is not None:
                self.drawn.add(record.t, self.least)
        for name, value in found.items():
            self.told.setdefault(name, []).append(value)
        self.seen = trainer.global_step
        self.shown.update(trainer.global_step - self.shown.n)

    def act(self, run: RunContext, step: int) -> None:
        """Read the means, and start over."""
        told = {name: torch.stack(values) for name, values in self.told.items()}
        if "grad_norm" in told:
            norm = torch.where(told["grad_norm"] > 0, told["grad_norm"], math.nan)  # none at all: a step left out
            told |= {"grad_norm": norm, "clipped": torch.where(norm > 0, norm > self.clip, math.nan)}
        means = {name: float(mean_of_finite(values)) for name, values in told.items()}
        now, (then, before) = time.perf_counter(), self.started
        # a line that an earlier job owes has no speed of this one's
        speed = (step - before) / (now - then - self.aside) if step > before else math.nan
        means |= {"lr": self.rate, "it_per_s": speed}
        if self.least is not None and (floor := self.drawn.take(self.least)) is not None:
            means["eps_floor"] = floor
        run.logger.log_metrics({f"train/{name}": value for name, value in means.items()}, step)
        self.shown.set_postfix_str(beside(means), refresh=False)
        self.told, self.started, self.aside = {}, (now, step), 0.0

    def leave_out(self, seconds: float) -> None:
        """Not count them in the speed."""
        self.aside += seconds

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self.shown.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar before an error is printed."""
        if hasattr(self, "shown"):
            self.shown.close()


def mean_of_finite(values: Tensor) -> Tensor:
    """The mean of those of (n,) that are finite; 0 of none."""
    finite = values.isfinite()
    return torch.where(finite, values, 0.0).double().sum() / finite.sum().clamp(min=1)


def beside(means: Mapping[str, float]) -> str:
    """The loss, the error of the noise and the least that can be, as the bar shows them."""
    told = f"loss {means['loss']:.4f}"
    if "eps_error" in means:
        told += f", ε-error {means['eps_error']:.3g}"
    return told + (f" (least {means['eps_floor']:.3g})" if "eps_floor" in means else "")


class Validation(EverySteps):
    """``val/simple`` of the evaluated weights on the common log-SNR grid; ``improved`` where it is the least so far.

    Where the law of the data is known, ``val/simple_floor`` stands beside it: the exact denoiser's own error at the
    same x_t. No denoiser's is less on average; as both see the same noise, their difference scatters far less than
    either, and is 0 for the exact denoiser.

    Where a schedule does not reach the whole of that grid, the newest checkpoint counts as the best.

    Args:
        every: steps between two.
        items: of the val split that are looked at, the same each time and for every seed; all where it has no more, and
            where a tenth of the work of the steps between two pays for fewer, so many, but at least 64.
        chunk: items per network call.

    Raises:
        Refusal: for items < 1.
    """

    memory = "callbacks.validation.chunk"

    def __init__(self, every: int | None = None, items: int = 512, chunk: int = 256) -> None:
        super().__init__(every)
        if items < 1:
            raise Refusal(f"items must be at least 1, got {items}")
        self.items, self.chunk = items, chunk
        self.best, self.simple = math.inf, math.nan
        self.improved = False
        self.floor: float | None = None

    def act(self, run: RunContext, step: int) -> None:
        """Validate."""
        denoiser, device = run.module.evaluated, run.module.device
        items = min(self.items, max(64, affordable(run, self.every, SIMPLE.stop - SIMPLE.start)))
        held = first(run.data.splits["val"], items)
        x0, labels = as_data(held.values, run.data.levels).to(device), held.labels.to(device)

        def error(of: Denoiser) -> float | None:
            reached = [bin for bin in bins_in_range(of) if bin in range(SIMPLE.start, SIMPLE.stop)]
            return noise_error(of, x0, labels, self.chunk, reached).simple

        value = error(denoiser)
        if value is not None and not math.isfinite(value):
            raise UserError(f"the run diverged: val/simple is {value} after {step} steps; lower optimizer.lr")
        if value is not None:
            if self.floor is None and run.module.known is not None:
                self.floor = error(run.module.known.to(device))
            floor = {} if self.floor is None else {"val/simple_floor": self.floor}
            run.logger.log_metrics({"val/simple": value} | floor, step)
        self.simple = math.nan if value is None else value
        self.improved = value is None or value < self.best
        self.best = min(self.best, math.inf if value is None else value)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, the latest, and the floor."""
        return super().state_dict() | {"best": self.best, "simple": self.simple, "floor": self.floor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self.best, self.simple = kept(self, state_dict, "best"), kept(self, state_dict, "simple")
        self.floor = kept(self, state_dict, "floor")

    def take_best(self) -> bool:
        """Whether the latest value is the least, until this is asked."""
        improved, self.improved = self.improved, False
        return improved

    def figures(self) -> dict[str, float]:
        """The last value, and the least."""
        floor = {} if self.floor is None else {"val/simple_floor": self.floor}
        return {"val/simple": self.simple, "val/simple_best": self.best} | floor


class Given(nn.Module):
    """Gives back the features it is given."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """(N, f) -> (N, f)."""
        return features


class SampleGrid(EverySteps):
    """A picture of samples from the same noise each time, and their Fréchet distance to the train split.

    ``val/fid`` is of ``samples`` images only, so its bias is large: for the trend, not for comparison.

    Args:
        every: steps between two.
        samples: how many are drawn, or as many as a tenth of the work of the steps between two grids pays for, where
            that is less (``affordable``). Where it pays for no two there is no picture.
        shown: of them, in the picture.
        chunk: images per network call.

    Raises:
        Refusal: for fewer than 2 shown, or more than are drawn.
    """

    times = 5
    memory = "callbacks.grid.chunk, or callbacks.grid.samples"

    def __init__(self, every: int | None = None, samples: int = 256, shown: int = 64, chunk: int = 256) -> None:
        super().__init__(every)
        if not 2 <= shown <= samples:
            raise Refusal(f"shown must lie between 2 and samples={samples}, got {shown}")
        self.samples, self.shown, self.chunk = samples, shown, chunk
        self.metric: Any = None

    def act(self, run: RunContext, step: int) -> None:
        """Draw, save, measure."""
        data, module = run.data, run.module
        count = min(self.samples, affordable(run, self.every, module.sampler.evaluations(module.evaluated)))
        if count < 2:
            return
        labels = torch.arange(count) % (data.classes or 1)
        try:
            drawn = draw_samples(module.evaluated, module.sampler, data.shape, labels, module.seed, self.chunk)
        except Unavailable as error:
            log.warning("no picture after %s steps: %s", f"{step:,}", error)
            return
        path = run.directory / "samples" / f"step_{step:07d}.png"
        save_samples(drawn, data, path, self.shown)
        run.logger.log_image("samples", path, step)
        if len(data.splits["train"]) < 2:  # one item has no covariance
            return
        if self.metric is None:
            self.metric = running_frechet(Given(data.extractor.num_features))
            self.metric.update(reference_features(data.splits["train"].values, data.levels, data.extractor), real=True)
        self.metric.reset()
        self.metric.update(features_of(drawn, data.levels, data.extractor), real=False)
        run.logger.log_metrics({"val/fid": float(self.metric.compute())}, step)
