"""Configs are executed, so every node is checked before it is: its target, its keys, its types.

A node's keys are its target's constructor arguments. YAML holds only what differs from their defaults;
``completed`` fills in the rest, so that a stored config is whole.
"""

import inspect
import typing
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scorelab.config.loggers import logger_keys, named_nodes
from scorelab.config.refusals import by_constructor, nearest, of_omegaconf, one_line
from scorelab.config.short import ShortKeys, has_source
from scorelab.config.values import TYPES, is_plain, typed, value_of_run
from scorelab.errors import Refusal, UserError

LENGTH = "a run's length is trainer.max_steps, or trainer.max_time"
LESS = "data.limit=N trains on fewer items, trainer.max_steps sets the length"
DATA = "data=... decides it"
GIVEN = {  # what the program wires or means itself, and what does what is wanted
    "model": {
        "shape": DATA,
        "classes": DATA,
        "outputs": "variance=... decides it",
        "schedule": "schedule=... decides it",
        "variance": "variance=... decides it",
        "law": DATA,
        "levels": DATA,
    },
    "data": {"seed": "seed=... decides it"},
    "timesteps": {"least": DATA},
    "optimizer": {"params": "model=... decides them"},
    "lr_schedule": {"optimizer": "optimizer=... decides it", "total_steps": "trainer.max_steps decides it"},
    "trainer": {
        "callbacks": "callbacks.NAME=null leaves one out",
        "logger": "logger=... decides it",
        "default_root_dir": "run=NAME names the directory",
        "plugins": "checkpoints are written by callbacks.keep",
        "enable_progress_bar": "callbacks.log.bar=false leaves the bar out",
        "enable_checkpointing": "checkpoints are written by callbacks.keep",
        "enable_model_summary": "the first line says how many weights there are",
        "num_sanity_val_steps": "callbacks.validation.every says when to validate",
        "use_distributed_sampler": "every process draws its own part of a batch",
        "log_every_n_steps": "callbacks.log.every says how often",
        "fast_dev_run": LENGTH,
        "max_epochs": LENGTH,
        "min_epochs": LENGTH,
        "min_steps": LENGTH,
        "overfit_batches": LESS,
        "limit_train_batches": LESS,
        "limit_val_batches": "callbacks.validation.every says when to validate, always on the whole split",
        "limit_test_batches": "evaluation.samples and evaluation.budget say how much is evaluated",
        "limit_predict_batches": "src/sample.py n=N draws samples",
    },
    "callbacks.keep": {
        "actions": "the other callbacks are",
        "guard": "callbacks.guard is",
        "logger": "logger=... decides it",
        "checkpoints": "they are written as it says",
    },
    "logger": {
        "directory": "run=NAME names the directory",
        "name": "run=NAME names the run",
        "config": "it is the run's own",
    },
}


@cache
def bases() -> dict[str, type]:
    """The class whose subclasses each group may name, and nodes inside its nodes; no function is on the list."""
    from lightning import Callback, LightningDataModule, Trainer
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from scorelab.data.base import Source
    from scorelab.denoisers import Parameterization, Variance
    from scorelab.evaluation import EvaluationSettings, Yardstick
    from scorelab.lit.checkpointing import Checkpointing
    from scorelab.lit.guard import DivergenceGuard
    from scorelab.losses import Loss, TimestepSampler
    from scorelab.metrics.features import Extractor
    from scorelab.samplers import Sampler
    from scorelab.schedules import Schedule
    from scorelab.tracking.logger import RunLogger

    return {
        "data": LightningDataModule,
        "data.source": Source,
        "data.extractor": Extractor,
        "schedule": Schedule,
        "prediction": Parameterization,
        "variance": Variance,
        "model": nn.Module,
        "loss": Loss,
        "timesteps": TimestepSampler,
        "sampler": Sampler,
        "extractor": Extractor,
        "optimizer": Optimizer,
        "lr_schedule": LRScheduler,
        "callbacks": Callback,
        "callbacks.guard": DivergenceGuard,
        "callbacks.keep": Checkpointing,
        "trainer": Trainer,
        "logger": RunLogger,
        "metrics": Yardstick,
        "metrics.objectives.*": Loss,
        "metrics.samplers.*": Sampler,
        "evaluation": EvaluationSettings,
    }


def target_of(node: Mapping[str, Any], path: str) -> type:
    """The class a node instantiates.

    Raises:
        UserError: when it cannot be found, or is no class this group may name.
    """
    name = node["_target_"]
    group, *inner = path.split(".")
    base = bases().get(path) or bases().get(".".join([group, *inner[:-1], "*"])) or bases().get(group)
    found = _imported(str(name), f"{path}._target_={name}")
    if base is None or not (isinstance(found, type) and issubclass(found, base)):
        wanted = "nothing" if base is None else f"a class of kind {base.__name__}"
        raise UserError(f"{path}._target_={name} is refused: {path} may only name {wanted}")
    return found


def _imported(name: str, told: str) -> Any:
    """The object of a dotted name.

    Raises:
        UserError: when there is no such module or object, or when a module of the user's fails.
    """
    parts = name.split(".")
    if not all(parts):
        raise UserError(f"{told}: cannot be imported")
    try:
        found: Any = import_module(parts[0])
        for number, part in enumerate(parts[1:], 2):
            if isinstance(found, ModuleType) and not hasattr(found, part):
                found = import_module(".".join(parts[:number]))
            else:
                found = getattr(found, part)
    except Exception as error:
        absent = isinstance(error, AttributeError | ModuleNotFoundError)
        if parts[0] == "scorelab" and not absent:
            raise  # a module of ours that cannot be imported is our fault
        kind = "" if absent else f"{type(error).__name__}: "
        raise UserError(f"{told}: cannot be imported ({kind}{one_line(error)})") from error
    return found


