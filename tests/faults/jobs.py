"""One process of a run: started, perhaps killed, ended; and what it said."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from faults.killer import MARK
from faults.places import Kill

ROOT = Path(__file__).resolve().parents[2]
KILLER = ROOT / "tests" / "faults" / "killer.py"
TRAIN = ROOT / "src" / "train.py"
LONGEST = 240  # seconds: a job that takes longer hangs
SOON = 60  # seconds within which what is left notices that a part was killed


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        code: exit status; negative for a signal; None where it had to be ended because it hung.
        told: all it printed.
        seconds: how long it took.
        after: how long it lived after a part of it was killed; None where nothing was.
        group: its process group.
        line: what a person would type to see the same.
    """

    code: int | None
    told: str
    seconds: float
    after: float | None
    group: int
    line: str

    @property
    def killed(self) -> bool:
        """Whether it, or a part of it, was killed."""
        return self.after is not None

    @property
    def last_line(self) -> str:
        """What it said last."""
        return (self.told.strip().splitlines() or ["nothing"])[-1]

    @property
    def resumed_at(self) -> int | None:
        """The step it says it went on from."""
        found = re.search(r"resumed at step ([\d,]+)", self.told)
        return int(found[1].replace(",", "")) if found else None


def run(folder: Path, words: tuple[str, ...], kill: Kill | None = None) -> Ended:
    """Start train.py in a folder, as its own process group, and wait for its end."""
    command = [str(TRAIN), *words]
    if kill is not None:
        command = [str(KILLER), *kill.words, "--", *command]
    log, started = folder / "said.log", time.time()
    with log.open("w") as file:
        job = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = job.wait(LONGEST)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
    ended = time.time()
    told = log.read_text(errors="replace")
    mark = re.search(rf"{MARK} \w+ at ([\d.]+)", told)
    line = shlex.join(["python", *(str(word).replace(f"{ROOT}/", "") for word in command)])
    return Ended(code, told, ended - started, ended - float(mark[1]) if mark else None, job.pid, line)


def left_alive(groups: list[int], patience: float = SOON) -> list[int]:
    """The processes of ended jobs that still live, after they had some time to notice."""
    deadline = time.time() + patience
    while (alive := [process for group in groups for process in members(group)]) and time.time() < deadline:
        time.sleep(0.5)
    return alive


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(its) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found
