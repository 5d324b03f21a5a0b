"""What a run is: the keys that say so, and whether two configurations say the same."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scorelab.errors import UserError

MACHINE = (  # tests/test_identity.py sees of each that it changes no figure
    "run",
    "name",
    "best_of",
    "overwrite",
    "debug",
    "detach",
    "optimized_metric",
    "logger",
    "threads",  # another number may round otherwise, as
    "compile",  # compiled code and
    "trainer.accelerator",  # another device may
    "trainer.strategy",
    "data.workers",
    *(f"data.{inner}{key}" for inner in ("", "source.") for key in ("cache", "cache_gb", "resident_mb")),
    "callbacks.validation.chunk",
    "callbacks.grid.chunk",
    "evaluation.chunk",
    "callbacks.log",
    "callbacks.keep",
    "sweep",  # these two are words of a command line and in no config
    "hydra",
)
ANEW = "overwrite=true starts anew"  # what helps where a run's own directory is damaged
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


@cache
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


def first_difference(stored: dict[str, Any], present: Mapping[str, Any]) -> str | None:
    """The first key in which two configs differ, with both values; keys of the machine aside.

    A stored one has to be filled in with what its classes have gained since: what they have lost is a difference, for
    what it did is not known any more.
    """
    old, new = dotted(stored), dotted(present)
    for key in (*new, *old):
        before, now = old.get(key, "nothing"), new.get(key, "nothing")
        if before != now and not (is_machine(key) or _off(key, before, now) or _one_of_many(key, old, new)):
            return f"{key} was {before}, is now {now}"
    return None


def _off(key: str, before: Any, now: Any) -> bool:
    """Whether a key of no class is there on one side alone, and switched off: then it says nothing."""
    return (
        "." not in key and "nothing" in (before, now) and any(each is None or each is False for each in (before, now))
    )


def _one_of_many(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a key is of a node within a yardstick (metrics.objectives.dsm) that one side does not have at all.

    There is one for every choice of a group: a choice that the program has gained since makes no other run.
    """
    group, *way = key.split(".")
    node = ".".join((group, *way[:2]))
    return group == "metrics" and len(way) > 2 and (f"{node}._target_" in old) != (f"{node}._target_" in new)


def key_of(word: str) -> str:
    """The key of key=value."""
    return word.partition("=")[0].lstrip("+~")
