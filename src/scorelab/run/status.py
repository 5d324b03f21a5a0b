"""status.json: what a run is doing, and whether it still does it."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scorelab.files import alive, write_json

SILENT = 120  # seconds without a sign of life after which a run counts as lost
AT_WORK = ("running", "evaluating")


@dataclass(frozen=True)
class Status:
    """What a run's job says of itself.

    Attributes:
        state: waiting (submitted), running, evaluating, finished, failed, interrupted; lost, where a job that was at
            work no longer is.
        step: optimiser steps taken.
        it_per_s: of them per second, since the last time it said so.
        time: when it said so, in seconds since 1970.
        seconds: what all jobs of the run have taken so far.
        reason: why it failed.
        job: what a cluster calls the job ("slurm 12_3"); None elsewhere.
    """

    state: str
    step: int | None
    it_per_s: float | None
    host: str
    pid: int
    time: float
    seconds: float
    reason: str | None = None
    job: str | None = None

    def __str__(self) -> str:
        """As told to a person."""
        if self.state in ("failed", "finished"):
            return self.reason or self.state
        step = "" if self.step is None else f" at step {self.step:,}"
        if self.state == "waiting":
            return f"waiting in the queue ({self.job}){step}"
        return self.state + step + (f" on {self.host}, pid {self.pid}" if self.state in AT_WORK else "")


def told(status: Status) -> str:
    """A status in a list of others: its name, and what belongs to it."""
    return f"failed: {status}" if status.state == "failed" else str(status)


def cluster_job() -> str | None:
    """What Slurm calls the job that this process belongs to."""
    array, number = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{number}" if array and number else os.environ.get("SLURM_JOB_ID")
    return f"slurm {name}" if name else None


def write_status(
    directory: Path,
    state: str,
    step: int | None = None,
    it_per_s: float | None = None,
    seconds: float = 0,
    reason: str | None = None,
    job: str | None = None,
) -> None:
    """Write status.json for this process, or for a ``job`` of a cluster's.

    Over the old one where a full disk has no room for another.
    """
    speed = None if it_per_s is None else round(it_per_s, 3)
    host, pid, now = socket.gethostname(), os.getpid(), time.time()
    status = Status(state, step, speed, host, pid, now, round(seconds, 1), reason, job or cluster_job())
    file = directory / "status.json"
    try:
        write_json(file, asdict(status))
    except OSError:
        with file.open("r+") as old:  # its blocks are there already
            old.write(json.dumps(asdict(status)) + "\n")
            old.truncate()


def read_status(directory: Path) -> Status | None:
    """A run's status; a job that is silent for two minutes, or no longer there on this host, is lost.

    None where there is none, or none that can be read.
    """
    try:
        content = json.loads((directory / "status.json").read_text(encoding="utf-8"))
        status = Status(**content)
        silent = time.time() - status.time > SILENT
        gone = status.host == socket.gethostname() and not alive(status.pid)
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return Status(**content | {"state": "lost"}) if status.state in AT_WORK and (silent or gone) else status
