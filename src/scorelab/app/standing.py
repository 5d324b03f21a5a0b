"""How runs stand, by what they have left on disk: waiting, at work, lost, interrupted, failed, finished."""

import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from scorelab.comparison.places import Place, places
from scorelab.report.words import span
from scorelab.run.queue import queued
from scorelab.run.status import AT_WORK, Status, read_status

STATES = ("running", "evaluating", "waiting", "not begun", "interrupted", "lost", "failed", "finished")
EVERY = 2.0  # seconds between two looks


@dataclass(frozen=True)
class Standing:
    """How a run stands: the state's name, and what belongs to it."""

    name: str
    state: str
    told: str = ""


def standings(typed: Sequence[Path]) -> list[Standing]:
    """How every run in some directories stands: of a sweep each of its jobs, of a folder the runs in it.

    Raises:
        UserError: for a directory that holds no run.
    """
    queue: Mapping[str, str] | None = None
    found = []
    for place in places(typed):
        status = read_status(place.path)
        if status is not None and status.state == "waiting" and queue is None:
            queue = queued_or_silent()
        found.append(standing(place, status, {} if queue is None else queue))
    return found


def queued_or_silent() -> Mapping[str, str]:
    """Slurm's queue; where it does not answer, every job is taken to be there."""
    try:
        return queued()
    except (ConnectionError, subprocess.TimeoutExpired):
        return defaultdict(lambda: "Slurm does not answer")


def standing(place: Place, status: Status | None, queue: Mapping[str, str]) -> Standing:
    """How a run stands; one that waits in Slurm's queue has to be there."""
    if status is None:
        return Standing(place.name, "waiting" if place.expected else "not begun")
    if status.state == "waiting":
        if (job := status.job or "") not in queue and not isinstance(queue, defaultdict):
            return Standing(place.name, "lost", f"was {status}")
        state = queue[job]
        return Standing(place.name, "waiting", f"{job}, {'starting' if state == 'RUNNING' else state.lower()}")
    if status.state == "failed":
        return Standing(place.name, "failed", status.reason or "")
    step = "" if status.step is None else f"step {status.step:,}"
    if status.state not in AT_WORK:
        return Standing(place.name, status.state if status.state in STATES else "lost", step)
    parts = [f"{step} of {of:,}" if (of := steps_of(place.path)) else step]
    if status.it_per_s:
        parts.append(f"{status.it_per_s:.3g} it/s")
        if of:
            parts.append(f"{span((of - (status.step or 0)) / status.it_per_s)} left")
    return Standing(place.name, status.state, ", ".join([*parts, f"on {status.host}"]))


def steps_of(run: Path) -> int | None:
    """How many steps a run is to take."""
    try:
        return int(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["trainer"]["max_steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


def counted(found: Sequence[Standing], title: str) -> str:
    """How many runs stand how."""
    counts = Counter(each.state for each in found)
    return f"{title}: {len(found)} runs: {', '.join(f'{counts[state]} {state}' for state in STATES if counts[state])}"


def lines(found: Sequence[Standing]) -> list[str]:
    """A line for each run: those at work first, the finished last."""
    width = max(len(each.name) for each in found)
    order = sorted(found, key=lambda each: STATES.index(each.state))
    return [f"  {each.name.ljust(width)}  {each.state:<11} {each.told}".rstrip() for each in order]


def watch(typed: Sequence[Path], title: str) -> None:
    """Show how the runs stand until none is at work or waiting; on a terminal in place, else what has changed."""
    before: set[str] = set()
    while True:
        found = standings(typed)
        now = lines(found)
        if sys.stdout.isatty():
            print("\n".join(["\033[H\033[J" + counted(found, title), *now]), flush=True)
        elif set(now) != before:
            print("\n".join([counted(found, title), *(line for line in now if line not in before)]), flush=True)
        if not any(each.state in (*AT_WORK, "waiting") for each in found):
            return
        before = set(now)
        time.sleep(EVERY)
