"""From a checked config to objects: each group once, in the order of what needs what, wired in Python."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
import torch

from scorelab.config.check import checked, instantiate, target_of
from scorelab.config.device import fit_to
from scorelab.config.refusals import called
from scorelab.data.base import Source
from scorelab.data.module import DataModule, first
from scorelab.denoisers import Denoiser, Exact, NetworkDenoiser, Variance
from scorelab.errors import Refusal, UserError
from scorelab.evaluation import EvaluationContext, EvaluationSettings, Yardstick
from scorelab.laws import Law
from scorelab.lit.actions import EverySteps
from scorelab.lit.floor import LeastError
from scorelab.lit.module import DiffusionModule
from scorelab.losses import EDGES, Card, Loss, TimestepSampler, weight_card
from scorelab.samplers import Sampler
from scorelab.schedules import Schedule, check_contract

MOST_COORDINATES = 1024  # of which a covariance is still cheap


@dataclass
class Experiment:
    """The objects of one run."""

    data: DataModule
    module: DiffusionModule
    sampler: Sampler
    yardsticks: dict[str, Yardstick]
    settings: EvaluationSettings
    card: Card
    conditional: bool
    seed: int
    compiled: bool = False

    def context(self, denoiser: Denoiser, other: Denoiser | None = None) -> EvaluationContext:
        """This denoiser against the train split, the exact scores, held-out data, and another run's denoiser."""
        train, test = self.data.splits["train"], first(self.data.splits["test"], self.settings.held_out)
        laws = self.data.training_law(), self.data.law()
        train_exact, held_out_exact = (exact_denoiser(law, denoiser, self.conditional) for law in laws)
        return EvaluationContext(
            denoiser=denoiser,
            sampler=self.sampler,
            settings=self.settings,
            train=train.values,
            train_labels=train.labels,
            held_out=test.values,
            labels=test.labels,
            extractor=self.data.extractor,
            loss=self.module.loss,
            timesteps=self.module.timesteps,
            seed=self.seed,
            exact_train=held_out_exact if self.data.endless else train_exact,
            exact_held_out=held_out_exact,
            other=other,
            mirrored=self.data.flip,
            conditional=self.conditional,
            chance=self.data.chance,
            dequantized=self.data.dequantize,
        )


def exact_denoiser(law: Law | None, denoiser: Denoiser, conditional: bool) -> Exact | None:
    """The exact denoiser of a law under this one's schedule, where it is; of each label's own part if conditional."""
    if law is None:
        return None
    told = conditional and law.labels is not None
    return Exact(denoiser.schedule, denoiser.variance, law, denoiser.levels, told).to(denoiser.device)


def source_of(config: dict[str, Any]) -> Source:
    """The data set of a checked config."""
    found: Source = instantiate(config["data"]["source"], "data.source")
    return found


def sized(config: dict[str, Any], source: Source | None = None) -> dict[str, Any]:
    """The config with what is open written out: the network's sizes, the extractor, how often things are done.

    The data decides it, the machine and the length of the run.

    The data set is asked only for what is open; it is built where it is not given.

    Raises:
        UserError: for a network that is not for such data.
    """
    if "callbacks" in config and isinstance(config.get("trainer", {}).get("max_steps"), int):
        config = timed(config)
    network: Any = target_of(config["model"], "model")
    model, extractor = dict(config["model"]), config.get("extractor") or config["data"].get("extractor")
    known = inspect.signature(network.sizes).parameters if hasattr(network, "sizes") else {}
    sizes = {key: model[key] for key in known if key not in ("shape", "small")}
    if config.get("extractor") is None and extractor:
        extractor = checked(dict(extractor), "extractor")
    extractor = dict(extractor or {})  # its own object: YAML would show one in two places as a name for it
    if None not in sizes.values() and extractor:
        return config | {"extractor": extractor}
    shape = (source or source_of(config)).shape
    try:
        small = {"small": on_cpu(config)} if "small" in known else {}
        model |= network.sizes(shape, **sizes, **small) if known else {}
    except Refusal as error:
        raise UserError(f"model: {error}") from error
    return config | {"model": model, "extractor": extractor or checked(plain_extractor(shape), "extractor")}


