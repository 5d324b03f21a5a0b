"""What the entry train does: one run, from its directory to its results; resumed, skipped or refused as that says."""

import logging
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from scorelab.app.again import TYPED
from scorelab.app.expected import expectation, noise_levels
from scorelab.app.names import place_in_sweep
from scorelab.app.nodes import over_nodes
from scorelab.app.requeued import going_on, taken
from scorelab.config.build import Experiment, build, on_cpu, sized, source_of
from scorelab.config.check import completed, instantiate
from scorelab.config.choices import file_folders, that_ran
from scorelab.config.device import as_written
from scorelab.config.loggers import loggers_of
from scorelab.config.refusals import called
from scorelab.config.stored import of_today, start_from
from scorelab.config.threads import Threads, choose, use, work
from scorelab.config.trainer import Training, build_trainer, quiet
from scorelab.data.base import Source
from scorelab.denoisers import NetworkDenoiser
from scorelab.errors import EvaluationFailed, UserError
from scorelab.evaluation import Results, run_yardsticks
from scorelab.files import display_path, plain
from scorelab.lit.bar import evaluations_shown
from scorelab.lit.environment import ProcessEnvironment, launched_place
from scorelab.lit.pictures import draw_results, learned_curve
from scorelab.lit.spread import spread
from scorelab.report.card import draw_cards, write_card
from scorelab.report.table import table
from scorelab.run.checkpoints import Newest
from scorelab.run.directory import RunDir
from scorelab.run.failures import Job, lost, recorded
from scorelab.run.heartbeat import Heartbeat
from scorelab.run.identity import read_config
from scorelab.run.log_file import log_file
from scorelab.run.nodes import Leader
from scorelab.run.processes import Processes, free_port, see_complete
from scorelab.run.signals import SIGNALS
from scorelab.run.slurm import requeued, time_for_a_step
from scorelab.tracking.history import History, flat
from scorelab.tracking.logger import Loggers, RunLogger

WORKER = "scorelab.app.worker"
log = logging.getLogger("scorelab")


def train(cfg: DictConfig) -> dict[str, float | None]:
    """Train, evaluate and record one run; resume it, skip it or refuse it where the directory says so.

    Raises:
        UserError: for what the person at the keyboard can change; the run is resumable wherever it has a checkpoint.
        Interrupted: when a signal ended it, all that it had reached saved.
    """
    quiet()
    return over_nodes(cfg, lead)


def lead(cfg: DictConfig, leader: Leader | None = None) -> dict[str, float | None]:
    """What ``train`` does, in the first of a run's processes; ``leader`` is this one's part over several nodes."""
    run = RunDir(run_directory())
    try:
        config = completed(cfg)
        source = source_of(config)
        config = sized(config, source)
        run = taken(run, config)
        config = named(going_on(config, run), run.path)
        if not config["overwrite"]:
            run.check(config, of_today)
            if run.finished:
                results = run.finish()
                log.info("%s is finished:\n%s", display_path(run.path), table(results["metrics"], results["records"]))
                return results["metrics"]
        objects = ready(config, run, source, leader)
        config |= {"threads": objects.threads.number}
    except BaseException:
        run.discard()
        raise
    with log_file(run.path), SIGNALS.listening(farewell=lambda: run.say("interrupted", None)), requeued():
        job = attempt(objects, config, run, leader)
    log.info("%s", table(job.metrics, job.records))
    log.info("%s: %s", display_path(run.path), ", ".join(what_is_there(run.path)))
    if job.reason is not None:
        raise EvaluationFailed(job.reason)
    return job.metrics


