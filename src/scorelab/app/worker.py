"""A run's other process: python -m scorelab.app.worker PARENT RANK PORT RUN [CHECKPOINT], started by ``Processes``."""

import sys
import traceback
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.plugins.environments import ClusterEnvironment

from scorelab.config.build import build
from scorelab.config.threads import use
from scorelab.config.trainer import build_trainer, quiet
from scorelab.errors import Interrupted, UserError
from scorelab.lit.environment import ProcessEnvironment
from scorelab.lit.spread import serve
from scorelab.run.machine import BATCH, machine_error
from scorelab.run.processes import die_with, heed_signals
from scorelab.run.signals import SIGNALS
from scorelab.tracking.logger import RunLogger


def main(place: ProcessEnvironment, directory: Path, checkpoint: str | None = None) -> None:
    """Do what ``work`` does, beside the first process on its machine."""
    quiet()
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    work(place, config, directory, checkpoint)


def work(place: ClusterEnvironment, config: dict[str, Any], directory: Path, checkpoint: str | None) -> None:
    """Train with the first process, and compute what it asks of the network; it alone writes."""
    with SIGNALS.listening(), SIGNALS.waiting():
        heed_signals()
        use(1)
        experiment = build(config)
        use(config["threads"], config["trainer"]["devices"])
        trainer = build_trainer(config, directory, RunLogger(), place).trainer
        module = experiment.module
        trainer.fit(module, experiment.data, ckpt_path=checkpoint, weights_only=True)
        serve(module.eval().to(trainer.strategy.root_device).evaluated)


if __name__ == "__main__":
    parent, rank, port = map(int, sys.argv[1:4])
    die_with(parent)
    try:
        main(ProcessEnvironment(rank, port), Path(sys.argv[4]), *sys.argv[5:])
    except Interrupted as stop:
        sys.exit(stop.status)
    except Exception as error:
        known = error if isinstance(error, UserError) else machine_error(error, Path(sys.argv[4]), BATCH)
        if known is None:
            traceback.print_exc()
        sys.exit(" ".join(str(known or error).split()) or type(error).__name__)
