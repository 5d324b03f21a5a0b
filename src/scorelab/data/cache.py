"""Data made ready once: tensors in files, whole or not there, found again by what they were made of."""

import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.files import sync_directory, temporary, write_json
from scorelab.mapped import mapped

FORMAT = 1  # of the entries; another one is never read
VALUES, NOTES = "values", "entry.json"
ENTRY = re.compile(r"[0-9a-f]{32}")  # what the cache has named, and may remove

log = logging.getLogger("scorelab")


@dataclass(frozen=True)
class Stored:
    """An entry: values (N, *shape), in memory or mapped, and the plain notes that its maker returned."""

    values: Tensor
    notes: dict[str, Any]


class TensorCache:
    """A folder of tensors, each under the hash of what it was made of and how.

    An entry is a folder of two files, the raw values and a JSON that says what they are. It is written under another
    name and renamed, so it is whole or not there. Who reads one holds a shared lock of its values for as long as they
    are mapped; who makes one holds an exclusive lock of its name, so a second job waits and then reads.

    The locks are ``flock``'s, which belong to an open file: one process may map an entry twice, and a worker that is
    forked off holds it too. (``lockf``'s belong to the process, and go with the first file that it closes.)

    Args:
        folder: where; null is $SCORELAB_CACHE, else $XDG_CACHE_HOME/scorelab, else ~/.cache/scorelab.
        most_gb: how much it may hold: after one is made, the entries that were not used for longest go. None that is
            in use goes, nor the one just made.
        resident_mb: entries up to this size are read into memory, larger ones are mapped.

    Raises:
        Refusal: for sizes that are none.
    """

    def __init__(self, folder: str | None = None, most_gb: float = 50.0, resident_mb: float = 256.0) -> None:
        if not most_gb > 0:
            raise Refusal(f"cache_gb must be above 0, got {most_gb}")
        if not resident_mb >= 0:
            raise Refusal(f"resident_mb must be at least 0, got {resident_mb}")
        self.folder = default_folder() if folder is None else Path(folder).expanduser()
        self.most_bytes, self.resident_bytes = most_gb * 1e9, resident_mb * 1e6

    def take(
        self,
        key: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        make: Callable[[Callable[[Tensor], None]], dict[str, Any]],
    ) -> Stored:
        """The entry of a key, made where there is none that is whole.

        Args:
            key: what it is made of and how, as plain JSON values: other content or preprocessing is another key.
            shape: of one row.
            dtype: of the values.
            make: is given a function that takes the next rows (n, *shape), any number of times, and returns notes.

        Raises:
            Refusal: where the folder cannot be written, or the values are more than the cache may hold.
        """
        whole = {"format": FORMAT, "key": dict(key), "shape": list(shape), "dtype": str(dtype).removeprefix("torch.")}
        name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]
        place = self.folder / name
        if (found := self._read(place, whole, dtype)) is not None:
            return found
        with self._making(place):
            found = self._read(place, whole, dtype)  # which another job may have made meanwhile
            if found is None:
                found = self._made(place, whole, dtype, make)
                with suppress(OSError):
                    self._make_room(place)
        return found

    def _read(self, place: Path, whole: dict[str, Any], dtype: torch.dtype) -> Stored | None:
        """A whole entry; None where there is none, or what is there is damaged."""
        try:
            said = json.loads((place / NOTES).read_text(encoding="utf-8"))
            rows, notes = said["rows"], said["notes"]
            file = (place / VALUES).open("rb")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with file:
            size = math.prod(whole["shape"]) * dtype.itemsize
            same = all(said.get(name) == value for name, value in _as_read(whole).items())
            if not (same and isinstance(rows, int) and os.fstat(file.fileno()).st_size == rows * size):
                return None
            with suppress(OSError):  # a file system without locks: what is mapped outlives its name
                fcntl.flock(file, fcntl.LOCK_SH)
            with suppress(OSError):  # a cache that may only be read
                os.utime(place / VALUES)
            values = (mapped if rows * size > self.resident_bytes else _in_memory)(file, rows * size, dtype)
        return Stored(values.reshape(rows, *whole["shape"]), notes)

    @contextmanager
    def _making(self, place: Path) -> Iterator[None]:
        """The right to make an entry; the leftovers of jobs that were killed while they made it are removed."""
        lock = _lock_of(place)
        with ExitStack() as held:
            while True:
                with self._told():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    file = held.enter_context(lock.open("a"))
                    if not _locked(file):
                        log.info("another job is preparing this data in %s: waiting for it", self.folder)
                        fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(file, lock):
                    break  # and was not removed by who held it before
                file.close()
            held.callback(lock.unlink, missing_ok=True)
            for left in self.folder.glob(f".{place.name}.*.part"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def _made(
        self,
        place: Path,
        whole: dict[str, Any],
        dtype: torch.dtype,
        make: Callable[[Callable[[Tensor], None]], dict[str, Any]],
    ) -> Stored:
        """A new entry, in the place of a damaged one if there is one."""
        part = temporary(place)
        rows = 0
        try:
            with ExitStack() as held:
                with self._told():
                    part.mkdir()
                    file = held.enter_context((part / VALUES).open("wb", buffering=0))

                def put(block: Tensor) -> None:
                    nonlocal rows
                    if block.dtype != dtype or list(block.shape[1:]) != whole["shape"]:
                        wanted = f"{dtype} (n, {', '.join(map(str, whole['shape']))})"
                        raise TypeError(f"rows are {wanted}, not {block.dtype} {tuple(block.shape)}")
                    rows += len(block)
                    if rows * math.prod(whole["shape"]) * dtype.itemsize > self.most_bytes:
                        told = f"this data takes more than cache_gb={self.most_bytes / 1e9:g}"
                        raise Refusal(f"{told}, all that its cache may hold: set data.cache_gb higher")
                    with self._told():
                        _write(file, block)

                notes = make(put)
                with self._told():
                    os.fsync(file.fileno())
                    write_json(part / NOTES, whole | {"rows": rows, "notes": notes})
                    sync_directory(part)
                    fcntl.flock(file, fcntl.LOCK_SH)  # until it is read: no other job may take it for unused
                    if place.exists():
                        shutil.rmtree(place)
                    part.rename(place)
                    sync_directory(self.folder)
                    found = self._read(place, whole, dtype)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if found is None:
            raise Refusal(f"{place} was taken away while it was made: data.cache=DIR names another place for it")
        return found

    def _make_room(self, kept: Path) -> None:
        """Remove what was not used for longest until the cache is within its bound, and what killed jobs left."""
        for left in self.folder.glob(".*.part"):
            name = left.name.split(".")[1]
            if name == kept.name or not ENTRY.fullmatch(name):
                continue
            lock = _lock_of(self.folder / name)
            with suppress(OSError), lock.open("a") as file:
                if _locked(file) and _is_at(file, lock):
                    shutil.rmtree(left, ignore_errors=True)
                    lock.unlink(missing_ok=True)
        used: list[tuple[int, int, Path]] = []
        for values in self.folder.glob(f"[!.]*/{VALUES}"):
            with suppress(OSError):  # another job has just removed it
                found = values.stat()
                if ENTRY.fullmatch(values.parent.name):
                    used.append((found.st_mtime_ns, found.st_size, values))
        over = sum(size for _, size, _ in used) - self.most_bytes
        for _, size, values in sorted(used):
            if over <= 0:
                break
            if values.parent != kept and _removed(values):
                over -= size

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one line what the folder, or its disk, does not do."""
        try:
            yield
        except OSError as error:
            told = f"the cache {self.folder} cannot be written ({(error.strerror or str(error)).lower()})"
            raise Refusal(f"{told}: data.cache=DIR names another place for it") from error


def default_folder() -> Path:
    """$SCORELAB_CACHE, else $XDG_CACHE_HOME/scorelab, else ~/.cache/scorelab."""
    if own := os.environ.get("SCORELAB_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scorelab"


def _in_memory(file: IO[bytes], size: int, dtype: torch.dtype) -> Tensor:
    """The first ``size`` bytes of a file: (size / itemsize,)."""
    values = torch.empty(size // dtype.itemsize, dtype=dtype)
    array: Any = values.numpy()
    file.readinto(array.view("uint8").data)  # type: ignore[attr-defined]
    return values


def _write(file: IO[bytes], block: Tensor) -> None:
    """All of a block; a file without a buffer may take less than it is given."""
    array: Any = block.contiguous().numpy()
    left = memoryview(array.reshape(-1).view("uint8"))
    while left:
        left = left[file.write(left) :]


def _as_read(whole: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: no tuples, keys that are text."""
    found: dict[str, Any] = json.loads(json.dumps(whole))
    return found


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _locked(file: IO[Any]) -> bool:
    """Whether this took a file's exclusive lock at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    with suppress(OSError):
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    return False


def _removed(values: Path) -> bool:
    """Remove an entry that nobody holds."""
    with suppress(OSError), values.open("r+b") as file:
        if _locked(file):
            values.with_name(NOTES).unlink(missing_ok=True)  # from here on it is no entry
            shutil.rmtree(values.parent, ignore_errors=True)
            return True
    return False
