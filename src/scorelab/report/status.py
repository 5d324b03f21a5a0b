"""status.json: what a run is doing."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Write a whole file or none: a temporary file beside it, synced, then renamed."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_status(directory: Path, state: str, step: int | None = None, it_per_s: float | None = None) -> None:
    """Write status.json: state, step, it/s, host, pid and the time in seconds since 1970."""
    content = {
        "state": state,
        "step": step,
        "it_per_s": None if it_per_s is None else round(it_per_s, 3),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": time.time(),
    }
    write_json(directory / "status.json", content)
