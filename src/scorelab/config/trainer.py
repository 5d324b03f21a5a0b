"""The trainer of a config: what Lightning is given, and what it would do that is not meant."""

import inspect
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from scorelab.config.check import instantiate, target_of
from scorelab.config.loggers import loggers_of
from scorelab.errors import UserError
from scorelab.lit.actions import EverySteps
from scorelab.lit.checkpoint_io import Checkpoints
from scorelab.lit.checkpointing import Checkpointing
from scorelab.lit.environment import ProcessEnvironment
from scorelab.lit.loggers import ForLightning
from scorelab.run.processes import FOREVER
from scorelab.tracking.logger import RunLogger

NEEDED = {"validation": "says when to save", "keep": "writes the checkpoints", "guard": "stops at NaN"}


def _refuse_trainer(node: dict[str, Any], callbacks: dict[str, Any]) -> None:
    """What Lightning would accept and this program does not mean."""
    for key in ("max_steps", "accumulate_grad_batches"):
        if not isinstance(node[key], int) or node[key] < 1:
            raise UserError(f"trainer.{key} must be at least 1, got {node[key]}")
    for key, where in (("devices", "devices of each node"), ("num_nodes", "nodes")):
        if type(node[key]) is not int or node[key] < 1:
            raise UserError(f"trainer.{key}={node[key]}: a run trains on 1, 2, ... {where}: type their number")
    strategy = node["strategy"]
    kind = strategy.get("_target_", "") if isinstance(strategy, dict) else strategy
    if kind not in ("auto", "ddp") and not str(kind).endswith(".DDPStrategy"):
        told = f"trainer.strategy={kind}: possible: auto, ddp"
        raise UserError(f"{told}; the whole network is on each device, as checkpoints and averaged weights have it")
    if node["precision"] not in (None, 32, "32", "32-true", "bf16-mixed"):
        raise UserError(f"trainer.precision={node['precision']}: possible: 32-true, bf16-mixed")
    if isinstance(node["max_time"], int | float):
        raise UserError(f"trainer.max_time={node['max_time']}: type days, hours, minutes and seconds as DD:HH:MM:SS")
    clip = node["gradient_clip_val"]
    if clip is not None and not 0 <= clip < float("inf"):
        raise UserError(f"trainer.gradient_clip_val={clip}: the largest gradient norm, at least 0 (0 is no limit)")
    if node["gradient_clip_algorithm"] not in (None, "norm"):
        raise UserError(f"trainer.gradient_clip_algorithm={node['gradient_clip_algorithm']}: possible: norm")
    for name, why in NEEDED.items():
        if not callbacks.get(name):
            raise UserError(f"callbacks.{name} cannot be left out: it {why}")


@dataclass(frozen=True)
class Training:
    """A run's trainer, and of its callbacks the one that keeps the run."""

    trainer: lightning.Trainer
    checkpointing: Checkpointing


def build_trainer(
    config: dict[str, Any], directory: Path, logger: RunLogger, place: ClusterEnvironment | None = None
) -> Training:
    """The trainer and its callbacks; what scorelab does itself (bar, checkpoints, validation) is off in Lightning.

    ``logger`` is told what there is to tell. ``place`` is that of this process among those of the run: nothing around
    it says so, nor what a trainer's argument is that the config does not have.

    Raises:
        UserError: for values that Lightning or this program refuses.
    """
    _refuse_trainer(config["trainer"], config["callbacks"])
    for path, logger_node in loggers_of(config):
        told: Any = target_of(logger_node, path)
        told.check({key: value for key, value in logger_node.items() if key != "_target_"})
    node = dict(config["trainer"])
    if node["strategy"] == "ddp" or (node["strategy"] == "auto" and node["devices"] * node["num_nodes"] > 1):
        # its own patience ends runs whose first process computes alone for half an hour
        node["strategy"] = DDPStrategy(timeout=FOREVER)
    if node.get("accelerator") == "auto":
        node["accelerator"] = "gpu" if torch.cuda.is_available() else "cpu"  # never mps: tables are float64
    nodes = {name: callback for name, callback in config["callbacks"].items() if callback}
    keep = nodes.pop("keep")
    made = {name: instantiate(callback, f"callbacks.{name}") for name, callback in nodes.items()}
    actions = [each for each in made.values() if isinstance(each, EverySteps)]
    checkpoints = Checkpoints()
    shared = {"actions": actions, "guard": made["guard"], "logger": logger, "checkpoints": checkpoints}
    checkpointing = instantiate(keep, "callbacks.keep", **shared)
    callbacks = [*made.values(), checkpointing]  # last: it saves what the others have done
    parameters = inspect.signature(lightning.Trainer).parameters.values()
    # said, for what is not said PL_TRAINER_... says
    defaults = {each.name: each.default for each in parameters if each.name not in node}
    fixed = {
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "log_every_n_steps": 10**9,
    }
    given = {"callbacks": callbacks, "logger": ForLightning(logger)}
    given["plugins"] = [checkpoints, place or ProcessEnvironment()]
    given["default_root_dir"] = str(directory)
    return Training(instantiate(node, "trainer", **defaults | fixed | given), checkpointing)


def quiet() -> None:
    """Silence what Lightning says of hardware and of choices that are ours."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", module="torchmetrics")
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
