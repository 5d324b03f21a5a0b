"""Runs of a project at W&B, as its public API tells them: for comparing what lies on other machines."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scorelab.errors import UserError
from scorelab.tracking.account import brief

RECORDS = "_records"  # the key of a run's summary that holds its records, out of sight in W&B's own tables
MOST = 1_000_000  # rows asked for: of a longer history W&B would choose some


@dataclass(frozen=True)
class FetchedRun:
    """A run at W&B: the fields of a run on disk, and W&B's word for how it ended."""

    address: str
    name: str
    state: str
    config: dict[str, Any]
    metrics: dict[str, float]
    records: dict[str, Any]
    seconds: float
    rows: list[Mapping[str, float]]


def fetch(path: str) -> list[FetchedRun]:
    """Every run of ENTITY/PROJECT that this program has made, in order of their names.

    Raises:
        UserError: for what is no ENTITY/PROJECT, and for what W&B answers to it.
    """
    if path.count("/") != 1 or not all(path.split("/")):
        raise UserError(f"wandb={path}: type wandb=ENTITY/PROJECT")
    import wandb

    try:
        runs = [run for run in wandb.Api(timeout=60).runs(path, lazy=False)]  # noqa: C416  list() would hide an error
        found = [_fetched(run) for run in runs if isinstance(run.config.get("full"), dict)]
    except (wandb.Error, ValueError, TypeError, OSError) as error:
        raise UserError(f"wandb={path}: {brief(error)}") from error
    if not found:
        raise UserError(f"wandb={path}: {len(runs)} runs, none of them made by this program")
    return sorted(found, key=lambda run: run.name)


def _fetched(run: Any) -> FetchedRun:
    summary = dict(run.summary_metrics)
    numbers = {key: float(value) for key, value in summary.items() if "/" in key and _is_number(value)}
    try:
        records = json.loads(summary.get(RECORDS) or "{}")
    except (TypeError, ValueError):
        records = {}
    rows = [_row(row) for row in run.history(samples=MOST, pandas=False)]
    seconds: Any = summary.get("_runtime")
    return FetchedRun(
        "/".join(run.path),
        str(run.name or run.id),
        str(run.state),
        dict(run.config["full"]),
        {key: value for key, value in numbers.items() if key.split("/")[0] in ("test", "val")},
        records if isinstance(records, dict) else {},
        float(seconds) if _is_number(seconds) else math.nan,
        [row for row in rows if "step" in row],
    )


def _row(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of metrics.csv again: W&B's own keys go, the optimiser's step comes back under its name."""
    numbers = {key: float(value) for key, value in row.items() if "/" in key and _is_number(value)}
    step = numbers.pop("trainer/global_step", None)
    return numbers if step is None else {"step": step, **numbers}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