def what_is_there(directory: Path) -> list[str]:
    """What a run has left, of what is worth looking at first."""
    names = ("metrics.json", "metrics.csv", "config.yaml", "samples/", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    return [name for name in names if (directory / name).exists()]


def run_directory() -> Path:
    """Where this job works: what Hydra says; in a sweep, a directory there that its overrides name."""
    return place_in_sweep() or Path(HydraConfig.get().runtime.output_dir)


def named(config: dict[str, Any], place: Path) -> dict[str, Any]:
    """The config with its run named after its directory."""
    return config | {"run": place.name}


@dataclass(frozen=True)
class Ready:
    """All objects of a run.

    Attributes:
        loggers: those that are told of it: none yet, for they write into its directory.
        port: where its processes meet.
        title: of its weight card: the choices that decide it.
        threads: how many compute, and why.
    """

    experiment: Experiment
    training: Training
    loggers: Loggers
    port: int
    title: str
    threads: Threads


def ready(config: dict[str, Any], run: RunDir, source: Source | None = None, leader: Leader | None = None) -> Ready:
    """All objects of a run that may begin, or go on.

    Raises:
        UserError: when it may not.
    """
    use(1)  # what is told before the first step hangs on no number of threads
    experiment = build(config, source=source)
    if not isinstance(experiment.module.denoiser, NetworkDenoiser):
        raise UserError("this model has nothing to train: python src/eval.py model=exact data=... evaluates it")
    loggers, port = Loggers(), 0 if config["trainer"]["devices"] == 1 else free_port()
    place = launched_place(leader.here) if leader else ProcessEnvironment(0, port)
    training = build_trainer(config, run.path, loggers, place)
    if config["init_from"] and (config["overwrite"] or run.newest() is None):
        start_from(experiment.module, Path(config["init_from"]), config["prediction"])
    one, other = (
        ", ".join(called(group, config[group]) for group in groups)
        for groups in (("loss", "schedule"), ("timesteps", "prediction"))
    )
    processes = 1 if leader else config["trainer"]["devices"]  # over nodes each has been given its own cores
    cost = partial(work, experiment.module.denoiser, experiment.data, config["evaluation"]["chunk"])
    threads = choose(config["threads"], had(run, config["overwrite"]), processes, cost if on_cpu(config) else None)
    use(threads.number, processes)
    return Ready(experiment, training, loggers, port, f"{one},\n{other}", threads)


def had(run: RunDir, anew: bool) -> object:
    """How many threads a run that goes on has been trained with; None where that is not known, and where it begins."""
    file = run.path / "config.yaml"
    return None if anew or not file.exists() else read_config(file).get("threads")


def attempt(objects: Ready, config: dict[str, Any], run: RunDir, leader: Leader | None = None) -> Job:
    """Train and evaluate, and say in metrics.json and status.json how it ended, whatever ends it."""
    SIGNALS.waits = True  # but where something can say how the run ended, and nothing would be lost
    loggers, trainer = objects.loggers, objects.training.trainer
    others = set(multiprocessing.active_children())  # a launcher's, say
    job = Job(run, config, TYPED.again(run.path.name, HydraConfig.get().mode == RunMode.MULTIRUN), loggers)
    with recorded(job), time_for_a_step(run.checkpoints):
        if config["overwrite"]:
            run.clear()
        run.claim(config)
        devices, last = config["trainer"]["devices"], partial(lost, job)
        here = Processes(run.path, devices, objects.port, WORKER, last)
        processes = leader.of(run.path, config, last) if leader else here
        job.fallen = lambda: processes.fallen
        job.steps = lambda: trainer.global_step
        loggers.add(History(run.path))
        job.heartbeat = heartbeat = Heartbeat(run, lambda: trainer.global_step)
        with heartbeat, SIGNALS.waiting(False):
            for logger in wanted_loggers(config, run):
                loggers.add(logger)
            found = begin(objects, run)
            try:
                with SIGNALS.waiting(), processes.at(found.path if found else None):
                    fit(objects, processes)
                    with SIGNALS.waiting(False):
                        heartbeat.enter("evaluating")
                        results = evaluated(objects, run)
            finally:
                left = set(multiprocessing.active_children()) - others
                for worker in left:  # where an error is, and deaf to gentler words
                    worker.kill()
                    worker.join()
            job.metrics, job.records, job.failed = results.metrics, results.records, results.failed
    return job


def wanted_loggers(config: dict[str, Any], run: RunDir) -> list[RunLogger]:
    """The loggers that the config names beside metrics.csv."""
    hydra = HydraConfig.get()
    ran = that_ran(config, hydra.runtime.choices, file_folders(hydra))
    given = {"directory": run.path, "name": config["run"], "config": flat(config, ran)}
    return [instantiate(node, path, **given) for path, node in loggers_of(config)]


def begin(objects: Ready, run: RunDir) -> Newest | None:
    """Say what there is to say before the first step; the newest checkpoint that is whole, to go on from."""
    experiment, trainer = objects.experiment, objects.training.trainer
    module = experiment.module
    found = run.newest()
    done = found.step if found else 0
    log.info("%s: %s", display_path(run.path), expectation(experiment, trainer, done))
    if objects.threads.told:
        log.info("%s", objects.threads.told)
    card = experiment.card
    log.info("%s", noise_levels(module.denoiser.schedule))
    for note in card.notes:
        log.info("weight card: %s", note)
    write_card(run.path / "card.csv", card.rows(), card.notes)
    draw_cards(run.path / "card.png", {objects.title: {"": card.rows()}}, card.notes)
    say_where_it_starts(module.origin, run, found)
    if found:
        found.put_in_order()
    objects.loggers.truncate_after(found.step if found else -1)
    return found


def fit(objects: Ready, processes: Processes | Leader) -> None:
    """Train to the last step."""
    experiment, trainer = objects.experiment, objects.training.trainer
    path = None if processes.checkpoint is None else str(processes.checkpoint)
    trainer.fit(experiment.module, experiment.data, ckpt_path=path, weights_only=True)
    see_complete(processes.devices, processes.nodes)
    if trainer.global_step < trainer.max_steps:
        log.info(
            "time-limited: stopped after %s steps, so its figures depend on how fast they were", trainer.global_step
        )


def say_where_it_starts(origin: dict[str, Any] | None, run: RunDir, found: Newest | None) -> None:
    """How the job before ended, which checkpoints are damaged, and the step this one begins at."""
    if run.left_by is not None and run.left_by.state != "waiting":
        step = "" if run.left_by.step is None else f" at step {run.left_by.step:,}"
        log.info("%s was left by an earlier job: %s%s", display_path(run.path), run.left_by.state, step)
    for damaged in found.damaged.values() if found else ():
        log.warning("%s", damaged)
    if found:
        log.info("resumed at step %s (%s)", f"{found.step:,}", found.path.name)
    elif origin:
        log.info("begun with the weights of %s at step %s", origin["run"], f"{origin['step']:,}")


def evaluated(objects: Ready, run: RunDir) -> Results:
    """Evaluate the averaged weights of the last step, all processes together; record and draw what is found."""
    experiment, trainer, checkpointing = objects.experiment, objects.training.trainer, objects.training.checkpointing
    module = experiment.module
    module.eval().to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    context = experiment.context(module.evaluated)
    with spread(module.evaluated), as_written(experiment.compiled):
        results = run_yardsticks(experiment.yardsticks, context, log.info, partial(evaluations_shown, context.denoiser))
    for name in results.failed:
        log.debug("%s failed:\n%s", name, "\n".join(results.records[name]["traceback"]))
    results.metrics |= checkpointing.figures()
    results.metrics, results.records = plain(results.metrics), plain(results.records)
    known = {key: value for key, value in results.metrics.items() if value is not None}
    objects.loggers.log_metrics(known, trainer.global_step)
    draw_results(results.records, context, run.path)
    results.records["data"] = experiment.data.records()
    results.records["card"] = {"normalizer": module.normalizer, "notes": list(experiment.card.notes)}
    if module.evaluated.schedule.learns:
        results.records["schedule"] = learned_curve(module.evaluated.schedule)
    results.records["training"] = {
        "steps": trainer.global_step,
        "skipped": checkpointing.guard.skipped,
        "processes": trainer.world_size,
        "global_batch": experiment.data.batch_size * trainer.accumulate_grad_batches * trainer.world_size,
        "device": module.device.type,
        "threads": torch.get_num_threads(),
        "compiled": experiment.compiled,
        "precision": str(trainer.precision),
        "init_from": module.origin,
    }
    return results
