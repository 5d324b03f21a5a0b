"""Where runs lie: in a directory of their own, as jobs of a sweep, in a folder of either."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scorelab.errors import UserError
from scorelab.run.jobs import read_jobs

MARKS = ("status.json", "metrics.json")  # what the directory of a run holds


@dataclass(frozen=True)
class Place:
    """A run's directory, what it is called among others, and whether a command at work will still get to it."""

    path: Path
    name: str
    expected: bool = False


def places(typed: Sequence[Path]) -> list[Place]:
    """Every run in some directories, each once: of a sweep its jobs, of a folder the runs and sweeps in it.

    Raises:
        UserError: for a directory that is not there, cannot be read, or holds no run.
    """
    found: dict[Path, Place] = {}
    for folder in typed:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such directory")
        try:
            runs = _runs(folder, "", depth=2)
        except OSError as error:
            raise UserError(f"{error.filename or folder}: {error.strerror}") from error
        if not runs:
            raise UserError(f"{folder}: holds no runs; type the directory of a run, of a sweep, or one that holds them")
        above = f"{folder.resolve().name}/" if len(typed) > 1 and runs[0].path != folder else ""
        for run in runs:
            found.setdefault(run.path.resolve(), Place(run.path, above + run.name, run.expected))
    return list(found.values())


def _runs(folder: Path, prefix: str, depth: int) -> list[Place]:
    if (jobs := read_jobs(folder)) is not None:
        own = [Place(folder / name, prefix + name, jobs.at_work) for name in jobs.names]
        others = [each for each in sorted(folder.iterdir()) if each.name not in jobs.names and _holds_run(each)]
        return own + [Place(each, prefix + each.name) for each in others]  # of an earlier command of this name
    if _holds_run(folder):
        return [Place(folder, prefix.rstrip("/") or folder.resolve().name)]
    if depth == 0:
        return []
    inner = [each for each in sorted(folder.iterdir()) if each.is_dir()]
    return [run for each in inner for run in _runs(each, f"{prefix}{each.name}/", depth - 1)]


def _holds_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in MARKS)
