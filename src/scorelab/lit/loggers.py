"""Where numbers always go: metrics.csv; and the configuration as W&B compares it."""

import csv
import json
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class History(Logger):
    """metrics.csv: one row per call, flushed at once; a new column rewrites the file with the longer header."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.path = directory / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.columns = ["step"]
        if self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.rows, self.columns = list(reader), list(reader.fieldnames or self.columns)

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "history"

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Config is in config.yaml."""
        return

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": step, **metrics}
        self.rows.append(row)
        if new := [key for key in row if key not in self.columns]:
            self.columns += new
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Forget rows after this step: the run is continued from there and will write them again."""
        self.rows = [row for row in self.rows if int(row["step"]) <= step]
        self._rewrite()

    def _rewrite(self) -> None:
        whole = self.path.with_suffix(".csv.part")
        with whole.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        whole.replace(self.path)


def flat(config: dict[str, Any], choices: dict[str, str]) -> dict[str, Any]:
    """Configuration as W&B compares it: each group by the name of its choice, arguments dotted, lists as JSON."""
    found: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{prefix}.{key}".removesuffix("._target_").lstrip("."), inner)
        else:
            found[prefix] = json.dumps(value) if isinstance(value, list) else value

    visit("", config)
    return found | {group: choice for group, choice in choices.items() if group in found}
