"""Tensors over files: mapped, so that they are like any other, and read without staying in memory."""

import mmap
import os
from collections.abc import Iterator
from typing import IO, Any
from weakref import WeakValueDictionary, finalize

import torch
from torch import Tensor

CHUNK = 16 << 20  # bytes of a whole split that are looked at together


class FileMap(mmap.mmap):
    """A file's bytes as memory of this process alone: what is written there never reaches the file.

    Attributes:
        descriptor: of the file, kept open as long as this is, and with it the locks that it holds.
    """

    descriptor: int


_maps: WeakValueDictionary[int, FileMap] = WeakValueDictionary()  # by the address where each begins


def mapped(file: IO[bytes], size: int, dtype: torch.dtype) -> Tensor:
    """The first ``size`` bytes of a file as a tensor (size / itemsize,), which keeps it open as long as it is held."""
    memory = FileMap(file.fileno(), size, access=mmap.ACCESS_COPY)
    memory.descriptor = os.dup(file.fileno())
    finalize(memory, os.close, memory.descriptor)
    values = torch.frombuffer(memory, dtype=dtype)
    _maps[values.data_ptr()] = memory
    return values


def file_map(values: Tensor) -> FileMap | None:
    """The map that a tensor, or what it is a part of, lies in; None for one in memory."""
    return _maps.get(values.untyped_storage().data_ptr())


def let_go(values: Tensor) -> None:
    """Give the pages of a mapped tensor back, which are read again when they are needed; nothing where none is mapped.

    Pages that were read count as this process's memory, two megabytes about each place, though they are the kernel's
    to reuse.
    """
    if (memory := file_map(values)) is not None:
        memory.madvise(mmap.MADV_DONTNEED)


def in_chunks(values: Tensor) -> Iterator[Tensor]:
    """All rows (N, ...) of a tensor, some at a time; of a mapped one only these are in memory."""
    reader, rows = Reader(values), max(1, CHUNK // max(1, values[:1].nbytes))
    for start in range(0, len(values), rows):
        yield reader.between(start, min(start + rows, len(values)))


class Reader:
    """Rows of a tensor (N, ...); those of a mapped one are read from its file, not through its pages.

    That is as fast as memory where the kernel has the file, waits for the rows alone where it has not, and leaves
    nothing behind that would count as this process's memory.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._map = file_map(values) if values.is_contiguous() else None
        self._row = values[:1].nbytes
        self._start = values.data_ptr() - values.untyped_storage().data_ptr()

    def __getitem__(self, rows: Tensor | list[int]) -> Tensor:
        """These rows (B, ...), copied."""
        if self._map is None:
            return self.values[rows]
        numbers = rows.tolist() if isinstance(rows, Tensor) else rows
        found = torch.empty(len(numbers), *self.values.shape[1:], dtype=self.values.dtype)
        room, size = _bytes_of(found), self._row
        for place, row in enumerate(numbers):
            self._read(room[place * size : (place + 1) * size], row % len(self.values))
        return found

    def between(self, start: int, end: int) -> Tensor:
        """Rows start ... end - 1; of a tensor in memory a view."""
        if self._map is None:
            return self.values[start:end]
        found = torch.empty(end - start, *self.values.shape[1:], dtype=self.values.dtype)
        self._read(_bytes_of(found), start)
        return found

    def _read(self, room: Any, row: int) -> None:
        """Fill memory with what begins at a row.

        Raises:
            OSError: when the file has become shorter.
        """
        assert self._map is not None
        file, place = self._map.descriptor, self._start + row * self._row
        while room:
            if not (found := os.preadv(file, [room], place)):
                raise OSError(f"the file of a mapped data set ends at byte {place:,}")
            room, place = room[found:], place + found


def _bytes_of(values: Tensor) -> memoryview:
    """The memory of a contiguous tensor, to be written."""
    array: Any = values.numpy()
    return memoryview(array.reshape(-1).view("uint8"))
