"""The jobs of a sweep as its directory has them: those that have not begun too."""

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scorelab.files import alive, write_json

FILE = "sweep.json"


@dataclass(frozen=True)
class Jobs:
    """The directories of a sweep's jobs, by name, and whether the command that runs them is still at it here."""

    names: list[str]
    at_work: bool


def write_jobs(sweep: Path, names: Sequence[str]) -> None:
    """Say which jobs a sweep has, and that this process runs them."""
    write_json(sweep / FILE, {"jobs": list(names), "host": socket.gethostname(), "pid": os.getpid()})


def read_jobs(sweep: Path) -> Jobs | None:
    """The jobs of a sweep; None where a directory is none, or cannot be read as one."""
    try:
        content = json.loads((sweep / FILE).read_text(encoding="utf-8"))
        at_work = content["host"] == socket.gethostname() and alive(content["pid"])
        return Jobs([str(name) for name in content["jobs"]], at_work)
    except (OSError, ValueError, TypeError, KeyError):
        return None
