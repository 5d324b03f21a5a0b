"""Signals that end a run: kept until a step is whole while the run trains, obeyed at once where nothing would be lost.

Handlers belong to the process, so the state here does too: ``SIGNALS`` is the one there is.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from scorelab.errors import Interrupted

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """What has come in.

    ``received`` is the first signal since ``listening`` began, or None. ``waits`` says whether the run would lose
    something if it stopped now; ``farewell`` is called when a second Ctrl-C ends the process there and then.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.handled: tuple[int, ...] = ()
        self.waits = False
        self.owner = -1
        self.farewell: Callable[[], None] = lambda: None

    @contextmanager
    def listening(self, farewell: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Handle the ending signals for as long as a run takes; outside of the main thread none can be."""
        self.received, self.waits, self.owner, self.farewell = None, False, os.getpid(), farewell
        before: dict[int, Any] = {}
        try:
            before = self._listen()
            self.handled = tuple(before)
            yield
        finally:
            self.handled = ()
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _listen(self) -> dict[int, Any]:
        try:
            return {signum: signal.signal(signum, self._handle) for signum in ENDING if not outlived(signum)}
        except ValueError:  # not the main thread: whoever runs us so handles signals
            return {}

    def take_back(self) -> None:
        """Handle the signals that ``listening`` handles where someone else has put a handler of their own meanwhile.

        Lightning does, before the barrier at which the processes of a run meet. Its handler of SIGTERM calls ours too,
        so one that comes in there is not lost; but in one of several processes it waits for the others, which do not
        know of it: for as long as that barrier lasts, a signal sent to one process alone can keep it for ever.
        """
        for signum in self.handled:
            signal.signal(signum, self._handle)

    @contextmanager
    def waiting(self, waits: bool = True) -> Iterator[None]:
        """Let a signal wait until this block is done, or (False) end it at once.

        Raises:
            Interrupted: when one comes in that need not wait, or has come in by the end of a block that does not.
        """
        before = self.waits
        try:
            self.waits = waits
            self.check()
            yield
            self.check()
        finally:
            self.waits = before
        self.check()

    def check(self) -> None:
        """End the run where a signal has come in and need not wait.

        Raises:
            Interrupted: then.
        """
        if self.received is not None and not self.waits:
            raise Interrupted(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a process forked off: its parent decides
            return
        if self.received is not None:
            if signum == signal.SIGINT:
                self._leave()
            return
        self.received = signum
        if self.waits:
            say(f"{signal.Signals(signum).name}: saving at the end of the step (Ctrl-C stops at once)")
        self.check()

    def _leave(self) -> None:
        """End the process as it stands. Every file is whole at any moment, so nothing needs tidying."""
        with suppress(Exception):
            self.farewell()
        say("stopped at once")
        os._exit(128 + signal.SIGINT)


def outlived(signum: int) -> bool:
    """Whether whoever started this process (nohup) has it live on when its terminal is closed."""
    return signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN


def say(line: str) -> None:
    """A line to the terminal, if there still is one, from inside a handler, where print may not be entered twice."""
    with suppress(OSError):
        os.write(2, f"\n{line}\n".encode())


SIGNALS = Signals()
