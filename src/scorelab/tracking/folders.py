"""What lies in a run's wandb/: folders of jobs, which of them are uploaded, and how far the server is known to be."""

import json
from pathlib import Path
from typing import Any

from scorelab.files import write_json
from scorelab.tracking.projection import Ending


def offline_folders(directory: Path) -> list[Path]:
    """The folders of jobs without a network, in the order of time."""
    return sorted(directory.glob("wandb/offline-run-*-*"))


def was_online(directory: Path) -> bool:
    """Whether a job of this run has sent rows itself."""
    return any(directory.glob("wandb/run-*-*"))


def synced(folder: Path) -> bool:
    """Whether wandb's own mark says that a folder is uploaded."""
    return any(folder.glob("*.wandb.synced"))


def mark(folder: Path) -> None:
    """Say that all in a folder is on the server, so that nobody uploads it again."""
    for log in folder.glob("run-*.wandb"):
        log.with_name(f"{log.name}.synced").touch()


class Known:
    """How many rows the server has, by its own word, and whether that is all there is: ``wandb/uploaded.json``."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path = directory, directory / "wandb" / "uploaded.json"

    @property
    def rows(self) -> int | None:
        """How many rows; None where it is not known."""
        return self._read().get("rows")

    @property
    def whole(self) -> bool:
        """Whether nothing has come since."""
        return self._read().get("state") == self._state()

    def write(self, rows: int) -> None:
        """Note that the server has these rows, which are all."""
        write_json(self.path, {"rows": rows, "state": self._state()})

    def forget(self) -> None:
        """Something is about to be sent."""
        self.path.unlink(missing_ok=True)

    def _state(self) -> list[int]:
        try:
            size = (self.directory / "metrics.csv").stat().st_size
        except OSError:
            size = 0
        return [size, int(Ending.of(self.directory).finished)]

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}
