"""A run that Slurm interrupts is requeued: its job comes back in the same directory, and goes on where it stood.

Slurm warns a job with SIGTERM that another takes its place, with SIGUSR1 or SIGUSR2 (``--signal=USR2@60``) that its
time is nearly up. ``scancel`` sends SIGTERM too, and a job that is cancelled has to stay so: Slurm itself is asked.
"""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scorelab.errors import Interrupted, MachineError
from scorelab.run.checkpoints import kept_step
from scorelab.run.queue import PREFIX
from scorelab.run.status import cluster_job

OUT_OF_TIME = (signal.SIGUSR1, signal.SIGUSR2)
PATIENCE = 5  # seconds for an answer of Slurm's, which may soon kill this process
log = logging.getLogger("scorelab")


def slurm_job() -> str | None:
    """Slurm's number of the job that this process works for, as its commands take it (12, 12_3); None elsewhere."""
    job = cluster_job()
    return job.removeprefix(PREFIX) if job and shutil.which("scontrol") else None


def restarts() -> int:
    """How often Slurm has requeued this job so far."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdecimal() else 0


@contextmanager
def requeued() -> Iterator[None]:
    """Requeue the job when a signal of Slurm's has ended this block; all that is to be kept is on disk by then."""
    try:
        yield
    except Interrupted as stop:
        if stop.signum in (signal.SIGTERM, *OUT_OF_TIME) and (job := slurm_job()) is not None:
            stop.told = f"{stop.told}; {requeue(job)}"
        raise


@contextmanager
def time_for_a_step(checkpoints: Path) -> Iterator[None]:
    """Let no job be requeued for ever whose time is up before it has made a step.

    Raises:
        MachineError: instead of the interruption, when no step has been saved since this block was entered.
    """
    before = kept_step(checkpoints)
    try:
        yield
    except Interrupted as stop:
        if stop.signum in OUT_OF_TIME and slurm_job() is not None and kept_step(checkpoints) in (None, before):
            told = "the time limit of this Slurm job was reached before it had made a step"
            longer = "sbatch --time=..., hydra.launcher.timeout_min=..."
            raise MachineError(f"{told}, so it is not requeued: give it longer ({longer})") from stop
        raise


def requeue(job: str) -> str:
    """Have Slurm start a job again, unless it was cancelled or is no batch job; what came of it, as a clause."""
    shown = asked("show", "job", "-o", job)
    known = dict(word.partition("=")[::2] for word in shown.stdout.split())
    state = known.get("JobState")
    if state is None:
        return f"not requeued, for Slurm does not answer ({reason(shown)}): scontrol requeue {job} does it"
    if known.get("BatchFlag") != "1":
        return "not requeued, for it is no batch job"
    if int(known.get("Restarts", 0)) > restarts():
        return f"Slurm has requeued job {job}, which goes on by itself"
    if known.get("Reason") == "TimeLimit" and state != "RUNNING":
        later = f"the same command, or scontrol requeue {job}, goes on"
        return f"not requeued, for its time is up: --signal=USR2@60 would have warned it; {later}"
    if state != "RUNNING":  # by a person, mostly
        return f"not requeued, for job {job} was ended ({state.lower()})"
    done = asked("requeue", job)
    if done.returncode:
        return f"not requeued, for Slurm refuses ({reason(done)}): scontrol requeue {job}, or the same command, goes on"
    return f"job {job} is requeued and goes on by itself"


def asked(*words: str) -> subprocess.CompletedProcess[str]:
    """What scontrol says; a failure where it says nothing in time."""
    command = ["scontrol", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", type(error).__name__)


def reason(said: subprocess.CompletedProcess[str]) -> str:
    """Why a command failed, in one line."""
    return " ".join(said.stderr.split()) or "no reason given"
