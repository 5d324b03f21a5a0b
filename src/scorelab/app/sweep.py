"""Sweeps: the runs of one command, checked before the first of them starts, told in one table after the last."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, open_dict

from scorelab.app.names import LONGEST, digest, identity, job_directory
from scorelab.app.words import value_of
from scorelab.config.build import build, sized
from scorelab.config.check import completed
from scorelab.config.choices import file_folders, with_choices
from scorelab.config.stored import of_today, start_from
from scorelab.config.trainer import build_trainer, quiet
from scorelab.errors import UserError
from scorelab.run.directory import RunDir
from scorelab.run.identity import key_of, read_config
from scorelab.run.status import read_status, told
from scorelab.tracking.logger import RunLogger


@dataclass(frozen=True)
class SweepJob:
    """One run of a sweep: its overrides, its whole config, its directory, how many weights it trains."""

    overrides: list[str]
    config: dict[str, Any]
    path: Path
    weights: int = 0

    @property
    def results(self) -> dict[str, Any]:
        """What metrics.json says; empty where there is none."""
        return RunDir(self.path).results()

    @property
    def failure(self) -> str | None:
        """Why this run has no figures, by what it has left on disk; None where it has some."""
        status = read_status(self.path)
        if self.results.get("status") == "finished" and (status is None or status.state != "failed"):
            return None
        return told(status) if status else "not started"


@dataclass(frozen=True)
class Sweep:
    """The runs of one command under logs/sweeps/NAME.

    ``best_of`` is the swept key whose best value the table shows. Of a search (``searches``) the runs are not known
    before it is over: ``jobs`` holds one, whose other values lie in the same ranges. ``folders`` are those that
    choices come from, the user's among them.
    """

    path: Path
    jobs: list[SweepJob]
    swept: list[str]
    best_of: str | None
    searches: bool = False
    folders: Sequence[Path] = ()

    @classmethod
    def planned(cls, words: list[str], configs: Path, name: str) -> "Sweep":
        """What a command line asks for, every job composed, built once and compared with what is on disk.

        Raises:
            UserError: for the first job that cannot run, before any does.
        """
        quiet()
        words = [word for word in words if not word.startswith("-")]
        with initialize_config_dir(str(configs), version_base="1.3"):
            return cls._planned(words, name)

    @classmethod
    def _planned(cls, words: list[str], name: str) -> "Sweep":
        expanded = _expanded(words, name)
        path_of_choices = [word for word in words if key_of(word) == "hydra.searchpath"]
        configs_of = _all_composed(name, path_of_choices, expanded.jobs)
        path = Path("logs/sweeps") / _named(words, expanded.swept)
        planned: dict[Path, SweepJob] = {}
        sound: dict[str, int] = {}
        for overrides, cfg in zip(expanded.jobs, configs_of, strict=True):
            place = path / job_directory(overrides, expanded.swept)
            if place in planned:
                both = " and ".join(
                    " ".join(identity(each)) or "nothing" for each in (planned[place].overrides, overrides)
                )
                raise UserError(f"two jobs of this sweep would be one run ({both}): sweep what makes runs differ")
            try:
                planned[place] = _checked(SweepJob(overrides, completed(cfg), place), sound)
            except UserError as error:
                raise UserError(f"{job_directory(overrides)}: {error}") from error
        best_of = configs_of[0].best_of
        if best_of is not None and best_of not in expanded.swept:
            swept = ", ".join(expanded.swept) or "nothing"
            raise UserError(f"best_of={best_of}: not swept; swept: {swept} (null shows every run)")
        return cls(path, list(planned.values()), expanded.swept, best_of, expanded.searches, expanded.folders)

    @property
    def finished(self) -> bool:
        """Whether every run is, by this command or an earlier one."""
        return all(job.failure is None for job in self.jobs)

    def found(self) -> "Sweep":
        """The same with the runs that a search has made, by what they have left."""
        if not self.searches:
            return self
        made = []
        for file in sorted(self.path.glob("*/config.yaml")):
            made.append(SweepJob([], read_config(file), file.parent))
        return replace(self, jobs=made)


@dataclass(frozen=True)
class Expanded:
    """Every job's overrides, the keys that differ between jobs, in the order typed, and whether they are searched.

    ``folders`` are those that choices come from.
    """

    jobs: list[list[str]]
    swept: list[str]
    searches: bool
    folders: list[Path]


def _expanded(words: list[str], name: str) -> Expanded:
    """What Hydra's own sweeper makes of the words, or one job within the ranges that a search has.

    Raises:
        UserError: for a sweep of names, for a sweeper that is not known, for what does not go with the launcher.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    plain = [word for word in words if not parser.parse_override(word).is_sweep_override()]
    master = compose(name, plain, return_hydra_config=True)
    folders = file_folders(master.hydra)
    sweeper, launcher = str(master.hydra.sweeper._target_), str(master.hydra.launcher._target_)
    searches = sweeper.endswith(".OptunaSweeper")
    if not (searches or sweeper.endswith(".BasicSweeper")):
        raise UserError(f"hydra.sweeper._target_={sweeper}: possible: hydra/sweeper=basic, optuna")
    if launcher.endswith(".SlurmLauncher") and shutil.which("sbatch") is None:
        raise UserError("hydra/launcher=submitit_slurm: no Slurm here (no sbatch); joblib and submitit_local need none")
    if master.detach and (searches or not launcher.endswith(".SlurmLauncher")):
        who = "a search asks its jobs for results" if searches else "the jobs of another would end with the terminal"
        raise UserError(f"detach=true goes with hydra/launcher=submitit_slurm and no search: {who}")
    params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    for word in words:
        if key_of(word) == "run":
            raise UserError(f"{word}: run names a single run; a sweep is named with name=")
        if key_of(word) in ("name", "best_of", "sweep", "detach") and parser.parse_override(word).is_sweep_override():
            raise UserError(f"{word}: one {key_of(word)} for the whole sweep")
    parsed = [
        word for word in parser.parse_overrides([*params, *words]) if not str(word.key_or_group).startswith("hydra")
    ]
    of = _one_value if searches else _values
    values = {word.get_key_element(): of(word) for word in parsed}  # one typed twice counts as the last of the two
    jobs = [
        [f"{key}={value}" for key, value in zip(values, chosen, strict=True)] for chosen in product(*values.values())
    ]
    if searches:
        swept = [key_of(str(word.key_or_group)) for word in parsed if word.is_sweep_override()]
        return Expanded(jobs, list(dict.fromkeys(swept)), True, folders)
    return Expanded(jobs, _varied(jobs), False, folders)


