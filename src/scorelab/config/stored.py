"""A stored run, taken up again: its own configuration, with the overrides that may change it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from scorelab.config.build import build_denoiser, sized
from scorelab.config.check import GIVEN, checked, defaults_of, target_of
from scorelab.config.refusals import called
from scorelab.data.module import DataModule
from scorelab.denoisers import Denoiser
from scorelab.errors import UserError, short_of_memory
from scorelab.lit.module import DiffusionModule
from scorelab.lit.weights import evaluated_weights, load_evaluated, load_state
from scorelab.run.checkpoints import NAMES, newest_checkpoint, read_checkpoint
from scorelab.run.identity import STORED, key_of, read_config

Module = TypeVar("Module", bound=nn.Module)
DENOISER = ("data", "schedule", "prediction", "variance", "model")  # what a trained denoiser is made of


def slug(overrides: list[str]) -> str:
    """Ten hex digits that name a set of overrides, whatever their order."""
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:10]


def refuse_training_keys(overrides: Sequence[str], allowed: tuple[str, ...]) -> None:
    """Refuse overrides that would make another run of a stored one.

    Raises:
        UserError: for a key of another node than those allowed.
    """
    for key in map(key_of, overrides):
        if not any(key == each or key.startswith(f"{each}.") for each in allowed):
            raise UserError(f"{key} is fixed in a stored run; possible: {', '.join(allowed)}")


def run_directory(word: str, directory: str) -> Path:
    """The directory of a stored run; ``word`` is the key it was typed under.

    Raises:
        UserError: when it is none.
    """
    path = Path(directory)
    if not path.is_dir():
        what = "a file; the run's directory is needed" if path.exists() else "no such directory"
        raise UserError(f"{word}={directory}: {what}")
    if not (path / "config.yaml").exists():
        raise UserError(f"{word}={directory}: not a run's directory (it holds no config.yaml)")
    return path


def checkpoint_of(word: str, path: Path, name: str) -> Path:
    """The file of a run's checkpoint; ``word`` is the key the run was typed under.

    Raises:
        UserError: when the run has none of that name: with those it has.
    """
    held = [each for each in NAMES if (path / "checkpoints" / f"{each}.ckpt").exists()]
    if not held:
        raise UserError(f"{word}={path}: holds no checkpoint; train it first")
    if name not in held:
        raise UserError(f"checkpoint={name}: {path} has no such checkpoint; possible: {', '.join(held)}")
    return path / "checkpoints" / f"{name}.ckpt"


@dataclass(frozen=True)
class Changes:
    """What a stored run is to be taken up with: the overrides of its nodes, and these nodes as Hydra composed them.

    Args:
        overrides: group=choice, which replaces the node, or group.key=value.
        composed: the nodes under these overrides, unchecked.
        allowed: the nodes that may be changed.

    Raises:
        UserError: for a key of another node.
    """

    overrides: Sequence[str] = ()
    composed: dict[str, Any] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_training_keys(self.overrides, self.allowed)


def load_run(path: Path, used: tuple[str, ...], changes: Changes | None = None) -> dict[str, Any]:
    """A run's own stored config, with changes; the nodes ``used`` are checked, the others not even looked at.

    There is no budget for evaluation, unless the changes say so.

    Raises:
        UserError: when the file is damaged or of another version, or for a key that its node does not take.
    """
    file, changes = path / "config.yaml", changes or Changes()
    config = read_config(file, STORED)
    keys = [key_of(override) for override in changes.overrides]
    for group in used:
        if group in keys:
            config[group] = checked(changes.composed[group], group)
            continue
        config[group] = _own(config, group, file, group in changes.allowed)
        if group == "evaluation":
            config[group]["budget"] = None
        if mine := [key for key in keys if key.startswith(f"{group}.")]:
            config[group] = checked(_set(config[group], mine, changes.composed[group]), group)
    config["seed"] = _own(config, "seed", file, False)
    return sized(config)


def _own(config: dict[str, Any], group: str, file: Path, replaceable: bool) -> Any:
    """One entry of a stored config, checked.

    Raises:
        UserError: when it is not there, or of another version of this program.
    """
    if group == "metrics" and group not in config:  # metrics=[] leaves no key
        return {}
    if group not in config:
        raise UserError(f"{file} is damaged, it says nothing of {group}: {STORED}")
    value = config[group]
    if group != "seed" and not isinstance(value, dict):
        raise UserError(f"{file} is damaged, its {group} is {value!r}: {STORED}")
    if isinstance(value, dict) and "_target_" not in value and group not in ("metrics", "extractor"):
        raise UserError(f"{file} is damaged, its {group} names no class: {STORED}")
    try:
        return checked(value, group)
    except UserError as error:
        told = f"{file} is of another version of scorelab: {error}"
        raise UserError(f"{told}; {group}= chooses anew" if replaceable else told) from error


def _set(node: dict[str, Any], keys: list[str], source: dict[str, Any]) -> dict[str, Any]:
    """A node with values from another under the same dotted keys; another class begins without the old one's keys."""
    changed = dict(node)
    for key in sorted(keys, key=lambda key: not key.endswith("._target_")):
        inner, value = changed, source
        *way, last = key.split(".")[1:]
        for name in way:
            inner[name] = dict(inner[name]) if isinstance(inner.get(name), dict) else {}
            inner, value = inner[name], value[name]
        if last == "_target_":
            inner.clear()
        inner[last] = value[last]
    return changed


def on_its_device(module: Module, device: str | None = None) -> Module:
    """On a device; where none is named, on the GPU if there is one.

    Raises:
        UserError: for a device that there is not.
    """
    try:
        return module.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        if device is None or short_of_memory(error):
            raise
        raise UserError(f"device={device}: {str(error).splitlines()[0]}") from error


def trained_denoiser(config: dict[str, Any], data: DataModule, checkpoint: Path, device: str | None = None) -> Denoiser:
    """The denoiser to evaluate of a stored run."""
    denoiser = build_denoiser(config, data)
    load_evaluated(denoiser, checkpoint)
    return on_its_device(denoiser, device)


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


def start_from(module: DiffusionModule, run: Path, prediction: dict[str, Any]) -> None:
    """Give the network the evaluated weights of another run's newest whole checkpoint: averaged ones where it has some.

    Schedule, loss and optimiser are this run's own; what the network predicts has to be the same.

    Raises:
        UserError: when there is no such run, or its network is another or predicts something else.
    """
    if not run.is_dir():
        raise UserError(f"init_from={run}: no such directory")
    found = newest_checkpoint(run / "checkpoints", "train that run anew, or begin without it")
    if found is None or not (run / "config.yaml").exists():
        raise UserError(f"init_from={run}: holds no run with a checkpoint")
    its = read_config(run / "config.yaml", STORED).get("prediction")
    if not isinstance(its, dict) or "_target_" not in its:
        raise UserError(f"{run / 'config.yaml'} is damaged, it names no prediction: {STORED}")
    if its["_target_"] != prediction["_target_"]:
        raise UserError(
            f"init_from={run}: its network was trained with another prediction: set {called('prediction', its)}"
        )
    evaluated = evaluated_weights(read_checkpoint(found.path)["state_dict"])
    weights = {key.removeprefix("network."): value for key, value in evaluated.items() if key.startswith("network.")}
    network: Any = module.denoiser.network
    load_state(network, weights, found.path)
    module.remember_origin(str(run), found.step)
