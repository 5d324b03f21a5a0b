"""A stored run's network on several devices: python -m scorelab.app.several is one of them but the first."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from scorelab.config.build import build_data
from scorelab.config.stored import trained_denoiser
from scorelab.config.threads import use
from scorelab.config.trainer import quiet
from scorelab.denoisers import Denoiser
from scorelab.errors import Interrupted, UserError
from scorelab.files import plain
from scorelab.lit.snapshots import take_average
from scorelab.lit.spread import serve, spread
from scorelab.run.machine import machine_error
from scorelab.run.processes import Processes, die_with, free_port, heed_signals, meet
from scorelab.run.signals import SIGNALS

SERVER = "scorelab.app.several"


@contextmanager
def several(
    devices: int, config: dict[str, Any], checkpoint: Path, denoiser: Denoiser, average: float | None = None
) -> Iterator[None]:
    """Have so many processes share what this network is asked meanwhile: on a GPU each, or on a share of the cores.

    ``config``, ``checkpoint`` and ``average``, the length of one made from the run's snapshots, are what the others
    build the same denoiser from.

    Raises:
        UserError: for more than there are GPUs, where there are some; for fewer than 1.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if devices < 1 or (gpus is not None and devices > gpus):
        possible = "1, 2, ..." if gpus is None else f"1 ... {gpus}, as many as there are GPUs"
        raise UserError(f"devices={devices}: possible: {possible}")
    if devices == 1:
        yield
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="scorelab-") as folder:
        place = Path(folder)
        told = plain(config) | {"devices": devices, "average": average}
        (place / "config.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        processes = Processes(place, devices, port, SERVER, lost)
        with processes.at(checkpoint.absolute()):
            meet(0, port, devices)
            with spread(denoiser):
                yield


def lost(why: str) -> None:
    """The last words of the first process, which waits for one that has died."""
    os.write(2, f"\nerror: {why}; devices=1 needs no other\n".encode())


def main(rank: int, port: int, directory: Path, checkpoint: Path) -> None:
    """Compute what the first process asks of the network."""
    quiet()
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    use(config["threads"], config["devices"])
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    with SIGNALS.listening(), SIGNALS.waiting():
        heed_signals()
        denoiser = trained_denoiser(config, build_data(config), checkpoint)
        if config["average"] is not None:
            take_average(denoiser, checkpoint.parent.parent, config["average"])
        meet(rank, port, config["devices"])
        serve(denoiser)


if __name__ == "__main__":
    parent, number, at = map(int, sys.argv[1:4])
    die_with(parent)
    try:
        main(number, at, *map(Path, sys.argv[4:6]))
    except Interrupted as stop:
        sys.exit(stop.status)
    except Exception as error:
        known = machine_error(error, Path(sys.argv[4]), "evaluation.chunk")
        sys.exit(" ".join(str(known or error).split()) or type(error).__name__)
