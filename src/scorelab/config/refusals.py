"""In whose words a value is refused, and by which key: ours, a library's, Hydra's."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from scorelab.config import groups
from scorelab.config.choices import folders_at_work
from scorelab.config.short import short

LIBRARY = (ValueError, TypeError, ImportError)


def one_line(error: BaseException) -> str:
    """An error's words in one line; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' with the nearest known word, or '; possible: ...' where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else f"; possible: {', '.join(known)}"


def of_omegaconf(error: OmegaConfBaseException) -> str:
    """What OmegaConf found wrong, by the whole path of the key."""
    key = getattr(error, "full_key", None)
    if isinstance(error, MissingMandatoryValue):
        return f"{short(str(key))} has no value: type {short(str(key))}=..."
    told = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{key}: {told}" if key and key not in told else told


def by_constructor(target: type, path: str, arguments: Mapping[str, Any], error: Exception) -> str | None:
    """What is told where a constructor refuses what was typed; None where it fails by a fault of its own.

    A class of ours refuses with a ``Refusal`` alone, which is told elsewhere. A class from outside has its own kinds of
    error for it, and seldom says the key as it is typed: the key is then found by the value or the name it says.
    """
    if isinstance(error, OSError) and error.filename is not None:
        key = next((key for key, value in arguments.items() if str(value) == str(error.filename)), None)
        return None if key is None else f"{path}.{key}={error.filename}: {error.strerror}"
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    ours = target.__module__.partition(".")[0] == "scorelab"
    if ours:
        return None
    place = _place(target, path, arguments, str(error))
    known = isinstance(error, (*LIBRARY, MisconfigurationException))
    of_arguments = isinstance(error, RuntimeError) and place != path and "memory" not in str(error)
    return f"{place}: {one_line(error)}" if known or of_arguments else None


def _place(target: type, path: str, arguments: Mapping[str, Any], message: str) -> str:
    """The argument that a message is about; the node where none can be told."""
    parameters = inspect.signature(target).parameters
    found: dict[str, int] = {}
    for key, value in arguments.items():
        default = parameters[key].default if key in parameters else inspect.Parameter.empty
        said = value != default and any(_says(message, str(leaf)) for leaf in _leaves(value))
        found[key] = 2 * said + _says(message, key)
    best = max(found, key=lambda key: found[key], default=None)
    return f"{path}.{best}" if best is not None and found[best] else path


def _says(message: str, word: str) -> bool:
    return bool(word) and re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w.]*\w)", message) is not None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def called(group: str, node: Mapping[str, Any]) -> str:
    """A node by the choice that is most like it, of those that the command at work has."""
    return groups.called(group, node, folders_at_work())
