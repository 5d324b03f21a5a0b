"""Runs as they lie on disk: read, never written, and without anything that trains."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from scorelab.run.status import read_status, told

BEYOND = 1e100  # the square of a larger number is none: a run that tells one has diverged
EVALS = ("checkpoint", "average", "against", "guidance", "guidance_log_snr")  # of eval: what the run itself has not
GROUPS = ("data", "trainer", "callbacks")  # nodes of a config that are looked into
READER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


@dataclass(frozen=True)
class Run:
    """One run: what it was asked for, what it came to.

    Attributes:
        place: its directory, or its address at W&B.
        name: what it is called.
        config: the whole config.
        metrics: numbers at its end by name, None where it has none.
        records: what belongs to them.
        without: why it has no figures; None where it has.
        limited: whether it was limited in time, and so by the machine's speed.
        rows: its history where that is no file.
        unit: its values of the keys that are folded: runs that share them and all else repeat each other.
    """

    place: str
    name: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    records: Mapping[str, Any] = field(default_factory=dict)
    without: str | None = None
    limited: bool = False
    rows: Sequence[Mapping[str, float]] | None = None
    unit: tuple[str, ...] = ()

    @cached_property
    def history(self) -> list[Mapping[str, float]]:
        """The rows of metrics.csv, each with the numbers it has."""
        if self.rows is not None:
            return list(self.rows)
        return read_history(Path(self.place) / "metrics.csv")

    def curve(self, number: str) -> list[tuple[int, float]]:
        """A number by step, in order; of rows of one step the last."""
        found = {int(row["step"]): row[number] for row in self.history if number in row}
        return sorted(found.items())

    @property
    def batch(self) -> int:
        """Images of one step: those of all devices and of all batches that are gathered."""
        trainer = self.config.get("trainer") or {}
        devices = (self.records.get("training") or {}).get("processes")
        each = (self.config.get("data") or {}).get("batch_size")
        return _whole(each) * _whole(devices) * _whole(trainer.get("accumulate_grad_batches"))

    @cached_property
    def clock(self) -> list[tuple[int, float]]:
        """Seconds of training by step: the sum of steps over their speed; what evaluation took is left out."""
        found, before, seconds = [(0, 0.0)], 0, 0.0
        for step, speed in self.curve("train/it_per_s"):
            if speed > 0:
                seconds += (step - before) / speed
                found.append((step, seconds))
                before = step
        return found

    def seconds_at(self, step: float) -> float | None:
        """Seconds of training until a step, between two rows in proportion; None without a clock."""
        if len(self.clock) < 2:
            return None
        for (before, first), (after, last) in zip(self.clock, self.clock[1:], strict=False):
            if step <= after:
                return first + (last - first) * (step - before) / (after - before)
        (before, first), (after, last) = self.clock[-2:]
        return last + (last - first) * (step - after) / (after - before)


def _whole(given: Any) -> int:
    """A count; 1 where none is told."""
    return int(_number(given) or 1)


def read_history(file: Path) -> list[Mapping[str, float]]:
    """metrics.csv as numbers; a line that a kill has torn, or that is none, is left out."""
    try:
        whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return []
    found: list[Mapping[str, float]] = []
    rows = csv.DictReader(line for line in whole.splitlines() if "\0" not in line)
    for row in rows:
        numbers = {key: number for key, text in row.items() if key and text and (number := _number(text)) is not None}
        if "step" in numbers:
            found.append(numbers)
    return found


def _number(given: Any) -> float | None:
    """A finite number that can be squared, also of text."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and abs(value) < BEYOND else None


def read_run(path: Path, name: str | None = None) -> Run:
    """A run's directory: metrics.json where there is one that can be read, else config.yaml and how it stands."""
    name = name or path.name
    try:
        text = (path / "metrics.json").read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=lambda _: None)  # NaN is no number to compare
        metrics, records, config = (dict(content[key]) for key in ("metrics", "records", "config"))
    except FileNotFoundError:
        return Run(str(path), name, _config(path), without=_stands(path))
    except PermissionError as error:
        return Run(str(path), name, {}, without=f"metrics.json: {error.strerror}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Run(str(path), name, _config(path), without="metrics.json is damaged")
    records = {key: record for key, record in records.items() if isinstance(record, dict)}
    config = {key: {} if key in GROUPS and not isinstance(node, dict) else node for key, node in config.items()}
    for word in content.get("overrides") or []:  # of eval: which of a run's weights, and beside whose
        key, _, value = str(word).partition("=")
        config |= {key: value} if key in EVALS else {}
    without = None if content.get("status", "finished") == "finished" else _stands(path, content)  # eval says none
    numbers = {key: _number(value) for key, value in metrics.items()}
    if without is None and (seconds := _number(content.get("seconds"))) is not None:
        numbers["seconds"] = seconds
    return Run(str(path), name, config, numbers, records, without, limited=bool(content.get("time_limited")))


def _stands(path: Path, content: Mapping[str, Any] | None = None) -> str:
    """How a run without figures stands, by what it has left."""
    if (status := read_status(path)) is not None:
        return told(status)
    if content is None:
        return "not started"
    return ": ".join(str(content[key]) for key in ("status", "reason") if content.get(key))


def _config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), READER)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
