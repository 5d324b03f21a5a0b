"""A sign of life: status.json, written anew every half minute from a thread of its own."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from scorelab.run.directory import RunDir


class Heartbeat:
    """Beats while it is entered, however long a step, a validation or a yardstick takes.

    ``state`` is what the run says it does; ``step`` tells how many steps it has taken.
    """

    def __init__(self, run: RunDir, step: Callable[[], int], seconds: float = 30) -> None:
        self.run, self.step, self.seconds, self.state = run, step, seconds, "running"
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self.run.say(self.state, self.step())
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stopped.set()
        self.thread.join()

    def enter(self, state: str) -> None:
        """Say at once that the run now does something else."""
        self.state = state
        self.run.say(state, self.step())

    def _beat(self) -> None:
        then, before = time.monotonic(), self.step()
        while not self.stopped.wait(self.seconds):
            now, step = time.monotonic(), self.step()
            speed = (step - before) / (now - then) if self.state == "running" else None
            self.run.say(self.state, step, speed)
            then, before = now, step
