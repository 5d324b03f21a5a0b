"""What a program is started with and never asked for: streams that take no output, a launcher's variables, no home.

Nothing heavy is imported here: an entry settles all of it before anything else is loaded.
"""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from typing import Any

from scorelab.run.cores import settle_threads

LAUNCHERS = ("TORCHELASTIC_", "SLURM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "MV2_", "JSM_", "LSB_", "LSF_", "KUBERNETES_")
PLACES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
)
UNHEARD = "TORCHELASTIC_USE_AGENT_STORE"  # has torch look for a launcher's own store instead of opening one
FORGOTTEN: dict[str, str] = {}  # what ``settle`` took out of the environment: a run over several nodes needs it


def settle() -> None:
    """Give the process streams that never fail, and forget which of several processes a launcher took it for."""
    open_streams()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed at the start, or never there
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    sys.stdout, sys.stderr = patient(sys.stdout), patient(sys.stderr)
    FORGOTTEN.clear()
    for name in (*PLACES, UNHEARD):
        if name in os.environ:
            FORGOTTEN[name] = os.environ.pop(name)
    settle_threads()
    with suppress(OSError):
        settle_caches()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of places for its list of fonts


def settle_caches() -> None:
    """Where nothing can be kept at home, have libraries keep what they cache elsewhere, until the process ends.

    A home is still read: what is configured there counts.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if "HOME" in os.environ and writable(caches):
        return
    elsewhere = tempfile.mkdtemp(prefix="scorelab-")
    atexit.register(shutil.rmtree, elsewhere, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"] = elsewhere
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(elsewhere, "matplotlib"))
    os.environ.setdefault("WANDB_DATA_DIR", os.path.join(elsewhere, "wandb"))  # where it lays out tables


def writable(folder: str) -> bool:
    """Whether files can be made in a folder, or the folder itself."""
    with suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


def open_streams() -> None:
    """See that 0, 1 and 2 are open: else the next file to be opened is what a line to the terminal is written into."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def without_launcher(environment: dict[str, str]) -> dict[str, str]:
    """An environment without what a launcher says of processes."""
    return {name: value for name, value in environment.items() if name not in PLACES and not name.startswith(LAUNCHERS)}


def patient(stream: Any) -> Any:
    """A stream that takes what it can."""
    if isinstance(stream, Patient):
        return stream
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # λ where there is no λ
    return Patient(stream)


class Patient:
    """A stream whose reader may be gone, its disk full, its terminal closed: what it does not take is lost, no more.

    After the first failure its descriptor leads nowhere, so that what is still buffered can be let go of at the end.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, if it can be."""
        try:
            return self.stream.write(text)
        except (OSError, ValueError) as error:  # a ValueError: the stream was closed in this process
            self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write, if it can be."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, if it can be."""
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if isinstance(error, BlockingIOError):  # its reader is slow, not gone
            return
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
            self.stream.flush()
