"""One wrapper around hydra.main: fast help, overrides without a plus sign, one line per error."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from scorelab.app.again import TYPED
from scorelab.app.task import Task
from scorelab.app.told import choices_of, one_line
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
EXTRA = {  # choices that come with the extra "cluster", by the plugin that has them
    ("hydra/launcher", "submitit_slurm"): "hydra_submitit_launcher",
    ("hydra/launcher", "submitit_local"): "hydra_submitit_launcher",
    ("hydra/launcher", "joblib"): "hydra_joblib_launcher",
    ("hydra/sweeper", "optuna"): "hydra_optuna_sweeper",
}
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
        from hydra_plugins.scorelab_launchers import register

        register()
        task = Task(job, folders, full)
        main = hydra.main(version_base="1.3", config_path=str(configs), config_name=name)(task)
        if name == "train" and line.several and not line.shows:
            from scorelab.app.sweeping import sweep

            sys.exit(sweep(main, task, line.words, configs, name))
        main()
        if task.error is not None:
            raise task.error
        if task.failures:
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
        if key in ("hydra/launcher", "hydra/sweeper") and value != "basic" and not line.several:
            raise UserError(f"{word}: belongs to several runs: type -m and what is swept")
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
        if (
            name == "train"
            and key in ("name", "best_of", "detach")
            and value not in ("null", "false")
            and not line.several
        ):
            raise UserError(f"{word}: {key} belongs to a sweep (-m, or sweep=...); a single run is named with run=")
        if key in ("run", "name") and name in ("train", "exact") and not RUN_NAME.fullmatch(value):
            what = {"run": "a run", "name": "a sweep" if name == "train" else "an evaluation"}[key]
            raise UserError(f"{key}={value}: {what}'s name has letters, digits, '_', '-' and '.' only")


def _of_hydra(key: str, value: str) -> str | None:
    """Why one of Hydra's keys would break what the program means by a run and its place; None where it would not."""
    if key == "hydra/sweeper" and value not in ("basic", "optuna"):
        return "possible: hydra/sweeper=basic, optuna"
    if (key, value) in EXTRA and find_spec(f"hydra_plugins.{EXTRA[key, value]}") is None:
        return "not installed: type make cluster, or pip install '.[cluster]'"
    if key in ("hydra", "hydra.job"):
        return "set its keys one by one"
    if key == "hydra.job.chdir" and value.lower() in ("false", "null"):
        return None
    return next((told for own, told in OWN.items() if key == own or key.startswith(f"{own}.")), None)


def known_keys(configs: Path, name: str) -> set[str]:
    """The groups a config composes, and its own top-level keys."""
    import yaml

    own = yaml.safe_load((configs / f"{name}.yaml").read_text(encoding="utf-8"))
    groups = {group for entry in own["defaults"] if isinstance(entry, dict) for group in entry}
    included = [entry for entry in own["defaults"] if isinstance(entry, str) and entry != "_self_"]
    keys = groups.union(own, *(known_keys(configs, each) for each in included))
    return {key for key in keys if " " not in key} - {"defaults", "hydra"}
