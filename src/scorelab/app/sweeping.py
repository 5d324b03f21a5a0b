"""The command of a sweep: what is still to be done is told and done, and one table says what came of it."""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scorelab.app.again import TYPED
from scorelab.app.sweep import Sweep, SweepJob
from scorelab.app.task import Task
from scorelab.comparison.picture import draw_curves
from scorelab.comparison.ranking import ranking
from scorelab.comparison.runs import read_run
from scorelab.comparison.sheets import text
from scorelab.config.groups import Choices
from scorelab.errors import UserError
from scorelab.report.words import span
from scorelab.run.jobs import write_jobs
from scorelab.run.queue import queued
from scorelab.run.status import AT_WORK, read_status, told

BYTES = 3 * 17  # of a weight: last, best and previous.ckpt hold it, its average and two moments in 4 bytes each
OTHERS = (
    1e6  # bytes of all else that a run leaves, seen 0.4 to 0.6 MB: pictures, their copies in wandb/, submitit's files
)


def sweep(main: Callable[[], None], task: Task, words: list[str], configs: Path, name: str) -> int:
    """Check every job, do what is not done, print one table; the exit status.

    ``main`` has Hydra call ``task`` for each job; ``words`` are what was typed.
    """
    planned = Sweep.planned(words, configs, name)
    task.swept = TYPED.swept = tuple(planned.swept)
    detached = planned.jobs[0].config["detach"]
    pasts = {} if planned.searches else {job.path.name: past(job) for job in planned.jobs}
    task.left = frozenset(name for name, each in pasts.items() if each.left)
    over = bool(pasts) and all(each.finished for each in pasts.values())
    if not over:
        say(planned, pasts)
        if not planned.searches:
            write_jobs(planned.path, [job.path.name for job in planned.jobs])
        sys.argv.append(f"hydra.sweep.dir={planned.path}")
        with first_of(planned.jobs, task.left):
            main()
    if detached and not over:
        print(f"python src/compare.py {planned.path} status=true shows how they stand; the same command waits for them")
        return 0
    planned = planned.found()
    conclude(planned, draw=not over)
    return 0 if planned.finished else 1


def conclude(sweep: Sweep, draw: bool) -> None:
    """Print what came of a sweep, seeds folded, and draw its learning curves beside the runs."""
    if not sweep.jobs:
        print(f"{sweep.path}: no run has begun")
        return
    runs = [read_run(job.path) for job in sweep.jobs]
    found = ranking(runs, Choices(sweep.folders), best_of=sweep.best_of)
    print(f"{sweep.path}\n{text(found)}", flush=True)
    picture = sweep.path / "curves.png"
    try:
        if draw or not picture.exists():
            draw_curves(picture, found)
    except OSError as error:
        print(f"{sweep.path}: no curves.png: {error.strerror or error}", file=sys.stderr)


@dataclass(frozen=True)
class Past:
    """What a job has behind it when the sweep begins, as a line tells it; whether it is left alone, and why."""

    line: str | None = None
    left: bool = False
    finished: bool = False


def past(job: SweepJob) -> Past:
    """How an earlier command has left a job: finished, at work elsewhere, to be gone on with, or not begun."""
    status = read_status(job.path)
    if job.failure is None and not job.config["overwrite"]:
        return Past("finished, skipped", left=True, finished=True)
    if status is None:
        return Past()
    if status.state in AT_WORK:
        return Past(f"{status}: left alone", left=True)
    if status.state == "waiting":
        return Past(f"{status}: left alone", left=True) if status.job in queue() else Past()
    if job.config["overwrite"]:
        return Past("begun anew")
    return Past(f"{told(status)}: tried again" if status.state == "failed" else f"{told(status)}: resumed")


@cache
def queue() -> Mapping[str, str]:
    """Slurm's queue as it is when a sweep begins.

    Raises:
        UserError: when it does not answer: what waits there would be submitted twice.
    """
    try:
        return queued()
    except (ConnectionError, subprocess.TimeoutExpired) as error:
        raise UserError(f"jobs of this sweep wait in Slurm's queue, which does not answer: {error}") from error


def say(sweep: Sweep, pasts: Mapping[str, Past]) -> None:
    """Tell how many jobs there are, what they will leave on disk, and of each that has a past how it stands."""
    if sweep.searches:
        print(f"{sweep.path}: a search, {size(sweep.jobs[0].weights)} a run at most")
        return
    todo = [job for job in sweep.jobs if not pasts[job.path.name].left]
    expected = size(sum(job.weights for job in todo), len(todo))
    left = f", {len(todo)} of them to be done" if len(todo) < len(sweep.jobs) else ""
    print(f"{sweep.path}: {len(sweep.jobs)} jobs{left}; about {expected} on disk")
    for name, each in pasts.items():
        if each.line is not None:
            print(f"  {name}: {each.line}")
    sys.stdout.flush()


def size(weights: int, jobs: int = 1) -> str:
    """The disk that runs of so many weights together need, as one says it."""
    size = BYTES * weights + jobs * OTHERS
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


@contextmanager
def first_of(jobs: Sequence[SweepJob], left: frozenset[str]) -> Iterator[None]:
    """Say, once the first of several jobs is finished, how long the others will take; in a thread that watches disks.

    Whoever runs the jobs, at most as many as have been seen at work at one time are taken to go on side by side.
    """
    todo = [job for job in jobs if job.path.name not in left]
    over = threading.Event()
    finished = {job.path.name for job in todo if job.failure is None}

    def watch() -> None:
        beside, began = 1, time.time()
        while not over.wait(max(1.0, len(todo) / 100)):
            states = {job.path.name: read_status(job.path) for job in todo}
            beside = max(beside, sum(each is not None and each.state in AT_WORK for each in states.values()))
            for name, status in states.items():
                if status is not None and status.state == "finished" and name not in finished:
                    rest = sum(each is None or each.state not in ("finished", "failed") for each in states.values())
                    if rest:
                        seconds = min(status.seconds, time.time() - began)  # of this command: it may have been resumed
                        at = f", {beside} at a time" if beside > 1 else ""
                        left = span(seconds * math.ceil(rest / beside))
                        print(f"first job done in {span(seconds)}; {rest} to go{at}: about {left}")
                        sys.stdout.flush()
                    return

    if len(todo) > 1:
        threading.Thread(target=watch, name="first of a sweep", daemon=True).start()
    try:
        yield
    finally:
        over.set()
