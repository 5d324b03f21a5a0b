"""A run's directory: who it is, whether it is finished, and that one job at a time works in it."""

import json
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from scorelab.errors import UserError
from scorelab.files import display_path, plain, remove_temporary, write_json, write_text
from scorelab.run.checkpoints import Newest, newest_checkpoint
from scorelab.run.identity import first_difference, read_config
from scorelab.run.lock import Lock
from scorelab.run.status import Status, read_status, write_status

AVERAGES = "averages"  # the folder of snapshots from which averages of other lengths are made
BEFORE = ("lock", "train.log")  # what stands in a directory before its run has begun
CLEARED = {"metrics.json": -1, "config.yaml": 1}  # which go first and last
PACKAGES = ("scorelab", "torch", "lightning", "hydra-core", "torch-fidelity", "torchmetrics", "wandb")


@dataclass
class RunDir:
    """A run's directory, locked while this object lives.

    ``finished`` says what an earlier job left in it, ``left_by`` how that job ended.
    """

    path: Path
    started: float = field(default_factory=time.time)
    left_by: Status | None = None
    _lock: Lock = field(init=False)

    def __post_init__(self) -> None:
        self._lock = Lock(self.path)

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def seconds(self) -> float:
        """What the run has taken so far, all its jobs together."""
        return (self.left_by.seconds if self.left_by else 0) + time.time() - self.started

    @property
    def finished(self) -> bool:
        """Whether metrics.json says so."""
        return self.results().get("status") == "finished"

    def results(self) -> dict[str, Any]:
        """metrics.json; empty where there is none.

        Raises:
            UserError: when it is not what ``close`` writes.
        """
        file = self.path / "metrics.json"
        if not file.exists():
            return {}
        told = f"{display_path(file)} is damaged"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:  # no JSON, or no text
            raise UserError(f"{told} ({error}): remove it, and the run is evaluated again") from error
        if not isinstance(content, dict) or not {"metrics", "records", "config"} <= content.keys():
            raise UserError(f"{told}: remove it, and the run is evaluated again")
        return content

    def lock(self) -> None:
        """Take the directory for this process, and learn how an earlier job left it.

        Raises:
            UserError: when another process has it.
        """
        self._lock.take()
        self.left_by = read_status(self.path)

    def release(self) -> None:
        """Give the directory back."""
        self._lock.release()

    @property
    def untouched(self) -> bool:
        """Whether no run has begun there."""
        return {file.name for file in self.path.iterdir()} <= set(BEFORE)

    def check(self, config: dict[str, Any], of_today: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """See that the directory is new, or left by a job of the very same config.

        ``of_today`` fills in a stored config with what its classes have gained since.

        Raises:
            UserError: when it holds a run of another config.
        """
        file = self.path / "config.yaml"
        begun = self.results() or (self.checkpoints.is_dir() and any(self.checkpoints.glob("*.ckpt")))
        if not file.exists() and begun:
            told = f"run {display_path(self.path)} holds a run but no config.yaml to compare with"
            raise UserError(f"{told}; choose another run=, or overwrite=true")
        if file.exists() and (difference := first_difference(of_today(read_config(file)), config)):
            told = f"run {display_path(self.path)} has another configuration: {difference}"
            raise UserError(f"{told}; choose another run=, or overwrite=true")

    def newest(self) -> Newest | None:
        """The checkpoint to go on from, where there is one."""
        return newest_checkpoint(self.checkpoints)

    def clear(self) -> None:
        """Remove all that an earlier run left: first that it is finished, last what it was."""
        self.left_by = None
        for old in sorted(self.path.iterdir(), key=lambda old: CLEARED.get(old.name, 0)):
            if old.name not in BEFORE:
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()

    def discard(self) -> None:
        """Remove the directory of a run that was refused before it began, where no other job has taken it."""
        try:
            if not self._lock.taken and self.path.is_dir():
                self.lock()
        except (UserError, OSError):
            return
        if self.path.is_dir() and self.untouched:
            shutil.rmtree(self.path, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a killed job left half-written."""
        for folder in (self.path, self.checkpoints, self.path / "samples", self.path / AVERAGES):
            remove_temporary(folder)
        for folder in (*self.path.glob("eval/*"), *self.path.glob("sample/*")):  # where other entries may be at work
            remove_temporary(folder, shared=True)

    def finish(self) -> dict[str, Any]:
        """The results of a finished run, made good what a kill between it and the last status left."""
        results = self.results()
        if self.left_by is None or self.left_by.state != "finished":
            self.tidy()
            write_status(
                self.path, "finished", results["records"].get("training", {}).get("steps"), None, results["seconds"]
            )
        return results

    def claim(self, config: dict[str, Any]) -> None:
        """Write the config that this run is now known by."""
        self.tidy()
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def close(
        self,
        status: str,
        config: dict[str, Any],
        metrics: dict[str, float | None] | None = None,
        records: dict[str, Any] | None = None,
        step: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Write metrics.json and status.json; ``reason`` is why a run failed.

        Raises:
            OSError: when metrics.json cannot be written. The status is failed then, if it was to be finished.
        """
        content = {
            "status": status,
            **({} if reason is None else {"reason": reason}),
            **({"time_limited": True} if config.get("trainer", {}).get("max_time") else {}),
            "metrics": plain(metrics or {}),
            "records": plain(records or {}),
            "config": config,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "seconds": round(self.seconds, 1),
        }
        try:
            write_json(self.path / "metrics.json", content)
        except OSError as error:
            self.say("failed" if status == "finished" else status, step, reason=reason or str(error))
            raise
        self.say(status, step, reason=reason)

    def refused(self, reason: str) -> None:
        """Say why a job has failed, as it was told, also one that never began; not where another job is at work."""
        try:
            self.lock()
        except UserError:
            return
        before = self.left_by
        if before is None or before.state != "finished":
            self.started = time.time()
            self.say("failed", before.step if before else None, reason=reason)
        self.release()

    def say(self, state: str, step: int | None, it_per_s: float | None = None, reason: str | None = None) -> None:
        """Write status.json, if it can be: a run does not end because it cannot say how it does."""
        with suppress(OSError):
            write_status(self.path, state, step, it_per_s, self.seconds, reason)


def first_free(path: Path) -> RunDir:
    """The directory, or the first with -2, -3 ... added that holds nothing and that no other job has; locked."""
    for number in count(1):
        run = RunDir(path if number == 1 else path.with_name(f"{path.name}-{number}"))
        try:
            run.lock()
        except UserError:
            continue
        if run.untouched:
            return run
        run.release()
    raise AssertionError("numbers do not end")
