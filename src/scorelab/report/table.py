"""The small table at the end of a run, and the one at the end of a sweep."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = (
    ("fid", "test/fid"),
    ("excess", "test/fid_excess"),
    ("recognised", "test/recognised"),
    ("vlb", "test/vlb"),
    ("vlb_common", "test/vlb_common"),
    ("simple", "test/simple"),
    ("score error", "test/score_error"),
    ("bits lost", "test/excess"),
    ("energy", "test/energy"),
    ("val simple", "val/simple"),
)
CHOSEN_BY = "val/simple"


def table(metrics: Mapping[str, float | None], records: Mapping[str, Any]) -> str:
    """One line per row that the records tell: its number and what belongs to it, or why there is none.

    A record's ``rows`` are titles, notes and places of its numbers. A part that failed and shows no number has a
    line too.
    """
    test = {key.removeprefix("test/"): value for key, value in metrics.items()}
    rows = [(row, record) for record in records.values() for row in record.get("rows", ())]
    lines = []
    for row, record in sorted(rows, key=lambda each: each[0]["place"]):
        value = test[row["number"]]
        told = defaultdict(lambda: _Told(None), {name: _Told(each) for name, each in (record | test).items()})
        why = row["note"].format_map(told) if value is not None else _reason(record) or "not available"
        lines.append(f"  {row['title']:<20}{_number(value):>9}   {why}")
    silent = {name: record for name, record in records.items() if "failed" in record and "rows" not in record}
    lines += [f"  {name:<20}{_number(None):>9}   {_reason(record)}" for name, record in silent.items()]
    if (simple := metrics.get("val/simple")) is not None:
        floor = metrics.get("val/simple_floor")
        least = "" if floor is None else f"; no denoiser's is below {floor:.3f} on average"
        lines.append(f"  {'simple, val':<20}{simple:>9.3f}   chooses best.ckpt{least}")
    return "\n".join(lines)


def _reason(record: Mapping[str, Any]) -> str | None:
    """Why a part has no number."""
    return f"failed: {record['failed']}" if "failed" in record else record.get("skipped") or record.get("missing")


@dataclass(frozen=True)
class SweepRow:
    """A run of a sweep: its overrides, its metrics, and (``failed``) how it stands where it has none."""

    choices: Mapping[str, str]
    metrics: Mapping[str, float | None]
    failed: str | None = None

    @property
    def chosen_by(self) -> float:
        """What the best of several is chosen by: the least is best, a run without it the last choice."""
        value = self.metrics.get(CHOSEN_BY)
        return math.inf if self.failed or value is None else value


@dataclass(frozen=True)
class Best:
    """The best of several runs that differ in one key, whether it can be told, and whether it stands at their edge."""

    row: SweepRow
    known: bool = True
    edge: bool = False


def sweep_table(rows: Sequence[SweepRow], best_of: str | None = None) -> str:
    """One line per run, or per group of runs that differ in ``best_of`` alone: the swept keys, then the yardsticks.

    The best of a group is the one of least val/simple; a star says that its value stands at the edge of those tried.
    """
    shown = [Best(row) for row in rows] if best_of is None else best(rows, best_of)
    keys = [key for key in rows[0].choices if len({row.choices.get(key) for row in rows}) > 1] or list(rows[0].choices)
    columns = [(title, key) for title, key in COLUMNS if any(key in row.metrics for row in rows)]
    named = [[_value(each, key, key == best_of) for key in keys] for each in shown]
    numbers = [[_number(each.row.metrics.get(key) if each.known else None) for _, key in columns] for each in shown]
    widths = [max(map(len, column)) for column in zip(keys, *named, strict=True)]
    lines = [_line(keys, [title for title, _ in columns], widths, _widths(columns, numbers))]
    for each, words, figures in zip(shown, named, numbers, strict=True):
        told = figures if each.row.failed is None else [each.row.failed]
        lines.append(_line(words, told, widths, _widths(columns, numbers) if told is figures else [0]))
    if any(each.edge for each in shown):
        lines.append(f"  * the best {best_of} stands at the edge of those tried: try beyond it")
    if not all(each.known for each in shown):
        lines.append(f"  ? no {CHOSEN_BY} to choose the best {best_of} by")
    if best_of is not None and (lost := [row for row in rows if row.failed is not None]):
        lines.append(f"  {len(lost)} of {len(rows)} runs have no figures")
        lines += [f"  {' '.join(row.choices.get(key, '') for key in keys)}  {row.failed}" for row in lost]
    return "\n".join(lines)


def _value(each: Best, key: str, chosen: bool) -> str:
    """The value of a swept key as the table shows it."""
    if chosen and not each.known:
        return "?"
    return each.row.choices.get(key, "") + ("*" if chosen and each.edge else "")


def _widths(columns: Sequence[tuple[str, str]], numbers: Sequence[Sequence[str]]) -> list[int]:
    return [max([len(title), *(len(row[place]) for row in numbers)]) for place, (title, _) in enumerate(columns)]


def _line(words: Sequence[str], figures: Sequence[str], left: Sequence[int], right: Sequence[int]) -> str:
    """Words flush left, figures flush right."""
    cells = [word.ljust(width) for word, width in zip(words, left, strict=True)]
    cells += [figure.rjust(width) for figure, width in zip(figures, right, strict=True)]
    return ("  " + "  ".join(cells)).rstrip()


def best(rows: Sequence[SweepRow], key: str) -> list[Best]:
    """The best run of each group that differs in one key alone, in the groups' order."""
    groups: dict[tuple[tuple[str, str], ...], list[SweepRow]] = {}
    for row in rows:
        groups.setdefault(tuple((k, v) for k, v in row.choices.items() if k != key), []).append(row)
    found = []
    for group in groups.values():
        winner = min(group, key=lambda row: row.chosen_by)
        tried = sorted((row.choices[key] for row in group), key=_order)
        known = math.isfinite(winner.chosen_by) or winner.failed is not None
        edge = math.isfinite(winner.chosen_by) and len(tried) > 1 and winner.choices[key] in (tried[0], tried[-1])
        found.append(Best(winner, known, edge))
    return found


def _order(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _number(value: float | None) -> str:
    """Three digits after the point, or three that count where there would be none left."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


class _Told:
    """A number as a note tells it: by the note's own format, or as ``_number`` does; a dash where there is none."""

    def __init__(self, value: float | None) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        return _number(self.value) if self.value is None or not spec else format(self.value, spec)
