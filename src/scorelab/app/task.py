"""What a command does for each job that Hydra gives it, in this process or wherever a launcher has taken it."""

import logging
import os
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from scorelab.app.again import TYPED
from scorelab.app.told import one_line
from scorelab.errors import Interrupted
from scorelab.run.beside import OVER, end_with, job_at_work
from scorelab.run.surroundings import settle

PROCESS = uuid.uuid4().hex  # a job taken elsewhere finds another one there
WATCHED: list[str] = []  # whose process this one, which a launcher keeps for several jobs, will not outlive
OWN_PROCESS = "SUBMITIT_EXECUTOR"  # set where a launcher has given a job a process of its own, whose status counts


@dataclass(frozen=True)
class Outcome:
    """What a job came to: the number that a search goes by, where there is one, or why it failed."""

    value: float | None = None
    failure: str | None = None

    def __float__(self) -> float:
        if self.value is None:
            raise ValueError(self.failure or "the job has no such number")
        return self.value

    def __str__(self) -> str:
        return f"failed: {self.failure}" if self.failure else f"{self.value}"


def on_disk(place: Path, wanted: str) -> Outcome:
    """What a job has come to, by what it has left."""
    from scorelab.run.directory import RunDir
    from scorelab.run.status import read_status

    status, results = read_status(place), RunDir(place).results()
    if results.get("status") == "finished" and (status is None or status.state != "failed"):
        return Outcome(results["metrics"].get(wanted))
    return Outcome(failure=str(status) if status else "not begun")


class Task:
    """Calls ``job`` ("package.module:function") on a composed config; an error is told in one line.

    A job of several that fails does not end the others; a single one leaves its error in ``error``. Launchers pickle
    this object: what a job needs of the command line goes along.

    Attributes:
        swept: the keys in which a sweep's jobs differ, by which their directories are named.
        left: directories of a sweep's jobs, by name, that are not to be worked on: finished, or at work elsewhere.
        quiet: whether only ends and warnings are to be said: several jobs share the terminal.
        failures: why jobs failed, by directory, of those that ran in this process.
    """

    def __init__(self, job: str, folders: list[Path], full: bool) -> None:
        self.job, self.folders, self.full = job, folders, full
        self.process = PROCESS
        self.program, self.words = TYPED.program, list(TYPED.words)
        self.swept: tuple[str, ...] = ()
        self.left: frozenset[str] = frozenset()
        self.quiet = False
        self.error: Exception | None = None
        self.failures: dict[str, str] = {}

    def __call__(self, cfg: Any) -> Outcome:
        """Do a job; what it came to."""
        from hydra.core.hydra_config import HydraConfig

        from scorelab.app.names import place_in_sweep
        from scorelab.config.choices import file_folders, with_choices

        TYPED.swept = self.swept  # in a process that a launcher has made nobody has yet
        place, wanted = place_in_sweep(), str(cfg.get("optimized_metric"))
        if place is not None and place.name in self.left:
            return on_disk(place, wanted)
        if self.process != PROCESS:
            self._settle_elsewhere()
        if OVER.is_set():
            return Outcome(failure="not begun")
        if self.quiet:
            hush()
        began = time.time()
        module, function = self.job.split(":")
        try:
            cfg = with_choices(cfg, file_folders(HydraConfig.get()))
            with job_at_work():
                results = getattr(import_module(module), function)(cfg)
        except Interrupted as stop:
            if self.process == PROCESS:
                raise
            OVER.set()
            return self._ended(stop.told, stop.status)
        except Exception as error:  # Hydra would print it in its own way, and end a sweep with a traceback
            if place is None:
                self.error = error
                return Outcome()
            return self._failed(place, error)
        value = results.get(wanted) if isinstance(results, dict) else None
        if self.quiet and place is not None:
            print(f"{place.name}: finished in {time.time() - began:.0f} s", flush=True)
        return Outcome(value)

    def leaves(self, overrides: Sequence[str]) -> bool:
        """Whether the job of these overrides is not to be worked on."""
        from scorelab.app.names import job_directory

        return job_directory(list(overrides), self.swept) in self.left

    def _failed(self, place: Path, error: Exception) -> Outcome:
        """Of a sweep's job only the line is kept: an error holds its run's lock and all it had in memory."""
        from scorelab.run.directory import RunDir

        if self.full:
            traceback.print_exc()
        told = one_line(error, self.folders)
        self.failures[place.name] = told.text
        if self.job.endswith(":train"):
            RunDir(place).refused(told.text)
        return self._ended(f"{place.name} failed: {told.text}", told.status, told.text)

    def _ended(self, line: str, status: int, failure: str | None = None) -> Outcome:
        """Say how a job ended; a process of its own ends with it, so that whoever started it knows."""
        print(line, file=sys.stderr, flush=True)
        if OWN_PROCESS in os.environ and self.process != PROCESS:
            sys.exit(status)
        return Outcome(failure=failure or line)

    def _settle_elsewhere(self) -> None:
        settle()
        TYPED.program, TYPED.words = self.program, list(self.words)
        os.environ["HYDRA_FULL_ERROR"] = "1"
        if self.quiet and not WATCHED:
            WATCHED.append(self.process)
            end_with(os.getppid())


def hush() -> None:
    """Have the console say warnings alone; train.log has the rest."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)
