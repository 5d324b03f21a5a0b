"""What differs between runs, and runs that differ in their seed alone as one configuration."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scorelab.comparison.runs import Run
from scorelab.comparison.statistics import Mean
from scorelab.run.identity import dotted, is_machine

Called = Callable[[str, Mapping[str, Any]], str]  # (group, node) -> the name of the choice that it is
FIRST = ("data", "loss", "schedule", "prediction", "variance", "timesteps", "model", "sampler", "optimizer")
NO_CHOICE = ("metrics", "evaluation")  # what is measured of a run, which circumstances tell; not what it is
FOLDED = ("seed",)
ABSENT = object()  # of a key that a run does not have


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in what is folded alone.

    Attributes:
        choices: the keys in which configurations differ, and this one's values.
        runs: all of them, also those without figures.
    """

    choices: Mapping[str, str]
    runs: list[Run] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As typed."""
        return " ".join(f"{key}={value}" for key, value in self.choices.items()) or "one configuration"

    @property
    def n(self) -> int:
        """How many seeds have figures."""
        return len({run.unit for run in self.runs if run.without is None})

    def values(self, number: str, of: Sequence[Run] | None = None) -> dict[tuple[str, ...], float]:
        """A number by seed, of finished runs; of these alone where some are given.

        Of runs that repeat one seed it is the mean: they say nothing new about how seeds differ.
        """
        allowed = None if of is None else {id(run) for run in of}
        found: dict[tuple[str, ...], list[float]] = {}
        for run in self.runs:
            value = run.metrics.get(number)
            if value is not None and run.without is None and (allowed is None or id(run) in allowed):
                found.setdefault(run.unit, []).append(value)
        return {unit: math.fsum(values) / len(values) for unit, values in found.items()}

    def mean(self, number: str, of: Sequence[Run] | None = None) -> Mean | None:
        """A number's mean over seeds."""
        return Mean.of(list(self.values(number, of).values()))


@dataclass(frozen=True)
class Folded:
    """Configurations, the keys in which they differ, and what differs along with one of those (``along``)."""

    configurations: list[Configuration]
    keys: list[str]
    along: list[str]


def folded(runs: Sequence[Run], called: Called, fold: Sequence[str] = FOLDED) -> Folded:
    """Runs as configurations, in the order of their values."""
    told = [described(run, called) for run in runs]
    keys = [key for key in varied(told) if key not in fold]
    along: dict[str, str] = {}
    for key in list(keys):
        others = [other for other in keys if other != key and keys.index(other) < keys.index(key)]
        if (of := next((other for other in others if _follows(told, key, other)), None)) is not None:
            along[key] = of
            keys.remove(key)
    found: dict[tuple[str, ...], Configuration] = {}
    for run, words in zip(runs, told, strict=True):
        repeated = replace(run, unit=tuple(_said(words.get(key)) for key in fold))
        values = tuple(_said(words.get(key)) for key in keys)
        found.setdefault(values, Configuration(dict(zip(keys, values, strict=True)))).runs.append(repeated)
    ordered = [found[values] for values in sorted(found, key=lambda values: [in_order(each) for each in values])]
    return Folded(ordered, keys, [_along(told, key, of) for key, of in along.items()])


def in_order(value: str) -> tuple[float, str]:
    """Numbers by size, words after them."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def described(run: Run, called: Called) -> dict[str, Any]:
    """A run's whole config: each group by the name of its choice, every argument by its dotted key."""
    found: dict[str, Any] = {}
    for key, value in run.config.items():
        if isinstance(value, dict) and "_target_" in value:
            found[key] = called(key, value)
        if key not in NO_CHOICE:
            found |= dotted(value, key)
    return found


def varied(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which runs differ: choices first, each kind by its group's place in ``FIRST``.

    An argument counts where runs of one choice differ in it.
    """
    keys = dict.fromkeys(key for words in told for key in words if not is_machine(key))
    found = [key for key in keys if _differs([words.get(key, ABSENT) for words in told]) and _in_a_choice(told, key)]
    return sorted(found, key=lambda key: ("." in key, _place(key.partition(".")[0])))


def _place(group: str) -> int:
    return FIRST.index(group) if group in FIRST else len(FIRST)


def _differs(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _in_a_choice(told: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether runs differ in a key that have the same choice of the key's group."""
    group = key.partition(".")[0]
    seen: dict[str, list[Any]] = {}
    for words in told:
        of = str(words.get(group)) if key != group and group in words else ""
        if key in words or not of:
            seen.setdefault(of, []).append(words.get(key))
        else:
            seen.setdefault(of, []).append(ABSENT)
    return any(_differs(values) for values in seen.values())


def _follows(told: Sequence[Mapping[str, Any]], key: str, other: str) -> bool:
    """Whether each value of another key has but one of this."""
    pairs = {(_said(words.get(other)), _said(words.get(key))) for words in told}
    return len(pairs) == len({first for first, _ in pairs})


def _along(told: Sequence[Mapping[str, Any]], key: str, other: str) -> str:
    pairs = dict.fromkeys((_said(words.get(other)), _said(words.get(key))) for words in told)
    return f"{key} goes with {other}: " + ", ".join(f"{second} ({first})" for first, second in pairs)


def _said(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # 1 and 1.0 are one value
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)
