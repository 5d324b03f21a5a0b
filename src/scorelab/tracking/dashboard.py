"""The W&B dashboard of a project as code: ``python src/dashboard.py entity=NAME project=NAME [out=FILE]``."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from scorelab.errors import UserError
from scorelab.files import write_text
from scorelab.report.numbers import goal
from scorelab.run.surroundings import settle
from scorelab.tracking.about import asked
from scorelab.tracking.account import Account, SyncError, brief

KEYS = ("entity", "project", "name", "out")
HELP = """Write the W&B dashboard of a project: yardsticks, curves and pictures, by loss and schedule.

  python src/dashboard.py entity=NAME project=NAME             save it at W&B
  python src/dashboard.py entity=NAME project=NAME out=FILE    write its outline as JSON, save nothing

Keys: entity (WANDB_ENTITY), project (WANDB_PROJECT, else scorelab), name (of the view: scorelab), out"""
YARDSTICKS = (
    ("test/simple", "test/vlb_common", "test/vlb", "test/score_error", "test/exact_gap"),
    ("test/fid", "test/kid", "test/recognised", "test/memorization", "test/precision", "test/recall"),
)
LINES = ("val/simple", "val/fid", "train/loss", "train/eps_error", "train/grad_norm", "train/lr", "train/it_per_s")
STEP = "trainer/global_step"


def workspace(entity: str, project: str, name: str) -> Any:
    """The dashboard, of runs grouped by loss and schedule."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws

    def bars(number: str) -> Any:
        best = {"minimize": "less is better", "maximize": "more is better"}.get(goal(number) or "", "")
        return panels.BarPlot(title=f"{number} ({best})", metrics=[number], orientation="h", groupby_aggfunc="mean")

    def line(number: str) -> Any:
        return panels.LinePlot(title=number, x=STEP, y=[number], groupby_aggfunc="mean", groupby_rangefunc="stderr")

    def pictures(title: str, *keys: str) -> Any:
        return panels.MediaBrowser(title=title, media_keys=list(keys), num_columns=2)

    denoising, samples = YARDSTICKS
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(name="Yardsticks of the denoiser", panels=[bars(each) for each in denoising], is_open=True),
            ws.Section(name="Yardsticks of samples", panels=[bars(each) for each in samples], is_open=True),
            ws.Section(name="Curves", panels=[line(each) for each in LINES], is_open=True),
            ws.Section(
                name="Pictures",
                panels=[pictures("samples while training", "samples"), pictures("results", "truth", "field", "card")],
                is_open=True,
            ),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=20),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("loss"), ws.Config("schedule")]),
    )


def outline(board: Any) -> dict[str, Any]:
    """What a dashboard has, in a few words: its sections, their panels, and what runs are grouped by."""
    shown = {"BarPlot": "metrics", "LinePlot": "y", "MediaBrowser": "media_keys"}

    def of(panel: Any) -> dict[str, Any]:
        kind = type(panel).__name__
        return {"panel": kind, "title": panel.title, "shows": [str(each) for each in getattr(panel, shown[kind])]}

    return {
        "entity": board.entity,
        "project": board.project,
        "name": board.name,
        "x": board.settings.x_axis,
        "grouped_by": [each.name for each in board.runset_settings.groupby],
        "sections": [{"name": part.name, "panels": [of(each) for each in part.panels]} for part in board.sections],
    }


def given(words: list[str]) -> dict[str, str]:
    """The keys of a command line.

    Raises:
        UserError: for a word that is no key=value of a known key.
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise UserError(f"{word}: no such key; possible: {', '.join(f'{key}=...' for key in KEYS)}")
        found[key] = value
    return found


def dashboard(words: list[str]) -> str:
    """Write or save the dashboard, and tell where.

    Raises:
        UserError: for what the person at the keyboard can change.
    """
    keys = given(words)
    names = asked({key: keys[key] for key in ("entity", "project") if keys.get(key)})
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UserError("the dashboard needs wandb-workspaces: pip install wandb-workspaces") from error
    place, why = keys.get("out"), ""
    if not place:
        try:
            Account.of_login()
        except SyncError as error:
            place, why = "dashboard.json", f" ({error})"
    if not names["entity"] and not place:
        raise UserError("entity=NAME says whose dashboard it is: a user's or a team's name at W&B")
    board = workspace(names["entity"] or "", names["project"] or "scorelab", keys.get("name") or "scorelab")
    if place:
        try:
            write_text(Path(place), json.dumps(outline(board), indent=1) + "\n")
        except OSError as error:
            raise UserError(f"out={place}: cannot be written ({error.strerror})") from error
        return f"{place}: the outline of the dashboard{why}"
    try:
        return f"W&B: {board.save().url}"
    except Exception as error:
        raise UserError(f"W&B did not take the dashboard ({brief(error)}); out=FILE writes its outline") from error


def main() -> None:
    """Do what the command line says; an error is one line."""
    settle()
    os.environ.setdefault("WANDB_SILENT", "true")
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(HELP)
        return
    try:
        print(dashboard(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
