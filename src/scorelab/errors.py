"""What a person is told."""

import re
import signal

NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|Cannot allocate memory", re.IGNORECASE)


class Refusal(ValueError):
    """A word to the person at the keyboard: one sentence that says what was wrong and what to change.

    Whatever is raised that is no Refusal is a fault of the program, and shows itself as one.
    """


class UserError(Exception):
    """Something the person at the keyboard can change; the message is one line that says what."""


class Unavailable(Exception):
    """A number cannot be told; says why, and how many evaluations finding out has cost."""

    def __init__(self, reason: str, evaluations: int = 0) -> None:
        super().__init__(reason)
        self.evaluations = evaluations


class OverBudget(Unavailable):
    """It needs more network evaluations than are left."""


class EvaluationFailed(Exception):
    """Parts of the evaluation failed, by the program's fault; the other figures are told and stand."""


def short_of_memory(error: BaseException) -> bool:
    """Whether memory was short, of the machine or of a device: no fault of what was being done."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


class CheckpointError(UserError):
    """A checkpoint that this program cannot go on from."""


class DamagedCheckpoint(CheckpointError):
    """A file that is no whole checkpoint."""


class Interrupted(BaseException):
    """A signal has ended the run. No Exception, so that nothing on its way takes it for a failure."""

    def __init__(self, signum: int) -> None:
        self.signum, self.name = signum, signal.Signals(signum).name
        self.told = f"interrupted by {self.name}"
        super().__init__(self.name)

    @property
    def status(self) -> int:
        """The exit status a shell gives to a program that this signal ended."""
        return 128 + self.signum


class MachineError(UserError):
    """Something the machine did; the run can go on once it is mended."""
