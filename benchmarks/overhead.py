"""What a training step costs under the Trainer, as train.py sets it up, beside a bare loop of the same steps.

    OMP_NUM_THREADS=1 python benchmarks/overhead.py

Both draw the same batches of the same data, noise them at uniform times, go back through the mean squared error of the
noise, clip, step (fused AdamW under the same rate), and follow with an average. Of the run's steps those are timed that
lie between two of its long interruptions (validation, pictures, checkpoints), lines of its log among them; each round
is a run of its own, the loop before or after it.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from common import Row, machine
from hydra import compose, initialize_config_dir
from lightning import Callback
from torch.nn import functional

from scorelab.app.train import Ready, ready
from scorelab.config.build import sized
from scorelab.config.check import completed
from scorelab.config.trainer import quiet
from scorelab.lit.ema import Following, make_ema
from scorelab.run.directory import RunDir
from scorelab.tensors import like
from scorelab.tracking.history import History

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RUNS = {
    "the default run": [],
    "a toy network": ["data=mixture", "model.width=16", "model.blocks=1", "data.batch_size=64"],
}
FIRST = 30  # steps that are left aside, while memory and caches settle


class Clock(Callback):
    """When each step began."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.at.append(time.process_time())


def objects_of(words: list[str], directory: Path, steps: int) -> tuple[Ready, Clock]:
    """What train.py makes of these words, nothing long being due within the steps."""
    rest = [f"++trainer.max_steps={10 * steps}", "++trainer.accelerator=cpu"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        rest += [f"++callbacks.{name}.every={9 * steps}" for name in ("validation", "grid")]
        config = compose(
            "train", ["run=overhead", "logger=csv", *(f"++{word}" if "." in word else word for word in words), *rest]
        )
    completed_config = sized(completed(config))
    objects, clock = ready(completed_config, RunDir(directory)), Clock()
    objects.loggers.add(History(directory))
    objects.training.trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
    objects.training.trainer.fit_loop.epoch_loop.max_steps = FIRST + steps + 1
    return objects, clock


def under_the_trainer(words: list[str], steps: int) -> float:
    """Seconds of one step of a run."""
    with tempfile.TemporaryDirectory() as place:
        objects, clock = objects_of(words, Path(place), steps)
        objects.training.trainer.fit(objects.experiment.module, objects.experiment.data)
        return (clock.at[FIRST + steps] - clock.at[FIRST]) / steps


def alone(words: list[str], steps: int) -> float:
    """Seconds of one step of a loop that does the same and nothing else."""
    with tempfile.TemporaryDirectory() as place:
        objects, _ = objects_of(words, Path(place), steps)
        module, data = objects.experiment.module, objects.experiment.data
        denoiser, averaged = module.denoiser.train(), make_ema(module.denoiser)
        parameters, following = list(denoiser.parameters()), Following(averaged, denoiser)
        assert module.make_optimizer and module.make_lr_schedule
        optimizer = module.make_optimizer(parameters)
        rate = module.make_lr_schedule(optimizer)
        batches: Iterator[Any] = iter(data.train_dataloader())
        began, schedule = 0.0, denoiser.schedule
        for step in count():
            if step == FIRST:
                began = time.process_time()
            if step == FIRST + steps:
                return (time.process_time() - began) / steps
            x0, label = next(batches)
            t, eps = schedule.training_time(torch.rand(len(x0), dtype=torch.float64)), torch.randn_like(x0)
            x_t = like(schedule.alpha(t), x0) * x0 + like(schedule.sigma(t), x0) * eps
            functional.mse_loss(denoiser.network(x_t, 1000 * t, label), eps).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
            following.follow(0.999)
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    logging.getLogger("scorelab").setLevel(logging.WARNING)
    print(f"### Overhead of a training step\n\n{machine()}\n")
    print("| | bare loop, ms | under the Trainer, ms | ratio | ms more a step |\n|---|---|---|---|---|")
    for name, words in RUNS.items():
        ours, bare = [], []
        for number in range(given.rounds + 1):
            for which in (ours, bare) if number % 2 else (bare, ours):
                which.append((under_the_trainer if which is ours else alone)(words, given.steps))
        row, plain = Row(name, ours[1:], bare[1:]), Row("bare", bare[1:])  # the first round warms up
        more = 1e3 * (row.median - plain.median)
        print(
            f"| {name} | {plain.median * 1e3:.2f} | {row.median * 1e3:.2f} | {row.verdict} | {more:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
