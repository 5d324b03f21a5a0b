"""How a run ends that does not finish: what is told, what is recorded, and what helps."""

import logging
import re
from pathlib import Path
from typing import Any

from scorelab.judge import Verdict
from scorelab.lit.checkpoints import CheckpointError, kept_step
from scorelab.lit.config import UserError
from scorelab.lit.mishaps import BATCH, Mishap, mishap, of_memory
from scorelab.lit.ranks import Ranks
from scorelab.lit.run import RunDir, shown

BROKEN = re.compile("gloo|nccl|connection|peer", re.IGNORECASE)  # of what binds several processes
log = logging.getLogger("scorelab")


def kept(run: RunDir) -> str:
    """What the same command will do, as the end of a sentence."""
    step = kept_step(run.checkpoints)
    return ", nothing saved yet" if step is None else f": the same command goes on from step {step:,}"


class JudgingFailed(Exception):
    """Parts of the judging failed, by the program's fault; the other figures are told and stand."""


def failed_parts(verdict: Verdict, place: Path, onward: str = "") -> str | None:
    """Which parts failed, why, and where the traceback is, in one line; None where none did."""
    if not verdict.failed:
        return None
    told = "; ".join(f"{name} failed ({why})" for name, why in verdict.failed.items())
    return f"{told}: a fault of the program, its traceback is in {shown(place)}{onward}"


def known_error(error: Exception, run: RunDir, ranks: Ranks, state: str) -> UserError | None:
    """The error in the words of the person at the keyboard; None for one of our own making.

    What the machine did will not be again, once it is mended. What the run's own numbers did will be, so there another
    run has to begin where this one stood.
    """
    if isinstance(error, CheckpointError):
        return error
    found: UserError | None = error if isinstance(error, UserError) else mishap(error, run.path, "metric.chunk")
    if found is None and ranks.fallen and BROKEN.search(str(error)):
        found = Mishap(ranks.fallen)
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


def close_unfinished(run: RunDir, status: str, config: dict[str, Any], step: int, reason: str | None) -> None:
    """Record how a run ended that did not finish, as far as its disk allows."""
    try:
        run.close(status, config, step=step, reason=reason)
    except OSError as error:
        log.warning("metrics.json could not be written (%s)", error.strerror)


def lost(run: RunDir, why: str) -> None:
    """The last words of a process that waits in vain for another."""
    told = f"{why}{kept(run)}"
    run.say("failed", None, reason=told)
    log.error("error: %s", told)