def _values(word: Override) -> list[str]:
    """What an override sets its key to, job by job.

    Raises:
        UserError: for a sweep over what is not a list of values.
    """
    if not word.is_sweep_override():
        return [word.get_value_element_as_str()]
    if not word.is_discrete_sweep():
        told = f"{word.key_or_group}=A,B,... (hydra/sweeper=optuna searches in intervals)"
        raise UserError(f"{word.input_line}: a sweep needs its values one by one: {told}")
    return list(word.sweep_string_iterator())


def _one_value(word: Override) -> list[str]:
    """A value that a search may try: the first of a list, the lower end of a range."""
    found = word.value()
    if isinstance(found, ChoiceSweep | RangeSweep):
        return [next(iter(word.sweep_string_iterator()))]
    return [str(found.start) if isinstance(found, IntervalSweep) else word.get_value_element_as_str()]


def _all_composed(name: str, first: list[str], jobs: list[list[str]]) -> list[DictConfig]:
    """Every job's config. Jobs that differ in their seed alone are composed once: Hydra takes a third of a second."""
    known: dict[tuple[str, ...], DictConfig] = {}
    found = []
    for overrides in jobs:
        seeds = [word for word in overrides if key_of(word) == "seed"]
        others = tuple(word for word in overrides if key_of(word) != "seed")
        if others not in known:
            known[others] = _composed(name, [*first, *others, *seeds])
        cfg = known[others].copy()
        for word in seeds:
            cfg.seed = OverridesParser.create().parse_override(word).value()
        found.append(cfg)
    return found


def _composed(name: str, overrides: list[str]) -> DictConfig:
    """A job's config as its entry will have it."""
    cfg = compose(name, overrides, return_hydra_config=True)
    folders = file_folders(cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
    return with_choices(cfg, folders)


def _varied(jobs: list[list[str]]) -> list[str]:
    """The keys that differ between jobs, in the order typed."""
    return [key_of(first) for first, *others in zip(*jobs, strict=True) if any(other != first for other in others)]


def _named(words: list[str], swept: list[str]) -> str:
    """NAME of name=NAME; else the named sweep, or the swept keys, and a hash of all overrides."""
    given = {key_of(word): value_of(word) for word in words}
    if given.get("name", "null") != "null":
        return given["name"]
    slug = given.get("sweep") or "_".join(key.rpartition(".")[2] for key in swept) or "one"
    hashed = digest([*identity(words), *(word for word in words if key_of(word) == "sweep")])
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', slug)[:LONGEST]}-{hashed}"


def _checked(job: SweepJob, sound: dict[str, int]) -> SweepJob:
    """A job with its whole config, once everything in it has been built and its directory looked at.

    Jobs that differ in their seed alone are built once; ``sound`` remembers how many weights those had.
    """
    config = sized(job.config)
    kind = json.dumps(config | {"seed": 0, "run": ""}, sort_keys=True, default=str)
    starts = config["init_from"] and (config["overwrite"] or RunDir(job.path).newest() is None)
    if kind not in sound or starts:
        experiment = build(config)
        build_trainer(config, job.path, RunLogger())  # to see that it can be; the job's own is built where it runs
        sound[kind] = sum(each.numel() for each in experiment.module.denoiser.parameters())
        if starts:
            start_from(experiment.module, Path(config["init_from"]), config["prediction"])
    if not config["overwrite"]:
        RunDir(job.path).check(config, of_today)
    return replace(job, config=config, weights=sound[kind])
