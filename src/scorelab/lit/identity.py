"""What a run is: the keys that say so, and whether two configurations say the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scorelab.errors import UserError
from scorelab.lit.build import sized
from scorelab.lit.checkpoints import ANEW
from scorelab.lit.config import GIVEN, defaults_of, target_of

MACHINE = (  # tests/test_identity.py sees of each that it changes no figure
    "run",
    "name",
    "best_of",
    "overwrite",
    "debug",
    "logger",
    "trainer.accelerator",  # another device may round otherwise
    "trainer.strategy",
    "data.workers",
    "callbacks.validation.chunk",
    "callbacks.grid.chunk",
    "metric.chunk",
    "callbacks.log",
    "callbacks.keep",
    "sweep",  # these two are words of a command line and in no config
    "hydra",
)
STORED = "put back a whole one; metrics.json of a finished run holds the same config"  # where another run is damaged


def read_config(file: Path, advice: str = ANEW) -> dict[str, Any]:
    """A run's config.yaml.

    Raises:
        UserError: when it is none, with what helps.
    """
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {advice}") from error
    if config is None:
        raise UserError(f"{file} is empty: {advice}")
    if not isinstance(config, dict) or not _named(config):
        raise UserError(f"{file} is damaged: {advice}")
    return config


def _named(value: Any) -> bool:
    """Whether all keys are words."""
    return not isinstance(value, dict) or all(isinstance(k, str) and _named(each) for k, each in value.items())


def is_machine(key: str) -> bool:
    """Whether a whole key, or the node it belongs to, is no part of what a run is.

    Of an override too, where it may be group/name or group@package.
    """
    return any(key == each or key.startswith((f"{each}.", f"{each}/", f"{each}@")) for each in MACHINE)


def dotted(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested config as {a.b.c: value}."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {k: v for key, inner in config.items() for k, v in dotted(inner, f"{prefix}.{key}".lstrip(".")).items()}


def of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A stored config with what today's classes would add to it, as far as they can be found."""
    filled = {key: _filled(value, key, set(GIVEN.get(key, {}))) for key, value in config.items()}
    try:
        return sized(filled)
    except (UserError, KeyError, TypeError):  # of another version, or damaged: what is there still tells
        return filled


def _filled(value: Any, path: str, given: set[str]) -> Any:
    """A stored node with the defaults of its class of today; as it is where there is no such class."""
    if not isinstance(value, dict):
        return value
    inner = {key: _filled(each, f"{path}.{key}", set()) for key, each in value.items()}
    if "_target_" not in value:
        return inner
    try:
        defaults = defaults_of(target_of(value, path))
    except UserError:
        return inner
    return {key: each for key, each in defaults.items() if key not in given} | inner


def first_difference(stored: dict[str, Any], present: Mapping[str, Any]) -> str | None:
    """The first key in which two configs differ, with both values; keys of the machine aside.

    A class may have gained an argument since: a key that was not there counts as its default. One that the class has
    lost is a difference, for what it did is not known any more.
    """
    old, new = dotted(of_today(stored)), dotted(present)
    for key in (*new, *old):
        before, now = old.get(key, "nothing"), new.get(key, "nothing")
        if before != now and not is_machine(key) and not _off(key, before, now):
            return f"{key} was {before}, is now {now}"
    return None


def _off(key: str, before: Any, now: Any) -> bool:
    """Whether a key of no class is there on one side alone, and switched off: then it says nothing."""
    return (
        "." not in key and "nothing" in (before, now) and any(each is None or each is False for each in (before, now))
    )
