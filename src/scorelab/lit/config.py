"""Configs are executed, so every node is checked before it is: its target, its keys, its types.

A node's keys are its target's constructor arguments. YAML holds only what differs from their defaults;
``completed`` fills in the rest, so that a stored config is whole.
"""

import difflib
import inspect
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

GIVEN = {
    "model": {"shape", "classes", "outputs", "schedule", "variance", "law", "levels"},
    "optimizer": {"params"},
    "lr_schedule": {"optimizer", "total_steps"},
    "trainer": {
        "callbacks",
        "logger",
        "default_root_dir",
        "plugins",
        "enable_progress_bar",
        "enable_checkpointing",
        "enable_model_summary",
        "num_sanity_val_steps",
        "use_distributed_sampler",
        "log_every_n_steps",
        # the length of a run is max_steps, or max_time
        "fast_dev_run",
        "max_epochs",
        "min_epochs",
        "min_steps",
        "overfit_batches",
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "limit_predict_batches",
    },
    "logger": {"directory", "name", "config"},
}
TYPES: dict[str, Any] = {
    "run": str,
    "name": str | None,
    "best_of": str | None,
    "seed": int,
    "debug": bool,
    "overwrite": bool,
    "deterministic": bool,
    "on_nan": Literal["stop", "skip"],
    "init_from": str | None,
    "n": int,
    "label": int | None,
}
PLAIN = (bool, int, float, str, type(None))


class UserError(Exception):
    """Something the person at the keyboard can change; the message is one line that says what."""


@cache
def bases() -> dict[str, type]:
    """The class whose subclasses each group may name, and nodes inside its nodes; no function is on the list."""
    from lightning import Callback, LightningDataModule, Trainer
    from lightning.pytorch.loggers import Logger
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from scorelab.data.images import Source
    from scorelab.denoisers import Prediction, Variance
    from scorelab.judge import Metric, Part
    from scorelab.losses import Loss, Times
    from scorelab.metrics.features import Extractor
    from scorelab.samplers import Sampler
    from scorelab.schedules import Schedule

    return {
        "data": LightningDataModule,
        "data.source": Source,
        "schedule": Schedule,
        "prediction": Prediction,
        "variance": Variance,
        "model": nn.Module,
        "loss": Loss,
        "times": Times,
        "sampler": Sampler,
        "extractor": Extractor,
        "optimizer": Optimizer,
        "lr_schedule": LRScheduler,
        "callbacks": Callback,
        "trainer": Trainer,
        "logger": Logger,
        "judge": Part,
        "judge.*.*": Loss,
        "metric": Metric,
    }


def target_of(node: Mapping[str, Any], path: str) -> type:
    """The class a node instantiates.

    Raises:
        UserError: when it cannot be found, or is no class this group may name.
    """
    name = node["_target_"]
    group, *inner = path.split(".")
    base = bases().get(path) or bases().get(".".join([group, *["*"] * len(inner)])) or bases().get(group)
    try:
        found = get_object(str(name))
    except Exception as error:
        raise UserError(f"{path}._target_={name}: cannot be imported") from error
    if base is None or not (isinstance(found, type) and issubclass(found, base)):
        wanted = "nothing" if base is None else f"a class of kind {base.__name__}"
        raise UserError(f"{path}._target_={name} is refused: {path} may only name {wanted}")
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' with the nearest known word, or '; possible: ...' where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; possible: {', '.join(known)}"


def completed(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, resolved, checked, each node's missing arguments filled in with their defaults.

    Raises:
        UserError: for a missing value, a refused target, an unknown key, or a value of the wrong type.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except Exception as error:
        raise UserError(str(error).splitlines()[0]) from error
    assert isinstance(plain, dict)
    return {str(key): _group(str(key), value) for key, value in plain.items()}


def _group(key: str, value: Any) -> Any:
    """One top-level entry: a number or word, a node, or a collection of named nodes (callbacks, judge)."""
    if key in ("run", "name") and value is not None:
        value = str(value)  # a name of digits is still a name
    if key == "seed" and isinstance(value, int) and not 0 <= value < 2**32:
        raise UserError(f"seed={value}: a seed lies in 0 ... {2**32 - 1}")
    if key in TYPES:
        return _typed(value, TYPES[key], key)
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _node(value, key, GIVEN.get(key, set()))
    nodes = {}
    for name, node in value.items():
        if node is not None and not (isinstance(node, dict) and "_target_" in node):
            named = [n for n, v in value.items() if isinstance(v, dict) and "_target_" in v]
            raise UserError(f"{key}.{name}: no such entry{nearest(str(name), named)}")
        nodes[name] = None if node is None else _node(node, f"{key}.{name}", set())
    return nodes


def _node(node: dict[str, Any], path: str, given: set[str]) -> dict[str, Any]:
    target = target_of(node, path)
    parameters = inspect.signature(target).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - given
    hints = _hints(target)
    checked: dict[str, Any] = {"_target_": node["_target_"]}
    for key, value in node.items():
        place = f"{path}.{key}"
        if key == "_target_":
            continue
        if key in given:
            raise UserError(f"{place} is set by the program from the other choices: leave it out")
        if key not in known and not free:
            raise UserError(f"{place}: no such key{nearest(key, known)}")
        if isinstance(value, dict) and "_target_" in value:
            checked[key] = _node(value, place, set())
        else:
            _refuse_nested_targets(value, place)
            checked[key] = _typed(value, hints.get(key, Any), place)
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
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if _is_plain(v)}


def _refuse_nested_targets(value: Any, path: str) -> None:
    """A target inside a list or a plain dictionary would be executed unseen."""
    if isinstance(value, dict):
        if "_target_" in value:
            raise UserError(f"{path}._target_ is refused: a target may only stand at a node of its own")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _refuse_nested_targets(item, path)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(map(_is_plain, value)))


def _hints(target: type) -> dict[str, Any]:
    """The annotations of a constructor; none where a library's cannot be evaluated."""
    try:
        return typing.get_type_hints(inspect.getattr_static(target, "__init__"))
    except (NameError, TypeError):
        return {}


def _typed(value: Any, hint: Any, path: str) -> Any:
    """The value as its annotation has it (a whole number for an int, and so on).

    Raises:
        UserError: when it is of another type.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        checked = adapter.validate_python(value)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return value
    except ValidationError:
        name = getattr(hint, "__name__", None) if isinstance(hint, type) else None
        wanted = name or str(hint).replace("typing.", "").replace("collections.abc.", "")
        raise UserError(f"{path}={value!r}: expected {wanted}") from None
    return list(checked) if isinstance(checked, tuple) else checked if _is_plain(checked) else value


def checked(value: Any, key: str) -> Any:
    """One top-level entry of a plain config, checked and filled in like those of ``completed``."""
    return _group(key, value)


def instantiate(node: Mapping[str, Any], path: str, **given: Any) -> Any:
    """The object a checked node stands for; ``given`` are the shared objects it is wired to.

    Nothing is resolved or looked up but the targets themselves: a value that looks like an interpolation stays text.

    Raises:
        UserError: when its constructor refuses a value, with the constructor's own sentence.
    """
    target = target_of(node, path)
    arguments = {
        key: instantiate(value, f"{path}.{key}") if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    try:
        return target(**arguments, **given)
    except Exception as error:
        raise UserError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from error
