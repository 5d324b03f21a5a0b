"""Where numbers always go: metrics.csv; and the configuration as W&B compares it."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorelab.files import write_text
from scorelab.tracking.logger import RunLogger


class History(RunLogger):
    """metrics.csv: one row per call, flushed at once; a new column rewrites the file with the longer header.

    A row that an earlier job wrote already, of the same step and the same columns, is written over.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.columns = ["step"]
        self.earlier: dict[Any, int] = {}
        if self.path.exists():
            whole, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")  # a kill may have torn the last line
            reader = csv.DictReader(whole.splitlines())
            self.rows, self.columns = (
                [row for row in reader if row["step"].isdigit()],
                list(reader.fieldnames or ["step"]),
            )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a row."""
        row = {"step": step, **metrics}
        new = [key for key in row if key not in self.columns]
        self.columns += new
        place = self.earlier.get((step, frozenset(metrics)))
        if place is None:
            self.rows.append(row)
        else:
            self.rows[place] = row
        if new or place is not None:
            self._rewrite()
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def truncate_after(self, step: int) -> None:
        """Forget rows after this step: the run is continued from there and will write them again."""
        self.rows = [row for row in self.rows if int(row["step"]) <= step]
        filled = [frozenset(key for key, value in row.items() if key != "step" and value) for row in self.rows]
        self.earlier = {
            (int(row["step"]), keys): n for n, (row, keys) in enumerate(zip(self.rows, filled, strict=True))
        }
        self._rewrite()

    def _rewrite(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def flat(config: dict[str, Any], choices: dict[str, str]) -> dict[str, Any]:
    """Configuration as W&B compares it: each group by the name of its choice, arguments dotted, lists as JSON.

    ``choices`` are those that ran: where another class was typed, the class's name stands.
    """
    found: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{prefix}.{key}".removesuffix("._target_").lstrip("."), inner)
        else:
            found[prefix] = json.dumps(value) if isinstance(value, list) else value

    visit("", config)
    return found | {group: choice for group, choice in choices.items() if group in found}
