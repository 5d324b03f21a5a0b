"""status.json: what a run is doing, and whether it still does it."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

SILENT = 120  # seconds without a sign of life after which a run counts as lost
AT_WORK = ("running", "judging")


@dataclass(frozen=True)
class Status:
    """What a run's job says of itself.

    Attributes:
        state: running, judging, finished, failed, interrupted; lost, where a job that was at work no longer is.
        step: optimiser steps taken.
        it_per_s: of them per second, since the last time it said so.
        time: when it said so, in seconds since 1970.
        seconds: what all jobs of the run have taken so far.
        reason: why it failed.
    """

    state: str
    step: int | None
    it_per_s: float | None
    host: str
    pid: int
    time: float
    seconds: float
    reason: str | None = None

    def __str__(self) -> str:
        """As told to a person."""
        if self.state in ("failed", "finished"):
            return self.reason or self.state
        place = f" on {self.host}, pid {self.pid}" if self.state in AT_WORK else ""
        return self.state + ("" if self.step is None else f" at step {self.step:,}") + place


def temporary(path: Path) -> Path:
    """Where the next content of a file is written before it is renamed: beside it, each thread's its own."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.part")


def sweep(folder: Path, shared: bool = False) -> None:
    """Remove the temporary files that killed jobs left in a folder; a job at work in a shared one keeps its own."""
    for left in folder.glob(".*.part"):
        pid = left.name.split(".")[-2].partition("-")[0]
        if not (shared and pid.isdigit() and int(pid) != os.getpid() and alive(int(pid))):
            left.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which then stands at ``path`` whole, or not at all: synced, renamed, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write a whole text file or none."""
    with whole(path) as file:
        file.write(content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file or none."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_status(
    directory: Path,
    state: str,
    step: int | None = None,
    it_per_s: float | None = None,
    seconds: float = 0,
    reason: str | None = None,
) -> None:
    """Write status.json for this process. Over the old one where a full disk has no room for another."""
    speed = None if it_per_s is None else round(it_per_s, 3)
    status = Status(state, step, speed, socket.gethostname(), os.getpid(), time.time(), round(seconds, 1), reason)
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


def alive(pid: int) -> bool:
    """Whether a process of this host exists, and is no corpse."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError):  # where there is no /proc, a corpse counts as alive
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
