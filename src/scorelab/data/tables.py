"""Sets of the hub's kind, opened with the ``datasets`` library: named splits of rows, nothing of them decoded."""

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorelab.errors import Refusal

ROWS = 256  # at once
LABELS = ("label", "labels", "fine_label", "target", "class")  # what a column of classes is called, best first
LOUD = ("datasets", "huggingface_hub", "fsspec", "httpx")  # libraries that tell of each attempt

log = logging.getLogger("scorelab")


@dataclass(frozen=True)
class Column:
    """A column, and how it was found."""

    name: str
    why: str


@dataclass(frozen=True)
class Tables:
    """A set as it was opened.

    Attributes:
        path: where it is, as it was typed.
        features: what each column is, by its name.
        splits: the library's own objects by the names of the splits.
        content: what tells this content from any other, as plain values.
    """

    path: str
    features: Mapping[str, Any]
    splits: Mapping[str, Any]
    content: Sequence[Any]

    @property
    def told(self) -> str:
        """How it is called to the person at the keyboard."""
        return f"data.path={self.path}"

    def rows(self, split: str, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """The rows of a split in their order, some at a time: a list of values for each column.

        Raises:
            Refusal: where a file turns out to be damaged.
        """
        with understood(self.told):
            for table in self.splits[split].with_format("arrow").iter(ROWS):
                yield {name: table.column(name).to_pylist() for name in columns}

    def count(self, split: str) -> int:
        """How many rows a split has."""
        with understood(self.told):
            return sum(table.num_rows for table in self.splits[split].with_format("arrow").iter(ROWS))

    def image_column(self, asked: str | None) -> Column:
        """The column of pictures: the one asked for, else the one whose feature is Image, else the one of bytes.

        Raises:
            Refusal: where there is none, or more than one.
        """
        from datasets import Image

        if asked is not None:
            feature = self.features[self._known(asked, "image")]
            if isinstance(feature, Image) or _holds_bytes(feature) or getattr(feature, "dtype", "") == "string":
                return Column(asked, "as asked")
            raise Refusal(f"data.image={asked}: a column of images, bytes or files is needed")
        for why, fits in (
            ("its feature is Image", lambda feature: isinstance(feature, Image)),
            ("it holds bytes", _holds_bytes),
        ):
            if found := [name for name, feature in self.features.items() if fits(feature)]:
                if len(found) > 1:
                    raise Refusal(f"{self.told} has several columns of images: type data.image={'|'.join(found)}")
                return Column(found[0], why)
        raise Refusal(f"{self.told} has no column of images; its columns: {', '.join(self.features)}")

    def label_column(self, asked: str | None) -> Column | None:
        """The column of classes: the one asked for, else one whose feature is ClassLabel, else whole numbers under a
        usual name; None where there is none.

        Raises:
            Refusal: where the one asked for is neither.
        """
        from datasets import ClassLabel

        classes = [name for name, feature in self.features.items() if isinstance(feature, ClassLabel)]
        numbers = [name for name, feature in self.features.items() if "int" in str(getattr(feature, "dtype", ""))]
        if asked is not None:
            if self._known(asked, "label") not in (*classes, *numbers):
                raise Refusal(f"data.label={asked}: a column of classes or whole numbers is needed")
            return Column(asked, "as asked")
        for found, why in ((classes, "its feature is ClassLabel"), (numbers, "whole numbers under a usual name")):
            usual = [name for name in LABELS if name in found]
            if usual or (found is classes and found):
                return Column((usual or found)[0], why)
        return None

    def classes(self, label: Column) -> int | None:
        """How many classes a column has, where its feature says so."""
        found: int | None = getattr(self.features[label.name], "num_classes", None)
        return found

    def _known(self, asked: str, key: str) -> str:
        if asked not in self.features:
            raise Refusal(f"data.{key}={asked}: {self.told} has no such column; columns: {', '.join(self.features)}")
        return asked


def opened(path: str, name: str | None) -> Tables:
    """A folder of files, one file, a folder that ``save_to_disk`` has written, or a set of the hub by its name.

    What lies on this machine is read where it lies: nothing is asked of a network, nothing written beside it.

    Raises:
        Refusal: where there is no such thing, it cannot be read, or cannot be reached.
    """
    place = Path(path).expanduser()
    told = f"data.path={path}"
    if not place.exists() and (path[:1] in "./~" or path.count("/") > 1):
        raise Refusal(f"{told}: no such folder, and no name of a set on the hub")
    import datasets

    with understood(told):
        if (place / "dataset_dict.json").exists():
            found = datasets.load_from_disk(str(place))
        elif (place / "state.json").exists():
            found = {"train": datasets.load_from_disk(str(place))}
        elif place.is_dir():
            found = _streamed(str(place), name)
        elif place.is_file():
            kind = {"parquet": "parquet", "arrow": "arrow"}.get(place.suffix.lstrip("."))
            if kind is None:
                raise Refusal(f"{told}: a file is .parquet or .arrow")
            found = _streamed(kind, name, data_files={"train": str(place)})
        else:
            log.info("%s: looked up on the hub", told)
            found = datasets.load_dataset(path, name)
        if not found:
            raise Refusal(f"{told}: holds no splits")
        features = next(iter(found.values())).features
    if features is None:
        raise Refusal(f"{told}: its files are no table of images")
    content = identity_of(place) if place.exists() else [_cached(split) for split in found.values()]
    return Tables(path, features, {name: _undecoded(split) for name, split in found.items()}, content)


def _streamed(kind: str, name: str | None, **of: Any) -> Any:
    """Read as it is asked for: the library then makes no copy of its own, but a lock, which goes at once."""
    import datasets

    scratch = tempfile.mkdtemp()
    try:
        return datasets.load_dataset(kind, name, streaming=True, cache_dir=scratch, **of)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _undecoded(split: Any) -> Any:
    """A split whose images stay the bytes that they are."""
    from datasets import Image

    for name, feature in split.features.items():
        if isinstance(feature, Image):
            split = split.cast_column(name, Image(decode=False))
    return split


def _cached(split: Any) -> list[Any]:
    """What tells a set of the hub from its other revisions: the files that the library has made of it."""
    return [identity_of(Path(each["filename"])) for each in split.cache_files]


def identity_of(place: Path) -> list[Any]:
    """The names, sizes and times of a file, or of all in a folder."""
    files = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
    root = place if place.is_dir() else place.parent
    stats = [(each.relative_to(root).as_posix(), each.stat()) for each in files]
    return [[name, found.st_size, found.st_mtime_ns] for name, found in stats]


def _holds_bytes(feature: Any) -> bool:
    """Whether a feature is bytes, or bytes beside their path, as an image is stored."""
    if isinstance(feature, Mapping):
        return "binary" in str(getattr(feature.get("bytes"), "dtype", ""))
    return "binary" in str(getattr(feature, "dtype", ""))


@contextmanager
def understood(told: str) -> Iterator[None]:
    """What the library says of what it is given, in one line and once.

    Raises:
        Refusal: in place of its own errors.
    """
    import pyarrow

    quiet = _quiet(LOUD)
    try:
        yield
    except ConnectionError as error:
        why = "no network, or none is allowed" if "reach" in str(error) else _words(error)
        raise Refusal(f"{told} cannot be reached on the hub ({why}): type the folder that holds its files") from error
    except (OSError, pyarrow.ArrowException) as error:
        raise Refusal(f"{told}: cannot be read ({_words(error)})") from error
    except Refusal:
        raise
    except (ValueError, RuntimeError, KeyError) as error:  # a configuration that is not there, say
        raise Refusal(f"{told}: {_words(error)}") from error
    finally:
        for logger, level in quiet:
            logger.setLevel(level)


def _quiet(names: Iterable[str]) -> list[tuple[logging.Logger, int]]:
    """Have loggers say nothing; what they said before."""
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.level) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    return before


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