def timed(config: dict[str, Any]) -> dict[str, Any]:
    """The config with what its length decides written out: the steps between what is done several times in a run.

    ``evaluation.every``, where it is given, counts for what would be done as often as it is left open to
    (``EverySteps.times``).
    """
    steps, asked = config["trainer"]["max_steps"], config["evaluation"].get("every")
    callbacks = dict(config["callbacks"])
    for name, node in callbacks.items():
        if node and node.get("every", 0) is None:
            kind: Any = target_of(node, f"callbacks.{name}")
            every = asked if asked is not None and kind.times == EverySteps.times else max(1, steps // kind.times)
            callbacks[name] = node | {"every": every}
    return config | {"callbacks": callbacks}


def on_cpu(config: dict[str, Any]) -> bool:
    """Whether a run of this config trains on the CPU: by its trainer, or because there is no GPU."""
    wanted = (config.get("trainer") or {}).get("accelerator", "auto")
    return wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available())


def plain_extractor(shape: tuple[int, ...]) -> dict[str, Any]:
    """The node of the extractor for data that name none: their own coordinates, or thumbnails of larger images.

    Where the coordinates of what is no image are too many, it is one that refuses whoever needs it.
    """
    dims = math.prod(shape)
    if dims <= MOST_COORDINATES:
        return {"_target_": "scorelab.metrics.features.Coordinates", "dims": dims}
    if len(shape) == 3:
        return {"_target_": "scorelab.metrics.features.Thumbnails", "channels": shape[0]}
    return {"_target_": "scorelab.metrics.features.NoFeatures", "dims": dims}


def build(config: dict[str, Any], training: bool = True, source: Source | None = None) -> Experiment:
    """Data, schedule, network, denoiser, timesteps, loss, sampler and yardsticks of a sized config.

    The data set is built where it is not given. Without ``training`` there is no optimiser, and the config's nodes for
    it are not looked at.

    Raises:
        UserError: for values a constructor refuses, and for choices that do not go together.
    """
    lightning.seed_everything(config["seed"], verbose=False)
    extractor = instantiate(config["extractor"], "extractor")
    data = build_data(config, source=source or source_of(config), extractor=extractor, seed=config["seed"])
    if (why := data.extractor.unfit(data.shape)) is not None:
        raise UserError(why)
    denoiser = build_denoiser(config, data)
    conditional = bool(config["model"].get("conditional"))
    timesteps = build_timesteps(config, exact_denoiser(data.law(), denoiser, conditional))
    loss = instantiate(config["loss"], "loss")
    sampler = instantiate(config["sampler"], "sampler")
    yardsticks = {
        name: instantiate(node, f"metrics.{name}") for name, node in config.get("metrics", {}).items() if node
    }
    for name in (name for name, yardstick in yardsticks.items() if yardstick.of_features):
        _check(f"metrics.{name}", config, data.extractor.check)
    settings = instantiate(config["evaluation"], "evaluation")
    card = _card(config, denoiser, loss, timesteps, sampler, yardsticks, settings)
    scale = card.normalizer if loss.normalize else 1.0
    exact = exact_denoiser(listed(data, "loss", config), denoiser, conditional) if loss.needs_exact else None
    known = exact_denoiser(data.law(), denoiser, conditional)
    optimizer = lr_schedule = None
    if training:
        optimizer = partial(_with, config["optimizer"], "optimizer", "params")
        steps = config["trainer"]["max_steps"]
        lr_schedule = partial(_with, config["lr_schedule"], "lr_schedule", "optimizer", total_steps=steps)
    module = DiffusionModule(
        denoiser, loss, timesteps, sampler, optimizer, lr_schedule, config["seed"], scale, exact, known
    )
    if training and any(True for _ in denoiser.parameters()):
        module.configure_optimizers()  # refuses its numbers now rather than at the first step
    compiled = training and fit_to(not on_cpu(config), denoiser, loss, config, data.shape)
    return Experiment(data, module, sampler, yardsticks, settings, card, conditional, config["seed"], compiled)


