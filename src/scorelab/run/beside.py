"""Jobs of a sweep beside one another in processes that a launcher keeps for several: how such a process ends."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from scorelab.run.signals import say

AT_WORK = threading.Event()  # in a launcher's process: whether it has a job
OVER = threading.Event()  # there: whether it has been told to end


@contextmanager
def patient() -> Iterator[None]:
    """Have Ctrl-C wait until the jobs at work have saved what they have; a second one does not.

    Raises:
        KeyboardInterrupt: at the end, where there was one.
    """
    pressed = 0

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise KeyboardInterrupt
        say("the jobs at work save at the end of their step, the others wait for the same command")
        for child in multiprocessing.active_children():  # a terminal has told them already, others have not
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGTERM)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Exception:
        if not pressed:
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def job_at_work() -> Iterator[None]:
    """Say that this process has a job, which is let end before the process does."""
    AT_WORK.set()
    try:
        yield
    finally:
        AT_WORK.clear()


def end_with(parent: int) -> None:
    """Have this process end once the one that started it is gone: its job saves what it has, and no other begins."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        OVER.set()
        os.kill(os.getpid(), signal.SIGTERM)
        while AT_WORK.is_set():
            time.sleep(0.1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
