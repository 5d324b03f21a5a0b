"""Run a script and SIGKILL it when it reaches a place: killer.py PLACE NTH DELAY_MS WHOM -- script.py words...

The script is only watched (an audit hook for files, a profile function for calls); nothing of it is replaced.

PLACE: ``call=package.module:Class.function`` is entered in any thread; ``write=REGEX`` a file of such a path is opened
for writing; ``rename=REGEX`` a file is about to be renamed or linked to such a path.
NTH: at which time of being there. DELAY_MS: how long after; 0 is at once, before the file is opened or renamed.
WHOM: ``main`` this process alone; ``group`` its whole process group; ``rank`` the first other rank it has started;
``worker`` the first of its data workers.
"""

import os
import re
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from inspect import unwrap
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

MARK = "faults: SIGKILL to"
WORKER = "pt_data_worker"  # what torch calls its data workers' threads


@dataclass
class Strike:
    """Counts how often the place has been reached, and kills at the right time."""

    nth: int
    delay: float
    whom: str
    seen: int = 0
    home: int = os.getpid()

    def reached(self) -> None:
        """The script is at the place; its forked children, who watch too, do not count."""
        if os.getpid() != self.home:
            return
        self.seen += 1
        if self.seen != self.nth:
            return
        if self.delay == 0:
            self.kill()
            return
        timer = threading.Timer(self.delay / 1000, self.kill)
        timer.daemon = True
        timer.start()

    def kill(self) -> None:
        """Say it and do it; without such a process, say that and go on."""
        found = victims(self.whom)
        told = f"{MARK} {self.whom} at {time.time()}" if found else f"faults: there is no {self.whom} to kill"
        os.write(2, f"\n{told}\n".encode())
        for process in found:
            os.kill(process, signal.SIGKILL)


def victims(whom: str) -> list[int]:
    """The processes to kill: a negative number is a group."""
    if whom == "main":
        return [os.getpid()]
    if whom == "group":
        assert os.getpgrp() == os.getpid(), "would kill processes that are not its own"
        return [-os.getpgrp()]
    return [child for child in children(os.getpid()) if kind(child) == whom][:1]


def children(parent: int) -> list[int]:
    """The living processes that this one has started, oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if int(above) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def kind(process: int) -> str:
    """What a child is: a data worker by its name, another rank by the command it was started with."""
    place = Path("/proc") / str(process)
    if (place / "comm").read_text().strip() == WORKER:
        return "worker"
    return "rank" if "\0scorelab.app.worker\0" in (place / "cmdline").read_text(errors="replace") else "other"


def code_of(path: str) -> CodeType:
    """The code of ``package.module:Class.function``, below its decorators."""
    module, _, way = path.partition(":")
    return unwrap(reduce(getattr, way.split("."), import_module(module))).__code__  # type: ignore[attr-defined]


def watch(place: str, reached: Callable[[], None]) -> None:
    """Have ``reached`` called whenever the script is at the place."""
    kind, _, what = place.partition("=")
    if kind == "call":
        watch_calls(code_of(what), reached)
    elif kind in ("write", "rename"):
        watch_files(kind, re.compile(what), reached)
    else:
        raise ValueError(f"{place}: a place begins with call=, write= or rename=")


def watch_calls(code: CodeType, reached: Callable[[], None]) -> None:
    """In this thread and in those to come."""

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is code:
            reached()

    threading.setprofile(look)
    sys.setprofile(look)


def watch_files(kind: str, path: re.Pattern[str], reached: Callable[[], None]) -> None:
    """By Python's own audit events, which come before the deed."""

    def look(event: str, given: tuple[Any, ...]) -> None:
        if kind == "rename":
            here = event in ("os.rename", "os.link") and path.search(str(given[1]))
        else:
            here = event == "open" and for_writing(given[1], given[2]) and path.search(str(given[0]))
        if here:
            reached()

    sys.addaudithook(look)


def for_writing(mode: str | None, flags: int) -> bool:
    """Whether a file so opened can be written to; os.open tells flags only."""
    return bool(set(mode) & set("wax+")) if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))


def main() -> None:
    """Watch and run."""
    place, nth, delay, whom, _, script, *words = sys.argv[1:]
    sys.argv = [script, *words]
    sys.path[0] = str(Path(script).parent)
    watch(place, Strike(int(nth), float(delay), whom).reached)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
