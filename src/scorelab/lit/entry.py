"""One wrapper around hydra.main: fast help, overrides without a plus sign, one line per error."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from scorelab.lit.again import TYPED
from scorelab.lit.signals import Interrupted
from scorelab.lit.surroundings import settle

DOTTED = re.compile(r"^[A-Za-z_]\w*(\.\w+)+=")
OWN = {
    "hydra.mode": "type -m for several runs, nothing for one",
    "hydra.sweep.dir": "a sweep's directory is named with name=",
    "hydra.sweep.subdir": "a job's directory is named by its overrides",
    "hydra.run.dir": "a run's directory is named with run=",
}
RUN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,119}")


def entry(configs: Path, name: str, job: str) -> None:
    """Run ``job`` ("package.module:function") on the config ``name``, composed by Hydra from ``configs``.

    A dotted override (model.dropout=0.1) may name any argument of a node's class, whether YAML mentions it or not:
    Hydra is told to add it, and scorelab.lit.config refuses what no class takes. Errors are one line, exit status 2
    for what the user can change and 1 for the rest; debug=true or HYDRA_FULL_ERROR=1 shows the traceback.
    """
    settle()
    if {"-h", "--help"} & set(sys.argv[1:]):
        from scorelab.lit.help import help_text

        print(help_text(configs, name))
        return
    import hydra

    TYPED.remember(sys.argv)
    full = "debug=true" in map(str.lower, sys.argv) or os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    sys.argv[1:] = [_addable(word) for word in sys.argv[1:]]
    if name == "eval" and _without_run(sys.argv[1:]):
        name, job = "oracle", "scorelab.lit.jobs:evaluate_exact"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors through, to be told below

    failed: list[Exception] = []
    failures: dict[str, str] = {}  # of a sweep, by the job's directory

    def call(cfg: Any) -> object:
        module, function = job.split(":")
        try:
            return getattr(import_module(module), function)(cfg)
        except Exception as error:  # Hydra would print it in its own way, and end a sweep with a traceback
            if (place := _place_in_sweep()) is not None:
                if full:
                    traceback.print_exc()
                failures[place] = one_line(error, configs, name).text
                print(f"{place} failed: {failures[place]}", file=sys.stderr)
            else:  # of a sweep's job only the line is kept: an error holds its run's lock and all it had in memory
                failed.append(error)
            return None

    main = hydra.main(version_base="1.3", config_path=str(configs), config_name=name)(call)
    try:
        _refuse(sys.argv[1:], configs, name)
        if name == "train" and _sweeping(sys.argv[1:]):
            sys.exit(_sweep(main, configs, name, failures))
        main()
        if failed:
            raise failed[0]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Interrupted as stop:
        print(stop.told, file=sys.stderr)
        sys.exit(stop.status)
    except Exception as error:
        if full:
            raise
        told = one_line(error, configs, name)
        print(f"error: {told.text}", file=sys.stderr)
        sys.exit(told.status)


def _without_run(words: list[str]) -> bool:
    """Whether eval is to compose like train: a model is named, and no run."""
    keys = {word.partition("=")[0] for word in words}
    return "model" in keys and "run" not in keys


def _sweeping(words: list[str]) -> bool:
    """Whether these words ask for several runs."""
    return any(word in ("-m", "--multirun") or word.startswith("sweep=") for word in words)


def _sweep(main: Callable[[], None], configs: Path, name: str, failures: dict[str, str]) -> int:
    """Check every job, run those that are not finished, print one table; the exit status."""
    from scorelab.lit.sweep import Sweep, sweeping

    if not sweeping(sys.argv[1:]):  # asked to show something, not to run
        main()
        return 0
    sweep = Sweep.planned(sys.argv[1:], configs, name)
    if not sweep.finished({}) or any(job.config["overwrite"] for job in sweep.jobs):
        words = [f"hydra.sweep.dir={sweep.path}", *sys.argv[1:]]
        sys.argv[1:] = sorted(words, key=lambda word: not word.startswith("-"))  # Hydra wants its flags in one place
        main()
    print(sweep.table(failures))
    return 0 if sweep.finished(failures) else 1


def _place_in_sweep() -> str | None:
    """The directory's name of this job where it is one of several."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from scorelab.lit.sweep import job_directory

    hydra = HydraConfig.get()
    return job_directory(list(hydra.overrides.task)) if hydra.mode == RunMode.MULTIRUN else None


