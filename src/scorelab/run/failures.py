"""How a run ends: what is recorded, what is told, and what helps where it does not finish."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from scorelab.errors import CheckpointError, Interrupted, MachineError, UserError
from scorelab.files import display_path
from scorelab.run.checkpoints import kept_step
from scorelab.run.directory import RunDir
from scorelab.run.heartbeat import Heartbeat
from scorelab.run.machine import BATCH, machine_error, of_memory

BROKEN = re.compile("gloo|nccl|connection|peer", re.IGNORECASE)  # of what binds several processes
log = logging.getLogger("scorelab")


class Closed(Protocol):
    """Who is told how a run ended."""

    def summarize(self, metrics: Mapping[str, float | None]) -> None:
        """The final numbers, where there are some."""

    def close(self, exit_code: int) -> None:
        """That it is over; 0 where it is finished."""


@dataclass
class Job:
    """What works in a run's directory, as far as it has been made: its end has to be told whatever was missing.

    Attributes:
        again: the words that go on with the run, or with its sweep.
        logger: is told how it ends.
        steps: how many steps have been taken, once something takes them.
        fallen: what is known of another of its processes that has died.
        metrics, records, failed: what evaluation found, and why, by yardstick, where one failed.
    """

    run: RunDir
    config: dict[str, Any]
    again: str
    logger: Closed
    steps: Callable[[], int] | None = None
    fallen: Callable[[], str | None] = lambda: None
    heartbeat: Heartbeat | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def step(self) -> int | None:
        """How many steps have been taken, by an earlier job where this one has not begun to."""
        if self.steps is not None:
            return self.steps()
        return self.run.left_by.step if self.run.left_by else None

    @property
    def kept(self) -> str:
        """What goes on with the run, and where, as the end of a sentence."""
        step = kept_step(self.run.checkpoints)
        if step is None:
            return ", nothing saved yet"
        return f": {self.again} goes on from step {step:,}"

    @property
    def reason(self) -> str | None:
        """Which parts of the evaluation failed, in one line: the run is trained, its other figures stand."""
        return failed_parts(self.failed, self.run.path / "train.log", f"; {self.again} evaluates again")


@contextmanager
def recorded(job: Job) -> Iterator[None]:
    """Say in metrics.json and status.json how a job ended, and to its logger, whatever ends this block."""
    run, status, reason, told = job.run, "failed", None, False
    try:
        yield
        reason = job.reason
        ended = "finished" if reason is None else "failed"
        run.close(ended, job.config, job.metrics, job.records, job.step, reason)
        told = True
    except Interrupted as stop:
        status = "interrupted"
        stop.told = f"{display_path(run.path)} was interrupted by {stop.name}{job.kept}"
        raise
    except Exception as error:
        known = known_error(error, job)
        reason = str(known) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
        if known:
            raise known from error
        raise
    finally:
        if not told:
            close_unfinished(job, status, reason)
        if told:
            job.logger.summarize(job.metrics)
        job.logger.close(0 if told and reason is None else 1)


def failed_parts(failed: Mapping[str, str], place: Path, onward: str = "") -> str | None:
    """Which parts failed, why, and where the traceback is, in one line; None where none did."""
    if not failed:
        return None
    told = "; ".join(f"{name} failed ({why})" for name, why in failed.items())
    return f"{told}: a fault of the program, its traceback is in {display_path(place)}{onward}"


def known_error(error: Exception, job: Job) -> UserError | None:
    """The error in the words of the person at the keyboard; None for one of our own making.

    What the machine did will not be again, once it is mended. What the run's own numbers did will be, so there another
    run has to begin where this one stood.
    """
    if isinstance(error, CheckpointError):
        return error
    run, state = job.run, job.heartbeat.state if job.heartbeat else "begun"
    found: UserError | None = (
        error if isinstance(error, UserError) else machine_error(error, run.path, "evaluation.chunk")
    )
    if found in (None, error) and (fallen := job.fallen()) and BROKEN.search(str(error)):
        found = MachineError(fallen)
    if state == "running" and found is not error and of_memory(error, BATCH):
        found = UserError(str(of_memory(error, BATCH)))
    if found is None:
        return None
    if isinstance(found, MachineError):
        return MachineError(f"{found}{job.kept}")
    step = kept_step(run.checkpoints)
    onward = (
        ""
        if step is None
        else f"; init_from={display_path(run.path)} begins another run with its weights of step {step:,}"
    )
    return UserError(f"{found}{onward}")


def close_unfinished(job: Job, status: str, reason: str | None) -> None:
    """Record how a job ended that did not finish, as far as its disk allows."""
    if not (job.run.path / "config.yaml").exists():  # it ended before the directory was its own
        job.run.say(status, job.step, reason=reason)
        return
    try:
        job.run.close(status, job.config, step=job.step, reason=reason)
    except OSError as error:
        log.warning("metrics.json could not be written (%s)", error.strerror)


def lost(job: Job, why: str) -> None:
    """The last words of a process that waits in vain for another."""
    told = f"{why}{job.kept}"
    job.run.say("failed", None, reason=told)
    log.error("error: %s", told)
