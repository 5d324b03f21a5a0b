"""A W&B folder as files: which are not uploaded yet, and the records of a .wandb file, read and written.

A .wandb file is a LevelDB log: blocks of 32 KiB, in which each part of a record has a checksum, a length and a kind.
wandb-core alone writes them, and what a killed one left ends in the middle of a record.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 32768
FILE = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
PART = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class Folder:
    """What one job left in a run's wandb/: ``offline-run-TIME-ID`` or ``run-TIME-ID``."""

    path: Path

    @property
    def log(self) -> Path:
        """Its .wandb file."""
        return self.path / f"run-{self.id}.wandb"

    @property
    def id(self) -> str:
        """The W&B run's id."""
        return self.path.name.removeprefix("offline-").split("-", 2)[2]

    @property
    def uploaded(self) -> bool:
        """Whether wandb's own mark stands beside the .wandb file."""
        return self._mark.exists()

    def mark(self) -> None:
        """Say that all of it is on the server."""
        self._mark.touch()

    @property
    def complaints(self) -> list[str]:
        """What wandb-core called an error: what it says of uploads elsewhere, its exit status too, is all well."""
        return errors(self.path / "logs" / "debug-internal.log")

    @property
    def rows(self) -> int:
        """How many rows of history are whole in the .wandb file."""
        try:
            return sum(record.WhichOneof("record_type") == "history" for record in records(self.log))
        except OSError:
            return 0

    @property
    def _mark(self) -> Path:
        return self.log.with_name(f"{self.log.name}.synced")


def folders(run: Path) -> list[Folder]:
    """The folders of a run's directory that hold records, in the order of time (which their names tell)."""
    found = [*run.glob("wandb/run-*-*"), *run.glob("wandb/offline-run-*-*")]
    return sorted((Folder(path) for path in found if Folder(path).log.is_file()), key=_order)


def _order(folder: Folder) -> tuple[str, bool]:
    # within one second a job can only have gone offline after it was online
    name = folder.path.name
    return name.removeprefix("offline-"), name.startswith("offline-")


def errors(log: Path) -> list[str]:
    """What a wandb-core log calls errors; its last line may be cut where no room was left."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if '"level":"ERROR' in line]
    except OSError:
        return []
    return [line.partition('"msg":"')[2].partition('"')[0][:160] for line in lines]


def records(log: Path) -> Iterator[Any]:
    """The records of a .wandb file, as far as they are whole."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data = log.read_bytes()
    place, parts = len(FILE), b""
    while place + PART.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < PART.size:  # the rest of a block, where no part fits
            place += left
            continue
        checksum, length, kind = PART.unpack_from(data, place)
        part = data[place + PART.size : place + PART.size + length]
        if not WHOLE <= kind <= LAST or len(part) < length or _checksum(part, kind) != checksum:
            return
        place += PART.size + length
        parts = part if kind in (WHOLE, FIRST) else parts + part
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)


def write(log: Path, content: Iterable[Any]) -> None:
    """A .wandb file of these records."""
    data = bytearray(FILE)
    for record in content:
        rest, kinds = record.SerializeToString(), (WHOLE, FIRST)
        while True:
            left = BLOCK - len(data) % BLOCK
            if left < PART.size:
                data += bytes(left)
                continue
            part, rest = rest[: left - PART.size], rest[left - PART.size :]
            kind = kinds[bool(rest)]
            data += PART.pack(_checksum(part, kind), len(part), kind) + part
            kinds = (LAST, MIDDLE)
            if not rest:
                break
    log.write_bytes(data)


def _checksum(part: bytes, kind: int) -> int:
    return zlib.crc32(part, zlib.crc32(bytes([kind])))


def one_history(logs: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """The records of several jobs as if one had written them: it begins once and ends once, and time goes on."""
    passed = 0.0
    for number, log in enumerate(logs):
        seconds = [float(value(record, "_runtime") or 0) for record in log if record.HasField("history")]
        shift = passed if seconds and seconds[0] < passed else 0.0
        for record in log:
            kind = record.WhichOneof("record_type")
            if (kind in ("header", "run") and number > 0) or (kind == "exit" and number < len(logs) - 1):
                continue
            if kind == "history" and shift:
                set_value(record, "_runtime", float(value(record, "_runtime") or 0) + shift)
            yield record
        passed = max([passed, *(value + shift for value in seconds)])


def rest(merged: Iterable[Any], known: int, events: int) -> Iterator[Any]:
    """The records without the rows that the server has; steps and seconds from 0, as wandb shifts them itself."""
    seen, figures, passed = 0, 0, 0.0
    for record in merged:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            seen += 1
            if seen <= known:
                passed = float(value(record, "_runtime") or 0)
                continue
            set_value(record, "_step", seen - known - 1)
            record.history.step.num = seen - known - 1
            set_value(record, "_runtime", max(0.0, float(value(record, "_runtime") or 0) - passed))
        if kind == "stats":
            figures += 1
            if figures <= events:
                continue
        yield record


def value(record: Any, name: str) -> Any:
    """A number of a row of history; None where it has none of that name."""
    found = (item for item in record.history.item if name in (item.key, *item.nested_key))
    return next((json.loads(item.value_json) for item in found), None)


def set_value(record: Any, name: str, number: float) -> None:
    """Change a number of a row of history."""
    for item in record.history.item:
        if name in (item.key, *item.nested_key):
            item.value_json = json.dumps(number)