def _addable(word: str) -> str:
    """A dotted override as one that may add its key; Hydra's own keys stay strict."""
    return f"++{word}" if DOTTED.match(word) and not word.startswith("hydra.") else word


@dataclass(frozen=True)
class Told:
    """An error in one line, and the exit status that goes with it."""

    text: str
    status: int


def one_line(error: Exception, configs: Path, name: str) -> Told:
    """What the person at the keyboard is told of an error."""
    from scorelab.lit.config import UserError
    from scorelab.lit.endings import JudgingFailed
    from scorelab.lit.mishaps import of_files

    if isinstance(error, UserError):
        return Told(str(error), 2)
    if isinstance(error, JudgingFailed):
        return Told(str(error), 1)
    if (told := composition_error(error, configs, name)) is not None:
        return Told(told, 2)
    if (mishap := of_files(error, Path.cwd())) is not None:
        return Told(str(mishap), 2)
    return Told(f"{type(error).__name__}: {' '.join(str(error).split())} (debug=true shows where)", 1)


def composition_error(error: Exception, configs: Path, name: str) -> str | None:
    """What Hydra's refusal of an override comes to, in one line; None for an error that is no such refusal."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, OverrideParseException):
            return f"{cause.override}: not of the form key=value"
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            choices = sorted(file.stem for file in (configs / group).glob("*.yaml"))
            return f"{group}={choice}: no such choice; choices: {', '.join(choices)}"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    return " ".join(str(error).split())


def _refuse(words: list[str], configs: Path, name: str) -> None:
    """Look at the words before Hydra composes, makes directories, or adds a key that nothing reads.

    Raises:
        UserError: for a key that does not exist, a group left without a choice, a run's name that is no name.
    """
    from scorelab.lit.config import UserError, nearest

    known = known_keys(configs, name)
    if _sweeping(words) and {"--cfg", "-c", "--info", "-i"} & set(words):
        raise UserError("--cfg and --info show a single run: leave out -m and what is swept")
    for word in words:
        key, equals, value = word.partition("=")
        key = key.lstrip("+~")
        top = key.split(".")[0].split("@")[0]
        if name == "train" and (told := OWN.get(key)):
            raise UserError(f"{word}: {told}")
        if name in ("eval", "sample") and (word.startswith("~") or (word.startswith("+") and "." not in key)):
            raise UserError(f"{word}: type group=choice, group.key=value, or judge.NAME=null to leave a part out")
        if name == "oracle" and word in ("-m", "--multirun"):
            raise UserError(f"{word}: an exact denoiser is judged one choice at a time")
        if word.startswith("-") or top.startswith("hydra") or not (equals or word.startswith("~")):
            continue
        if top not in known and top in known_keys(configs, "train"):
            raise UserError(
                f"{key} belongs to training and is fixed in a stored run; possible: {', '.join(sorted(known))}"
            )
        if top not in known:
            raise UserError(f"{key}: no such key{nearest(top, known)}")
        group = configs / key
        if group.is_dir() and (word.startswith("~") or value in ("", "null")):
            choices = sorted(file.stem for file in group.glob("*.yaml"))
            raise UserError(f"{word}: a choice is needed; choices: {', '.join(choices)}")
        if name == "train" and key in ("name", "best_of") and value != "null" and not _sweeping(words):
            raise UserError(f"{word}: {key} belongs to a sweep (-m, or sweep=...); a single run is named with run=")
        if key in ("run", "name") and name in ("train", "oracle") and not RUN_NAME.fullmatch(value):
            what = {"run": "a run", "name": "a sweep" if name == "train" else "an evaluation"}[key]
            raise UserError(f"{key}={value}: {what}'s name has letters, digits, '_', '-' and '.' only")


def known_keys(configs: Path, name: str) -> set[str]:
    """The groups a config composes, and its own top-level keys."""
    import yaml

    own = yaml.safe_load((configs / f"{name}.yaml").read_text(encoding="utf-8"))
    groups = {group for entry in own["defaults"] if isinstance(entry, dict) for group in entry}
    included = [entry for entry in own["defaults"] if isinstance(entry, str) and entry != "_self_"]
    keys = groups.union(own, *(known_keys(configs, each) for each in included))
    return {key for key in keys if " " not in key} - {"defaults", "hydra"}
