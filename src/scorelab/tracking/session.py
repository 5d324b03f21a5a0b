"""A W&B run that takes rows, online or into a folder, and the wandb-core process beneath it, which can be ended."""

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from scorelab.files import write_text
from scorelab.report.numbers import goal
from scorelab.run.identity import read_config
from scorelab.tracking.about import About
from scorelab.tracking.account import Account, SyncError, brief
from scorelab.tracking.fetched import RECORDS
from scorelab.tracking.projection import Ending, Row, Rows, card, curves

log = logging.getLogger(__name__)


class Core:
    """Our own wandb-core: at most one, as two open runs in one process disturb each other."""

    def __init__(self) -> None:
        self._setup: Any = None

    def start(self) -> None:
        """Have wandb start a process of its own for us, and end it before wandb's exit hook waits for the server."""
        import wandb

        os.environ.pop("WANDB_SERVICE", None)
        self._setup = wandb.setup(wandb.Settings(silent=True))
        atexit.register(self.leave)

    def kill(self) -> None:
        """End it at once, whatever it does: calls that wait for it fail then."""
        with contextlib.suppress(AttributeError, ProcessLookupError):
            os.kill(self._setup._connection._proc._process.pid, signal.SIGKILL)

    def forget(self) -> None:
        """End it, so that the next run starts its own, and the process ends without waiting for it."""
        import wandb

        atexit.unregister(self.leave)
        with contextlib.suppress(Exception, SystemExit):
            wandb.teardown()  # its settings are read afresh then, too
        self._setup = None

    def leave(self) -> None:
        """Where the process ends without a close: what wandb-core has written is there."""
        self.kill()
        self.forget()


class Session:
    """A W&B run that takes the rows of a run's directory from number ``first`` on.

    Args:
        about: what the run is called.
        directory: the run's.
        online: sent to the server, else written into a folder that plain ``wandb sync`` takes.
        patience: seconds for the server to answer at the start, and to take the rest at the end.
        place: where wandb keeps its own files; the run's directory where none is named.
    """

    def __init__(
        self, about: About, directory: Path, online: bool, patience: float, place: Path | None = None, first: int = 0
    ) -> None:
        import wandb

        place = place or directory
        _see_writable(place / "wandb")
        self.about, self.directory, self.online = about, directory, online
        self.defined: set[str] = set()
        settings = wandb.Settings(
            init_timeout=patience,
            finish_timeout=patience,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=0.2,  # as many seconds of rows are lost with the whole machine
            silent=True,
            console="off",
            reinit="create_new",
        )
        config = dict(about.config)
        with contextlib.suppress(Exception):  # config.yaml is not ours to judge
            config["full"] = read_config(directory / "config.yaml")
        self.run = wandb.init(
            project=about.project,
            entity=about.entity,
            group=about.group,
            job_type=about.job_type,
            tags=about.tags,
            notes=about.notes,
            name=about.name,
            id=about.id,
            dir=str(place),
            config=config,
            resume="allow",
            mode="online" if online else "offline",
            settings=settings,
        )
        for handler in logging.getLogger("wandb").handlers:  # of its debug.log, for which there may be no room
            handler.handleError = lambda record: None  # type: ignore[method-assign]
        self.folder = Path(self.run.dir).parent
        self.rows = Rows(directory, self.run.starting_step if online else first)  # the server says where it goes on
        self.run.define_metric("trainer/global_step")
        self.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)

    def follow(self) -> None:
        """Send what metrics.csv has that was not sent."""
        for row in self.rows.new():
            self._define(row.values)
            self._log(row)

    def _define(self, names: Any) -> None:
        for name in set(names) - self.defined:
            self.defined.add(name)
            if (best := goal(name)) is not None:
                summary = {"minimize": "min", "maximize": "max"}[best]
                self.run.define_metric(name, step_metric="trainer/global_step", step_sync=True, summary=summary)

    def _log(self, row: Row, **more: Any) -> None:
        import wandb

        pictures = {}
        for name, paths in row.pictures.items():
            try:
                pictures[name] = [wandb.Image(str(path)) for path in paths]
            except (OSError, ValueError) as error:
                log.warning("W&B: a picture is left out (%s)", brief(error))
        self.run.log({**row.values, **pictures, **more}, step=row.number, commit=True)

    def finish(self, exit_code: int) -> None:
        """Send the rest; of a finished run its results too, as one row after the last. Then end the run.

        Raises:
            Exception: whatever wandb throws when not all was taken in time.
        """
        ending = Ending.of(self.directory)
        if ending.finished and self.rows.next <= self.rows.seen:
            self.rows.next = self.rows.seen + 1
            step = {"trainer/global_step": float(self.rows.step)}
            self._log(Row(self.rows.seen, step, self.rows.left()), **_charts(self.directory, ending))
            best = self.directory / "checkpoints" / "best.ckpt"
            if self.about.artifacts and best.exists():
                self._artifact(best)
        if ending.finished:
            self.run.summary.update({**ending.metrics, RECORDS: json.dumps(ending.records)})
        self.run.finish(exit_code=exit_code)

    def _artifact(self, path: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"best-{self.about.id}", type="model")
        artifact.add_file(str(path))
        self.run.log_artifact(artifact, aliases=["best"])

    def whole(self, to: Account, patience: float) -> None:
        """Ask the server whether it has all that was sent, pictures too.

        Raises:
            SyncError: when it has not, or does not say.
        """
        known = to.rows(self.about.id, self.run.project, self.run.entity, patience)  # a sweep's agent has its own
        if known < self.rows.next:
            raise SyncError(f"the server has {known:,} of {self.rows.next:,} rows")
        if said := errors(self.folder / "logs" / "debug-internal.log"):
            raise SyncError(said[-1])


