"""What the first of several nodes' processes tells the others, and they it: lines of JSON between it and each of them.

A connection ends with the process at its other end, however that ends, so nobody waits for one that is gone.
"""

import json
import secrets
import selectors
import socket
import threading
from contextlib import suppress
from typing import Any

from scorelab.errors import MachineError

PATIENCE = 20  # seconds between another process's death and the end of this one, if nothing else has ended it
MEETING = 600  # seconds in which all have to be there


def lasting(line: socket.socket) -> socket.socket:
    """A connection that ends, within a minute, where the machine at its other end is gone without a word too."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return line


def say(line: socket.socket, **word: Any) -> None:
    """Say something, if there still is someone."""
    with suppress(OSError):
        line.sendall(json.dumps(word).encode() + b"\n")


class Ear:
    """The words that come in at a connection, as they become whole."""

    def __init__(self, line: socket.socket) -> None:
        self.line, self.rest = line, b""

    def heard(self) -> list[dict[str, Any]] | None:
        """What the next bytes complete; None where the other end is gone."""
        try:
            came = self.line.recv(1 << 16)
        except OSError:
            came = b""
        if not came:
            return None
        *whole, self.rest = (self.rest + came).split(b"\n")
        return [json.loads(each) for each in whole]

    def word(self) -> dict[str, Any] | None:
        """The next word, waited for; None where the other end is gone."""
        while (found := self.heard()) == []:
            pass
        return found[0] if found else None


class Hub:
    """The first process's end: everyone else's connection, where each is, what it said last, and whether it is gone."""

    def __init__(self, others: int) -> None:
        self.others, self.key = others, secrets.token_hex(16)
        self.server = socket.create_server(("", 0), backlog=others)
        self.port: int = self.server.getsockname()[1]
        self.lines: dict[int, socket.socket] = {}
        self.hosts: dict[int, str] = {}
        self.last: dict[int, str] = {}
        self.gone: list[int] = []

    def gather(self) -> None:
        """Wait until all are connected, then listen to them.

        Raises:
            OSError: when one is missing for too long.
        """
        self.server.settimeout(MEETING)
        while len(self.lines) < self.others:
            line, _ = self.server.accept()
            line.settimeout(MEETING)
            with suppress(ValueError, KeyError, TypeError):  # who knows no key is none of us
                if (hello := Ear(line).word()) and hello["key"] == self.key:
                    self.hosts[hello["rank"]], self.lines[hello["rank"]] = hello["host"], lasting(line)
        self.server.close()
        threading.Thread(target=self._listen, name="hub", daemon=True).start()

    def tell(self, **word: Any) -> None:
        """Tell everyone."""
        for line in self.lines.values():
            say(line, **word)

    @property
    def dead(self) -> str | None:
        """What is known of the first that is gone."""
        if not self.gone:
            return None
        rank = self.gone[0]
        return f"the process of rank {rank} ({self.hosts[rank]}) died" + (
            f": {self.last[rank]}" if rank in self.last else ""
        )

    def _listen(self) -> None:
        with selectors.DefaultSelector() as ready:
            for rank, line in self.lines.items():
                ready.register(line, selectors.EVENT_READ, (rank, Ear(line)))
            while ready.get_map():
                for key, _ in ready.select():
                    rank, ear = key.data
                    if (words := ear.heard()) is None:
                        ready.unregister(key.fileobj)
                        self.gone.append(rank)
                    for word in words or ():
                        self.last[rank] = word["last"]


def join(host: str, port: int, key: str, rank: int) -> socket.socket:
    """Another process's end.

    Raises:
        MachineError: when the first one cannot be reached.
    """
    try:
        line = lasting(socket.create_connection((host, port), timeout=60))
    except OSError as error:
        told = f"rank {rank} ({socket.gethostname()}) cannot reach the first process at {host}:{port}"
        raise MachineError(f"{told} ({error.strerror or error}): nodes have to reach each other's ports") from error
    say(line, key=key, rank=rank, host=socket.gethostname())
    return line
