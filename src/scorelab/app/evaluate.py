"""What the entries eval and sample do with a stored run."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from scorelab.app.average import averaged_as_asked
from scorelab.app.guidance import guided
from scorelab.app.request import read_request, typed_words
from scorelab.app.sample import DRAWN
from scorelab.app.several import several
from scorelab.config.build import Experiment, build, build_data, sized, source_of
from scorelab.config.check import completed
from scorelab.config.stored import (
    DENOISER,
    checkpoint_of,
    load_run,
    of_today,
    on_its_device,
    run_directory,
    slug,
    trained_denoiser,
)
from scorelab.config.threads import taken_up
from scorelab.config.trainer import quiet
from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.errors import EvaluationFailed, UserError
from scorelab.evaluation import EvaluationContext, run_yardsticks
from scorelab.files import display_path, plain, remove_temporary, write_json
from scorelab.lit.bar import evaluations_shown
from scorelab.lit.pictures import draw_results
from scorelab.lit.weights import load_weights
from scorelab.report.table import table
from scorelab.run.directory import RunDir, first_free
from scorelab.run.failures import failed_parts
from scorelab.run.identity import first_difference, key_of
from scorelab.run.machine import in_one_line

log = logging.getLogger("scorelab")


EVALUATED = (*DRAWN, "loss", "timesteps", "extractor", "metrics")


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
    if (difference := first_difference(of_today(mine), its)) is not None:
        raise UserError(f"against={directory} is of other data ({difference})")
    return trained_denoiser(config, build_data(config), file)


def evaluate(cfg: DictConfig) -> dict[str, float | None]:
    """Evaluate a stored run again, with other samplers or yardsticks if asked; never over the run's own figures."""
    quiet()
    request = read_request(cfg, ("sampler", "extractor", "metrics", "evaluation"))
    against, checkpoint = request.own["against"], str(request.own["checkpoint"])
    with in_one_line(request.run, "evaluation.chunk"):
        weights = checkpoint_of("run", request.run, checkpoint)
        config = load_run(request.run, EVALUATED, request.changes)
        experiment = build(config, training=False)
        load_weights(experiment.module, weights)
        about = averaged_as_asked(experiment.module.evaluated, request.own, request.run)
        on_its_device(experiment.module)
        typed, had, devices = request.own["threads"], config.get("threads"), request.own["devices"]
        chunk = experiment.settings.chunk
        config["threads"] = taken_up(experiment.module.denoiser, experiment.data, chunk, typed, had, devices)
        other = other_denoiser(None if against is None else str(against), checkpoint, config["data"])
        context = experiment.context(guided(experiment.module.evaluated, request.own, config), other)
        folder = request.run / "eval" / slug(typed_words())
        with several(devices, config, weights, experiment.module.evaluated, request.own["average"]):
            return evaluated(experiment, context, typed_words(), config, folder, about)


def evaluate_exact(cfg: DictConfig) -> dict[str, float | None]:
    """Evaluate the exact denoiser of a data set: what is left is the sampler's error and the estimators'."""
    quiet()
    hydra = HydraConfig.get()
    folder, words = Path(hydra.runtime.output_dir), typed_words()
    free = None if "name" in map(key_of, hydra.overrides.task) else first_free(folder)
    folder = folder if free is None else free.path
    try:
        config = completed(cfg)
        source = source_of(config)
        config = sized(config, source) | {"name": folder.name}
        earlier = RunDir(folder).results()
        if earlier and (old := first_difference(of_today(earlier["config"]), plain(config))):
            raise UserError(f"{display_path(folder)} holds another evaluation: {old}; choose another name=")
        experiment = build(config, source=source)
        if isinstance(experiment.module.denoiser, NetworkDenoiser):
            raise UserError("a network is evaluated where it was trained: run=DIR; model=exact needs no run")
    except BaseException:
        if free is not None:
            free.discard()
        elif folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    on_its_device(experiment.module)
    denoiser, chunk = experiment.module.denoiser, experiment.settings.chunk
    config["threads"] = taken_up(denoiser, experiment.data, chunk, config["threads"])
    with in_one_line(folder, "evaluation.chunk"):
        return evaluated(experiment, experiment.context(denoiser), words, config, folder)


def evaluated(
    experiment: Experiment,
    context: EvaluationContext,
    words: list[str],
    config: dict[str, Any],
    folder: Path,
    about: dict[str, Any] | None = None,
) -> dict[str, float | None]:
    """Evaluate, write metrics.json and the pictures into a folder, say the table; ``about`` are further records."""
    shown = partial(evaluations_shown, context.denoiser)
    results = run_yardsticks(experiment.yardsticks, context, log.info, shown)
    results.records |= {"data": experiment.data.records()} | (about or {})
    remove_temporary(folder, shared=True)
    content = {"overrides": words, "metrics": results.metrics, "records": results.records, "config": config}
    write_json(folder / "metrics.json", plain(content))
    draw_results(results.records, context, folder)
    log.info(
        "%s", "\n".join(filter(None, (table(results.metrics, results.records), display_path(folder / "metrics.json"))))
    )
    if (told := failed_parts(results.failed, folder / "metrics.json")) is not None:
        raise EvaluationFailed(told)
    return plain(results.metrics)
