"""Sets of images in the hub's layout: parquet or arrow files of one's own, or a set by its name."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from scorelab.data.base import Source, Split
from scorelab.data.cache import Stored, TensorCache
from scorelab.data.division import by_class
from scorelab.data.tables import Tables, opened
from scorelab.errors import Refusal
from scorelab.formats.decoding import decoded
from scorelab.formats.pictures import Picture, Rules, Unreadable, header, sides_of

NAMES = ("train", "val", "test")
BLOCK = 4 << 20  # bytes that are put into the cache together
MOST_NAMED = 100  # unreadable pictures in the records, and 3 in the log
VAL = ("validation", "valid", "val", "dev")  # what a set's own val split is called
TEST = ("test",)

log = logging.getLogger("scorelab")


@dataclass(frozen=True)
class Part:
    """Where a split of ours comes from: some rows of a split of the set, ascending; all where none are told."""

    split: str
    rows: Tensor | None
    why: str


@dataclass(frozen=True)
class Row:
    """A picture's split of ours, how it is called, its class."""

    part: str
    called: str
    label: int


class HuggingFace(Source):
    """A set of the hub's kind, read with the ``datasets`` library: by name, or from a folder, which needs no network.

    val and test are the set's own where it has splits so named, else drawn out of the split that is trained on, by
    class. Images are decoded by the rules of ``pictures``, once, into the cache.

    Args:
        path: a name on the hub, a folder of parquet, arrow or other files that the library knows, one such file, or a
            folder that ``save_to_disk`` has written.
        name: of a configuration, where a set has several.
        split: that is trained on; a set that has but one need not be told.
        image: the column of pictures; null finds it by its feature.
        label: the column of classes; null finds it by its feature, or whole numbers under a usual name.
        size: of the images, one number or [height, width]: they are resized and cropped to it; null is that of the
            first.
        channels: 1 or 3; null is what the first has.
        max_pixels: of a picture; a larger one counts as unreadable.
        val: a share below 1, or a count, where the set has no val of its own.
        test: the same.
        split_seed: of that choice.
        strict: refuse a set with an unreadable picture, rather than leave the picture out.
        cache: the folder of decoded sets (see ``TensorCache``).
        cache_gb: how much it may hold.
        resident_mb: up to this size the images are held in memory, beyond it they are mapped.

    Raises:
        Refusal: for what is not there, cannot be reached or read, holds no images, or leaves the choice open.
    """

    levels = 256

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: str = "train",
        image: str | None = None,
        label: str | None = None,
        size: int | list[int] | None = None,
        channels: Literal[1, 3] | None = None,
        max_pixels: int = 100_000_000,
        val: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        strict: bool = False,
        cache: str | None = None,
        cache_gb: float = 50.0,
        resident_mb: float = 256.0,
    ) -> None:
        self.val, self.test, self.split_seed, self.strict = val, test, split_seed, strict
        self.cache = TensorCache(cache, cache_gb, resident_mb)
        self.tables = opened(path, name)
        self.split = _trained_on(self.tables, split)
        self.image, self.label = self.tables.image_column(image), self.tables.label_column(label)
        self.rules = self._rules_of(size, channels, max_pixels)
        self.shape = (self.rules.channels, *self.rules.size)
        self.classes = self._classes()
        self._notes: dict[str, Any] = {}

    def splits(self) -> dict[str, Split]:
        """The splits by name, decoded where no job has done so before.

        Raises:
            Refusal: where no picture of a split can be read, or one cannot and ``strict`` is set.
        """
        stored = self.cache.take(self._key(), self.shape, torch.uint8, self._decoded)
        self._notes = stored.notes["told"]
        if lost := self._notes["unreadable_files"]:
            if self.strict:
                raise Refusal(self._not_readable(*next(iter(lost.items()))))
            some = ", ".join(f"{row} ({why})" for row, why in list(lost.items())[:3])
            number = self._notes["unreadable"]
            log.warning("%s: %s pictures cannot be read and are left out: %s", self.tables.told, f"{number:,}", some)
        return _cut(stored, self._numbers)

    def told(self) -> dict[str, Any]:
        """What it is, where its columns and splits were found, what could not be read."""
        label = f"column {self.label.name}: {self.label.why}" if self.label else "no column of classes"
        found = {"set": self.tables.path, "trained_on": self.split}
        columns: dict[str, Any] = {"images_from": f"column {self.image.name}: {self.image.why}", "labels_from": label}
        if self._numbers is not None:
            columns["class_names"] = [str(number) for number in self._numbers[:MOST_NAMED].tolist()]
        return found | columns | {"preprocessing": self.rules.told()} | self._notes

    def _key(self) -> dict[str, Any]:
        """What the decoded set is made of, and how."""
        columns = {"image": self.image.name, "label": self.label.name if self.label else None}
        drawn = {"split": self.split, "val": self.val, "test": self.test, "split_seed": self.split_seed}
        return {"kind": "hub", "content": self.tables.content} | columns | drawn | {"rules": self.rules.key()}

    def _rules_of(self, size: int | list[int] | None, channels: Literal[1, 3] | None, max_pixels: int) -> Rules:
        """How pictures are decoded; what is open is as the first readable one has it.

        Raises:
            Refusal: where none is readable, and for a size that is none.
        """
        asked = sides_of(size, max_pixels)
        for rows in self.tables.rows(self.split, [self.image.name]):
            for cell in rows[self.image.name]:
                with suppress(Unreadable):
                    first = header(content_of(cell), max_pixels)
                    height, width = asked or (first.height, first.width)
                    return Rules((height, width), channels or (1 if first.grey else 3), max_pixels)
        raise Refusal(f"{self.tables.told}: its split {self.split} holds no picture that can be read")

    def _classes(self) -> int | None:
        """How many classes there are: as the feature says, else the numbers that are there, in their order."""
        self._numbers: Tensor | None = None
        if self.label is None or (known := self.tables.classes(self.label)) is not None:
            return None if self.label is None else known
        used = [self.split, *filter(None, (self._own(VAL), self._own(TEST)))]
        labels = torch.cat([self._labels(split) for split in used])
        most = int(labels.max()) if len(labels) else 0
        if most >= max(len(labels), 2):
            told = f"column {self.label.name} holds numbers up to {most:,} in {len(labels):,} rows"
            raise Refusal(f"{self.tables.told}: {told}, which are no classes: data.label=NAME names another column")
        self._numbers = labels[labels >= 0].unique()
        return max(1, len(self._numbers))

    def _own(self, names: tuple[str, ...]) -> str | None:
        """The set's own split of one of these names."""
        return next((name for name in names if name in self.tables.splits and name != self.split), None)

    def _labels(self, split: str) -> Tensor:
        """The classes of all rows of a split; -1 where they are not told."""
        assert self.label is not None
        name, found = self.label.name, list[int]()
        for rows in self.tables.rows(split, [name]):
            found += [-1 if each is None else each for each in rows[name]]
        return torch.tensor(found, dtype=torch.int64)

    def _parts(self) -> dict[str, Part]:
        """Where each split comes from.

        Raises:
            Refusal: where a class is not told of what is trained on, or a part would be empty.
        """
        own, labels = {"val": self._own(VAL), "test": self._own(TEST)}, None
        if self.label is not None:
            labels = self._labels(self.split)
            if len(labels) and int(labels.min()) < 0:
                told = f"{int((labels < 0).sum()):,} rows of {self.split} have no class in column {self.label.name}"
                raise Refusal(f"{self.tables.told}: {told}: data.label=NAME names another")
            hidden = [part for part, split in own.items() if split and int(self._labels(split).min()) < 0]
            own |= dict.fromkeys(hidden)
        n = self.tables.count(self.split) if labels is None else len(labels)
        if all(own.values()):
            parts = {"train": Part(self.split, None, f"the set's own {self.split}")}
        else:
            sizes = {part: 0 if own[part] else getattr(self, part) for part in own}
            try:
                drawn = by_class(labels, n, sizes["val"], sizes["test"], self.split_seed)
            except Refusal as error:
                raise Refusal(f"{self.tables.told}: {error}") from error
            by = f"drawn {'at random' if labels is None else 'by class'} out of {self.split}"
            parts = {name: Part(self.split, getattr(drawn, name), f"{by}, {self._draw(name)}") for name in NAMES}
        return parts | {part: Part(split, None, f"the set's own {split}") for part, split in own.items() if split}

    def _draw(self, name: str) -> str:
        size = f"{name}={getattr(self, name):g}, " if name in ("val", "test") else ""
        return f"{size}split_seed={self.split_seed}"

    def _decoded(self, put: Callable[[Tensor], None]) -> dict[str, Any]:
        """Decode all that is readable, split after split; returns what the cache keeps beside the values.

        Raises:
            Refusal: where none of a split can be read, or one cannot and ``strict`` is set.
        """
        parts = self._parts()
        total = sum(self.tables.count(p.split) if p.rows is None else len(p.rows) for p in parts.values())
        size, resized, block = torch.Size(self.shape).numel(), 0, list[Tensor]()
        labels: dict[str, list[int]] = {name: [] for name in NAMES}
        lost, lost_of = dict[str, str](), dict[str, str]()
        rows: deque[Row] = deque()
        with closing(decoded(self._contents(parts, rows), self.rules, total)) as found:
            for each in found:
                row = rows.popleft()
                if isinstance(each, Picture):
                    resized += each.resized
                    block.append(each.values)
                    labels[row.part].append(row.label)
                elif self.strict:
                    raise Refusal(self._not_readable(row.called, str(each)))
                else:
                    lost[row.called] = str(each)
                    lost_of.setdefault(row.part, f"{row.called} ({each})")
                if len(block) * size >= BLOCK:
                    put(torch.stack(block))
                    block.clear()
        if block:
            put(torch.stack(block))
        for name, kept in labels.items():
            if not kept:
                first = f", the first is {lost_of[name]}" if name in lost_of else ""
                raise Refusal(f"{self.tables.told}: no picture of the {name} split can be read{first}")
        origin = {f"{name}_from": parts[name].why for name in ("val", "test")}
        some = dict(list(lost.items())[:MOST_NAMED])
        told = origin | {"resized": resized, "unreadable": len(lost), "unreadable_files": some}
        own = {name: parts[name].rows is None for name in NAMES}
        return {"labels": labels, "own": own, "told": told}

    def _contents(self, parts: dict[str, Part], taken: deque["Row"]) -> Iterator[bytes | Path]:
        """What each picture is stored as, in the order of the splits; notes which rows they are of."""
        columns = [self.image.name, *([self.label.name] if self.label else [])]
        for name in NAMES:
            part, start = parts[name], 0
            wanted = None if part.rows is None else set(part.rows.tolist())
            for rows in self.tables.rows(part.split, columns):
                cells = rows[self.image.name]
                labels = rows[self.label.name] if self.label else [0] * len(cells)
                for number, (cell, label) in enumerate(zip(cells, labels, strict=True), start):
                    if wanted is None or number in wanted:
                        taken.append(Row(name, f"{part.split} row {number}", label))
                        yield content_of(cell)
                start += len(cells)

    def _not_readable(self, row: str, why: str) -> str:
        return f"{self.tables.told}: {row} cannot be read ({why}); data.strict=false leaves such pictures out"


def content_of(cell: Any) -> bytes | Path:
    """What a cell of a column of images holds: its bytes, or the path of its file; nothing where it is empty."""
    found = (cell.get("bytes") or cell.get("path")) if isinstance(cell, dict) else cell
    return Path(found) if isinstance(found, str) else found or b""


def _trained_on(tables: Tables, asked: str) -> str:
    """The split to train on: the one asked for, or the only one.

    Raises:
        Refusal: where there is no such split.
    """
    if asked in tables.splits:
        return asked
    if asked == "train" and len(tables.splits) == 1:
        return next(iter(tables.splits))
    raise Refusal(f"{tables.told} has no split {asked}: type data.split={'|'.join(tables.splits)}")


def _cut(stored: Stored, numbers: Tensor | None) -> dict[str, Split]:
    """The splits, one behind the other in what is stored; of labels that are numbers, which of them each is."""
    start, found = 0, {}
    for name in NAMES:
        labels = torch.tensor(stored.notes["labels"][name], dtype=torch.int64)
        labels = labels if numbers is None else torch.searchsorted(numbers, labels)
        values = stored.values[start : start + len(labels)]
        found[name] = Split(values, labels, chance=float(stored.notes["own"][name]))
        start += len(labels)
    return found
