"""Choices where Hydra is at work: from which folders, which of them ran, and nodes that hold all of a group."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scorelab.config.groups import choices

KEY = "_choices_"  # what stands in a node for every choice of a group


def file_folders(hydra: Any) -> list[Path]:
    """The directories that Hydra composes from, by its own node: the program's first, then the user's."""
    return [Path(each.path) for each in hydra.runtime.config_sources if each.schema == "file"]


def folders_at_work() -> list[Path]:
    """Where the command at work has its choices from; none where Hydra is not at work."""
    if HydraConfig.initialized():
        return file_folders(HydraConfig.get())
    if not GlobalHydra.instance().is_initialized():
        return []
    sources = GlobalHydra.instance().config_loader().get_sources()
    return [Path(each.path) for each in sources if each.scheme() == "file"]


def with_choices(cfg: DictConfig, folders: Sequence[Path]) -> DictConfig:
    """The config, ``_choices_: {group: G, first: [...]}`` replaced by every choice of G, those named first in order.

    What the node says of a name itself remains: null leaves the choice out, keys without a ``_target_`` are added to
    those of the choice, another ``_target_`` takes its place.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    filled = _filled(plain, folders)
    return cfg if filled == plain else OmegaConf.create(filled)


def _filled(value: Any, folders: Sequence[Path]) -> Any:
    if not isinstance(value, dict):
        return value
    own = {key: _filled(each, folders) for key, each in value.items()}
    if KEY not in own:
        return own
    asked = own.pop(KEY)
    known = choices(asked["group"], folders)
    order = dict.fromkeys([*(name for name in asked["first"] if name in known), *known])
    every = {name: _merged(known[name], own.pop(name)) if name in own else known[name] for name in order}
    return own | every


def _merged(choice: dict[str, Any], given: Any) -> Any:
    whole = not isinstance(given, dict) or "_target_" in given
    return given if whole else choice | given


def that_ran(config: Mapping[str, Any], chosen: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """The choices whose classes are those of the config; where another was typed, the choice's name says nothing."""
    known = {group: choices(group, folders).get(str(choice)) for group, choice in chosen.items() if group in config}
    return {
        group: str(chosen[group]) for group, node in known.items() if node is None or _same_classes(node, config[group])
    }


def _same_classes(node: Any, made: Any) -> bool:
    """Whether each class that a choice's file names is the one that stands at its place."""
    if not isinstance(node, dict):
        return True
    if not isinstance(made, dict) or node.get("_target_", made.get("_target_")) != made.get("_target_"):
        return False
    return all(_same_classes(inner, made.get(key)) for key, inner in node.items() if key != "_target_")
