"""The loggers of a config: one node, or several by name, and logger.KEY for a key of those that take it."""

from collections.abc import Mapping
from typing import Any

from scorelab.config.refusals import nearest
from scorelab.errors import UserError


def named_nodes(loggers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The loggers that have a name each; none where a class stands in place of all that files name."""
    if "_target_" in loggers:
        return {}
    return {name: value for name, value in loggers.items() if isinstance(value, dict) and "_target_" in value}


def logger_keys(loggers: Mapping[str, Any], takes: Mapping[str, set[str]], given: Mapping[str, str]) -> dict[str, Any]:
    """The loggers with what was typed as logger.KEY in the nodes of those that take it.

    ``takes`` are the arguments of each named one, ``given`` those that the program sets, and what does instead.

    Raises:
        UserError: for a key that none of them takes.
    """
    if "_target_" in loggers:
        every = {name: value for name, value in loggers.items() if not isinstance(value, dict)}
        return every | {name: value for name, value in loggers.items() if name not in every and "_target_" not in value}
    nodes = {name: dict(node) for name, node in named_nodes(loggers).items()}
    for key, value in loggers.items():
        if key in nodes or value is None:  # logger.NAME=null leaves one out
            continue
        if key in given:
            raise UserError(f"logger.{key} is set by the program: leave it out; {given[key]}")
        if not nodes:
            raise UserError(f"logger.{key}: no such entry; choose a logger that takes it: logger=wandb, tensorboard")
        wanted = [name for name in nodes if key in takes[name]]
        if not wanted:
            known = set().union(*takes.values()) - given.keys()
            raise UserError(f"logger.{key}: no such key{nearest(key, known)}")
        for name in wanted:
            nodes[name].setdefault(key, value)
    return nodes


def loggers_of(config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The nodes of a config's loggers, and where each stands."""
    loggers = config.get("logger") or {}
    if "_target_" in loggers:
        return [("logger", loggers)]
    return [(f"logger.{name}", node) for name, node in named_nodes(loggers).items()]
