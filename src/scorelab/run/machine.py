"""What a machine does to a run, in one line that says what to do about it."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_sharer
from pathlib import Path
from traceback import walk_tb

from scorelab.errors import EvaluationFailed, MachineError, UserError, short_of_memory

WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\)[^.\n]*")
SPACE = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the quota is used up", errno.EFBIG: "no file may be larger"}
BATCH = "data.batch_size (with trainer.accumulate_grad_batches higher in proportion), or the model's size"
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
ODD = {
    errno.EISDIR: "is a directory: a file belongs there",
    errno.ENOTDIR: "lies in what is no directory",
    errno.EEXIST: "is a file: a directory belongs there",
    errno.ENAMETOOLONG: "is too long a name",
    errno.ELOOP: "is a link to itself",
    errno.EIO: "cannot be read or written: the disk reports an error",
    errno.ESTALE: "cannot be read or written: its file system has let go of it",
}


def of_memory(error: BaseException, key: str) -> MachineError | None:
    """Where memory was short, which key makes less do."""
    if short_of_memory(error):
        asked = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        return MachineError(f"out of memory: lower {key}" + (f" ({asked[0].lower()})" if asked else ""))
    return None


def of_workers(error: BaseException) -> MachineError | None:
    """A data worker that died, or was dying as its batch was fetched from it and so still counted as alive."""
    said = WORKER.search(str(error))
    fetched = isinstance(error, OSError | EOFError) and any(
        frame.f_code.co_filename == resource_sharer.__file__ for frame, _ in walk_tb(error.__traceback__)
    )
    if said or fetched:
        what = said[0].strip() if said else f"DataLoader worker is gone ({error})"
        return MachineError(f"{what}: was memory short? data.workers=0 needs none")
    return None


def of_files(error: BaseException, directory: Path) -> MachineError | None:
    """What a disk refuses."""
    if not isinstance(error, OSError):
        return None
    place = error.filename or directory
    if error.errno in SPACE:
        return MachineError(f"{SPACE[error.errno]} for {place}: make room")
    if error.errno in DENIED:
        return MachineError(f"{place} may not be read or written ({error.strerror}): give the run a place where it may")
    if isinstance(error, FileNotFoundError):
        return MachineError(f"{error.filename or missing_name(str(error))} is not there any more: put it back")
    return MachineError(f"{place} {ODD[error.errno]}") if error.errno in ODD else None


def missing_name(text: str) -> str:
    """The file that a message names; one that a data worker passes on has lost the attribute."""
    found = re.search(r"No such file or directory: '([^']+)'", text)
    return found[1] if found else "a file"


def machine_error(error: Exception, directory: Path, memory: str) -> MachineError | None:
    """The error as the person at the keyboard can use it; None where nothing is known of it.

    ``memory`` is the key that makes less memory do in what was being done.
    """
    return of_memory(error, memory) or of_workers(error) or of_files(error, directory)


@contextmanager
def in_one_line(directory: Path, memory: str) -> Iterator[None]:
    """Tell what the machine does in the meantime as such; ``directory`` is where the files are.

    Raises:
        MachineError: for what ``machine_error`` knows.
    """
    try:
        yield
    except (UserError, EvaluationFailed):
        raise
    except Exception as error:
        if known := machine_error(error, directory, memory):
            raise known from error
        raise
