"""Numpy's .npy and .npz files, read a few rows at a time; Python objects in them are never loaded."""

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as numpy_format

from scorelab.errors import Refusal

CHUNK = 16 << 20  # bytes that are read together
HEADERS = {(1, 0): numpy_format.read_array_header_1_0, (2, 0): numpy_format.read_array_header_2_0}
DAMAGED = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Held:
    """An array in a file, of which the header is read: its name there (none in a .npy), shape, type, order."""

    path: Path
    name: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def __str__(self) -> str:
        return self.name or self.path.name

    def refuse_objects(self) -> None:
        """Before anything of it is read.

        Raises:
            Refusal: where it holds Python objects.
        """
        if self.dtype.hasobject:
            told = f"{self.path}: {self.name} holds" if self.name else f"{self.path} holds"
            raise Refusal(f"{told} Python objects, which are never loaded: save numbers, as by np.stack of arrays")

    @property
    def told(self) -> str:
        """Its type and shape, for a person."""
        return f"{self.dtype.name} {self.shape}"

    def chunks(self) -> Iterator[tuple[int, "np.ndarray[Any, Any]"]]:
        """Its rows from the first to the last, some at a time, with the number of the first of them.

        Raises:
            Refusal: where the file is damaged.
        """
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        together = self.shape[0] if self.fortran else max(1, CHUNK // max(size, 1))
        with _told(self.path), _opened(self.path, self.name) as file:
            _header(file)
            for start in range(0, self.shape[0], together):
                n = min(together, self.shape[0] - start)
                content = file.read(n * size)
                if len(content) != n * size:
                    raise EOFError(f"it ends within row {start + len(content) // max(size, 1):,} of {self.shape[0]:,}")
                rows = np.frombuffer(content, self.dtype)
                yield start, rows.reshape((n, *self.shape[1:]), order="F" if self.fortran else "C")
            if file.read(1) and self.name is not None:
                raise ValueError(f"{self.name} holds more than its header says")

    def whole(self) -> "np.ndarray[Any, Any]":
        """All of it.

        Raises:
            Refusal: where the file is damaged, or there are no rows.
        """
        parts = [rows for _, rows in self.chunks()]
        return np.concatenate(parts) if parts else np.empty(self.shape, self.dtype)


def held(path: Path) -> dict[str, Held]:
    """The arrays of a file by their names, of a .npy one under "".

    Raises:
        Refusal: for what is not there, is no such file, or is damaged.
    """
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "is not there"
        raise Refusal(f"{path} {wrong}: data.path=FILE names a .npy or .npz file")
    with _told(path):
        with path.open("rb") as file:
            start = file.read(6)
        if start == numpy_format.MAGIC_PREFIX:
            return {"": _held(path, None)}
        if start[:2] != b"PK":
            raise Refusal(f"{path} is no .npy or .npz file{' but empty' if not start else ''}: np.save writes one")
        with zipfile.ZipFile(path) as whole:
            names = [name.removesuffix(".npy") for name in whole.namelist() if name.endswith(".npy")]
        return {name: _held(path, name) for name in names}


def _held(path: Path, name: str | None) -> Held:
    with _opened(path, name) as file:
        shape, fortran, dtype = _header(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {shape}")
    if name is None and not dtype.hasobject:
        size = math.prod(shape) * dtype.itemsize
        with path.open("rb") as file:
            _header(file)
            if (left := os.fstat(file.fileno()).st_size - file.tell()) < size:
                raise EOFError(f"it holds {left:,} bytes of {size:,}")
    return Held(path, name, shape, dtype, fortran)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether the order is Fortran's, and type."""
    version = numpy_format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"format {version[0]}.{version[1]}")
    try:
        return HEADERS[version](file)
    except Exception as error:  # numpy parses it as Python's literals, and raises what the parser does
        raise ValueError("its header is damaged") from error


@contextmanager
def _opened(path: Path, name: str | None) -> Iterator[IO[bytes]]:
    if name is None:
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as whole, whole.open(f"{name}.npy") as file:
        yield file


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a file."""
    try:
        yield
    except Refusal:
        raise
    except DAMAGED as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refusal(f"{path} cannot be read ({' '.join(why.split())[:150]})") from error
