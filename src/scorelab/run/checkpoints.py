"""Checkpoints: written whole or not at all, beside the training; read as tensors and plain values, and verified."""

import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from scorelab.errors import CheckpointError, DamagedCheckpoint
from scorelab.files import also_at, sync_directory, temporary
from scorelab.run.identity import ANEW

FORMAT = 1  # of what a checkpoint holds; raised when an older program could no longer read it
MARK = "scorelab"
NAMES = ("last", "best", "previous")


UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM)


def save(content: dict[str, Any], file: IO[bytes]) -> None:
    """Write a checkpoint's content into a file, with its format and its checksum."""
    try:
        torch.save(content | {MARK: {"format": FORMAT, "sha256": digest(content)}}, file)
    except RuntimeError as error:  # torch's, about a file that it could not end because the disk is full
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def write_checkpoint(content: dict[str, Any], path: Path, best: bool) -> None:
    """Put a checkpoint at ``path``, what was there at previous.ckpt, and where it is the best a link at best.ckpt.

    A temporary file in the same directory, synced, then renamed: under each name there is a whole checkpoint at any
    moment, and those of last and previous are never one file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path)
    try:
        with part.open("wb") as file:
            save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if best:
            also_at(part, path.with_name("best.ckpt"))
        if path.exists():
            also_at(path, path.with_name("previous.ckpt"))
        part.replace(path)
        sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)


def digest(content: Any) -> str:
    """SHA-256 over every name, value and tensor, in their order."""
    found = hashlib.sha256()
    for piece in pieces(content):
        found.update(piece)
    return found.hexdigest()


def pieces(content: Any) -> Iterator[Any]:
    """What a digest is made of: a tensor's type, shape and bytes; a collection's items; the text of a plain value."""
    if isinstance(content, Tensor):
        yield f"{content.dtype} {tuple(content.shape)}".encode()
        yield content.detach().contiguous().view(-1).view(torch.uint8).numpy()
    elif isinstance(content, dict):
        for key, value in content.items():
            yield f"{key!r}:".encode()
            yield from pieces(value)
    elif isinstance(content, list | tuple):
        yield f"[{len(content)}".encode()
        for value in content:
            yield from pieces(value)
    else:
        yield repr(content).encode()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        DamagedCheckpoint: when the file is not what was written.
        CheckpointError: when a newer program wrote it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in UNREACHABLE:
            raise
        reason = re.split(r"\. |\n", str(error))[0][:100] if isinstance(error, RuntimeError) else type(error).__name__
        raise DamagedCheckpoint(f"{path} cannot be read as a checkpoint ({reason})") from error
    mark = content.pop(MARK, None) if isinstance(content, dict) else None
    if mark is None:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of scorelab")
    if mark["format"] > FORMAT:
        told = f"{path} was written by a newer scorelab (format {mark['format']}; this one reads up to {FORMAT})"
        raise CheckpointError(f"{told}: update scorelab")
    if digest(content) != mark["sha256"]:
        raise DamagedCheckpoint(f"{path} is damaged: its content is not what its checksum says")
    return content


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint that is whole: its file and step, and by file what is wrong with newer ones."""

    path: Path
    step: int
    damaged: dict[Path, str]

    def put_in_order(self) -> None:
        """Set what is damaged aside, and have last.ckpt be the one that is whole: it is what the next write keeps."""
        for file in self.damaged:
            file.replace(file.with_name(f"{file.name}.damaged"))
        if not (last := self.path.with_name("last.ckpt")).exists():
            also_at(self.path, last)


def newest_checkpoint(folder: Path, advice: str = ANEW) -> Newest | None:
    """The newest whole checkpoint of a run; None where there is none at all. ``advice`` is what helps where none is.

    Raises:
        CheckpointError: when none of those there is whole, or a newer program wrote one.
    """
    damaged: dict[Path, str] = {}
    files = [file for name in NAMES if (file := folder / f"{name}.ckpt").exists()]
    for file in sorted(files, key=claimed_step, reverse=True):
        try:
            return Newest(file, int(read_checkpoint(file)["global_step"]), damaged)
        except DamagedCheckpoint as error:
            damaged[file] = str(error)
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged.values())}: no other is left, {advice}")
    return None


def claimed_step(file: Path) -> float:
    """The step a file says it is of, without reading its tensors; infinite where it does not: first in line."""
    try:
        return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:
        return float("inf")


def kept_step(folder: Path) -> int | None:
    """The step that a run's newest checkpoint says it is of; None where there is none that says so."""
    files = [file for name in NAMES if (file := folder / f"{name}.ckpt").exists()]
    return max((int(step) for file in files if math.isfinite(step := claimed_step(file))), default=None)
