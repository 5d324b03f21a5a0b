"""One wrapper around hydra.main: fast help, overrides without a plus sign, one line per error."""

import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from scorelab.app.again import TYPED
from scorelab.app.words import Line, value_of
from scorelab.config.check import nearest
from scorelab.errors import Interrupted, UserError
from scorelab.run.identity import key_of
from scorelab.run.surroundings import settle

OWN = {
    "hydra.mode": "type -m for several runs, nothing for one",
    "hydra.sweep.subdir": "a job's directory is named by its overrides",
    "hydra.sweep": "a sweep's directory is named with name=",
    "hydra.run": "a run's directory is named with run=",
    "hydra.output_subdir": "the whole configuration is in the run's config.yaml",
    "hydra.job.chdir": "a command works where it was typed, and paths count from there",
    **dict.fromkeys(
        ("hydra.job.name", "hydra.job.num", "hydra.job.id", "hydra.job.config", "hydra.job.config_name"),
        "a run is named with run=, a sweep with name=",
    ),
    **dict.fromkeys(("hydra.job.override_dirname", "hydra.runtime", "hydra.overrides"), "Hydra itself says this"),
}
PLUGINS = (
    "pip install hydra-submitit-launcher (submitit_slurm, submitit_local), hydra-joblib-launcher (joblib) or "
    "hydra-ray-launcher (ray)"
)
FAULT = "a fault of the program, not of what was typed"
RUN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,119}")


def entry(configs: Path, name: str, job: str) -> None:
    """Run ``job`` ("package.module:function") on the config ``name``, composed by Hydra from ``configs``.

    A dotted override (model.dropout=0.1) may name any argument of a node's class, whether YAML mentions it or not:
    Hydra is told to add it, and scorelab.config.check refuses what no class takes. Errors are one line, exit status 2
    for what the user can change and 1 for the rest; debug=true or HYDRA_FULL_ERROR=1 shows the traceback.
    """
    settle()
    import hydra

    TYPED.remember(sys.argv)
    full = "debug=true" in map(str.lower, sys.argv) or os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors through, to be told below

    folders = [configs]
    failed: list[Exception] = []
    failures: dict[str, str] = {}  # of a sweep, by the job's directory

    def call(cfg: Any) -> object:
        from hydra.core.hydra_config import HydraConfig

        from scorelab.config.choices import file_folders, with_choices

        module, function = job.split(":")
        try:
            return getattr(import_module(module), function)(with_choices(cfg, file_folders(HydraConfig.get())))
        except Exception as error:  # Hydra would print it in its own way, and end a sweep with a traceback
            if (place := _place_in_sweep()) is not None:
                if full:
                    traceback.print_exc()
                failures[place] = one_line(error, folders).text
                print(f"{place} failed: {failures[place]}", file=sys.stderr)
            else:  # of a sweep's job only the line is kept: an error holds its run's lock and all it had in memory
                failed.append(error)
            return None

    try:
        line = Line.typed(sys.argv[1:])
        folders += line.directories
        if "--help" in line.flags:
            from scorelab.app.help import help_text

            print(help_text(configs, name))
            return
        if name == "eval" and _without_run(line.words):
            name, job = "exact", "scorelab.app.evaluate:evaluate_exact"
        _refuse(line, folders, name)
        line = line.for_hydra(name)
        sys.argv[1:] = line.argv()
        main = hydra.main(version_base="1.3", config_path=str(configs), config_name=name)(call)
        if name == "train" and line.several and not line.shows:
            sys.exit(_sweep(main, line.words, configs, name, failures))
        main()
        if failed:
            raise failed[0]
        if failures:
            sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Interrupted as stop:
        print(stop.told, file=sys.stderr)
        sys.exit(stop.status)
    except Exception as error:
        if full:
            raise
        told = one_line(error, folders)
        print(f"error: {told.text}", file=sys.stderr)
        sys.exit(told.status)


def _without_run(words: list[str]) -> bool:
    """Whether eval is to compose like train: a model is named, and no run."""
    keys = {word.partition("=")[0] for word in words}
    return "model" in keys and "run" not in keys


def _sweep(main: Callable[[], None], words: list[str], configs: Path, name: str, failures: dict[str, str]) -> int:
    """Check every job, run those that are not finished, print one table; the exit status."""
    from scorelab.app.sweep import Sweep

    sweep = Sweep.planned(words, configs, name)
    if not sweep.finished({}) or any(job.config["overwrite"] for job in sweep.jobs):
        sys.argv.append(f"hydra.sweep.dir={sweep.path}")
        main()
    print(sweep.table(failures))
    return 0 if sweep.finished(failures) else 1


