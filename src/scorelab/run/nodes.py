"""Processes on several nodes that train one run: srun or torchrun has started all of them, the first leads."""

import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from scorelab.errors import Interrupted, MachineError, UserError
from scorelab.run.channel import MEETING, PATIENCE, Ear, Hub, join, say
from scorelab.run.launch import Launched
from scorelab.run.processes import FOREVER

AFTER = 5  # seconds that a process has to end by itself once it is told that all is over


class Leader:
    """The first process's part. As ``Processes``, the others train along while this is entered.

    ``lost`` is called when one of them has died and this process does not come back from waiting for it.
    """

    def __init__(self, here: Launched, nodes: int, store: distributed.Store, hub: Hub) -> None:
        self.here, self.nodes, self.store, self.hub = here, nodes, store, hub
        self.devices = here.world
        self.fallen: str | None = None
        self.checkpoint: Path | None = None
        self.directory, self.config = Path(), dict[str, Any]()
        self.lost: Callable[[str], None] = print
        self.over = threading.Event()

    def of(self, directory: Path, config: dict[str, Any], lost: Callable[[str], None]) -> "Leader":
        """Have them train this run."""
        self.directory, self.config, self.lost = directory, config, lost
        return self

    def at(self, checkpoint: Path | None) -> "Leader":
        """Have them go on from a checkpoint."""
        self.checkpoint = checkpoint
        return self

    def __enter__(self) -> "Leader":
        if dead := self.hub.dead:
            raise MachineError(dead)
        path = None if self.checkpoint is None else str(self.checkpoint.absolute())
        self.hub.tell(train={"directory": str(self.directory.absolute()), "config": self.config, "checkpoint": path})
        threading.Thread(target=self._watch, name="nodes", daemon=True).start()
        connect(self.here, self.store)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, Exception) and not self.hub.gone:
            self.over.wait(1)  # an error may be that of a process whose end is not known yet
        self.over.set()
        self.fallen = self.fallen or self.hub.dead
        if error is not None:
            self.dismiss(status_of(error))
        elif distributed.is_initialized():
            distributed.destroy_process_group()

    def dismiss(self, status: int, found: Mapping[str, Any] | None = None) -> None:
        """Tell the others that it is over, with which exit status, and what was found."""
        self.hub.tell(over=status, found=dict(found or {}))

    def _watch(self) -> None:
        while not self.over.wait(0.5):
            if (dead := self.hub.dead) and not self.over.wait(PATIENCE):
                self.lost(dead)  # this process waits for the dead one, in a call that no signal ends
                self.dismiss(1)
                os._exit(1)


class Follower:
    """Another process's part: it does what the first one says, and ends when that one does."""

    def __init__(self, here: Launched, store: distributed.Store, line: socket.socket, leader: str) -> None:
        self.here, self.store, self.line, self.leader = here, store, line, leader
        self.words: queue.Queue[dict[str, Any]] = queue.Queue()
        self.heard = threading.Event()
        threading.Thread(target=self._listen, name="nodes", daemon=True).start()

    def word(self, seconds: float | None = None) -> dict[str, Any] | None:
        """The first process's next word, waited for; None where none came in so many seconds."""
        try:
            word = self.words.get(timeout=seconds)
        except queue.Empty:
            return None
        if "train" not in word:
            self.heard.set()
        return word

    @contextmanager
    def training(self) -> Iterator[None]:
        """With the others."""
        connect(self.here, self.store)
        yield
        distributed.destroy_process_group()

    def last_words(self, text: str) -> None:
        """Let the first process say why this one ends."""
        say(self.line, last=text)

    @property
    def alone(self) -> str:
        """What there is to say where the first process is gone."""
        return f"the first process ({self.leader}) has ended: the same command goes on from the last checkpoint"

    def _listen(self) -> None:
        ear, over = Ear(self.line), False
        while not over:
            words = ear.heard()
            for word in [{"gone": True}] if words is None else words:
                over = over or "train" not in word
                self.words.put(word)
        if self.heard.wait(PATIENCE if words is None else AFTER):
            return
        if words is None:  # this process waits for the first one, in a call that no signal ends
            os.write(2, f"\nerror: {self.alone}\n".encode())
        os._exit(1 if words is None else word["over"])


def meet(here: Launched, nodes: int, address: str, port: int) -> Leader | Follower:
    """This process's part, once all have met.

    Raises:
        MachineError: when they do not.
    """
    try:
        store = _store(here, address, port)
        if here.rank == 0:
            hub = Hub(here.world - 1)
            store.set("hub", f"{hub.port} {hub.key} {socket.gethostname()}")
            hub.gather()
            return Leader(here, nodes, store, hub)
        at, key, host = store.get("hub").decode().split()
        return Follower(here, store, join(address, int(at), key, here.rank), host)
    except (RuntimeError, OSError) as error:
        told = f"rank {here.rank} ({socket.gethostname()}) has not met the other {here.world - 1} at {address}:{port}"
        why = " ".join(str(error).split())[:200]
        raise MachineError(f"{told} ({why}): start all of them; MASTER_ADDR and MASTER_PORT say where") from error


def _store(here: Launched, address: str, port: int) -> distributed.Store:
    """What all of them can write to and read from; a launcher that starts them again keeps it."""
    limit = timedelta(seconds=MEETING)
    store, _, _ = next(rendezvous(f"tcp://{address}:{port}", here.rank, here.world, timeout=limit))
    return distributed.PrefixStore(f"scorelab {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def connect(here: Launched, store: distributed.Store) -> None:
    """Have torch know all of them."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=here.rank, world_size=here.world, timeout=FOREVER)


def status_of(error: BaseException) -> int:
    """The exit status of a process that ends with an error."""
    if isinstance(error, Interrupted):
        return error.status
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 2 if isinstance(error, UserError) else 1
