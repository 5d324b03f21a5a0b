"""What the entries do: train, eval, sample."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from omegaconf import DictConfig

from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.judge import Case, judge
from scorelab.judge.base import draw_samples
from scorelab.judge.field import score_fields
from scorelab.lit.build import Experiment, build, build_trainer, quiet, sized
from scorelab.lit.callbacks import Validation
from scorelab.lit.checkpoints import load_weights, read_checkpoint
from scorelab.lit.config import UserError, completed, instantiate
from scorelab.lit.loggers import History, flat
from scorelab.lit.pictures import save_plane, save_samples
from scorelab.lit.run import RunDir, first_difference, load_run, plain, refuse_training_keys, shown, slug
from scorelab.lit.sweep import job_directory
from scorelab.report.card import draw_cards, write_card
from scorelab.report.field import draw_fields
from scorelab.report.status import write_json, write_status
from scorelab.report.table import table
from scorelab.report.truth import draw_truth
from scorelab.tensors import to_bytes

log = logging.getLogger("scorelab")


def train(cfg: DictConfig) -> dict[str, float | None]:
    """Train, judge and record one run; resume it, skip it or refuse it where the directory says so."""
    quiet()
    run = RunDir(run_directory())
    try:
        config = named(sized(completed(cfg)), run.path)
        run.lock()
        if not config["overwrite"]:
            run.check(config)
        if run.finished and not config["overwrite"]:
            verdict = run.verdict()
            log.info("%s is finished:\n%s", shown(run.path), table(verdict["metrics"], verdict["records"]))
            return verdict["metrics"]
        experiment = build(config)
        if not isinstance(experiment.module.denoiser, NetworkDenoiser):
            raise UserError("this model has nothing to train: python src/eval.py model=oracle data=... judges it")
        trainer = build_trainer(config, run.path)
    except BaseException:
        run.discard()
        raise
    if config["overwrite"]:
        run.clear()
    run.claim(config)
    write_status(run.path, "running")
    loggers: list[Any] = [History(run.path)]
    status, reason = "failed", None
    file = log_file(run.path)
    try:
        if config["logger"]:
            choices = {str(group): str(choice) for group, choice in HydraConfig.get().runtime.choices.items()}
            given = {"directory": run.path, "name": config["run"], "config": flat(config, choices)}
            loggers.append(instantiate(config["logger"], "logger", **given))
        trainer.loggers = loggers
        metrics, records = fit_and_judge(experiment, trainer, run)
        status = "finished"
        run.close(status, config, metrics, records, config["trainer"]["max_steps"])
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the first into the second
        status = "interrupted"
        raise KeyboardInterrupt from stop
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise
    finally:
        if status != "finished":
            run.close(status, config, step=trainer.global_step, reason=reason)
        for logger in loggers:
            if hasattr(logger, "close"):
                if status == "finished":
                    logger.summarize(metrics)
                logger.close(0 if status == "finished" else 1)
        logging.getLogger().removeHandler(file)
        file.close()
    log.info("%s", table(metrics, records))
    log.info(
        "%s: metrics.json, metrics.csv, config.yaml, samples/, checkpoints/last.ckpt and best.ckpt", shown(run.path)
    )
    return metrics


def run_directory() -> Path:
    """Where this job works: what Hydra says; in a sweep, a directory there that its overrides name."""
    hydra = HydraConfig.get()
    place = Path(hydra.runtime.output_dir)
    return place / job_directory(list(hydra.overrides.task)) if hydra.mode == RunMode.MULTIRUN else place


def named(config: dict[str, Any], place: Path) -> dict[str, Any]:
    """The config of a sweep's job with its run named after its directory, its W&B group after the sweep's."""
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return config
    logger = dict(config["logger"] or {})
    if logger.get("group", "") is None:
        logger["group"] = place.parent.name
    return config | {"run": place.name, "logger": logger}


def log_file(directory: Path) -> logging.Handler:
    """What is said goes to train.log too, with dates, until the handler is removed."""
    handler = logging.FileHandler(directory / "train.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    return handler


def fit_and_judge(
    experiment: Experiment, trainer: Trainer, run: RunDir
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Train to the last step, then judge the averaged weights of that step."""
    module, data = experiment.module, experiment.data
    weights = sum(p.numel() for p in module.denoiser.parameters())
    log.info("%s: %s weights, %s steps", shown(run.path), f"{weights:,}", f"{trainer.max_steps:,}")
    card = experiment.card
    for note in card.notes:
        log.info("weight card: %s", note)
    write_card(run.path / "card.csv", card.rows(), card.notes)
    denoiser: Any = module.denoiser
    of = (module.loss, denoiser.schedule, module.times, denoiser.prediction)
    draw_cards(run.path / "card.png", {", ".join(type(each).__name__ for each in of): {"": card.rows()}}, card.notes)
    step = read_checkpoint(run.last)["global_step"] if run.resumable else -1
    trainer.loggers[0].cut(step)  # type: ignore[attr-defined]
    if run.resumable:
        log.info("resumed at step %s", f"{step:,}")
    trainer.fit(module, data, ckpt_path=str(run.last) if run.resumable else None, weights_only=True)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    validation = next((c for c in callbacks if isinstance(c, Validation)), None)
    write_status(run.path, "judging", trainer.global_step)
    module.eval().to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    case = experiment.case(module.judged)
    verdict = judge(experiment.parts, case, log.info)
    metrics = dict(verdict.metrics)
    if validation is not None:
        metrics["val/simple"] = validation.simple
        metrics["val/simple_best"] = validation.best
    for logger in trainer.loggers:
        known = {key: value for key, value in plain(metrics).items() if value is not None}
        logger.log_metrics(known, trainer.global_step)
    draw_judged(verdict.records, case, run.path)
    verdict.records["card"] = {"normalizer": module.normalizer, "notes": list(card.notes)}
    return plain(metrics), plain(verdict.records)


