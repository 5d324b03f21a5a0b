"""What the entries eval and sample do with a stored run."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from scorelab.data.module import DataModule
from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.errors import JudgingFailed, Refusal, UserError
from scorelab.judge import Case, judge
from scorelab.lit.build import Experiment, build, build_denoiser, quiet, sized
from scorelab.lit.config import checked, completed, instantiate
from scorelab.lit.endings import failed_parts
from scorelab.lit.identity import first_difference, is_machine
from scorelab.lit.mishaps import in_one_line
from scorelab.lit.pictures import draw_judged, save_samples
from scorelab.lit.run import RunDir, first_free, plain, shown
from scorelab.lit.stored import DENOISER, Changes, checkpoint_of, load_run, run_directory, slug
from scorelab.lit.weights import load_judged, load_weights
from scorelab.lit.words import key_of
from scorelab.report.status import sweep, whole, write_json
from scorelab.report.table import table
from scorelab.samplers import Sampler, draw_samples
from scorelab.tensors import to_bytes

log = logging.getLogger("scorelab")
Module = TypeVar("Module", bound=nn.Module)


DRAWN = (*DENOISER, "sampler", "metric")  # what sampling uses of a run
JUDGED = (*DRAWN, "loss", "times", "extractor", "judge")


@dataclass(frozen=True)
class Asked:
    """What eval or sample was asked: its own keys, checked, and what is to be changed in the run."""

    own: dict[str, Any]
    changes: Changes

    @property
    def run(self) -> Path:
        """The directory of the run."""
        return run_directory("run", self.own["run"])


def asked(cfg: DictConfig, allowed: tuple[str, ...]) -> Asked:
    """Sort what was typed; ``allowed`` are the run's nodes that may be changed.

    Raises:
        UserError: for a value of the wrong type, or what belongs to training.
    """
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run=DIR is needed: the directory of a trained run")
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    own = {key: checked(value, key) for key, value in plain.items() if not isinstance(value, dict)}
    overrides = [word for word in HydraConfig.get().overrides.task if key_of(word) not in own]
    return Asked(own, Changes(overrides, plain, allowed))


def said() -> list[str]:
    """What was typed of what is to be computed."""
    words = HydraConfig.get().overrides.task
    return [word.lstrip("+") for word in words if not is_machine(key_of(word))]


def on_its_device(module: Module) -> Module:
    """On the GPU where there is one."""
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def trained(config: dict[str, Any], data: DataModule, checkpoint: Path) -> Denoiser:
    """The denoiser to judge of a stored run."""
    denoiser = build_denoiser(config, data)
    load_judged(denoiser, checkpoint)
    return on_its_device(denoiser)


def other_denoiser(directory: str | None, checkpoint: str, data: dict[str, Any]) -> Denoiser | None:
    """The denoiser of the run that this one is compared with, where one is named.

    Raises:
        UserError: when it is no run, or of other data.
    """
    if directory is None:
        return None
    path = run_directory("against", directory)
    file = checkpoint_of("against", path, checkpoint)
    config = load_run(path, DENOISER)
    its, mine = ({"data": {"source": node["source"]}} for node in (config["data"], data))
    if (difference := first_difference(mine, its)) is not None:
        raise UserError(f"against={directory} is of other data ({difference})")
    return trained(config, instantiate(config["data"], "data"), file)


def evaluate(cfg: DictConfig) -> dict[str, float | None]:
    """Judge a stored run again, with other samplers or yardsticks if asked; never over the run's own figures."""
    quiet()
    typed = asked(cfg, ("sampler", "extractor", "judge", "metric"))
    against, checkpoint = typed.own["against"], str(typed.own["checkpoint"])
    with in_one_line(typed.run, "metric.chunk"):
        weights = checkpoint_of("run", typed.run, checkpoint)
        config = load_run(typed.run, JUDGED, typed.changes)
        experiment = build(config, training=False)
        load_weights(experiment.module, weights)
        on_its_device(experiment.module)
        other = other_denoiser(None if against is None else str(against), checkpoint, config["data"])
        case = experiment.case(experiment.module.judged, other)
        return judged(experiment, case, said(), config, typed.run / "eval" / slug(said()))