def _place_in_sweep() -> str | None:
    """The directory's name of this job where it is one of several."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from scorelab.app.sweep import job_directory

    hydra = HydraConfig.get()
    return job_directory(list(hydra.overrides.task)) if hydra.mode == RunMode.MULTIRUN else None


@dataclass(frozen=True)
class ErrorLine:
    """An error in one line, and the exit status that goes with it."""

    text: str
    status: int


def one_line(error: Exception, folders: list[Path]) -> ErrorLine:
    """What the person at the keyboard is told of an error."""
    from scorelab.errors import EvaluationFailed
    from scorelab.run.machine import BATCH, machine_error

    if isinstance(error, UserError):
        return ErrorLine(str(error), 2)
    if isinstance(error, EvaluationFailed):
        return ErrorLine(str(error), 1)
    if (told := composition_error(error, folders)) is not None:
        return ErrorLine(told, 2)
    if (known := machine_error(error, Path.cwd(), BATCH)) is not None:
        return ErrorLine(str(known), 2)
    where = " ".join(getattr(error, "__notes__", ())) or "debug=true shows where"
    return ErrorLine(f"{type(error).__name__}: {' '.join(str(error).split())}: {FAULT} ({where})", 1)


def composition_error(error: Exception, folders: list[Path]) -> str | None:
    """What Hydra's refusal of an override comes to, in one line; None for an error that is no such refusal."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    from scorelab.config.refusals import of_omegaconf

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause.override)
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            choices = choices_of(group, folders) | set(cause.options or ())
            told = f"{group}={choice}: no such choice; choices: {', '.join(sorted(choices))}"
            return told + (f"; others come with {PLUGINS}" if group == "hydra/launcher" else "")
    if isinstance(error, OmegaConfBaseException):
        return of_omegaconf(error)
    return " ".join(str(error).split()) if isinstance(error, HydraException) else None


def _unreadable(word: str) -> str:
    """What is told of a word that Hydra's grammar has no room for."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[+~]*[A-Za-z_][\w./@]*", key):
        return f"{word}: not of the form key=value"
    quote = "'" if '"' in value else '"'
    typed = shlex.quote(f"{key.lstrip('+')}={quote}{value}{quote}")
    return f"{word.lstrip('+')}: such a value needs quotes that the shell leaves: type {typed}"


def _refuse(line: Line, folders: list[Path], name: str) -> None:
    """Look at the words before Hydra composes, makes directories, or adds a key that nothing reads.

    Raises:
        UserError: for a key that does not exist, a group left without a choice, a run's name that is no name.
    """
    if "--shell-completion" in line.flags:
        return
    if name == "exact" and "--multirun" in line.flags:
        raise UserError("-m: an exact denoiser is evaluated one choice at a time")
    known = known_keys(folders[0], name)
    for word in line.words:
        key, value = key_of(word), value_of(word)
        top = re.split(r"[.@]", key)[0]
        if told := _of_hydra(key, value):
            raise UserError(f"{word}: {told}")
        if name in ("eval", "sample") and (word.startswith("~") or (word.startswith("+") and "." not in key)):
            raise UserError(f"{word}: type group=choice, group.key=value, or metrics.NAME=null to leave a part out")
        if top.startswith("hydra") or not ("=" in word or word.startswith("~")):
            continue
        if top not in known and top in known_keys(folders[0], "train"):
            raise UserError(
                f"{key} belongs to training and is fixed in a stored run; possible: {', '.join(sorted(known))}"
            )
        if top not in known:
            raise UserError(f"{key}: no such key{nearest(top, known)}")
        choices = choices_of(key, folders)
        if choices and (word.startswith("~") or value in ("", "null")):
            raise UserError(f"{word}: a choice is needed; choices: {', '.join(sorted(choices))}")
        if word.startswith("~") and key == top:
            raise UserError(f"{word}: {key} has to have a value: {key}=...")
        if name == "train" and key in ("name", "best_of") and value != "null" and not line.several:
            raise UserError(f"{word}: {key} belongs to a sweep (-m, or sweep=...); a single run is named with run=")
        if key in ("run", "name") and name in ("train", "exact") and not RUN_NAME.fullmatch(value):
            what = {"run": "a run", "name": "a sweep" if name == "train" else "an evaluation"}[key]
            raise UserError(f"{key}={value}: {what}'s name has letters, digits, '_', '-' and '.' only")


def _of_hydra(key: str, value: str) -> str | None:
    """Why one of Hydra's keys would break what the program means by a run and its place; None where it would not."""
    if key == "hydra/sweeper" and value != "basic":
        return "only hydra/sweeper=basic is supported"
    if key in ("hydra", "hydra.job"):
        return "set its keys one by one"
    if key == "hydra.job.chdir" and value.lower() in ("false", "null"):
        return None
    return next((told for own, told in OWN.items() if key == own or key.startswith(f"{own}.")), None)


def choices_of(group: str, folders: list[Path]) -> set[str]:
    """The names of a group's files."""
    return {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}


def known_keys(configs: Path, name: str) -> set[str]:
    """The groups a config composes, and its own top-level keys."""
    import yaml

    own = yaml.safe_load((configs / f"{name}.yaml").read_text(encoding="utf-8"))
    groups = {group for entry in own["defaults"] if isinstance(entry, dict) for group in entry}
    included = [entry for entry in own["defaults"] if isinstance(entry, str) and entry != "_self_"]
    keys = groups.union(own, *(known_keys(configs, each) for each in included))
    return {key for key in keys if " " not in key} - {"defaults", "hydra"}
