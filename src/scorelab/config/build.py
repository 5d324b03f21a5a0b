"""From a checked config to objects: each group once, in the order of what needs what, wired in Python."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning

from scorelab.config.check import checked, instantiate, target_of
from scorelab.config.refusals import called
from scorelab.data.module import DataModule
from scorelab.denoisers import Denoiser, Exact, NetworkDenoiser, Variance
from scorelab.errors import Refusal, UserError
from scorelab.evaluation import EvaluationContext, EvaluationSettings, Yardstick
from scorelab.laws import Law
from scorelab.lit.module import DiffusionModule
from scorelab.losses import Card, Loss, TimestepSampler, weight_card
from scorelab.samplers import Sampler
from scorelab.schedules import Schedule, check_contract


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

    def context(self, denoiser: Denoiser, other: Denoiser | None = None) -> EvaluationContext:
        """This denoiser against the train split, the exact scores, held-out data, and another run's denoiser."""
        train, test = self.data.splits["train"], self.data.splits["test"]
        extractor = self.data.extractor
        laws = self.data.training_law(), self.data.law()
        train_exact, held_out_exact = (exact_denoiser(law, denoiser, self.conditional) for law in laws)
        return EvaluationContext(
            denoiser,
            self.sampler,
            self.settings,
            train.values,
            train.labels,
            test.values,
            test.labels,
            extractor,
            self.module.loss,
            self.module.timesteps,
            self.seed,
            held_out_exact if self.data.endless else train_exact,
            held_out_exact,
            other,
            self.data.training.values if self.data.flip else None,
            self.conditional,
            self.data.chance,
        )


def exact_denoiser(law: Law | None, denoiser: Denoiser, conditional: bool) -> Exact | None:
    """The exact denoiser of a law under this one's schedule, where it is; of each label's own part if conditional."""
    if law is None:
        return None
    told = conditional and law.labels is not None
    return Exact(denoiser.schedule, denoiser.variance, law, denoiser.levels, told).to(denoiser.device)


def sized(config: dict[str, Any]) -> dict[str, Any]:
    """The config with what the data decides written out: the network's open sizes, the extractor.

    Raises:
        UserError: for a network that is not for such data.
    """
    source: Any = target_of(config["data"]["source"], "data.source")
    network: Any = target_of(config["model"], "model")
    model = dict(config["model"])
    if hasattr(network, "sizes"):
        open_ = [key for key in inspect.signature(network.sizes).parameters if key != "shape"]
        try:
            model |= network.sizes(source.shape, **{key: model[key] for key in open_})
        except Refusal as error:
            raise UserError(f"model: {error}") from error
    extractor = config.get("extractor") or checked(dict(source.extractor), "extractor")
    return config | {"model": model, "extractor": extractor}


def build(config: dict[str, Any], training: bool = True) -> Experiment:
    """Data, schedule, network, denoiser, timesteps, loss, sampler and yardsticks of a sized config.

    Without ``training`` there is no optimiser, and the config's nodes for it are not looked at.

    Raises:
        UserError: for values a constructor refuses, and for choices that do not go together.
    """
    lightning.seed_everything(config["seed"], verbose=False)
    data = instantiate(config["data"], "data")
    data.seed = config["seed"]
    data.extractor = instantiate(config["extractor"], "extractor")
    if data.extractor.of_bytes and len(data.shape) != 3:
        raise UserError("this extractor compares images, and the data are points: leave extractor= out")
    denoiser = build_denoiser(config, data)
    conditional = bool(config["model"].get("conditional"))
    timesteps = instantiate(config["timesteps"], "timesteps")
    loss = instantiate(config["loss"], "loss")
    sampler = instantiate(config["sampler"], "sampler")
    yardsticks = {
        name: instantiate(node, f"metrics.{name}") for name, node in config.get("metrics", {}).items() if node
    }
    settings = instantiate(config["evaluation"], "evaluation")
    card = _card(config, denoiser, loss, timesteps, sampler, yardsticks, settings)
    scale = card.normalizer if loss.normalize else 1.0
    exact = exact_denoiser(data.training_law(), denoiser, conditional) if loss.needs_exact else None
    optimizer = lr_schedule = None
    if training:
        optimizer = partial(_with, config["optimizer"], "optimizer", "params")
        steps = config["trainer"]["max_steps"]
        lr_schedule = partial(_with, config["lr_schedule"], "lr_schedule", "optimizer", total_steps=steps)
    module = DiffusionModule(denoiser, loss, timesteps, sampler, optimizer, lr_schedule, config["seed"], scale, exact)
    if training and any(True for _ in denoiser.parameters()):
        module.configure_optimizers()  # refuses its numbers now rather than at the first step
    return Experiment(data, module, sampler, yardsticks, settings, card, conditional, config["seed"])


def build_denoiser(config: dict[str, Any], data: DataModule) -> Denoiser:
    """What ``model`` names: a network, read by the prediction, or a denoiser that is exact and learns nothing."""
    schedule: Schedule = instantiate(config["schedule"], "schedule")
    _check("schedule", config, lambda: check_contract(schedule))
    variance: Variance = instantiate(config["variance"], "variance")
    model: Any = target_of(config["model"], "model")
    if issubclass(model, Denoiser):
        shared = {"schedule": schedule, "variance": variance, "law": data.training_law(), "levels": data.levels}
        return instantiate(config["model"], "model", **shared)
    shared = {"shape": data.shape, "classes": data.classes, "outputs": variance.outputs}
    network = instantiate(config["model"], "model", **shared)
    return NetworkDenoiser(schedule, network, instantiate(config["prediction"], "prediction"), variance, data.levels)


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
    _check("sampler", config, lambda: sampler.evaluations(denoiser))
    for name, yardstick in yardsticks.items():
        _check(f"metrics.{name}", config, partial(yardstick.check, denoiser, settings))
    cards: list[Card] = []
    _check("loss", config, lambda: cards.append(weight_card(denoiser, loss, timesteps)))
    if loss.normalize:
        _check("loss", config, lambda: cards[0].normalizer)  # which may not exist
    return cards[0]
