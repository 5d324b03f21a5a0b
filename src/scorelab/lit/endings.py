"""How a run ends: what is recorded, what is told, and what helps where it does not finish."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer

from scorelab.errors import UserError
from scorelab.judge import Verdict
from scorelab.lit.again import TYPED
from scorelab.lit.checkpoints import CheckpointError, kept_step
from scorelab.lit.heart import Heart
from scorelab.lit.mishaps import BATCH, Mishap, mishap, of_memory
from scorelab.lit.ranks import Ranks
from scorelab.lit.run import RunDir, shown
from scorelab.lit.signals import Interrupted

BROKEN = re.compile("gloo|nccl|connection|peer", re.IGNORECASE)  # of what binds several processes
log = logging.getLogger("scorelab")


@dataclass
class Job:
    """What works in a run's directory, as far as it has been made: its end has to be told whatever was missing."""

    run: RunDir
    config: dict[str, Any]
    ranks: Ranks | None = None
    trainer: Trainer | None = None
    heart: Heart | None = None
    loggers: list[Any] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def step(self) -> int | None:
        """How many steps have been taken."""
        if self.trainer is not None:
            return self.trainer.global_step
        return self.run.left_by.step if self.run.left_by else None


@contextmanager
def recorded(job: Job) -> Iterator[None]:
    """Say in metrics.json and status.json how a job ended, and to its loggers, whatever ends this block."""
    run, status, reason, told = job.run, "failed", None, False
    try:
        yield
        reason = failed_in(job.verdict, run)
        ended = "finished" if reason is None else "failed"
        run.close(ended, job.config, job.verdict.metrics, job.verdict.records, job.step, reason)
        told = True
    except Interrupted as stop:
        status = "interrupted"
        stop.told = f"{shown(run.path)} was interrupted by {stop.name}{kept(run)}"
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
        for logger in job.loggers:
            if hasattr(logger, "close"):
                if told:
                    logger.summarize(job.verdict.metrics)
                logger.close(0 if told and reason is None else 1)


def kept(run: RunDir) -> str:
    """What goes on with the run, and where, as the end of a sentence."""
    step = kept_step(run.checkpoints)
    if step is None:
        return ", nothing saved yet"
    return f": {again(run)} goes on from step {step:,}"


def again(run: RunDir) -> str:
    """The words that go on with a run, or with its sweep."""
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return TYPED.again(run.path.name, sweep)


def failed_parts(verdict: Verdict, place: Path, onward: str = "") -> str | None:
    """Which parts failed, why, and where the traceback is, in one line; None where none did."""
    if not verdict.failed:
        return None
    told = "; ".join(f"{name} failed ({why})" for name, why in verdict.failed.items())
    return f"{told}: a fault of the program, its traceback is in {shown(place)}{onward}"


def failed_in(verdict: Verdict, run: RunDir) -> str | None:
    """Which parts of a run's judging failed, in one line: it is trained, its other figures stand."""
    return failed_parts(verdict, run.path / "train.log", f"; {again(run)} judges again")


def known_error(error: Exception, job: Job) -> UserError | None:
    """The error in the words of the person at the keyboard; None for one of our own making.

    What the machine did will not be again, once it is mended. What the run's own numbers did will be, so there another
    run has to begin where this one stood.
    """
    if isinstance(error, CheckpointError):
        return error
    run, state = job.run, job.heart.state if job.heart else "begun"
    found: UserError | None = error if isinstance(error, UserError) else mishap(error, run.path, "metric.chunk")
    if found is None and job.ranks and job.ranks.fallen and BROKEN.search(str(error)):
        found = Mishap(job.ranks.fallen)
    if state == "running" and found is not error and of_memory(error, BATCH):
        found = UserError(str(of_memory(error, BATCH)))
    if found is None:
        return None
    if isinstance(found, Mishap):
        return Mishap(f"{found}{kept(run)}")
    step = kept_step(run.checkpoints)
    onward = (
        "" if step is None else f"; init_from={shown(run.path)} begins another run with its weights of step {step:,}"
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


def lost(run: RunDir, why: str) -> None:
    """The last words of a process that waits in vain for another."""
    told = f"{why}{kept(run)}"
    run.say("failed", None, reason=told)
    log.error("error: %s", told)
