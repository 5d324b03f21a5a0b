"""The choices of a group as its files have them, and which of them a node is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scorelab.errors import UserError


def choices(group: str, folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The nodes of a group by name, in the order of their names; of two of one name the earlier folder's counts.

    What a choice brings of other groups (its ``defaults``) is not of the node; another choice of its own group, which
    it starts from, is.

    Raises:
        UserError: for a file that is no YAML.
    """
    files = {file.stem: file for folder in reversed(folders) for file in (folder / group).glob("*.yaml")}
    return {name: node for name in sorted(files) if (node := _node(files[name], files))}


def _node(file: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    try:
        own = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(own, dict):  # a draft, which nobody has chosen
        return {}
    begins = [each for each in own.pop("defaults", []) if isinstance(each, str) and each in files and each != file.stem]
    node: dict[str, Any] = {}
    for each in begins:
        node |= _node(files[each], files)
    return node | own


def called(group: str, node: Mapping[str, Any], folders: Sequence[Path]) -> str:
    """A node by the choice that is most like it: loss=vlb. By its class where no choice of its group names that."""
    name = most_like(choices(group, folders), node)
    return f"{group}._target_={node['_target_']}" if name is None else f"{group}={name}"


def most_like(known: Mapping[str, Mapping[str, Any]], node: Mapping[str, Any]) -> str | None:
    """The choice of a node's class that agrees with it in most; None where none is of its class."""
    likeness = {name: _likeness(own, node) for name, own in known.items() if own.get("_target_") == node["_target_"]}
    return max(likeness, key=lambda name: likeness[name], default=None)


def _likeness(own: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    """How many of a choice's values a node has, less those that it has not; nodes in it by all that they name."""
    return sum(
        _likeness(value, node[key])
        if isinstance(value, dict) and isinstance(node.get(key), dict)
        else 1
        if node.get(key) == value
        else -1
        for key, value in own.items()
    )


class Choices:
    """What nodes are called, by the files of these folders; each node is looked up once.

    ``choices("loss", node)`` is the name of the choice that the node is, or that of its class where it is none.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.files: dict[str, dict[str, dict[str, Any]]] = {}
        self.known: dict[str, str] = {}

    def __call__(self, group: str, node: Mapping[str, Any]) -> str:
        """A node's name."""
        key = json.dumps([group, node], sort_keys=True, default=str)
        if key not in self.known:
            if group not in self.files:
                self.files[group] = choices(group, self.folders)
            self.known[key] = most_like(self.files[group], node) or str(node["_target_"]).rpartition(".")[2]
        return self.known[key]
