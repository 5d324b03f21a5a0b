"""One of the other processes of a run: python -m scorelab.lit.rank PARENT RUN [CHECKPOINT], started by ``Ranks``."""

import sys
from pathlib import Path

import yaml

from scorelab.lit.build import build, build_trainer, quiet
from scorelab.lit.mishaps import BATCH, mishap
from scorelab.lit.ranks import die_with, share_cores
from scorelab.lit.signals import SIGNALS, Interrupted


def main(directory: Path, checkpoint: str | None = None) -> None:
    """Train with the first process; it alone writes, validates and judges."""
    quiet()
    config = yaml.safe_load((directory / "config.yaml").read_text())
    share_cores(config["trainer"]["devices"])
    with SIGNALS.listening(), SIGNALS.waiting():
        experiment = build(config)
        trainer = build_trainer(config, directory)
        trainer.fit(experiment.module, experiment.data, ckpt_path=checkpoint, weights_only=True)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    try:
        main(Path(sys.argv[2]), *sys.argv[3:])
    except Interrupted as stop:
        sys.exit(stop.status)
    except Exception as error:
        known = mishap(error, Path(sys.argv[2]), BATCH)
        sys.exit(" ".join(str(known or error).split()) or type(error).__name__)