def _charts(directory: Path, ending: Ending) -> dict[str, Any]:
    """The yardsticks and the weight card as tables, the curves over log-SNR as charts."""
    import wandb

    found: dict[str, Any] = {}
    if ending.metrics:
        rows = [[name, float(value)] for name, value in ending.metrics.items()]
        found["results"] = wandb.Table(columns=["name", "value"], data=rows)
    for name, each in curves(ending.records).items():
        at = each.pop("log_snr")
        points = [[(x, y) for x, y in zip(at, ys, strict=True) if y is not None] for ys in each.values()]
        xs, ys = [[x for x, _ in line] for line in points], [[y for _, y in line] for line in points]
        title = f"{name} by log-SNR"
        found[f"curves/{name}"] = wandb.plot.line_series(xs, ys, list(each), title=title, xname="log-SNR")
    columns, table = card(directory)
    if columns:
        found["card"] = wandb.Table(columns=[*columns], data=table)
    return found


def errors(path: Path) -> list[str]:
    """What a wandb-core log calls errors; its last line may be cut where no room was left."""
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if '"level":"ERROR' in line]
    except OSError:
        return []
    return [line.partition('"msg":"')[2].partition('"')[0][:160] for line in lines]


def written(folder: Path) -> int:
    """How far a folder goes, by the reader of ``wandb leet``: its last row's number, and one."""
    from wandb.util import get_core_path

    log = next(folder.glob("run-*.wandb"), folder / "none.wandb")
    command = [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file", str(log), str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    rows = (json.loads(line) for line in told.stdout.splitlines() if '"type":"history"' in line)
    return max((int(row["history"].get("step", {}).get("num", 0)) + 1 for row in rows), default=0)


def _see_writable(folder: Path) -> None:
    """See that a folder takes files: wandb would quietly write elsewhere, or say at length that it cannot."""
    folder.mkdir(exist_ok=True)
    write_text(folder / ".writable", "yes")
    (folder / ".writable").unlink()
