"""The small table at the end of a run, and the one at the end of a sweep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROWS = (
    ("Fréchet distance", "fid", "floor {fid_floor:.2f}, excess {fid_excess:.2f}"),
    ("bound, bits/dim", "vlb", "prior {vlb_prior:.4f} + diffusion {vlb_diffusion:.3f} + decoder {vlb_decoder:.3f}"),
    ("simple", "simple", "noise error over log-SNR in [-4.8, 6.6]"),
    ("common bound", "vlb_common", "bits/dim, over log-SNR in [-4.8, 9.0]: the same for every schedule"),
    ("memorization", "memorization", "held-out images {memorization_control:.3f}"),
    ("recognised", "recognised", "rarest class {rarest_class:.3f}, commonest {commonest_class:.3f}"),
    (
        "gradient noise",
        "gradient_noise",
        "images; times of importance {gradient_noise_importance:.2f}, stratified {gradient_noise_stratified:.2f}, "
        "logit-normal {gradient_noise_logitnormal:.2f} of it",
    ),
)
COLUMNS = (
    ("fid", "test/fid"),
    ("excess", "test/fid_excess"),
    ("recognised", "test/recognised"),
    ("vlb", "test/vlb"),
    ("vlb_common", "test/vlb_common"),
    ("simple", "test/simple"),
    ("val simple", "val/simple"),
)
CHOSEN_BY = "val/simple"


def table(metrics: Mapping[str, float | None], records: Mapping[str, Any]) -> str:
    """One line per yardstick of the test split: its number and what belongs to it, or why there is none."""
    test = {key.removeprefix("test/"): value for key, value in metrics.items() if key.startswith("test/")}
    reasons = {name: record.get("skipped") or record.get("missing") for name, record in records.items()}
    reasons["vlb_common"] = reasons.get("simple")
    lines = []
    for title, key, note in ROWS:
        if key not in test:
            continue
        value = test[key]
        number = "–" if value is None else f"{value:.3f}"
        told = (reasons.get(key) or "not available") if value is None else note.format(**test)
        lines.append(f"  {title:<18}{number:>8}   {told}")
    if (simple := metrics.get("val/simple")) is not None:
        lines.append(f"  {'simple, val':<18}{simple:>8.3f}   chooses best.ckpt")
    return "\n".join(lines)


@dataclass(frozen=True)
class Row:
    """A run of a sweep: its overrides, its metrics, and why it has none."""

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
    """The best of several runs that differ in one key, and whether its value is the first or last of those tried."""

    row: Row
    edge: bool


def sweep_table(rows: Sequence[Row], best_of: str | None = None) -> str:
    """One line per run, or per group of runs that differ in ``best_of`` alone: the swept keys, then the yardsticks.

    The best of a group is the one of least val/simple; a star says that its value stands at the edge of those tried.
    """
    shown = [Best(row, False) for row in rows] if best_of is None else best(rows, best_of)
    keys = [key for key in rows[0].choices if len({row.choices.get(key) for row in rows}) > 1] or list(rows[0].choices)
    columns = [(title, key) for title, key in COLUMNS if any(key in row.metrics for row in rows)]
    cells = [[*keys, *(title for title, _ in columns)]]
    for each in shown:
        row = each.row
        named = [row.choices.get(key, "") + ("*" if each.edge and key == best_of else "") for key in keys]
        numbers = [_number(row.metrics.get(key)) for _, key in columns]
        cells.append(named + ([f"failed: {row.failed}"] if row.failed else numbers))
    lines = aligned(cells, len(keys))
    if any(each.edge for each in shown):
        lines.append(f"  * the best {best_of} stands at the edge of those tried: try beyond it")
    if best_of is not None and (lost := sum(row.failed is not None for row in rows)):
        lines.append(f"  {lost} of {len(rows)} runs failed")
        lines += [f"  {' '.join(row.choices[key] for key in keys)}: failed: {row.failed}" for row in rows if row.failed]
    return "\n".join(lines)


def best(rows: Sequence[Row], key: str) -> list[Best]:
    """The best run of each group that differs in one key alone, in the groups' order."""
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple((k, v) for k, v in row.choices.items() if k != key), []).append(row)
    found = []
    for group in groups.values():
        winner = min(group, key=lambda row: row.chosen_by)
        tried = sorted((row.choices[key] for row in group), key=_order)
        at_edge = len(tried) > 1 and winner.choices[key] in (tried[0], tried[-1]) and winner.failed is None
        found.append(Best(winner, at_edge))
    return found


def _order(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def aligned(cells: Sequence[Sequence[str]], words: int) -> list[str]:
    """Lines of a table, the first ``words`` columns flush left, the others flush right; a failure may be longer."""
    whole = [row for row in cells if len(row) == len(cells[0])]
    widths = [max(len(row[place]) for row in (cells if place < words else whole)) for place in range(len(cells[0]))]
    lines = []
    for row in cells:
        left = [cell.ljust(width) for cell, width in zip(row[:words], widths, strict=False)]
        rest = row[words:]
        right = (
            list(rest) if len(row) < len(cells[0]) else [c.rjust(w) for c, w in zip(rest, widths[words:], strict=True)]
        )
        lines.append(("  " + "  ".join([*left, *right])).rstrip())
    return lines
