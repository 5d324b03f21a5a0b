"""Arrays of one's own as a data set: bytes are images, floats are points or images without levels."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scorelab.data.array_files import Held, held
from scorelab.data.base import Source, Split
from scorelab.data.cache import TensorCache
from scorelab.data.division import by_class
from scorelab.errors import Refusal

NAMES = ("train", "val", "test")
OWN = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VALUES = ("x", "images", "image", "data", "values", "samples", "arr_0")
LABELS = ("y", "labels", "label", "targets", "target", "classes")
MOST_CHANNELS = 16  # that are guessed; more are told by layout
AXES = {"ND": 2, "NHW": 3, "NHWC": 4, "NCHW": 4}

log = logging.getLogger("scorelab")


@dataclass(frozen=True)
class Part:
    """The values of one split of the file's, and their labels where there are some."""

    values: Held
    labels: Held | None


class Arrays(Source):
    """A .npy or .npz file. Bytes are pixels of 256 levels, floats are data without levels, which lie about [-1, 1].

    Bytes (N, H, W), (N, H, W, C) or (N, C, H, W) are images; floats (N, D) are points, floats (N, H, W, C) or
    (N, C, H, W) images. Channels are the second or the last of four axes, whichever is the shorter, up to 16. Floats
    of any precision become float32. Labels are whole numbers 0 ... K - 1, or names, whose classes are sorted.

    In a .npz, arrays x_train, x_test and x_val with labels y_train ... (or train_images, train_labels ...) are the
    set's own splits; else one array is called x, images, data, values or samples, or is the only one, and labels are
    called y, labels, targets or classes. The labels of NAME.npy are NAME_labels.npy, if that is there. val and test
    are drawn by class where the set has none.

    Args:
        path: the file.
        values: the array's name in a .npz.
        labels: the labels' name in a .npz, or their file beside a .npy.
        layout: NHWC or NCHW, where it cannot be told from the shape.
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
        val: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        cache: str | None = None,
        cache_gb: float = 50.0,
        resident_mb: float = 256.0,
    ) -> None:
        if layout not in (None, "NHWC", "NCHW"):
            raise Refusal(f"layout is NHWC or NCHW, got {layout}")
        self.path = Path(path).expanduser()
        self.val, self.test, self.split_seed = val, test, split_seed
        self.cache = TensorCache(cache, cache_gb, resident_mb)
        self.given = parts_of(self.path, values, labels)
        first = self.given["train"].values
        for part in self.given.values():
            if part.values.shape[1:] != first.shape[1:] or part.values.dtype != first.dtype:
                raise Refusal(f"{self.path}: {first} is {first.told}, and {part.values} {part.values.told}")
        self.axes = axes_of(first, layout)
        self.shape = _shape(first.shape, self.axes)
        self.levels = 256 if first.dtype == np.uint8 else None
        self.targets, self.class_names, self.why = _classes(self.given)
        self.classes = len(self.class_names) or None
        self.rows = self._divided()
        self._range: list[float] | None = None

    def _divided(self) -> dict[str, tuple[Held, Tensor, Tensor]]:
        """Of each split the array, its rows, and their labels."""
        labels = self.targets["train"]
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
        """All rows in the order of the splits; returns the least and the largest of floats."""
        least, most = math.inf, -math.inf
        for array, rows, _ in self.rows.values():
            for block in _taken(array, rows, self.axes):
                if self.levels is None:
                    least, most = min(least, float(block.min())), max(most, float(block.max()))
                put(block)
        return {"range": None if self.levels else [least, most]}

    def _tell_of_range(self) -> None:
        """A line where floats are far from what networks are made for."""
        if self._range and not 0.1 < max(map(abs, self._range)) < 20:
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


def parts_of(path: Path, values: str | None, labels: str | None) -> dict[str, Part]:
    """The arrays of each split that the file has; all of it as train where it has but one.

    Raises:
        Refusal: where a name is not there, or nothing tells which array is meant.
    """
    arrays = held(path)
    if "" in arrays:
        if values is not None:
            raise Refusal(f"{path} holds one array without a name: leave data.values out")
        return {"train": Part(arrays[""], _beside(path, labels))}
    for name in filter(None, (values, labels)):
        if name not in arrays:
            raise Refusal(f"{path} holds no {name}, but {', '.join(arrays) or 'nothing'}")
    own = {part: _own(arrays, part, VALUES) for part in NAMES}
    if values is None and own["train"] and (own["val"] or own["test"]):
        return {part: Part(found, _own(arrays, part, LABELS)) for part, found in own.items() if found}
    target = arrays[labels] if labels else own_name(arrays, LABELS)
    if values is None:
        rest = [each for each in arrays.values() if each is not target]
        found = own_name(arrays, VALUES) or (rest[0] if len(rest) == 1 else None)
        if found is None:
            raise Refusal(f"{path} holds {', '.join(arrays) or 'no arrays'}: data.values=NAME says which is the data")
    else:
        found = arrays[values]
    return {"train": Part(found, target)}


def own_name(arrays: dict[str, Held], names: tuple[str, ...]) -> Held | None:
    """The array of the first of these names that is there, in any case."""
    lower = {name.lower(): each for name, each in arrays.items()}
    return next((lower[name] for name in names if name in lower), None)


def _own(arrays: dict[str, Held], part: str, names: tuple[str, ...]) -> Held | None:
    """An array called by what it holds and the split, in either order."""
    words = [word for word, means in OWN.items() if means == part]
    return own_name(arrays, tuple(each for n in names for w in words for each in (f"{n}_{w}", f"{w}_{n}")))


def _beside(path: Path, labels: str | None) -> Held | None:
    """The labels of a .npy file: a file that was named, from here or beside it, or NAME_labels.npy where that is."""
    file = path.with_name(f"{path.stem}_labels.npy")
    if labels is not None:
        file = Path(labels).expanduser()
        file = file if file.exists() else path.parent / file
    elif not file.exists():
        return None
    arrays = held(file)
    if "" not in arrays:
        raise Refusal(f"{file} is a .npz file: labels of a .npy file stand in another .npy file")
    return arrays[""]


def axes_of(array: Held, layout: str | None) -> str:
    """What the axes of data are: ND, NHW, NHWC or NCHW.

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
        if shape[1] == shape[3] or min(shape[1], shape[3]) > MOST_CHANNELS:
            raise Refusal(f"{told}: data.layout=NHWC or NCHW says which axis is the channels")
        return "NCHW" if shape[1] < shape[3] else "NHWC"
    if kind == np.uint8:
        if len(shape) == 3:
            return "NHW"
        raise Refusal(f"{told}: bytes are images, (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if len(shape) == 2:
        return "ND"
    possible = "floats are points (N, D) or images (N, C, H, W)"
    if len(shape) == 3:
        raise Refusal(f"{told}: {possible}; save x[:, None] for images, x.reshape(len(x), -1) for signals")
    raise Refusal(f"{told}: {possible}; save x.reshape(len(x), -1) for points")


def _shape(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Of one item, (C, H, W) or (D,)."""
    if axes == "NHWC":
        return (shape[3], shape[1], shape[2])
    return (1, *shape[1:]) if axes == "NHW" else shape[1:]


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
        yield (found[:, None] if axes == "NHW" else found.permute(0, 3, 1, 2) if axes == "NHWC" else found).contiguous()


def _classes(parts: dict[str, Part]) -> tuple[dict[str, Tensor], list[str], str]:
    """The labels of each part, 0 without classes, the classes' names, and why there are some or none.

    Raises:
        Refusal: for labels that are none.
    """
    none = {name: torch.zeros(part.values.shape[0], dtype=torch.int64) for name, part in parts.items()}
    without = [name for name, part in parts.items() if part.labels is None]
    if without:
        few = f": {', '.join(without)} has none" if len(without) < len(parts) else ""
        return none, [], f"none{few}"
    found = {name: _labels(part) for name, part in parts.items()}
    why = ", ".join(str(part.labels) for part in parts.values())
    together = np.concatenate(list(found.values()))
    if together.dtype.kind in "US":
        names, index = np.unique(together, return_inverse=True)
        shown = [str(each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each) for each in names]
    else:
        least, most = int(together.min()), int(together.max())
        if least < 0 or most >= max(len(together), 2):
            raise Refusal(f"labels in {why} are {least} ... {most} for {len(together)} items; classes are 0 ... K - 1")
        index, shown = together.astype(np.int64), [str(k) for k in range(most + 1)]
    if len(shown) < 2:
        return none, [], f"none: {why} holds one class"
    cut = np.cumsum([len(each) for each in found.values()])[:-1]
    return (
        {
            name: torch.from_numpy(np.ascontiguousarray(each, np.int64))
            for name, each in zip(found, np.split(index, cut), strict=True)
        },
        shown,
        why,
    )


def _labels(part: Part) -> "np.ndarray[Any, Any]":
    """Whole numbers or names, one for each item."""
    labels = part.labels
    assert labels is not None
    told = f"labels {labels} are {labels.told}"
    n = part.values.shape[0]
    if labels.shape not in ((n,), (n, 1)):
        hint = "; save x.argmax(1) of one-hot labels" if len(labels.shape) == 2 else ""
        raise Refusal(f"{labels.path}: {told}, one for each of {n} items is needed{hint}")
    if labels.dtype.kind not in "biuUS":
        raise Refusal(f"{labels.path}: {told}: labels are whole numbers or names")
    return labels.whole().reshape(n)
