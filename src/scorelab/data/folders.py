"""A folder of pictures as a data set."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorelab.data.base import Source, Split
from scorelab.data.cache import Stored, TensorCache
from scorelab.data.division import by_class
from scorelab.errors import Refusal
from scorelab.formats.decoding import decoded
from scorelab.formats.pictures import Header, Picture, Rules, Unreadable, header, sides_of
from scorelab.formats.tree import Entry, digest, entries, layout, shown

BLOCK = 4 << 20  # bytes that are put into the cache together
MOST_NAMED = 100  # unreadable files or classes in the records, and 3 in the log
NAMES = ("train", "val", "test")

log = logging.getLogger("scorelab")


class ImageFolder(Source):
    """Any tree of PNG, JPEG, WebP, BMP, GIF and TIFF files, found by their suffixes and sorted by their names' bytes.

    Classes are the folders that the images lie in, where each lies in exactly one under the root. Folders train and
    val (valid, validation) or test under the root are the set's own splits, with classes one level below them; what it
    lacks of them is drawn by class. Images are decoded by the rules of ``pictures.Rules``, once, into a cache that
    knows them by their names, sizes, times of change and these rules. What cannot be read is left out, and named.

    Args:
        path: the folder. What is hidden in it, or called __MACOSX, is left out; links are followed.
        size: of the images, one number or height and width; null is that of the first image.
        channels: 1 for grey or 3 for RGB; null is 1 where the first image is grey, else 3.
        val: how many are drawn for the val split where the set has none: a share of all below 1, or a count.
        test: the same for the test split.
        split_seed: of that choice.
        strict: whether a file that cannot be read ends the run.
        cache: the folder that decoded images are kept in; null is $SCORELAB_CACHE, else ~/.cache/scorelab.
        cache_gb: how much it may hold.
        resident_mb: up to this size the images are held in memory, beyond it they are mapped.
        max_pixels: a file that tells of more is taken for unreadable.

    Raises:
        Refusal: for a path that is no folder of images, a size or channels that are none, and too few images.
    """

    levels = 256

    def __init__(
        self,
        path: str,
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        val: float = 0.1,
        test: float = 0.1,
        split_seed: int = 0,
        strict: bool = False,
        cache: str | None = None,
        cache_gb: float = 50.0,
        resident_mb: float = 256.0,
        max_pixels: int = Rules.max_pixels,
    ) -> None:
        if not path.strip():
            raise Refusal("data.path=FOLDER names a folder of images, and no name was given")
        self.root, self.strict = Path(path).expanduser(), strict
        self.val, self.test, self.split_seed = val, test, split_seed
        self.max_pixels = max_pixels
        self.cache = TensorCache(cache, cache_gb, resident_mb)
        files = entries(self.root)
        if not files:
            suffixes = ", ".join(("png", "jpg", "webp", "bmp", "gif", "tif"))
            raise Refusal(f"{self._shown} holds no images ({suffixes}): data.path=FOLDER names a folder of images")
        self.layout = layout(files)
        self.classes = len(self.layout.classes) or None
        self.parts = self._parts()
        self.rules = Rules(*self._asked(size, channels), max_pixels)
        self.shape = (self.rules.channels, *self.rules.size)
        self._notes: dict[str, Any] = {}

    @property
    def _shown(self) -> str:
        return shown(str(self.root))

    def _asked(self, size: int | Sequence[int] | None, channels: int | None) -> tuple[tuple[int, int], Any]:
        """The size and channels that were asked for; the first image's own where they were not."""
        sides = sides_of(size, self.max_pixels)
        if channels not in (None, 1, 3):
            raise Refusal(f"channels is 1 for grey or 3 for RGB, got {channels}")
        if sides is None or channels is None:
            first = self._first
            sides = sides or (first.height, first.width)
            channels = channels or (1 if first.grey else 3)
        return sides, channels

    @cached_property
    def _first(self) -> Header:
        """What the first image that has a header says."""
        found = None
        for each in self.layout.parts["train"]:
            try:
                return header(self.root / each.name, self.max_pixels)
            except Unreadable as error:
                found = found or f"{shown(each.name)} ({error})"
        raise Refusal(self._none_readable("train" if self.layout.own else None, found or ""))

    def _none_readable(self, part: str | None, first: str) -> str:
        where = f"{self._shown}: no image of the {part} split" if part else f"{self._shown}: no image"
        return f"{where} can be read, the first is {first}"

    def _parts(self) -> dict[str, tuple[list[Entry], Tensor]]:
        """The files of each split, and their labels.

        Raises:
            Refusal: where there are too few of them.
        """
        own = {
            part: (files, torch.tensor(self.layout.labels(part), dtype=torch.int64))
            for part, files in self.layout.parts.items()
        }
        files, labels = own["train"]
        for part in ("val", "test"):
            if part not in own and not getattr(self, part):
                raise Refusal(f"{part}=0 leaves no {part} split: ask for one image at least")
        val, test = (0 if part in own else getattr(self, part) for part in ("val", "test"))
        try:
            division = by_class(labels, len(files), val, test, self.split_seed)
        except Refusal as error:
            raise Refusal(f"{self._shown}: {error}") from error
        drawn = {name: getattr(division, name) for name in NAMES}
        return {
            name: own[name]
            if name in own and name != "train"
            else ([files[row] for row in drawn[name].tolist()], labels[drawn[name]])
            for name in NAMES
        }

    def splits(self) -> dict[str, Split]:
        """The splits by name, decoded where no job has done so before.

        Raises:
            Refusal: where no image of a split can be read, or one cannot and ``strict`` is set.
        """
        stored = self.cache.take(self._key(), self.shape, torch.uint8, self._decoded)
        self._notes = stored.notes
        self._tell_unreadable()
        return self._cut(stored)

    def _key(self) -> dict[str, Any]:
        """What the images are made of, and how: the files of each split in their order, and the rules."""
        files = {name: digest(files) for name, (files, _) in self.parts.items()}
        return {"kind": "folder", "files": files, "rules": self.rules.key()}

    def _decoded(self, put: Callable[[Tensor], None]) -> dict[str, Any]:
        """Put the images into the cache in the order of the splits; returns which could not be read, by split.

        Raises:
            Refusal: where none of a split can be, or one cannot and ``strict`` is set.
        """
        unreadable: dict[str, dict[str, str]] = {name: {} for name in NAMES}
        size, resized, block = torch.Size(self.shape).numel(), 0, list[Tensor]()
        listed = [(name, row, each.name) for name in NAMES for row, each in enumerate(self.parts[name][0])]
        with closing(decoded((self.root / each for _, _, each in listed), self.rules, len(listed))) as found:
            for (name, row, file), each in zip(listed, found, strict=True):
                if isinstance(each, Picture):
                    resized += each.resized
                    block.append(each.values)
                elif self.strict:
                    raise Refusal(self._not_readable(file, str(each)))
                else:
                    unreadable[name][str(row)] = str(each)
                if len(block) * size >= BLOCK:
                    put(torch.stack(block))
                    block.clear()
        if block:
            put(torch.stack(block))
        for name, lost in unreadable.items():
            files = self.parts[name][0]
            if len(lost) == len(files):
                raise Refusal(self._none_readable(name, f"{shown(files[0].name)} ({lost['0']})"))
        return {"unreadable": unreadable, "resized": resized}

    def _not_readable(self, file: str, why: str) -> str:
        return f"{self._shown}: {shown(file)} cannot be read ({why}); data.strict=false leaves such files out"

    def _unreadable(self) -> dict[str, str]:
        """Why a file could not be read, by its name."""
        found = [
            (self.parts[name][0][int(row)].name, why)
            for name, lost in self._notes.get("unreadable", {}).items()
            for row, why in lost.items()
        ]
        return dict(sorted(found))

    def _tell_unreadable(self) -> None:
        """One line that names the first; with ``strict`` the last line there is."""
        lost = list(self._unreadable().items())
        if not lost:
            return
        if self.strict:
            raise Refusal(self._not_readable(*lost[0]))
        total = sum(len(files) for files, _ in self.parts.values())
        some = ", ".join(f"{shown(file)} ({why})" for file, why in lost[:3]) + (", ..." if len(lost) > 3 else "")
        log.warning("%s of %s images cannot be read and are left out: %s", f"{len(lost):,}", f"{total:,}", some)

    def _cut(self, stored: Stored) -> dict[str, Split]:
        """The splits' rows of what is stored, one after the other."""
        start, found = 0, {}
        for name in NAMES:
            files, labels = self.parts[name]
            lost = [int(row) for row in stored.notes["unreadable"][name]]
            kept = torch.ones(len(files), dtype=torch.bool)
            kept[lost] = False
            n = len(files) - len(lost)
            own = name in self.layout.own and (name != "train" or len(self.layout.own) == len(NAMES))
            found[name] = Split(stored.values[start : start + n], labels[kept], chance=float(own))
            start += n
        return found

    def told(self) -> dict[str, Any]:
        """Where labels and splits come from, what was resized or left out, by which rules."""
        lost = self._unreadable()
        by_class = f"drawn {'by class' if self.classes else 'at random'} out of "
        by_class += "train" if self.layout.own else "all"
        origin = {
            f"{part}_from": f"the folder {shown(self.layout.own[part])}"
            if part in self.layout.own
            else f"{by_class}, {part}={getattr(self, part):g}, split_seed={self.split_seed}"
            for part in ("val", "test")
        }
        classes = {"class_names": [shown(name) for name in self.layout.classes[:MOST_NAMED]]} if self.classes else {}
        left_out = {"left_out": self.layout.left_out} if self.layout.left_out else {}
        return {
            "labels_from": self.layout.why,
            **classes,
            **origin,
            **left_out,
            "resized": self._notes.get("resized"),
            "unreadable": len(lost),
            "unreadable_files": {shown(file): why for file, why in list(lost.items())[:MOST_NAMED]},
            "preprocessing": self.rules.told(),
        }
