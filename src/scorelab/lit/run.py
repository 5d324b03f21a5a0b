"""A run's directory: who it is, whether it is finished, and that one job at a time works in it."""

import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
import socket
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import yaml

from scorelab.lit.config import UserError
from scorelab.report.status import write_json, write_status

MACHINE = (
    "run",
    "name",
    "best_of",
    "overwrite",
    "debug",
    "logger",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "callbacks.log",
    "callbacks.heartbeat",
)
BEFORE = ("lock", "train.log")  # what stands in a directory before its run has begun
PACKAGES = ("scorelab", "torch", "lightning", "hydra-core", "torch-fidelity", "torchmetrics", "wandb")


def dotted(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested config as {a.b.c: value}."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {k: v for key, inner in config.items() for k, v in dotted(inner, f"{prefix}.{key}".lstrip(".")).items()}


def first_difference(stored: dict[str, Any], present: dict[str, Any]) -> str | None:
    """The first key in which two configs differ, with both values; keys of the machine aside."""
    old, new = dotted(stored), dotted(present)
    for key in (*new, *old):
        if key.startswith(MACHINE):
            continue
        before, now = old.get(key, "nothing"), new.get(key, "nothing")
        if before != now:
            return f"{key} was {before}, is now {now}"
    return None


@dataclass
class RunDir:
    """A run's directory, locked while this object lives.

    ``finished`` and ``resumable`` say what an earlier job left in it.
    """

    path: Path
    started: float = field(default_factory=time.time)
    _lock: IO[str] | None = None

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.last.exists()

    @property
    def finished(self) -> bool:
        """Whether metrics.json says so."""
        return self.verdict().get("status") == "finished"

    def verdict(self) -> dict[str, Any]:
        """metrics.json; empty where there is none.

        Raises:
            UserError: when it is no JSON.
        """
        file = self.path / "metrics.json"
        try:
            return json.loads(file.read_text()) if file.exists() else {}
        except json.JSONDecodeError as error:
            raise UserError(
                f"{shown(file)} is damaged ({error.msg}): remove it, and the run is judged again"
            ) from error

    def lock(self) -> None:
        """Take the directory for this process; the kernel gives it back however the process ends.

        Raises:
            UserError: when another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = (self.path / "lock").open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another job"
            raise UserError(
                f"run {shown(self.path)} is being worked on by {holder}: wait, or give this one another name"
            ) from None
        self._lock = file
        file.truncate(0)
        file.write(f"{socket.gethostname()}, pid {os.getpid()}, since {time.strftime('%F %T')}")
        file.flush()

    def check(self, config: dict[str, Any]) -> None:
        """See that the directory is new, or left by a job of the very same config.

        Raises:
            UserError: when it holds a run of another config.
        """
        file = self.path / "config.yaml"
        if not file.exists() and (self.resumable or self.verdict()):
            told = f"run {shown(self.path)} holds a run but no config.yaml to compare with"
            raise UserError(f"{told}; choose another run=, or overwrite=true")
        if file.exists() and (difference := first_difference(yaml.safe_load(file.read_text()), config)):
            told = f"run {shown(self.path)} has another configuration: {difference}"
            raise UserError(f"{told}; choose another run=, or overwrite=true")

    def clear(self) -> None:
        """Remove all that an earlier run left."""
        for old in self.path.iterdir():
            if old.name not in BEFORE:
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def discard(self) -> None:
        """Remove the directory of a run that was refused before it began, where no other job has taken it."""
        try:
            if self._lock is None and self.path.is_dir():
                self.lock()
        except UserError:
            return
        if self.path.is_dir() and {file.name for file in self.path.iterdir()} <= set(BEFORE):
            shutil.rmtree(self.path)

    def claim(self, config: dict[str, Any]) -> None:
        """Write the config that this run is now known by."""
        file = self.path / "config.yaml"
        part = file.with_suffix(".part")
        part.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        part.replace(file)

    def close(
        self,
        status: str,
        config: dict[str, Any],
        metrics: dict[str, float | None] | None = None,
        records: dict[str, Any] | None = None,
        step: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Write metrics.json and status.json; ``reason`` is why a run failed."""
        content = {
            "status": status,
            **({} if reason is None else {"reason": reason}),
            "metrics": plain(metrics or {}),
            "records": plain(records or {}),
            "config": config,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "seconds": round(time.time() - self.started, 1),
        }
        write_json(self.path / "metrics.json", content)
        write_status(self.path, status, step)


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def plain(value: Any) -> Any:
    """For JSON, which has no NaN and no infinity: None there."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def slug(overrides: list[str]) -> str:
    """Ten hex digits that name a set of overrides, whatever their order."""
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:10]


def refuse_training_keys(overrides: list[str], allowed: tuple[str, ...]) -> None:
    """Refuse overrides that would make another run of a stored one.

    Raises:
        UserError: for a key of another group than those allowed.
    """
    for key in (override.lstrip("+~").partition("=")[0] for override in overrides):
        if key.partition(".")[0] not in allowed:
            raise UserError(f"{key} belongs to training and is fixed in a stored run; possible: {', '.join(allowed)}")


def load_run(directory: str, overrides: list[str], composed: dict[str, Any]) -> dict[str, Any]:
    """A run's own stored config, with no budget for judging, and with overrides.

    ``group=choice`` takes that node from ``composed``, a dotted key sets a key.

    Raises:
        UserError: when the directory is no run, or holds no checkpoint.
    """
    path = Path(directory)
    if not path.is_dir():
        raise UserError(f"run={directory}: no such directory")
    if not (path / "config.yaml").is_file():
        raise UserError(f"run={directory}: not a run's directory (it holds no config.yaml)")
    if not (path / "checkpoints" / "last.ckpt").is_file():
        raise UserError(f"run={directory}: holds no checkpoint; train it first")
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["metric"]["budget"] = None
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    for key in keys:
        group, _, rest = key.partition(".")
        if group in keys:
            config[group] = composed[group]
            continue
        node, source = config[group], composed[group]
        *way, last = rest.split(".")
        for name in way:
            node, source = node[name], source[name]
        node[last] = source[last]
    return config