def build_data(config: dict[str, Any], **shared: Any) -> DataModule:
    """The data of a config, wired to ``shared``: without an extractor there, whoever asks compares nothing."""
    own = {key: value for key, value in config["data"].items() if key not in {"extractor", *shared}}
    return instantiate(own, "data", **shared)


def build_denoiser(config: dict[str, Any], data: DataModule) -> Denoiser:
    """What ``model`` names: a network, read by the prediction, or a denoiser that is exact and learns nothing."""
    schedule: Schedule = instantiate(config["schedule"], "schedule")
    _check("schedule", config, lambda: check_contract(schedule))
    variance: Variance = instantiate(config["variance"], "variance")
    model: Any = target_of(config["model"], "model")
    if issubclass(model, Denoiser):
        told = {"variance": variance, "law": listed(data, "model", config), "levels": data.levels}
        return instantiate(config["model"], "model", schedule=schedule, **told)
    sizes = {"shape": data.shape, "classes": data.classes, "outputs": variance.outputs}
    network = instantiate(config["model"], "model", **sizes)
    return NetworkDenoiser(schedule, network, instantiate(config["prediction"], "prediction"), variance, data.levels)


def listed(data: DataModule, group: str, config: dict[str, Any]) -> Law:
    """The law of what is trained on, for a choice of this group that asks for its exact score.

    Raises:
        UserError: where it is not known.
    """
    if (law := data.training_law()) is None:
        told = "asks for the exact score of what is trained on, and of dequantised levels none is computed"
        raise UserError(f"{called(group, config[group])}: {told}: leave data.dequantize=true out")
    return law


def build_timesteps(config: dict[str, Any], known: Exact | None) -> TimestepSampler:
    """The law of times; one that asks for the least noise error is told it where the law of the data is known."""
    asks = "least" in inspect.signature(target_of(config["timesteps"], "timesteps")).parameters
    least = None if known is None or not asks else LeastError(known).at((EDGES[1:] + EDGES[:-1]) / 2).cpu()
    return instantiate(config["timesteps"], "timesteps", **({"least": least} if asks else {}))


def _with(node: dict[str, Any], path: str, name: str, shared: Any, **given: Any) -> Any:
    return instantiate(node, path, **{name: shared}, **given)


def _check(path: str, config: dict[str, Any], check: Callable[[], object]) -> None:
    """Have a part of a run see whether it goes with the others; its refusal names the choice that made it.

    Raises:
        UserError: when it does not.
    """
    try:
        check()
    except Refusal as error:
        place = path if "." in path else called(path, config[path])
        raise UserError(f"{place}: {error}") from error


def _card(
    config: dict[str, Any],
    denoiser: Denoiser,
    loss: Loss,
    timesteps: TimestepSampler,
    sampler: Sampler,
    yardsticks: dict[str, Yardstick],
    settings: EvaluationSettings,
) -> Card:
    """The objective's weight card.

    Raises:
        UserError: for choices that cannot go together; each says so itself, where it arises.
    """
    _check("prediction" if isinstance(denoiser, NetworkDenoiser) else "model", config, denoiser.check)
    _check("loss", config, lambda: loss.check(denoiser))
    _check("timesteps", config, lambda: timesteps.check(denoiser.schedule))
    _check("sampler", config, lambda: sampler.evaluations(denoiser))
    for name, yardstick in yardsticks.items():
        _check(f"metrics.{name}", config, partial(yardstick.check, denoiser, settings))
    cards: list[Card] = []
    _check("loss", config, lambda: cards.append(weight_card(denoiser, loss, timesteps)))
    if loss.normalize:
        _check("loss", config, lambda: cards[0].normalizer)  # which may not exist
    return cards[0]
