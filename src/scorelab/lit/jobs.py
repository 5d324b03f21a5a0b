"""What the entries eval and sample do with a stored run."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.judge import Case, judge
from scorelab.judge.base import draw_samples
from scorelab.lit.build import Experiment, build, quiet, sized
from scorelab.lit.checkpoints import NAMES
from scorelab.lit.config import UserError, completed
from scorelab.lit.pictures import draw_judged, save_samples
from scorelab.lit.run import first_difference, first_free, plain, shown
from scorelab.lit.stored import load_run, refuse_training_keys, slug
from scorelab.lit.weights import load_weights
from scorelab.lit.words import key_of
from scorelab.report.status import write_json
from scorelab.report.table import table
from scorelab.tensors import to_bytes

log = logging.getLogger("scorelab")


def stored(cfg: DictConfig, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The config of the run that eval or sample was pointed at, with its overrides; checked afresh."""
    own = set(yaml.safe_load(_primary()).keys()) - {"defaults", "hydra", "metric"}
    overrides = [word for word in HydraConfig.get().overrides.task if word.lstrip("+~").split("=")[0] not in own]
    refuse_training_keys(overrides, allowed)
    return sized(completed_run(str(cfg.run), overrides, completed(cfg)))


def completed_run(
    directory: str, overrides: Sequence[str] = (), composed: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A stored run's config with overrides, checked afresh."""
    return completed(DictConfig(load_run(directory, list(overrides), composed or {})))


def _primary() -> str:
    hydra = HydraConfig.get()
    folder = next(source.path for source in hydra.runtime.config_sources if source.provider == "main")
    return (Path(folder) / f"{hydra.job.config_name}.yaml").read_text()


def restored(run: str, checkpoint: str, config: dict[str, Any]) -> Experiment:
    """The run's objects with the weights of its checkpoint, on the GPU where there is one."""
    path = Path(run) / "checkpoints" / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise UserError(f"checkpoint={checkpoint}: {run} has no such checkpoint; possible: {', '.join(NAMES)}")
    experiment = build(config)
    load_weights(experiment.module, path)
    experiment.module.to("cuda" if torch.cuda.is_available() else "cpu")
    return experiment


def other_denoiser(cfg: DictConfig, source: dict[str, Any]) -> Denoiser | None:
    """The denoiser of the run that this one is compared with, where one is named.

    Raises:
        UserError: when it is no run, or of other data.
    """
    if cfg.against is None:
        return None
    try:
        stored_config = sized(completed_run(str(cfg.against)))
    except UserError as error:
        raise UserError(str(error).replace("run=", "against=", 1)) from error
    if (difference := first_difference(source, stored_config["data"]["source"])) is not None:
        raise UserError(f"against={cfg.against} is of other data ({difference})")
    return restored(str(cfg.against), str(cfg.checkpoint), stored_config).module.judged


def evaluate(cfg: DictConfig) -> dict[str, float | None]:
    """Judge a stored run again, with other samplers or yardsticks if asked; never over the run's own figures."""
    quiet()
    words = [word.lstrip("+") for word in HydraConfig.get().overrides.task if not word.startswith("run=")]
    config = stored(cfg, ("sampler", "extractor", "judge", "metric"))
    experiment = restored(str(cfg.run), str(cfg.checkpoint), config)
    other = other_denoiser(cfg, config["data"]["source"])
    case = experiment.case(experiment.module.judged, other)
    return judged(experiment, case, words, config, Path(str(cfg.run)) / "eval" / slug(words))


def evaluate_exact(cfg: DictConfig) -> dict[str, float | None]:
    """Judge the exact denoiser of a data set, which no run has trained: what is left is sampler and estimator error."""
    quiet()
    hydra = HydraConfig.get()
    folder, words = Path(hydra.runtime.output_dir), [word.lstrip("+") for word in hydra.overrides.task]
    free = None if "name" in map(key_of, words) else first_free(folder)
    folder = folder if free is None else free.path
    try:
        config = sized(completed(cfg)) | {"name": folder.name}
        earlier = folder / "metrics.json"
        if earlier.is_file() and (old := first_difference(json.loads(earlier.read_text())["config"], config)):
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
    experiment.module.to("cuda" if torch.cuda.is_available() else "cpu")
    return judged(experiment, experiment.case(experiment.module.denoiser), words, config, folder)


def judged(
    experiment: Experiment, case: Case, words: list[str], config: dict[str, Any], folder: Path
) -> dict[str, float | None]:
    """Judge, write metrics.json and the pictures into a folder, say the table."""
    verdict = judge(experiment.parts, case, log.info)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"overrides": words, "metrics": verdict.metrics, "records": verdict.records, "config": config}
    write_json(folder / "metrics.json", plain(content))
    draw_judged(verdict.records, case, folder)
    log.info("%s\n%s", table(verdict.metrics, verdict.records), shown(folder / "metrics.json"))
    return plain(verdict.metrics)


def sample(cfg: DictConfig) -> None:
    """Draw samples from a stored run: samples.png and samples.npz, uint8 (n, H, W, C) or float32 without levels."""
    quiet()
    config = stored(cfg, ("sampler",))
    n, seed = (completed(cfg)[key] for key in ("n", "seed"))
    words = [word.lstrip("+") for word in HydraConfig.get().overrides.task if not word.startswith("run=")]
    experiment = restored(str(cfg.run), str(cfg.checkpoint), config)
    data, denoiser = experiment.data, experiment.module.judged
    labels = torch.arange(n) % (data.classes or 1)
    with torch.no_grad():
        drawn = draw_samples(denoiser, experiment.sampler, data.shape, labels, seed, experiment.metric.chunk)
    folder = Path(str(cfg.run)) / "sample" / slug(words)
    save_samples(drawn, data, folder / "samples.png", 256)
    array = drawn if data.levels is None else to_bytes(drawn, data.levels)
    array = array.permute(0, 2, 3, 1) if array.dim() == 4 else array
    np.savez_compressed(folder / "samples.npz", array.numpy())
    log.info("%s\n%s", folder / "samples.png", folder / "samples.npz")
