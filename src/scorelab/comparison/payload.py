"""What the page of a comparison shows, as plain values."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import Any

from scorelab.comparison.drawn import (
    PROFILES,
    Room,
    card,
    evaluations,
    few,
    grids,
    profiles,
    shared_steps,
    six,
    thinned,
)
from scorelab.comparison.folding import in_order
from scorelab.comparison.like import LeftOut, alike
from scorelab.comparison.ranking import Cell, Ranking, Row, Section
from scorelab.comparison.runs import Run
from scorelab.comparison.sheets import short, taken
from scorelab.report.numbers import number, with_error

Kept = Set[tuple[int, str]]  # runs, by identity, and numbers that are ranked


def payload(found: Ranking, title: str, differences: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Everything, in the order of the table; ``differences`` are keys and each configuration's values.

    A number of a run that may not be ranked by it (see ``alike``) stands in no figure.
    """
    rows = [(place, row) for place, section in enumerate(found.sections) for row in section.rows]
    finished = [[run for row in section.rows for run in _shown(row)] for section in found.sections]
    numbers = sorted({name for runs in finished for run in runs for name in run.metrics})
    names = dict.fromkeys([*found.columns, *numbers])
    told = [{name: alike(runs, name) for name in names} for runs in finished]
    kept = {(id(run), name) for each in told for name, (ranked, _) in each.items() for run in ranked}
    room, pictured = Room(), _pictured([row for _, row in rows])
    configurations = [
        _configuration(place, section, found.sections[section].data, row, kept, room, pictured[place])
        for place, (section, row) in enumerate(rows)
    ]
    curves = dict.fromkeys(name for each in configurations for run in each["runs"] for name in run["curves"])
    return {
        "title": title,
        "keys": [key for key in found.keys if key != "data" or len(found.sections) == 1],
        "columns": [_named(name) for name in found.columns],
        "numbers": [_named(name) for name in names],
        "curves": [_named(name) for name in curves],
        "profiles": [{"name": name, "better": better} for _, _, name, better in PROFILES],
        "by": found.by,
        "best_of": found.best_of,
        "sections": [
            {
                "data": section.data,
                "left_out": _left_out(section, {name: others for name, (_, others) in told[place].items()}),
                "missing": {name: why or "" for name, why in section.missing.items()},
            }
            for place, section in enumerate(found.sections)
        ],
        "unknown": dict(found.unknown),
        "configurations": configurations,
        "along": found.along,
        "differences": {key: list(values) for key, values in differences.items()},
        "pictures_left_out": room.refused,
    }


def _shown(row: Row) -> list[Run]:
    """The runs of a row that have figures."""
    return [run for run in row.configuration.runs if run.without is None]


def _left_out(section: Section, others: Mapping[str, Sequence[LeftOut]]) -> list[str]:
    """Which runs a number does not rank, and why: first by the columns, then by numbers that figures alone show."""
    return [
        f"not ranked by {short(name)}: {', '.join(each.runs)}: {each.why}"
        for name, found in {
            **section.left_out,
            **{k: v for k, v in others.items() if k not in section.left_out},
        }.items()
        for each in found
    ]


def _named(name: str) -> dict[str, str]:
    return {"name": name, "short": short(name), "taken": taken(name), **asdict(number(name))}


def _configuration(
    place: int, section: int, data: str, row: Row, kept: Kept, room: Room, pictured: Run | None
) -> dict[str, Any]:
    configuration, runs = row.configuration, _shown(row)
    return {
        "id": place,
        "section": section,
        "data": data,
        "name": configuration.name,
        "choices": dict(configuration.choices),
        "cells": {name: _cell(cell if runs else None, configuration.n) for name, cell in row.cells.items()},
        "improved": row.improved if runs else None,
        "edge": row.edge,
        "limited": row.limited,
        "missing": {run.name: run.without for run in configuration.runs if run.without is not None},
        "n": configuration.n if runs else 0,
        "runs": _runs(runs, kept),
        "card": card(min(runs, key=_by_seed, default=None)),
        "pictures": [] if pictured is None else room.pictures(pictured),
        "pictured": None if pictured is None else str(pictured.config.get("seed")),
    }


def _by_seed(run: Run) -> tuple[float, str]:
    return in_order(str(run.config.get("seed")))


def _pictured(rows: Sequence[Row]) -> list[Run | None]:
    """Whose sample grids stand for each row: of the lowest seed that most rows have, so that their noise is the same.

    A row that has none of that seed shows its lowest.
    """
    having = [sorted((run for run in _shown(row) if grids(run)), key=_by_seed) for row in rows]
    counts = Counter(seed for runs in having for seed in {str(run.config.get("seed")) for run in runs})
    common = min(counts, key=lambda seed: (-counts[seed], in_order(seed)), default=None)
    return [
        next((run for run in runs if str(run.config.get("seed")) == common), runs[0] if runs else None)
        for runs in having
    ]


def _cell(cell: Cell | None, have: int) -> dict[str, Any] | None:
    """A number of a row, as the printed table writes it, and as it is."""
    if cell is None or cell.mean is None:
        return None
    value, se = with_error(cell.mean.value, cell.mean.se)
    words = value if se is None else f"{value} ± {se}"
    to = cell.to_best
    told = None if to is None else f"{to.mean:+.3g}"
    if to is not None and to.low is not None:
        told = f"{told} [{to.low:.3g}, {to.high:.3g}]"
    return {
        "mean": cell.mean.value,
        "se": cell.mean.se,
        "words": words + (f" ({cell.mean.n} of {have})" if cell.mean.n < have else ""),
        "ranked": cell.ranked,
        "best": cell.best,
        "wins": cell.wins,
        "to_best": told,
    }


def _runs(runs: Sequence[Run], kept: Kept) -> list[dict[str, Any]]:
    curves = []
    for run in runs:
        names = dict.fromkeys(
            key for row in run.history for key in row if key != "step" and not key.startswith("test/")
        )
        curves.append({name: run.curve(name) for name in names})
    shared = {
        name: shared_steps([each[name] for each in curves if name in each])
        for name in dict.fromkeys(name for each in curves for name in each)
    }
    return [
        {
            "name": run.name,
            "seed": run.config.get("seed"),
            "unit": "\n".join(run.unit),
            "limited": run.limited,
            "values": {
                name: six(value) for name, value in run.metrics.items() if value is not None and (id(run), name) in kept
            },
            "curves": {
                name: asdict(thinned(points, shared=shared[name])) for name, points in own.items() if len(points)
            },
            "clock": [[step, round(seconds, 2)] for step, seconds in few(run.clock)],
            "batch": run.batch,
            "profiles": dict(profiles(run.records)),
            "evaluations": evaluations(run) if (id(run), "test/fid") in kept else [],
        }
        for run, own in zip(runs, curves, strict=True)
    ]


def differences(told: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys in which configurations differ and what each has; a dash where it has no such key."""
    keys = dict.fromkeys(key for words in told for key in words)
    found = {key: [_typed(words[key]) if key in words else "–" for words in told] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def _typed(value: Any) -> str:
    """As one types it: null, true, [1, 2]."""
    return json.dumps(value) if value is None or isinstance(value, bool | list | dict) else str(value)
