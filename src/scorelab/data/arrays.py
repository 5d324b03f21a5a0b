"""Arrays of one's own as a data set: bytes are images, floats are points or images without levels."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scorelab.data.array_parts import NAMES, classes_of, parts_of
from scorelab.data.base import Source, Split
from scorelab.data.cache import TensorCache
from scorelab.data.division import by_class
from scorelab.errors import Refusal
from scorelab.formats.arrays import Held

log = logging.getLogger("scorelab")


class Arrays(Source):
    """A .npy or .npz file. Bytes are pixels of 256 levels, floats are data without levels, which lie about [-1, 1].

    Bytes (N, H, W), (N, H, W, C) or (N, C, H, W) are images; floats (N, D) or (N,) are points, floats (N, H, W, C) or
    (N, C, H, W) images. Of four axes, channels are the second or the last: the one beside two that are equal, else the
    shortest, where it is at most 4 or half of each side. Floats of any precision become float32. Labels are whole
    numbers from 0 on, or names; classes are those that are there, sorted: of 0, 1 and 7 the third is 7.

    In a .npz, arrays x_train, x_test and x_val with labels y_train ... (or train_images, train_labels ...) are the
    set's own splits; else one array is called x, images, data, values or samples, or is the only one, and labels are
    called y, labels, targets or classes; those of arr_0 are arr_1, where it holds a whole number for each item. The
    labels of NAME.npy are NAME_labels.npy, if that is there. val and test are drawn by class where the set has none.

    Args:
        path: the file.
        values: the array's name in a .npz.
        labels: the labels' name in a .npz, or their file beside a .npy.
        layout: NHWC or NCHW, where it cannot be told from the shape.
        levels: of bytes, how many values a pixel may have: 2 for black and white as 0 and 1.
        val: how many are drawn for the val split: a share of all below 1, or a count.
        test: the same for the test split.
        split_seed: of that choice.
        cache: the folder where arrays that do not fit into memory are put in the order of the splits; null is
            $SCORELAB_CACHE, else ~/.cache/scorelab.
        cache_gb: how much it may hold.
        resident_mb: up to this size the data is held in memory, beyond it it is mapped.

    Raises:
        Refusal: for a file that is none, names that are not in it, shapes and types that are no data or labels, and
            too few items.
    """

    def __init__(
        self,
        path: str,
        values: str | None = None,
        labels: str | None = None,
        layout: Literal["NHWC", "NCHW"] | None = None,
        levels: int = 256,
        val: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        cache: str | None = None,
        cache_gb: float = 50.0,
        resident_mb: float = 256.0,
    ) -> None:
        if layout not in (None, "NHWC", "NCHW"):
            raise Refusal(f"layout is NHWC or NCHW, got {layout}")
        if not 2 <= levels <= 256:
            raise Refusal(f"levels lie in 2 ... 256, got {levels}")
        self.path = Path(path).expanduser()
        self.val, self.test, self.split_seed = val, test, split_seed
        self.cache = TensorCache(cache, cache_gb, resident_mb)
        self.given = parts_of(self.path, values, labels)
        first = self.given["train"].values
        for part in self.given.values():
            part.values.refuse_objects()
            if part.values.shape[1:] != first.shape[1:] or part.values.dtype != first.dtype:
                raise Refusal(f"{self.path}: {first} is {first.told}, and {part.values} {part.values.told}")
        self.axes = axes_of(first, layout)
        self.shape = _shape(first.shape, self.axes)
        self.levels = levels if first.dtype == np.uint8 else None
        self.targets, self.class_names, self.why = classes_of(self.given)
        self.classes = len(self.class_names) or None
        self.rows = self._divided()
        self._range: list[float] | None = None

    def _divided(self) -> dict[str, tuple[Held, Tensor, Tensor]]:
        """Of each split the array, its rows, and their labels."""
        labels = self.targets["train"]
        for part in ("val", "test"):
            if part not in self.given and not getattr(self, part):
                raise Refusal(f"{part}=0 leaves no {part} split: ask for one item at least")
        val, test = (0 if part in self.given else getattr(self, part) for part in ("val", "test"))
        try:
            division = by_class(labels, len(labels), val, test, self.split_seed)
        except Refusal as error:
            raise Refusal(f"{self.path}: {error}") from error
        found = {}
        for name in NAMES:
            if name in self.given and name != "train":
                rows = torch.arange(len(self.targets[name]))
                found[name] = (self.given[name].values, rows, self.targets[name])
            else:
                rows = getattr(division, name)
                found[name] = (self.given["train"].values, rows, labels[rows])
        return found

    def splits(self) -> dict[str, Split]:
        """The splits by name, in memory or, where they do not fit, mapped in their order from the cache.

        Raises:
            Refusal: where the file is damaged, or a number is not finite.
        """
        dtype = torch.uint8 if self.levels else torch.float32
        size = math.prod(self.shape) * dtype.itemsize * sum(len(rows) for _, rows, _ in self.rows.values())
        if size > self.cache.resident_bytes:
            stored = self.cache.take(self._key(), self.shape, dtype, self._put)
            whole, self._range = stored.values, stored.notes["range"]
        else:
            blocks: list[Tensor] = []
            self._range = self._put(blocks.append)["range"]
            whole = torch.cat(blocks)
        self._tell_of_range()
        start, found = 0, {}
        for name, (_, rows, labels) in self.rows.items():
            own = name in self.given and (name != "train" or len(self.given) == len(NAMES))
            own = own and len(self.given) > 1
            found[name] = Split(whole[start : start + len(rows)], labels, chance=float(own))
            start += len(rows)
        return found

    def _key(self) -> dict[str, Any]:
        """What the data is made of, and how."""
        about = self.path.stat()
        rows = {
            name: [str(array), hashlib.sha256(index.numpy().tobytes()).hexdigest()]
            for name, (array, index, _) in self.rows.items()
        }
        file = [str(self.path.resolve()), about.st_size, about.st_mtime_ns]
        return {"kind": "arrays", "file": file, "rows": rows, "axes": self.axes}

    def _put(self, put: Callable[[Tensor], None]) -> dict[str, Any]:
        """All rows in the order of the splits; returns the least and the largest number."""
        least, most = math.inf, -math.inf
        for array, rows, _ in self.rows.values():
            for block in _taken(array, rows, self.axes):
                least, most = min(least, block.min().item()), max(most, block.max().item())
                put(block)
        return {"range": [least, most]}

    def _tell_of_range(self) -> None:
        """A line where numbers are far from what networks are made for."""
        if self._range and self.levels and 8 * (self._range[1] + 1) <= self.levels:
            told = f"{self.given['train'].values} holds no byte above {self._range[1]:g}, and levels={self.levels}"
            log.warning("%s: data.levels=%d spreads them over black to white", told, self._range[1] + 1)
        if self._range and not self.levels and not 0.1 < max(map(abs, self._range)) < 20:
            told = " ... ".join(f"{each:g}" for each in self._range)
            log.warning(
                "%s lies in %s; noise has variance 1, so data without levels should lie about [-1, 1]",
                self.given["train"].values,
                told,
            )

    def told(self) -> dict[str, Any]:
        """Where values, labels and splits come from, how axes were read, between which bounds floats lie."""
        origin = {
            f"{part}_from": f"the array {self.given[part].values}"
            if part in self.given
            else f"drawn {'by class' if self.classes else 'at random'} out of {self.given['train'].values}, "
            f"{part}={getattr(self, part):g}, split_seed={self.split_seed}"
            for part in ("val", "test")
        }
        names = {"class_names": self.class_names[:100]} if self.classes else {}
        found = {"values": f"{self.given['train'].values}, {self.given['train'].values.told}", "axes": self.axes}
        return {**found, "labels_from": self.why, **names, **origin, "range": self._range}


def axes_of(array: Held, layout: str | None) -> str:
    """What the axes of data are: N, ND, NHW, NHWC or NCHW.

    Raises:
        Refusal: for shapes and types that are no data, and where channels cannot be told from the shape.
    """
    shape, kind = array.shape, array.dtype
    told = f"{array.path}: {array} is {array.told}" if array.name else f"{array.path} is {array.told}"
    if kind != np.uint8 and kind.kind != "f":
        raise Refusal(f"{told}: save levels 0 ... 255 as uint8, or data about [-1, 1] as float32")
    if not shape:
        raise Refusal(f"{told}, a single number: the first axis counts the items")
    if 0 in shape:
        raise Refusal(f"{told}, which holds nothing")
    if layout is not None and len(shape) != 4:
        raise Refusal(f"{told}: layout={layout} is for four axes")
    if len(shape) == 4:
        if layout is not None:
            return layout
        if (found := _channels(shape[1:])) is None:
            raise Refusal(f"{told}: data.layout=NHWC or NCHW says which axis is the channels")
        return found
    if kind == np.uint8:
        if len(shape) == 3:
            return "NHW"
        raise Refusal(f"{told}: bytes are images, (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if len(shape) < 3:
        return "ND" if len(shape) == 2 else "N"
    possible = "floats are points (N, D) or images (N, C, H, W)"
    if len(shape) == 3:
        raise Refusal(f"{told}: {possible}; save x[:, None] for images, x.reshape(len(x), -1) for signals")
    raise Refusal(f"{told}: {possible}; save x.reshape(len(x), -1) for points")


def _channels(item: tuple[int, ...]) -> str | None:
    """NCHW or NHWC by the three axes of an item: images are square, or have few channels beside their sides."""
    first, middle, last = item
    if (first == middle) != (middle == last):
        return "NHWC" if first == middle else "NCHW"
    for axes, channels, side in (("NCHW", first, min(middle, last)), ("NHWC", last, min(first, middle))):
        if channels < side and (channels <= 4 or 2 * channels <= side):
            return axes
    return None


def _shape(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Of one item, (C, H, W) or (D,)."""
    if axes == "NHWC":
        return (shape[3], shape[1], shape[2])
    return (1, *shape[1:]) if axes in ("N", "NHW") else shape[1:]


def _taken(array: Held, rows: Tensor, axes: str) -> Iterator[Tensor]:
    """Rows of an array, ascending, as data (n, *shape), some at a time.

    Raises:
        Refusal: where the file is damaged, or a number is not finite.
    """
    wanted, place = rows.numpy(), 0
    for start, chunk in array.chunks():
        end = int(np.searchsorted(wanted, start + len(chunk)))
        some, place = wanted[place:end], end
        if not len(some):
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            found = torch.from_numpy(
                chunk[some - start].astype(np.uint8 if array.dtype == np.uint8 else np.float32, order="C")
            )
        if found.dtype == torch.float32 and not bool(found.isfinite().all()):
            bad = ~found.isfinite().flatten(1).all(1)
            first = int(some[int(bad.nonzero()[0])])
            raise Refusal(
                f"{array.path}: {array} holds NaN or infinity (as float32) in row {first}: leave such rows out"
            )
        yield (
            found[:, None] if axes in ("N", "NHW") else found.permute(0, 3, 1, 2) if axes == "NHWC" else found
        ).contiguous()