def draw_judged(records: dict[str, Any], case: Case, folder: Path) -> None:
    """The pictures of what was judged."""
    draw_truth(folder / "truth.png", records)
    if case.law is not None and case.train[0].numel() == 2:
        fields = score_fields(case.denoiser, case.law)
        if fields:
            draw_fields(folder / "field.png", [asdict(field) for field in fields])
        if "samples" in vars(case):
            save_plane(case.samples, case.held_out, folder / "samples.png")


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
        raise UserError(f"checkpoint={checkpoint}: {run} has no such checkpoint; possible: last, best")
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
    try:
        config = sized(completed(cfg))
        earlier = folder / "metrics.json"
        if earlier.is_file() and (old := first_difference(json.loads(earlier.read_text())["config"], config)):
            raise UserError(f"{shown(folder)} holds another evaluation: {old}; choose another name=")
        experiment = build(config)
        if isinstance(experiment.module.denoiser, NetworkDenoiser):
            raise UserError("a network is judged where it was trained: run=DIR; model=oracle needs no run")
    except BaseException:
        if folder.is_dir() and not any(folder.iterdir()):
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
    if not isinstance(cfg.n, int) or cfg.n < 1:
        raise UserError(f"n={cfg.n}: draw at least 1 sample")
    if not isinstance(cfg.seed, int):
        raise UserError(f"seed={cfg.seed}: a seed is a whole number")
    words = [word.lstrip("+") for word in HydraConfig.get().overrides.task if not word.startswith("run=")]
    experiment = restored(str(cfg.run), str(cfg.checkpoint), config)
    data, denoiser = experiment.data, experiment.module.judged
    labels = torch.arange(cfg.n) % (data.classes or 1)
    with torch.no_grad():
        drawn = draw_samples(denoiser, experiment.sampler, data.shape, labels, cfg.seed, experiment.metric.chunk)
    folder = Path(str(cfg.run)) / "sample" / slug(words)
    save_samples(drawn, data, folder / "samples.png", 256)
    array = drawn if data.levels is None else to_bytes(drawn, data.levels)
    array = array.permute(0, 2, 3, 1) if array.dim() == 4 else array
    np.savez_compressed(folder / "samples.npz", array.numpy())
    log.info("%s\n%s", folder / "samples.png", folder / "samples.npz")
