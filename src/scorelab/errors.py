"""What a person is told."""


class Refusal(ValueError):
    """A word to the person at the keyboard: one sentence that says what was wrong and what to change.

    Whatever is raised that is no Refusal is a fault of the program, and shows itself as one.
    """


class UserError(Exception):
    """Something the person at the keyboard can change; the message is one line that says what."""
