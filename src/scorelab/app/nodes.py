"""A run over several nodes: every task of srun or torchrun has the same command; the first leads, the others follow."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scorelab.app.worker import work
from scorelab.errors import Interrupted, MachineError, UserError
from scorelab.lit.environment import launched_place
from scorelab.run.failures import BROKEN
from scorelab.run.launch import Launched, launched
from scorelab.run.machine import BATCH, machine_error
from scorelab.run.nodes import AFTER, Follower, Leader, meet, status_of

Figures = dict[str, float | None]


def over_nodes(cfg: DictConfig, lead: Callable[[DictConfig, Leader | None], Figures]) -> Figures:
    """What ``lead`` finds: called here, or in the first process of several nodes, which this one then follows.

    Raises:
        UserError: where the processes that the config asks for have not been started; what ``lead`` raises.
        SystemExit: in another process than the first, when that one ends with an error.
    """
    nodes, devices = (OmegaConf.select(cfg, f"trainer.{key}", default=1) for key in ("num_nodes", "devices"))
    if not isinstance(nodes, int) or not isinstance(devices, int) or nodes < 2 or devices < 1:
        return lead(cfg, None)
    here = launched()
    try:
        here = as_asked(here, nodes, devices)
    except UserError as error:
        tidy(None)
        if here and here.rank:
            sys.exit(status_of(error))  # the first says it
        raise
    place = launched_place(here)
    part = meet(here, nodes, place.main_address, place.main_port)
    if isinstance(part, Follower):
        return follow(part)
    try:
        found = lead(cfg, part)
    except BaseException as error:
        part.dismiss(status_of(error))
        raise
    part.dismiss(0, found)
    return found


def as_asked(here: Launched | None, nodes: int, devices: int) -> Launched:
    """What a launcher has started, which has to be what the config asks for.

    Raises:
        UserError: when it is not.
    """
    told = f"trainer.num_nodes={nodes} trainer.devices={devices}"
    how = (
        f"start the command with srun --nodes={nodes} --ntasks-per-node={devices}, "
        f"or on each node with torchrun --nnodes={nodes} --nproc-per-node={devices}"
    )
    if sweeps_here():
        raise UserError(f"{told}: a sweep's jobs are started over nodes by hydra/launcher=submitit_slurm alone")
    if here is None:
        raise UserError(f"{told}: no launcher has started the {nodes * devices} processes: {how}")
    if (here.world, here.local) != (nodes * devices, devices):
        raise UserError(f"{told}: {here.launcher} has started {here.world} processes, {here.local} on this node: {how}")
    return here


def sweeps_here() -> bool:
    """Whether this process itself works through a sweep, where one job's loss of a process would be all jobs' loss."""
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN and hydra.runtime.choices.get("hydra/launcher") == "basic"


def follow(part: Follower) -> Figures:
    """Train with the first process where it says so, print nothing but this one's own errors; end as it does."""
    logging.disable(logging.WARNING)
    word = part.word()
    if word and "train" in word:
        tidy(Path(word["train"]["directory"]))
        try:
            train(part, **word["train"])
        except Interrupted:
            pass
        except Exception as error:
            word = part.word(AFTER) if BROKEN.search(str(error)) else None  # another's end is the first's to tell
            if word is not None:
                return end(part, word)
            part.last_words(one_line(error, Path.cwd()))
            raise
        word = part.word()
    else:
        tidy(None)
    return end(part, word or {"gone": True})


def train(part: Follower, directory: str, config: dict[str, Any], checkpoint: str | None) -> None:
    """This process's part of the run.

    Raises:
        MachineError: when this node has another disk.
    """
    if checkpoint and not os.path.exists(checkpoint):
        told = f"{checkpoint} is not seen from here: a run over nodes needs a directory that all of them share"
        raise MachineError(told)
    with part.training():
        work(launched_place(part.here), config, Path(directory), checkpoint)


def end(part: Follower, word: dict[str, Any]) -> Figures:
    """End as the first process does.

    Raises:
        MachineError: when it has ended without a word.
        SystemExit: when it told that it ends with an error.
    """
    if "gone" in word:
        raise MachineError(part.alone)
    if word["over"]:
        sys.exit(word["over"])
    return word["found"]


def tidy(used: Path | None) -> None:
    """Take back the empty directory that Hydra made for this process: a clock may name it otherwise on each node."""
    hydra = HydraConfig.get()
    made = Path(hydra.runtime.output_dir)
    if hydra.mode != RunMode.MULTIRUN and made != used:
        with suppress(OSError):
            made.rmdir()


def one_line(error: Exception, directory: Path) -> str:
    """What the first process is told of this one's error; the traceback of a fault stays here."""
    known = error if isinstance(error, UserError) else machine_error(error, directory, BATCH)
    if known is None:
        traceback.print_exc()
    return " ".join(str(known or error).split()) or type(error).__name__
