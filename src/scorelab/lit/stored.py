"""A stored run, taken up again: its own configuration, with the overrides that may change it."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from scorelab.lit.config import UserError


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
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
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
