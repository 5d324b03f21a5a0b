"""What runs have come to, by what they have left on disk: nothing is imported that trains."""

import argparse
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from scorelab.errors import UserError
from scorelab.report.words import span
from scorelab.run.jobs import read_jobs
from scorelab.run.queue import queued
from scorelab.run.status import AT_WORK, Status, read_status
from scorelab.run.surroundings import settle

STATES = ("running", "evaluating", "waiting", "not begun", "interrupted", "lost", "failed", "finished")
EVERY = 2.0  # seconds between two looks
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class Asked:
    """The keys of the command."""

    status: bool = False
    watch: bool = False


@dataclass(frozen=True)
class Standing:
    """How a run stands: the state's name, and what belongs to it."""

    name: str
    state: str
    told: str = ""


def standings(places: Sequence[Path]) -> list[Standing]:
    """How every run in some directories stands: of a sweep each of its jobs, of a folder the runs in it.

    Raises:
        UserError: for a directory that holds no run.
    """
    queue: Mapping[str, str] | None = None
    found = []
    for run, expected in runs_in(places):
        status = read_status(run)
        if status is not None and status.state == "waiting" and queue is None:
            queue = queued_or_silent()
        found.append(standing(run, status, expected, {} if queue is None else queue))
    return found


def queued_or_silent() -> Mapping[str, str]:
    """Slurm's queue; where it does not answer, every job is taken to be there."""
    try:
        return queued()
    except (ConnectionError, subprocess.TimeoutExpired):
        return defaultdict(lambda: "Slurm does not answer")


def runs_in(places: Sequence[Path]) -> list[tuple[Path, bool]]:
    """The directories of runs, and of each whether a command at work will still get to it.

    Raises:
        UserError: for a directory that holds none.
    """
    found: list[tuple[Path, bool]] = []
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place}: no such directory")
        jobs = read_jobs(place)
        if jobs is not None:
            runs = [(place / name, jobs.at_work) for name in jobs.names]
        elif (place / "status.json").exists():
            runs = [(place, False)]
        else:
            runs = [(file.parent, False) for file in sorted(place.glob("*/status.json"))]
        if not runs:
            raise UserError(f"{place}: holds no runs; type the directory of a run, of a sweep, or one that holds them")
        found += runs
    return found


def standing(run: Path, status: Status | None, expected: bool, queue: Mapping[str, str]) -> Standing:
    """How a run stands; one that waits in Slurm's queue has to be there."""
    if status is None:
        return Standing(run.name, "waiting" if expected else "not begun")
    if status.state == "waiting":
        if (job := status.job or "") not in queue and not isinstance(queue, defaultdict):
            return Standing(run.name, "lost", f"was {status}")
        state = queue[job]
        return Standing(run.name, "waiting", f"{job}, {'starting' if state == 'RUNNING' else state.lower()}")
    if status.state == "failed":
        return Standing(run.name, "failed", status.reason or "")
    step = "" if status.step is None else f"step {status.step:,}"
    if status.state not in AT_WORK:
        return Standing(run.name, status.state, step)
    parts = [f"{step} of {of:,}" if (of := steps_of(run)) else step]
    if status.it_per_s:
        parts.append(f"{status.it_per_s:.3g} it/s")
        if of:
            parts.append(f"{span((of - (status.step or 0)) / status.it_per_s)} left")
    return Standing(run.name, status.state, ", ".join([*parts, f"on {status.host}"]))


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


def watch(places: Sequence[Path], title: str) -> None:
    """Show how the runs stand until none is at work or waiting; on a terminal in place, else what has changed."""
    before: set[str] = set()
    while True:
        found = standings(places)
        now = lines(found)
        if sys.stdout.isatty():
            print("\n".join(["\033[H\033[J" + counted(found, title), *now]), flush=True)
        elif set(now) != before:
            print("\n".join([counted(found, title), *(line for line in now if line not in before)]), flush=True)
        if not any(each.state in (*AT_WORK, "waiting") for each in found):
            return
        before = set(now)
        time.sleep(EVERY)


def asked(words: Sequence[str]) -> Asked:
    """The keys that were typed.

    Raises:
        UserError: for one that does not exist, or a value that is neither true nor false.
    """
    known = [field.name for field in fields(Asked)]
    keys: dict[str, bool] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in known:
            raise UserError(f"{key}: no such key; possible: {', '.join(known)}")
        if value.lower() not in (*TRUE, *FALSE):
            raise UserError(f"{word}: true or false")
        keys[key] = value.lower() in TRUE
    return Asked(**keys)


def main(argv: Sequence[str] | None = None) -> None:
    """Tell how runs stand; exit status 2 for what the user can change."""
    settle()
    parser = argparse.ArgumentParser(
        prog="compare", description="How runs stand: compare.py DIR ... status=true [watch=true]"
    )
    parser.add_argument("words", nargs="+", metavar="DIR or key=value", help="directories of runs or sweeps, and keys")
    words = parser.parse_args(argv).words
    try:
        keys = asked([word for word in words if "=" in word and not Path(word).is_dir()])
        places = [Path(word) for word in words if "=" not in word or Path(word).is_dir()]
        if not places:
            raise UserError("type a directory of runs: logs/sweeps/NAME, logs/train, ...")
        if not (keys.status or keys.watch):
            raise UserError("type status=true, or watch=true to look on")
        title = ", ".join(map(str, places))
        if keys.watch:
            watch(places, title)
        else:
            found = standings(places)
            print("\n".join([counted(found, title), *lines(found)]))
    except UserError as error:
        sys.exit(_refused(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _refused(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
