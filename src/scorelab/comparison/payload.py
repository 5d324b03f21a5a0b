"""What the page of a comparison shows, as plain values."""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scorelab.comparison.folding import in_order
from scorelab.comparison.like import alike, circumstances
from scorelab.comparison.ranking import Cell, Ranking, Row, Section
from scorelab.comparison.runs import Run, read_run
from scorelab.comparison.sheets import short, taken
from scorelab.report.card import curve as card_curve
from scorelab.report.numbers import number

Kept = Set[tuple[int, str]]  # runs, by identity, and numbers that are ranked
MOST_POINTS = 400  # of a curve; longer ones are thinned, and the page says so
PICTURES = 24_000_000  # bytes of pictures in a page: those of the first rows
PROFILES = (  # curves over log-SNR in the records: place, curve, what it is
    ("score_error/held_out", "error", "score error, held-out data"),
    ("simple", "error", "noise error, held-out data"),
    ("exact_gap", "network_held_out", "noise error, held-out images of the gap"),
    ("score_error/train", "error", "score error, noised training data"),
)


@dataclass(frozen=True)
class Curve:
    """Values by step, and how many there were before thinning."""

    steps: list[int]
    values: list[float]
    of: int


def payload(found: Ranking, title: str, differences: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Everything, in the order of the table; ``differences`` are keys and each configuration's values.

    A number of a run that may not be ranked by it (see ``alike``) stands in no figure.
    """
    rows = [(section, row) for section in found.sections for row in section.rows]
    finished = [_finished(section) for section in found.sections]
    numbers = sorted({name for runs in finished for run in runs for name in run.metrics})
    names = dict.fromkeys([*found.columns, *numbers])
    told = [{name: alike(runs, name) for name in names} for runs in finished]
    kept = {(id(run), name) for each in told for name, (ranked, _) in each.items() for run in ranked}
    room = Room(PICTURES)
    configurations = [_configuration(place, section.data, row, kept, room) for place, (section, row) in enumerate(rows)]
    return {
        "title": title,
        "keys": [key for key in found.keys if key != "data" or len(found.sections) == 1],
        "columns": [_named(name) for name in found.columns],
        "numbers": [_named(name) for name in names],
        "by": found.by,
        "best_of": found.best_of,
        "sections": [
            {
                "data": section.data,
                "left_out": [
                    f"not ranked by {short(name)}: {', '.join(each.runs)}: {each.why}"
                    for name, (_, others) in each_told.items()
                    for each in others
                ],
            }
            for section, each_told in zip(found.sections, told, strict=True)
        ],
        "configurations": configurations,
        "along": found.along,
        "differences": {key: list(values) for key, values in differences.items()},
        "pictures_left_out": room.refused,
    }


def _finished(section: Section) -> list[Run]:
    return [run for row in section.rows for run in row.configuration.runs if run.without is None]


def _named(name: str) -> dict[str, str]:
    told = number(name)
    return {"name": name, "short": short(name), "taken": taken(name), **asdict(told)}


def _configuration(place: int, data: str, row: Row, kept: Kept, room: "Room") -> dict[str, Any]:
    configuration = row.configuration
    runs = [run for run in configuration.runs if run.without is None]
    first = min(runs, key=lambda run: in_order(str(run.config.get("seed"))), default=None)
    return {
        "id": place,
        "data": data,
        "name": configuration.name,
        "choices": dict(configuration.choices),
        "cells": {name: _cell(cell) for name, cell in row.cells.items()},
        "improved": row.improved,
        "edge": row.edge,
        "limited": row.limited,
        "missing": {run.name: run.without for run in configuration.runs if run.without is not None},
        "n": configuration.n,
        "runs": [_run(run, kept) for run in runs],
        "card": _card(first),
        "objectives": _objectives(runs, kept),
        "pictures": [] if first is None else room.pictures(first),
        "pictured": None if first is None else str(first.config.get("seed")),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    to = cell.to_best
    return {
        "mean": cell.mean and cell.mean.value,
        "se": cell.mean and cell.mean.se,
        "n": cell.mean.n if cell.mean else 0,
        "ranked": cell.ranked,
        "best": cell.best,
        "wins": cell.wins,
        "to_best": None if to is None else [to.mean, to.low, to.high],
        "p": cell.p,
    }


def _run(run: Run, kept: Kept) -> dict[str, Any]:
    names = dict.fromkeys(key for row in run.history for key in row if key != "step" and not key.startswith("test/"))
    curves = {name: thinned(run.curve(name)) for name in names}
    return {
        "name": run.name,
        "seed": run.config.get("seed"),
        "unit": " ".join(run.unit),
        "limited": run.limited,
        "values": {
            name: _six(value) for name, value in run.metrics.items() if value is not None and (id(run), name) in kept
        },
        "curves": {name: asdict(each) for name, each in curves.items() if each.steps},
        "clock": [[step, round(seconds, 2)] for step, seconds in _few(run.clock)],
        "batch": run.batch,
        "profiles": dict(_profiles(run.records)),
        "evaluations": evaluations(run) if (id(run), "test/fid") in kept else [],
    }


def thinned(points: Sequence[tuple[int, float]], most: int = MOST_POINTS) -> Curve:
    """A curve of at most so many points: evenly spaced ones, the first and the last among them."""
    kept = _few(points, most)
    return Curve([step for step, _ in kept], [_six(value) for _, value in kept], len(points))


def _few(points: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _six(value: float) -> float:
    return float(f"{value:.6g}")


def _profiles(records: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, name, told in PROFILES:
        record: Any = records
        for part in place.split("/"):
            record = record.get(part) if isinstance(record, dict) else None
        if isinstance(record, dict) and isinstance(record.get(name), list) and "log_snr" in record:
            yield told, {"log_snr": record["log_snr"], "values": record[name]}


def evaluations(run: Run) -> list[dict[str, float]]:
    """Fréchet distances by how often the network was asked for a sample: the run's own, its budget's, those of eval.

    Of those of eval only such as are of as many samples, compared with the same in the same features, as the run's own.
    """
    found = [run]
    for file in sorted(Path(run.place).glob("eval/*/metrics.json")):
        other = read_run(file.parent)
        if circumstances(other, "test/fid") == circumstances(run, "test/fid"):
            found.append(other)
    points = []
    for each in found:
        budget = each.records.get("budget") or {}
        points += [
            ((each.records.get("fid") or {}).get("network_evaluations_per_sample"), each.metrics.get("test/fid")),
            (budget.get("evaluations_per_sample_of_network"), each.metrics.get("test/budget_network")),
        ]
    return [{"evaluations": float(nfe), "fid": _six(fid)} for nfe, fid in points if nfe and fid is not None]


def _objectives(runs: Iterable[Run], kept: Kept) -> dict[str, list[float]]:
    """Each objective's values, a number a run."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.metrics.items():
            if name.startswith("test/objective_") and value is not None and (id(run), name) in kept:
                found.setdefault(name.removeprefix("test/objective_"), []).append(_six(value))
    return found


def _card(run: Run | None) -> dict[str, list[float | None]] | None:
    """A run's weight card as edges and densities, from noise to data."""
    if run is None:
        return None
    try:
        text = (Path(run.place) / "card.csv").read_text(encoding="utf-8")
        head, *lines = (line for line in text.splitlines() if not line.startswith("#"))
        names = head.split(",")
        edges, density = card_curve([dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    few = max(1, math.ceil(len(density) / MOST_POINTS))
    kept = list(range(0, len(density), few))
    at: list[float | None] = [_six(edges[place]) for place in (*kept, -1)]
    return {
        "edges": at,
        "density": [_six(density[place]) if math.isfinite(density[place]) else None for place in kept],
    }


class Room:
    """Room for so many bytes of pictures; ``refused`` counts runs whose pictures found none."""

    def __init__(self, most: int) -> None:
        self.left, self.refused = most, 0

    def pictures(self, run: Run) -> list[dict[str, Any]]:
        """A run's sample grids by step, all of them or none."""
        files = sorted((Path(run.place) / "samples").glob("step_*.png"))
        size = sum(file.stat().st_size for file in files)
        if size > self.left:
            self.refused += 1
            return []
        self.left -= size
        return [
            {
                "step": int(file.stem.partition("_")[2]),
                "image": "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
            }
            for file in files
            if file.stem.partition("_")[2].isdigit()
        ]


def differences(told: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys in which configurations differ and what each has; a dash where it has no such key."""
    keys = dict.fromkeys(key for words in told for key in words)
    found = {key: [str(words.get(key, "–")) for words in told] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}
