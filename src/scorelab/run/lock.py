"""That one job at a time works in a directory."""

import errno
import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from scorelab.errors import UserError
from scorelab.files import display_path


class Lock:
    """The right to work in a directory: its file ``lock``, which the kernel gives back however the process ends.

    It is the process's own: one forked off does not hold it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file: IO[str] | None = None

    @property
    def taken(self) -> bool:
        """Whether this has it."""
        return self._file is not None

    def take(self) -> None:
        """Take the directory, made where there is none, for this process.

        Raises:
            UserError: when another process has it.
        """
        place = self.directory / "lock"
        while True:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = place.open("a+")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks, say
                    raise
                file.seek(0)
                holder = file.read().strip() or "another job"
                told = f"run {display_path(self.directory)} is being worked on by {holder}"
                raise UserError(f"{told}: wait, or give this one another name") from None
            with suppress(OSError):
                if os.fstat(file.fileno()).st_ino == place.stat().st_ino:
                    break
            file.close()  # a job that was refused has just removed the directory and this file with it
        self._file = file
        file.truncate(0)
        file.write(f"{socket.gethostname()}, pid {os.getpid()}, since {time.strftime('%F %T')}")
        file.flush()

    def release(self) -> None:
        """Give the directory back."""
        if self._file is not None:
            self._file.close()
            self._file = None
