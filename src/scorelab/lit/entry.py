"""One wrapper around hydra.main: fast help, overrides without a plus sign, one line per error."""

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

DOTTED = re.compile(r"^[A-Za-z_]\w*(\.\w+)+=")
RUN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,119}")


def entry(configs: Path, name: str, job: str) -> None:
    """Run ``job`` ("package.module:function") on the config ``name``, composed by Hydra from ``configs``.

    A dotted override (model.dropout=0.1) may name any argument of a node's class, whether YAML mentions it or not:
    Hydra is told to add it, and scorelab.lit.config refuses what no class takes. Errors are one line, exit status 2
    for what the user can change and 1 for the rest; debug=true or HYDRA_FULL_ERROR=1 shows the traceback.
    """
    import hydra

    full = "debug=true" in map(str.lower, sys.argv) or os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    sys.argv[1:] = [_addable(word) for word in sys.argv[1:]]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors through, to be told below

    failed: list[Exception] = []

    def call(cfg: object) -> object:
        module, function = job.split(":")
        try:
            return getattr(import_module(module), function)(cfg)
        except Exception as error:
            if _in_sweep():
                raise  # the launcher counts it as failed and goes on
            failed.append(error)  # Hydra would print a line of its own before letting it through
            return None

    main = hydra.main(version_base="1.3", config_path=str(configs), config_name=name)(call)
    try:
        _refuse(sys.argv[1:], configs, name)
        main()
        if failed:
            raise failed[0]
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Exception as error:
        if full:
            raise
        _tell(error, configs, name)


def _in_sweep() -> bool:
    """Whether this job is one of several."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def _addable(word: str) -> str:
    """A dotted override as one that may add its key; Hydra's own keys stay strict."""
    return f"++{word}" if DOTTED.match(word) and not word.startswith("hydra.") else word


def _tell(error: Exception, configs: Path, name: str) -> NoReturn:
    """Print the error as one line and leave."""
    from scorelab.lit.config import UserError

    if isinstance(error, UserError):
        line, status = str(error), 2
    elif (told := composition_error(error, configs, name)) is not None:
        line, status = told, 2
    else:
        kind = type(error).__name__
        line, status = f"{kind}: {' '.join(str(error).split())} (debug=true shows where)", 1
    print(f"error: {line}", file=sys.stderr)
    sys.exit(status)


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
    for word in words:
        key, equals, value = word.partition("=")
        key = key.lstrip("+~")
        top = key.split(".")[0].split("@")[0]
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
        if key == "run" and name == "train" and not RUN_NAME.fullmatch(value):
            raise UserError(f"run={value}: a run's name has letters, digits, '_', '-' and '.' only")


def known_keys(configs: Path, name: str) -> set[str]:
    """The groups a config composes, and its own top-level keys."""
    import yaml

    own = yaml.safe_load((configs / f"{name}.yaml").read_text())
    groups = {group for entry in own["defaults"] if isinstance(entry, dict) for group in entry}
    return {key for key in groups | own.keys() if " " not in key} - {"defaults", "hydra"}
