"""Several processes that train one run: this one, of rank 0, and those it starts for the other devices."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import torch
from torch import distributed

from scorelab.run.cores import cores, share
from scorelab.run.signals import ENDING
from scorelab.run.surroundings import without_launcher

HOST = "127.0.0.1"
FOREVER = timedelta(days=30)  # how long one waits for another's call: ``Processes`` sees to what has died
PATIENCE = 20  # seconds between another process's death and the end of this one, if nothing else has ended it


def see_complete(asked: int, nodes: int = 1) -> None:
    """See that as many processes train together as were asked for, on so many nodes.

    Raises:
        RuntimeError: when there are fewer, or more.
    """
    there = distributed.get_world_size() if distributed.is_initialized() else 1
    if there != asked:
        words = f"trainer.devices={asked // nodes}" + (f" trainer.num_nodes={nodes}" if nodes > 1 else "")
        raise RuntimeError(f"{words} asks for {asked} processes, and {there} of them trains here")


class Processes:
    """The other processes of a run, alive while this is entered; none where there is one device.

    They work from the run's own config.yaml, so neither a sweep's words nor a name made of the time is read again.
    ``worker`` is the module that each of them runs, with this process's id, its rank, the ``port`` at which all meet,
    the run's directory and the checkpoint. ``lost`` is called when one of them has died and this process does not come
    back from waiting for it; ``fallen`` tells of one that had died by the end.
    """

    def __init__(self, directory: Path, devices: int, port: int, worker: str, lost: Callable[[str], None]) -> None:
        self.directory, self.devices, self.port, self.worker, self.lost = directory, devices, port, worker, lost
        self.others: list[subprocess.Popen] = []
        self.fallen: str | None = None
        self.over = threading.Event()
        self.checkpoint: Path | None = None

    @property
    def nodes(self) -> int:
        """All are on this machine."""
        return 1

    def at(self, checkpoint: Path | None) -> "Processes":
        """Have them go on from a checkpoint."""
        self.checkpoint = checkpoint
        return self

    def __enter__(self) -> "Processes":
        given = (
            without_launcher(dict(os.environ))
            | share(cores())
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until ``heed_signals``
        try:
            for rank in range(1, self.devices):
                with (self.directory / f"rank{rank}.log").open("w") as said:
                    self.others.append(subprocess.Popen(self._words(rank), env=given, stdout=said, stderr=said))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self.others:
            threading.Thread(target=self._watch, name="processes", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.over.set()
        self.fallen = self.fallen or self._dead(1 if isinstance(error, Exception) else 0)
        for other in self.others:
            if error is None:
                with suppress(subprocess.TimeoutExpired):
                    other.wait(PATIENCE)
            other.kill()
            other.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def _words(self, rank: int) -> list[str]:
        told = [os.getpid(), rank, self.port, self.directory, *([self.checkpoint] if self.checkpoint else [])]
        return [sys.executable, "-m", self.worker, *map(str, told)]

    def _dead(self, seconds: float = 0) -> str | None:
        """What is known of a process that has died, if one has, or does within so many seconds."""
        if seconds and self.others:
            with suppress(subprocess.TimeoutExpired):
                self.others[0].wait(seconds)
        for rank, other in enumerate(self.others, 1):
            if other.poll():
                ended = f"signal {-other.returncode}" if other.returncode < 0 else f"status {other.returncode}"
                lines = (self.directory / f"rank{rank}.log").read_text(errors="replace").strip().splitlines()
                return f"the process of rank {rank} died ({ended})" + (f": {lines[-1]}" if lines else "")
        return None

    def _watch(self) -> None:
        while not self.over.wait(0.5):
            if (dead := self._dead()) and not self.over.wait(PATIENCE):
                self.lost(dead)  # this process waits for the dead one, in a call that no signal ends
                os._exit(1)


def meet(rank: int, port: int, processes: int) -> None:
    """Find the others, where nothing else (Lightning, in training) does it."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    where = f"tcp://{HOST}:{port}"
    distributed.init_process_group(backend, init_method=where, timeout=FOREVER, world_size=processes, rank=rank)


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def die_with(parent: int) -> None:
    """Have the kernel end this process when the one that started it ends, however it does."""
    with suppress(OSError, AttributeError):  # Linux alone can; elsewhere a broken connection ends it a step later
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the first process has ended")


def heed_signals() -> None:
    """In another process, once it handles the ending signals: take what has come in since it was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
