"""What a person is told."""

import re

NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|Cannot allocate memory", re.IGNORECASE)


class Refusal(ValueError):
    """A word to the person at the keyboard: one sentence that says what was wrong and what to change.

    Whatever is raised that is no Refusal is a fault of the program, and shows itself as one.
    """


class UserError(Exception):
    """Something the person at the keyboard can change; the message is one line that says what."""


class JudgingFailed(Exception):
    """Parts of the judging failed, by the program's fault; the other figures are told and stand."""


def short_of_memory(error: BaseException) -> bool:
    """Whether memory was short, of the machine or of a device: no fault of what was being done."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None