def completed(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, resolved, checked, each node's missing arguments filled in with their defaults.

    Raises:
        UserError: for a missing value, a refused target, an unknown key, or a value of the wrong type.
    """
    try:
        plain = OmegaConf.to_container(_in_place(cfg), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(of_omegaconf(error)) from error
    assert isinstance(plain, dict)
    return {str(key): _group(str(key), value) for key, value in plain.items()}


def _in_place(cfg: DictConfig) -> DictConfig:
    """The config with what was typed as data.KEY where it belongs: of the data set, in data.source.

    Raises:
        UserError: for a key that neither takes.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    if loggers := plain.get("logger"):
        takes = {name: _parameters(node, f"logger.{name}") for name, node in named_nodes(loggers).items()}
        placed = logger_keys(loggers, takes, GIVEN["logger"])
        if placed != loggers:
            cfg = OmegaConf.create(plain := plain | {"logger": placed})
    if not has_source(plain):
        return cfg
    data = plain["data"]
    keys = ShortKeys.of(target_of(data, "data"), target_of(data["source"], "data.source"), GIVEN["data"])
    if (stray := next(filter(keys.unknown, data), None)) is not None:
        raise UserError(f"data.{stray}: no such key{nearest(stray, keys.known)}")
    return OmegaConf.create(plain | {"data": keys.in_place(data)})


def _parameters(node: Mapping[str, Any], path: str) -> set[str]:
    return set(inspect.signature(target_of(node, path)).parameters)


def _group(key: str, value: Any) -> Any:
    """One top-level entry: a number or word, a node, or a collection of named nodes (callbacks, metrics)."""
    if key in TYPES:
        return value_of_run(key, value)
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _node(value, key, GIVEN.get(key, {}))
    nodes = {}
    for name, node in value.items():
        path = f"{key}.{name}"
        if node is not None and not (isinstance(node, dict) and "_target_" in node):
            named = [n for n, v in value.items() if isinstance(v, dict) and "_target_" in v]
            raise UserError(f"{path}: no such entry{nearest(str(name), named)}")
        nodes[name] = None if node is None else _node(node, path, GIVEN.get("logger" if key == "logger" else path, {}))
    return nodes


def _node(node: dict[str, Any], path: str, given: Mapping[str, str]) -> dict[str, Any]:
    target = target_of(node, path)
    parameters = inspect.signature(target).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - given.keys()
    hints = _hints(target)
    checked: dict[str, Any] = {"_target_": node["_target_"]}
    for key, value in node.items():
        place = f"{path}.{key}"
        if key == "_target_":
            continue
        if key in given:
            raise UserError(f"{place} is set by the program: leave it out; {given[key]}")
        if key not in known and not free:
            raise UserError(f"{place}: no such key{nearest(key, known)}")
        if isinstance(value, dict) and "_target_" in value:
            checked[key] = _node(value, place, {})
        else:
            _refuse_nested_targets(value, place)
            checked[key] = typed(value, hints.get(key, Any), place)
    defaults = defaults_of(target)
    for key in known - checked.keys():
        if parameters[key].default is inspect.Parameter.empty:
            raise UserError(f"{path}.{key} has no value: set it")
        if key in defaults:
            checked[key] = defaults[key]
    return {key: checked[key] for key in ("_target_", *parameters, *node) if key in checked}


def defaults_of(target: type) -> dict[str, Any]:
    """The default arguments of a class, those that a config can hold."""
    given = {name: each.default for name, each in inspect.signature(target).parameters.items()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if is_plain(v)}


def _refuse_nested_targets(value: Any, path: str) -> None:
    """A target inside a list or a plain dictionary would be executed unseen."""
    if isinstance(value, dict):
        if "_target_" in value:
            raise UserError(f"{path}._target_ is refused: a target may only stand at a node of its own")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _refuse_nested_targets(item, path)


def _hints(target: type) -> dict[str, Any]:
    """The annotations of a constructor; none where a library's cannot be evaluated."""
    try:
        return typing.get_type_hints(inspect.getattr_static(target, "__init__"))
    except (NameError, TypeError):
        return {}


def checked(value: Any, key: str) -> Any:
    """One top-level entry of a plain config, checked and filled in like those of ``completed``."""
    return _group(key, value)


def instantiate(node: Mapping[str, Any], path: str, **given: Any) -> Any:
    """The object a checked node stands for; ``given`` are the shared objects it is wired to.

    Nothing is resolved or looked up but the targets themselves: a value that looks like an interpolation stays text.

    Raises:
        UserError: when its constructor refuses a value, with the constructor's own sentence; any other error of the
            constructor is let through.
    """
    target = target_of(node, path)
    arguments = {
        key: instantiate(value, f"{path}.{key}") if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    try:
        return target(**arguments, **given)
    except Refusal as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    except Exception as error:
        if (told := by_constructor(target, path, arguments, error)) is None:
            raise  # a fault of the program, or of the machine
        raise UserError(told) from error
