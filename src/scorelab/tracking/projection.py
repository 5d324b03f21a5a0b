"""What W&B is to show of a run, from the files in its directory alone: a row of metrics.csv is its step by its number.

A continued run repeats its rows bit by bit, so what a number stands for does not depend on when it is read, by whom, or
how often. That is why nothing has to be recovered: what is not there yet is sent.
"""

import csv
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True)
class Row:
    """A row of metrics.csv, and the pictures that were made since the row before it, by what they show."""

    number: int
    values: dict[str, float]
    pictures: dict[str, list[Path]] = field(default_factory=dict)


class Rows:
    """The rows of metrics.csv from one number on, read on as the file grows.

    A row that was given is not given again, though the file be written anew with another column, or shortened.
    """

    def __init__(self, directory: Path, first: int = 0) -> None:
        self.directory, self.next = directory, first
        self._file: BinaryIO | None = None  # kept open, or another file might get its inode
        self._columns: list[str] = []
        self._seen, self._top = 0, -1

    def new(self) -> Iterator[Row]:
        """Those that are whole and were not given yet."""
        lines = self._lines()
        pictures = step_pictures(self.directory)  # after the rows: a picture is saved before any row of a later step
        for cells in csv.reader(lines):
            if not self._columns:
                self._columns = cells
                continue
            values = _numbers(self._columns, cells)
            step, number = int(values.pop("step", 0)), self._seen
            shown = _between(pictures, self._top, step) if step > self._top else {}
            self._seen, self._top = number + 1, max(self._top, step)
            if number >= self.next:
                self.next = number + 1
                yield Row(number, values | {"trainer/global_step": step}, shown)

    def left(self) -> dict[str, list[Path]]:
        """The pictures that no row has taken, and those of the results."""
        found = _between(step_pictures(self.directory), self._top, float("inf"))
        return found | {path.stem: [path] for path in sorted(self.directory.glob("*.png"))}

    @property
    def step(self) -> int:
        """The last step that a row is of."""
        return max(0, self._top)

    @property
    def seen(self) -> int:
        """How many rows the file has."""
        return self._seen

    def _lines(self) -> list[str]:
        path = self.directory / "metrics.csv"
        try:
            if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
                self.close()
                self._file = path.open("rb")
                self._columns, self._seen, self._top = [], 0, -1
        except FileNotFoundError:
            return []
        begin = self._file.tell()
        whole, newline, _ = self._file.read().rpartition(b"\n")  # the last line may be half written
        self._file.seek(begin + len(whole) + len(newline))
        return whole.decode(errors="replace").splitlines()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _numbers(columns: list[str], cells: list[str]) -> dict[str, float]:
    found = {}
    for name, cell in zip(columns, cells, strict=False):
        try:
            found[name] = float(cell)
        except ValueError:  # empty: not measured at this step
            continue
    return found


def step_pictures(directory: Path) -> list[tuple[int, str, Path]]:
    """The pictures in NAME/step_N.png below a run's directory: N, NAME and the file, in that order."""
    found = ((STEP.fullmatch(path.stem), path) for path in directory.glob("*/step_*.png"))
    return sorted((int(step[1]), path.parent.name, path) for step, path in found if step)


def _between(pictures: list[tuple[int, str, Path]], first: float, end: float) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for step, name, path in pictures:
        if first <= step < end:
            found.setdefault(name, []).append(path)
    return found


@dataclass(frozen=True)
class Ending:
    """How a run stands: whether it is finished, its final numbers, and what its yardsticks recorded."""

    finished: bool
    metrics: dict[str, float]
    records: dict[str, Any]

    @classmethod
    def of(cls, directory: Path) -> "Ending":
        """By metrics.json; where there is none, or none that can be read, the run is not finished."""
        try:
            told = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
            numbers = {key: value for key, value in told["metrics"].items() if value is not None}
            return cls(told["status"] == "finished", numbers, dict(told["records"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(False, {}, {})


def curves(records: dict[str, Any]) -> dict[str, dict[str, list[float | None]]]:
    """The curves over log-SNR of each yardstick: ``log_snr`` and all that has as many numbers.

    Not where that is a range, of two ends, nor where it is a list of ranges.
    """
    found = {}
    for name, record in records.items():
        at = record.get("log_snr") if isinstance(record, dict) else None
        if not isinstance(at, list) or len(at) < 3 or not _is_curve(at, len(at)):
            continue
        each = {key: value for key, value in record.items() if _is_curve(value, len(at))}
        if len(each) > 1:
            found[name] = each
    return found


def _is_curve(value: Any, length: int) -> bool:
    return (
        isinstance(value, list) and len(value) == length and all(v is None or isinstance(v, int | float) for v in value)
    )


def card(directory: Path) -> tuple[list[str], list[list[float]]]:
    """The columns and rows of the run's weight card; none where it has none."""
    try:
        lines = (directory / "card.csv").read_text(encoding="utf-8").splitlines()
    except OSError:
        return [], []
    columns, *rows = list(csv.reader(line for line in lines if line and not line.startswith("#"))) or [[]]
    return columns, [[_number(cell) for cell in row] for row in rows]


def _number(cell: str) -> Any:
    """A table has no room for what is endless."""
    try:
        return number if math.isfinite(number := float(cell)) else None
    except ValueError:
        return None
