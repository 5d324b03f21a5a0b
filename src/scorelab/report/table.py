"""The small table at the end of a run."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from scorelab.report.numbers import shown


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
        lines.append(f"  {row['title']:<20}{shown(value):>9}   {why}")
    silent = {name: record for name, record in records.items() if "failed" in record and "rows" not in record}
    lines += [f"  {name:<20}{shown(None):>9}   {_reason(record)}" for name, record in silent.items()]
    if (simple := metrics.get("val/simple")) is not None:
        floor = metrics.get("val/simple_floor")
        least = "" if floor is None else f"; no denoiser's is below {floor:.3f} on average"
        lines.append(f"  {'simple, val':<20}{simple:>9.3f}   chooses best.ckpt; all above is of last.ckpt{least}")
    return "\n".join(lines)


def _reason(record: Mapping[str, Any]) -> str | None:
    """Why a part has no number."""
    return f"failed: {record['failed']}" if "failed" in record else record.get("skipped") or record.get("missing")


class _Told:
    """A number as a note tells it: by the note's own format, or as ``shown`` does; words, and a dash for none."""

    def __init__(self, value: float | str | None) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        if isinstance(self.value, str):
            return self.value
        return shown(self.value) if self.value is None or not spec else format(self.value, spec)
