"""Values by their type, then by their range."""

import typing
from typing import Any, Literal

from scorelab.errors import UserError

TYPES: dict[str, Any] = {
    "run": str,
    "name": str | None,
    "best_of": str | None,
    "against": str | None,
    "init_from": str | None,
    "seed": int,
    "threads": int | None,
    "compile": bool | None,
    "n": int,
    "label": int | None,
    "average": float | None,
    "guidance": float,
    "guidance_log_snr": tuple[float, float] | None,
    "format": Literal["npz", "png"],
    "debug": bool,
    "detach": bool,
    "optimized_metric": str,
    "overwrite": bool,
    "deterministic": bool,
    "on_nan": Literal["stop", "skip"],
}
RANGES = {"seed": (0, 2**32 - 1), "n": (1, 2**63 - 1), "threads": (1, 1024)}
PLAIN = (bool, int, float, str, type(None))


def value_of_run(key: str, value: Any) -> Any:
    """The value of one of the keys in ``TYPES``.

    Raises:
        UserError: when it is of another type, or out of its range.
    """
    checked = typed(value, TYPES[key], key)
    least, most = RANGES.get(key, (None, None))
    if checked is not None and least is not None and most is not None and not least <= checked <= most:
        raise UserError(f"{key}={value}: a whole number in {least} ... {most} is needed")
    return checked


def is_plain(value: Any) -> bool:
    """Whether a value is such as YAML holds, dictionaries aside."""
    return isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(map(is_plain, value)))


def typed(value: Any, hint: Any, path: str) -> Any:
    """The value as its annotation has it (a whole number for an int, and so on).

    Raises:
        UserError: when it is of another type.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        checked = adapter.validate_python(value)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return value
    except ValidationError:
        raise _wrong_type(value, hint, path) from None
    if _makes_numbers_of_bools(value, checked):
        raise _wrong_type(value, hint, path)
    return list(checked) if isinstance(checked, tuple) else checked if is_plain(checked) else value


def _wrong_type(value: Any, hint: Any, path: str) -> UserError:
    name = getattr(hint, "__name__", None) if isinstance(hint, type) else None
    wanted = name or str(hint).replace("typing.", "").replace("collections.abc.", "")
    quotes = " (in a YAML file a name stands in quotes)" if str in (hint, *typing.get_args(hint)) else ""
    return UserError(f"{path}={value!r}: expected {wanted}{quotes}")


def _makes_numbers_of_bools(value: Any, checked: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(checked, list | tuple):
        return any(map(_makes_numbers_of_bools, value, checked))
    return isinstance(value, bool) and isinstance(checked, int | float) and not isinstance(checked, bool)
