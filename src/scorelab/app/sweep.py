"""Sweeps: the runs of one command, checked before the first of them starts, told in one table after the last."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from scorelab.app.words import value_of
from scorelab.config.build import build, sized
from scorelab.config.check import completed
from scorelab.config.choices import file_folders, with_choices
from scorelab.config.stored import of_today, start_from
from scorelab.config.trainer import build_trainer, quiet
from scorelab.errors import UserError
from scorelab.report.table import SweepRow, sweep_table
from scorelab.run.directory import RunDir
from scorelab.run.identity import is_machine, key_of
from scorelab.run.status import read_status
from scorelab.tracking.logger import RunLogger

LONGEST = 120


def identity(overrides: list[str]) -> list[str]:
    """The overrides that say what a run is, as key=value: choices of groups, then single values."""
    pairs = [(key_of(word), value_of(word)) for word in overrides if not is_machine(key_of(word))]
    return [f"{key}={value}" for key, value in sorted(pairs, key=lambda pair: ("." in pair[0], pair))]


def job_directory(overrides: list[str]) -> str:
    """A directory's name that says a job's overrides and can be typed back: loss-vlb_schedule-cosine.

    What Hydra's grammar or a file system would trip over becomes a dash; a hash then tells such names apart.
    """
    words = identity(overrides)
    whole = "_".join(word.replace("=", "-", 1) for word in words) or "default"
    clean = re.sub(r"[^\w.+-]", "-", whole)
    if clean == whole and len(clean) <= LONGEST:
        return clean
    return f"{clean[: LONGEST - 7]}-{digest(words)}"


def digest(words: list[str]) -> str:
    """Six hex digits of a list of words."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:6]


@dataclass(frozen=True)
class SweepJob:
    """One run of a sweep: its overrides, its whole config, its directory."""

    overrides: list[str]
    config: dict[str, Any]
    path: Path

    @property
    def results(self) -> dict[str, Any]:
        """What metrics.json says; empty where there is none."""
        return RunDir(self.path).results()

    def failure(self, failures: Mapping[str, str]) -> str | None:
        """Why this run has no figures: from ``failures`` by directory, or as stored; None where it has some."""
        refused, ended = failures.get(self.path.name), self.results.get("status")
        if ended == "finished" and not (refused and self.config["overwrite"]):
            return None
        status = read_status(self.path)
        if refused or (status is not None and status.state == "failed"):
            return f"failed: {refused or status}"
        return str(status) if status else "not started"


@dataclass(frozen=True)
class Sweep:
    """The runs of one command under logs/sweeps/NAME.

    ``best_of`` is the swept key whose best value the table shows.
    """

    path: Path
    jobs: list[SweepJob]
    best_of: str | None

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
        jobs = _expanded(words, name)
        path_of_choices = [word for word in words if key_of(word) == "hydra.searchpath"]
        configs_of = [_composed(name, [*path_of_choices, *overrides]) for overrides in jobs]
        swept = _varied(jobs)
        path = Path("logs/sweeps") / _named(words, swept)
        planned: dict[Path, SweepJob] = {}
        for overrides, cfg in zip(jobs, configs_of, strict=True):
            place = path / job_directory(overrides)
            if place in planned:
                both = " and ".join(
                    " ".join(identity(each)) or "nothing" for each in (planned[place].overrides, overrides)
                )
                raise UserError(f"two jobs of this sweep would be one run ({both}): sweep what makes runs differ")
            try:
                planned[place] = SweepJob(overrides, _checked(cfg, place), place)
            except UserError as error:
                raise UserError(f"{place.name}: {error}") from error
        best_of = configs_of[0].best_of
        if best_of is not None and best_of not in swept:
            raise UserError(
                f"best_of={best_of}: not swept; swept: {', '.join(swept) or 'nothing'} (null shows every run)"
            )
        return cls(path, list(planned.values()), best_of)

    def finished(self, failures: Mapping[str, str]) -> bool:
        """Whether every run is, by this command or an earlier one."""
        return all(job.failure(failures) is None for job in self.jobs)

    def table(self, failures: Mapping[str, str]) -> str:
        """The yardsticks of every run, or why it has none."""
        rows = []
        for job in self.jobs:
            choices = {key_of(word): value_of(word) for word in job.overrides if not is_machine(key_of(word))}
            rows.append(SweepRow(choices, job.results.get("metrics", {}), job.failure(failures)))
        limited = [job.path.name for job in self.jobs if job.results.get("time_limited")]
        note = f"\n  limited in time, so by the machine's speed: {', '.join(limited)}" if limited else ""
        return f"{self.path}\n{sweep_table(rows, self.best_of)}{note}"


def _expanded(words: list[str], name: str) -> list[list[str]]:
    """Every job's overrides, as Hydra's own sweeper makes them.

    Raises:
        UserError: for a sweep of names, and for another sweeper than Hydra's own.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    plain = [word for word in words if not parser.parse_override(word).is_sweep_override()]
    master = compose(name, plain, return_hydra_config=True)
    if not str(master.hydra.sweeper._target_).endswith("BasicSweeper"):
        raise UserError(
            f"hydra.sweeper._target_={master.hydra.sweeper._target_}: only hydra/sweeper=basic is supported"
        )
    params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    for word in words:
        if key_of(word) == "run":
            raise UserError(f"{word}: run names a single run; a sweep is named with name=")
        if key_of(word) in ("name", "best_of", "sweep") and parser.parse_override(word).is_sweep_override():
            raise UserError(f"{word}: one {key_of(word)} for the whole sweep")
    parsed = parser.parse_overrides([*params, *words])
    values = {  # one typed twice counts as the last of the two, in the place of the first
        word.get_key_element(): _values(word) for word in parsed if not str(word.key_or_group).startswith("hydra")
    }
    return [
        [f"{key}={value}" for key, value in zip(values, chosen, strict=True)] for chosen in product(*values.values())
    ]


def _values(word: Override) -> list[str]:
    """What an override sets its key to, job by job.

    Raises:
        UserError: for a sweep over what is not a list of values.
    """
    if not word.is_sweep_override():
        return [word.get_value_element_as_str()]
    if not word.is_discrete_sweep():
        raise UserError(f"{word.input_line}: a sweep needs its values one by one: {word.key_or_group}=A,B,...")
    return list(word.sweep_string_iterator())


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


def _checked(cfg: DictConfig, place: Path) -> dict[str, Any]:
    """A job's whole config, once everything in it has been built and its directory looked at."""
    config = sized(completed(cfg))
    experiment = build(config)
    build_trainer(config, place, RunLogger())  # to see that it can be; the job's own is built where it runs
    run = RunDir(place)
    if not config["overwrite"]:
        run.check(config, of_today)
    if config["init_from"] and (config["overwrite"] or run.newest() is None):
        start_from(experiment.module, Path(config["init_from"]), config["prediction"])
    return config
