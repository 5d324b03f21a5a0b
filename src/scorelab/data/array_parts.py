"""Which arrays of a file are data and labels, of which split; and what the labels say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.formats.arrays import Held, held

NAMES = ("train", "val", "test")
OWN = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VALUES = ("x", "images", "image", "data", "values", "samples", "arr_0")
LABELS = ("y", "labels", "label", "targets", "target", "classes")


@dataclass(frozen=True)
class Part:
    """The values of one split of the file's, and their labels where there are some."""

    values: Held
    labels: Held | None


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
    if values is None and own["train"]:
        return {part: Part(found, _own(arrays, part, LABELS)) for part, found in own.items() if found}
    target = arrays[labels] if labels else _called(arrays, LABELS)
    if values is None:
        rest = [each for each in arrays.values() if each is not target]
        found = _called(arrays, VALUES) or (rest[0] if len(rest) == 1 else None)
        if found is None:
            raise Refusal(f"{path} holds {', '.join(arrays) or 'no arrays'}: data.values=NAME says which is the data")
    else:
        found = arrays[values]
    if target is None and found.name == "arr_0":
        target = next((each for each in [arrays.get("arr_1")] if each and _whole_numbers(each, found)), None)
    return {"train": Part(found, target)}


def _whole_numbers(labels: Held, values: Held) -> bool:
    """Whether an array holds one whole number for each item of another."""
    return labels.dtype.kind in "iu" and labels.shape in (values.shape[:1], (*values.shape[:1], 1))


def _called(arrays: dict[str, Held], names: tuple[str, ...]) -> Held | None:
    """The array of the first of these names that is there, in any case."""
    lower = {name.lower(): each for name, each in arrays.items()}
    return next((lower[name] for name in names if name in lower), None)


def _own(arrays: dict[str, Held], part: str, names: tuple[str, ...]) -> Held | None:
    """An array called by what it holds and the split, in either order."""
    words = [word for word, means in OWN.items() if means == part]
    return _called(arrays, tuple(each for n in names for w in words for each in (f"{n}_{w}", f"{w}_{n}")))


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


def classes_of(parts: dict[str, Part]) -> tuple[dict[str, Tensor], list[str], str]:
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
    if together.dtype.kind not in "US":
        together = together.astype(np.int64)
        least, most = int(together.min()), int(together.max())
        if least < 0 or most >= max(len(together), 2):
            raise Refusal(f"labels in {why} are {least} ... {most} for {len(together)} items; classes are 0 ... K - 1")
    names, index = np.unique(together, return_inverse=True)  # of numbers those that are there, so no class is empty
    shown = [str(each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each) for each in names]
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
    labels.refuse_objects()
    told = f"labels {labels} are {labels.told}"
    n = part.values.shape[0]
    if labels.shape not in ((n,), (n, 1)):
        hint = "; save x.argmax(1) of one-hot labels" if len(labels.shape) == 2 else ""
        raise Refusal(f"{labels.path}: {told}, one for each of {n} items is needed{hint}")
    if labels.dtype.kind not in "biuUS":
        raise Refusal(f"{labels.path}: {told}: labels are whole numbers or names")
    return labels.whole().reshape(n)