def evaluate_exact(cfg: DictConfig) -> dict[str, float | None]:
    """Judge the exact denoiser of a data set, which no run has trained: what is left is sampler and estimator error."""
    quiet()
    hydra = HydraConfig.get()
    folder, words = Path(hydra.runtime.output_dir), said()
    free = None if "name" in map(key_of, hydra.overrides.task) else first_free(folder)
    folder = folder if free is None else free.path
    try:
        config = sized(completed(cfg)) | {"name": folder.name}
        earlier = RunDir(folder).verdict()
        if earlier and (old := first_difference(earlier["config"], plain(config))):
            raise UserError(f"{shown(folder)} holds another evaluation: {old}; choose another name=")
        experiment = build(config)
        if isinstance(experiment.module.denoiser, NetworkDenoiser):
            raise UserError("a network is judged where it was trained: run=DIR; model=oracle needs no run")
    except BaseException:
        if free is not None:
            free.discard()
        elif folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    on_its_device(experiment.module)
    with in_one_line(folder, "metric.chunk"):
        return judged(experiment, experiment.case(experiment.module.denoiser), words, config, folder)


def judged(
    experiment: Experiment, case: Case, words: list[str], config: dict[str, Any], folder: Path
) -> dict[str, float | None]:
    """Judge, write metrics.json and the pictures into a folder, say the table."""
    verdict = judge(experiment.parts, case, log.info)
    sweep(folder, shared=True)
    content = {"overrides": words, "metrics": verdict.metrics, "records": verdict.records, "config": config}
    write_json(folder / "metrics.json", plain(content))
    draw_judged(verdict.records, case, folder)
    log.info("%s", "\n".join(filter(None, (table(verdict.metrics, verdict.records), shown(folder / "metrics.json")))))
    if (told := failed_parts(verdict, folder / "metrics.json")) is not None:
        raise JudgingFailed(told)
    return plain(verdict.metrics)


def sample(cfg: DictConfig) -> None:
    """Draw samples from a stored run: samples.png and samples.npz, uint8 (n, H, W, C) or float32 without levels."""
    quiet()
    typed = asked(cfg, ("sampler", "metric.chunk"))
    n, label, seed, checkpoint = (typed.own[key] for key in ("n", "label", "seed", "checkpoint"))
    with in_one_line(typed.run, "metric.chunk, or n"):
        weights = checkpoint_of("run", typed.run, str(checkpoint))
        config = load_run(typed.run, DRAWN, typed.changes)
        data, sampler, metric = (instantiate(config[key], key) for key in ("data", "sampler", "metric"))
        labels = drawn_labels(n, label, bool(config["model"].get("conditional")), data.classes)
        denoiser = trained(config, data, weights)
        refuse_sampler(sampler, denoiser)
        with torch.no_grad():
            drawn = draw_samples(denoiser, sampler, data.shape, labels, seed, metric.chunk)
        folder = typed.run / "sample" / slug(said())
        sweep(folder, shared=True)
        save_samples(drawn, data, folder / "samples.png", 256)
        array = drawn if data.levels is None else to_bytes(drawn, data.levels)
        array = array.permute(0, 2, 3, 1) if array.dim() == 4 else array
        with whole(folder / "samples.npz") as file:
            np.savez_compressed(file, array.numpy())
    log.info("%s\n%s", folder / "samples.png", folder / "samples.npz")


def refuse_sampler(sampler: Sampler, denoiser: Denoiser) -> None:
    """See that a sampler goes with a denoiser.

    Raises:
        UserError: in the sampler's own words.
    """
    try:
        sampler.evaluations(denoiser)
    except Refusal as error:
        raise UserError(str(error)) from error


def drawn_labels(n: int, label: int | None, conditional: bool, classes: int | None) -> Tensor:
    """The labels of n samples: one for all, or each in turn.

    Raises:
        UserError: for a label that the run was not trained with.
    """
    if label is None:
        return torch.arange(n) % (classes or 1)
    if not conditional or classes is None:
        raise UserError(f"label={label}: this run was trained without labels; model.conditional=true trains with them")
    if not 0 <= label < classes:
        raise UserError(f"label={label}: no such label; possible: 0 ... {classes - 1}")
    return torch.full((n,), label)
