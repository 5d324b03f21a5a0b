"""What a run says, kept in its train.log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scorelab.errors import UserError
from scorelab.files import display_path

log = logging.getLogger("scorelab")


class LogFile(logging.FileHandler):
    """A log that says nothing of a disk that does not take it: whatever else meets it will."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write, if the file can be opened."""
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on; the terminal has the line too."""


@contextmanager
def log_file(directory: Path) -> Iterator[None]:
    """What is said goes to train.log too, with dates; so does an error, with its traceback where it is our own."""
    handler = LogFile(directory / "train.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    log.setLevel(logging.DEBUG)  # tracebacks are for the file; the console shows INFO
    try:
        yield
    except Exception as error:
        ours = not isinstance(error, UserError)
        about = (log.name, logging.ERROR, __file__, 0, "error: %s", (error,), sys.exc_info() if ours else None)
        handler.handle(logging.LogRecord(*about))
        if ours:
            error.add_note(f"{display_path(directory / 'train.log')} shows where")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
