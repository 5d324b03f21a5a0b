"""Files and names that are whole or not there, whatever ends the process that writes them."""

import json
import math
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def also_at(source: Path, target: Path) -> None:
    """Make ``target`` another name of the file at ``source``; a copy where a file system has no hard links."""
    part = temporary(target)
    part.unlink(missing_ok=True)
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # where both were one file already, a rename leaves both names


def sync_directory(folder: Path) -> None:
    """Sync a directory's names, where its file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def temporary(path: Path) -> Path:
    """Where the next content of a file is written before it is renamed: beside it, each thread's its own."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.part")


def remove_temporary(folder: Path, shared: bool = False) -> None:
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


def display_path(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def plain(value: Any) -> Any:
    """For JSON, which has no NaN and no infinity: None there."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
