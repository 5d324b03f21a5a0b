"""Errors as the person at the keyboard is told of them: in one line."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from scorelab.errors import UserError

FAULT = "a fault of the program, not of what was typed"


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
            return told + ("; others come with make cluster" if group.startswith("hydra/") else "")
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


def choices_of(group: str, folders: list[Path]) -> set[str]:
    """The names of a group's files."""
    return {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
