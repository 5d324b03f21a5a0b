"""Samples on disk while they are drawn: which are there whole, and the form they are left in."""

import io
import re
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from scorelab.errors import UserError
from scorelab.files import also_at, remove_temporary, whole

LabelsOf = Callable[[range], np.ndarray]
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of what is in an archive, so that the same samples are the same bytes


def batches_missing(there: Sequence[range], n: int, batch: int) -> Iterator[range]:
    """The batches of places 0 ... n-1 that are not there to the last sample.

    They begin at multiples of ``batch`` whatever is there, so what is drawn after an interruption is drawn in the very
    batches in which it would have been without one.
    """
    spans = iter([*joined(there), range(n, n)])
    span = next(spans)
    for first in range(0, n, batch):
        last = min(first + batch, n)
        while span.stop < last and span.start < n:
            span = next(spans)
        if not span.start <= first < last <= span.stop:
            yield range(first, last)


def joined(spans: Sequence[range]) -> list[range]:
    """The same places in as few spans as can be, in order."""
    found: list[range] = []
    for span in sorted(spans, key=lambda each: each.start):
        if found and span.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


class Kept(ABC):
    """Samples 0 ... n-1 in a folder, arrays (H, W, C) of bytes or numbers of any shape; each whole, or not there.

    Attributes:
        labels: those of some places, where they count.
        result: what is left in the end.
    """

    result: Path

    def __init__(self, folder: Path, n: int, shape: tuple[int, ...], dtype: Any, labels: LabelsOf | None) -> None:
        self.folder, self.n, self.shape, self.dtype, self.labels = folder, n, shape, np.dtype(dtype), labels

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether all is there, in its last form."""

    @abstractmethod
    def there(self) -> list[range]:
        """The places of the samples that are there."""

    @abstractmethod
    def put(self, first: int, samples: np.ndarray) -> None:
        """Keep samples (k, *shape) of places first, first + 1, ..."""

    @abstractmethod
    def blocks(self, most: int) -> Iterator[np.ndarray]:
        """The first ``most`` samples in order, some at a time; all of them have to be there."""

    @abstractmethod
    def finish(self, batch: int) -> None:
        """Leave them in their last form, no more than ``batch`` of them in memory."""

    @abstractmethod
    def take(self, other: Path, most: int, batch: int) -> None:
        """Have the first ``most`` of finished samples in another folder, or of those there are, in whole batches."""

    def room(self, have: int) -> None:
        """See that what is missing has room.

        Raises:
            UserError: where the disk cannot hold it.
        """
        place = next(each for each in (self.folder, *self.folder.parents) if each.exists())
        needed, free = (self.n - have) * int(np.prod(self.shape)) * self.dtype.itemsize, shutil.disk_usage(place).free
        if needed > free:
            told = f"n={self.n}: {needed / 1e9:,.1f} GB are needed, and {free / 1e9:,.1f} are free at {place}"
            raise UserError(f"{told}: lower n, or make room")


class Arrays(Kept):
    """One samples.npz: arr_0 (n, *shape), labels as arr_1; until all is there, a file parts/FIRST-LAST.npy a batch."""

    NAME = re.compile(r"(\d+)-(\d+)\.npy")

    def __init__(self, folder: Path, n: int, shape: tuple[int, ...], dtype: Any, labels: LabelsOf | None) -> None:
        super().__init__(folder, n, shape, dtype, labels)
        self.parts, self.result = folder / "parts", folder / "samples.npz"

    @property
    def finished(self) -> bool:
        """Whether the archive is there, which is written whole; what else a killed job has left is removed then."""
        if self.result.exists():
            shutil.rmtree(self.parts, ignore_errors=True)
        return self.result.exists()

    def there(self) -> list[range]:
        """Of the parts that can be read."""
        remove_temporary(self.parts, shared=True)
        return [span for span, file in self._files() if self._sound(file, len(span))]

    def _files(self) -> list[tuple[range, Path]]:
        named = [(self.NAME.fullmatch(file.name), file) for file in self.parts.glob("*.npy")]
        found = [(range(int(name[1]), int(name[2])), file) for name, file in named if name]
        return sorted((each for each in found if each[0]), key=lambda each: each[0].start)

    def _sound(self, file: Path, n: int) -> bool:
        """Whether a part holds what its name says; what someone has cut short does not."""
        try:
            held = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError):
            file.unlink()
            return False
        return held.shape == (n, *self.shape) and held.dtype == self.dtype

    def put(self, first: int, samples: np.ndarray) -> None:
        """As one part."""
        content = io.BytesIO()  # numpy would write an array past Python, and a full disk unseen
        np.save(content, samples)
        with whole(self.parts / f"{first:09d}-{first + len(samples):09d}.npy") as file:
            file.write(content.getbuffer())

    def blocks(self, most: int) -> Iterator[np.ndarray]:
        """A part at a time."""
        place = 0
        for span, file in self._files():
            last = min(span.stop, most)
            if span.start <= place < last:
                yield np.load(file, mmap_mode="r")[place - span.start : last - span.start]
                place = last

    def finish(self, batch: int) -> None:
        """The archive, written from the parts; then these are removed."""
        with whole(self.result) as file, zipfile.ZipFile(file, "w") as archive:
            write_member(archive, "arr_0", (self.n, *self.shape), self.dtype, self.blocks(self.n))
            if self.labels is not None:
                spans = (range(first, min(first + batch, self.n)) for first in range(0, self.n, batch))
                write_member(archive, "arr_1", (self.n,), np.dtype(np.int64), map(self.labels, spans))
        shutil.rmtree(self.parts)

    def take(self, other: Path, most: int, batch: int) -> None:
        """Read from the archive's own stream."""
        if not (other / self.result.name).exists():
            return
        with zipfile.ZipFile(other / self.result.name) as archive, archive.open("arr_0.npy") as member:
            np.lib.format.read_magic(member)
            held = np.lib.format.read_array_header_1_0(member)[0][0]
            size = batch * int(np.prod(self.shape)) * self.dtype.itemsize
            for first in range(0, min(held, most) // batch * batch, batch):
                self.put(first, np.frombuffer(read(member, size), self.dtype).reshape(batch, *self.shape))


def read(stream: IO[bytes], size: int) -> bytes:
    """So many bytes; a stream may give fewer at a time."""
    found = bytearray()
    while len(found) < size and (more := stream.read(size - len(found))):
        found += more
    return bytes(found)


def write_member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterator[np.ndarray]
) -> None:
    """An array of an archive as numpy.savez_compressed writes it, block by block."""
    info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(info, "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(np.ascontiguousarray(block).tobytes())


class Images(Kept):
    """A file a sample in png/, 000000.png ...; labels beside that folder, in labels.npy."""

    NAME = re.compile(r"(\d{6,})\.png")

    def __init__(self, folder: Path, n: int, shape: tuple[int, ...], dtype: Any, labels: LabelsOf | None) -> None:
        super().__init__(folder, n, shape, dtype, labels)
        self.result = folder / "png"

    @property
    def finished(self) -> bool:
        """Whether no image is missing, and no label."""
        labelled = self.labels is None or (self.folder / "labels.npy").exists()
        return labelled and joined(self.there()) == [range(self.n)]

    def there(self) -> list[range]:
        """One for each image."""
        remove_temporary(self.result, shared=True)
        found = map(self.NAME.fullmatch, (file.name for file in self.result.glob("*.png")))
        return [range(place, place + 1) for place in sorted(int(name[1]) for name in found if name) if place < self.n]

    def file(self, place: int) -> Path:
        """Where an image lies."""
        return self.result / f"{place:06d}.png"

    def put(self, first: int, samples: np.ndarray) -> None:
        """One after the other, those that are there as they are."""
        for place, sample in enumerate(samples, first):
            if not self.file(place).exists():
                with whole(self.file(place)) as file:
                    Image.fromarray(sample[..., 0] if sample.shape[-1] == 1 else sample).save(file, format="PNG")

    def blocks(self, most: int) -> Iterator[np.ndarray]:
        """Read back, one at a time."""
        for place in range(most):
            with Image.open(self.file(place)) as image:
                yield np.asarray(image).reshape(1, *self.shape)

    def finish(self, batch: int) -> None:
        """They are what they are; the labels are written."""
        if self.labels is not None:
            with whole(self.folder / "labels.npy") as file:
                np.save(file, self.labels(range(self.n)))

    def take(self, other: Path, most: int, batch: int) -> None:
        """As other names of the same files."""
        theirs = Images(other, self.n, self.shape, self.dtype, None)
        held = joined(theirs.there())
        count = min(held[0].stop, most) // batch * batch if held and held[0].start == 0 else 0
        self.result.mkdir(parents=True, exist_ok=True)
        for place in range(count):
            also_at(theirs.file(place), self.file(place))
