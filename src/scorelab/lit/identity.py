"""What a run is: the keys that say so, and whether two configurations say the same."""

from collections.abc import Mapping
from typing import Any

from scorelab.lit.build import sized
from scorelab.lit.config import UserError, with_defaults

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


def key_of(override: str) -> str:
    """The key of key=value."""
    return override.partition("=")[0].lstrip("+~")


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
    filled = with_defaults(config)
    try:
        return sized(filled)
    except (UserError, KeyError, TypeError):  # of another version, or damaged: what is there still tells
        return filled


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
