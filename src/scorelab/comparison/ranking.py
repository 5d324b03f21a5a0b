"""Configurations ranked: means over seeds, differences to the best, and whether the best can be told."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scorelab.comparison.folding import Called, Configuration, folded, in_order
from scorelab.comparison.like import LeftOut, alike, data_of, lacking
from scorelab.comparison.runs import Run
from scorelab.comparison.statistics import Difference, Mean, holm, improvement, paired
from scorelab.report.numbers import MORE, number

DEFAULT = (  # columns, of those that runs have; the first that all have ranks
    "test/score_error",
    "test/excess",
    "test/fid",
    "test/fid_excess",
    "test/recognised",
    "test/vlb",
    "test/vlb_common",
    "test/simple",
    "test/energy",
    "val/simple",
)
RANKS = ("test/score_error", "test/fid_excess", "test/simple", "val/simple")
CHOSEN_BY = "val/simple"
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Cell:
    """A number of a configuration.

    Attributes:
        mean: over the runs that are ranked by it, else over those that have it (``ranked`` false).
        to_best: its difference to the best configuration's, over common seeds; None of the best itself.
        p: of that difference, adjusted for all rows of the column (Holm).
        wins: whether it is the best, and over common seeds better than every other by p < 0.05.
    """

    mean: Mean | None
    ranked: bool = True
    to_best: Difference | None = None
    p: float | None = None
    best: bool = False
    wins: bool = False


@dataclass(frozen=True)
class Row:
    """A configuration's line.

    Attributes:
        improved: the probability that a run like the first row's is better than one like this, across schedules and
            data.
        edge: whether the value of ``best_of`` that was chosen stands at the edge of those tried.
        chosen: whether there was a number to choose it by; where not, it has no runs and "?" for the value.
    """

    configuration: Configuration
    cells: Mapping[str, Cell]
    improved: float | None = None
    edge: bool = False
    chosen: bool = True

    @property
    def limited(self) -> bool:
        """Whether a run of it was limited in time."""
        return any(run.limited for run in self.configuration.runs)


@dataclass(frozen=True)
class Section:
    """The configurations of one data set, the best first.

    Attributes:
        left_out: by column, which runs it does not rank or that have no such number, and why.
        missing: runs without figures by name, and how they stand; those that ``best_of`` does not show too.
    """

    data: str
    rows: list[Row]
    left_out: Mapping[str, list[LeftOut]]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Ranking:
    """Runs compared: one section for each data set; ``unknown`` are runs that have left no configuration yet."""

    sections: list[Section]
    keys: list[str]
    columns: list[str]
    by: str
    along: list[str]
    best_of: str | None
    unknown: Mapping[str, str]


def ranking(
    runs: Sequence[Run],
    called: Called,
    columns: Sequence[str] = (),
    by: str | None = None,
    fold: Sequence[str] = ("seed",),
    best_of: str | None = None,
    across: Sequence[str] = ("schedule", "data"),
    more: Sequence[str] = (),
) -> Ranking:
    """Runs folded over seeds, by data set, sorted by one number.

    With ``best_of`` each group of configurations that differ in that key alone shows the one of least mean val/simple.
    """
    unknown = {run.name: run.without or "" for run in runs if not run.config}
    runs = [run for run in runs if run.config]
    whole = folded(runs, called, fold)
    columns = list(columns) or [name for name in DEFAULT if any(run.metrics.get(name) is not None for run in runs)]
    finished = [run for run in runs if run.without is None]
    ranks = [name for name in RANKS if finished and all(run.metrics.get(name) is not None for run in finished)]
    by = by or (*ranks, CHOSEN_BY)[0]
    shown = [*dict.fromkeys([*(() if by in columns else (by,)), *columns, *more])]
    groups: dict[str, list[Configuration]] = {}
    for configuration in whole.configurations:
        for data in dict.fromkeys(data_of(run) for run in configuration.runs):
            own = [run for run in configuration.runs if data_of(run) == data]
            groups.setdefault(data, []).append(Configuration(configuration.choices, own))
    sections = [_section(group, shown, by, best_of) for group in groups.values()]
    sections = [replace(each, data=name) for each, name in zip(sections, _headings(groups, sections), strict=True)]
    keys = whole.keys
    tasks = [key for key in keys if key in across or key.partition(".")[0] in across]
    sections = [_improved(section, sections, by, tasks, best_of) for section in sections]
    return Ranking(sections, keys, shown, by, whole.along, best_of, unknown)


def _headings(groups: Mapping[str, object], sections: Sequence[Section]) -> list[str]:
    """What each data set is called: by its choice, and by what differs where two are of one choice."""
    names = [section.data for section in sections]
    sources = [json.loads(each) for each in groups]
    found = []
    for name, source in zip(names, sources, strict=True):
        others = [other for each, other in zip(names, sources, strict=True) if each == name]
        keys = dict.fromkeys(key for other in others for key in other)
        apart = [f"{key}={source.get(key)}" for key in keys if len({str(other.get(key)) for other in others}) > 1]
        found.append(" ".join(filter(None, [name, *apart])))
    return found


def _section(configurations: list[Configuration], columns: Sequence[str], by: str, best_of: str | None) -> Section:
    named = dict.fromkeys(configuration.choices.get("data", "") for configuration in configurations)
    chosen = [Row(each, {}) for each in configurations] if best_of is None else best(configurations, best_of)
    runs = [run for row in chosen for run in row.configuration.runs if run.without is None]
    cells: dict[str, list[Cell]] = {}
    left_out: dict[str, list[LeftOut]] = {}
    for name in columns:
        ranked, others = alike(runs, name)
        cells[name] = _column([row.configuration for row in chosen], name, ranked)
        if others := [*others, *lacking(runs, name)]:
            left_out[name] = others
    rows = [
        Row(
            row.configuration,
            {name: cells[name][place] for name in columns},
            edge=row.edge,
            chosen=row.chosen,
        )
        for place, row in enumerate(chosen)
    ]
    missing = {run.name: run.without for each in configurations for run in each.runs if run.without is not None}
    sign = -1 if number(by).better == MORE else 1

    def place_of(row: Row) -> float:
        mean = row.cells[by].mean
        return math.inf if mean is None or not row.cells[by].ranked else sign * mean.value

    return Section(" ".join(filter(None, named)), sorted(rows, key=place_of), left_out, missing)


def _column(configurations: Sequence[Configuration], name: str, ranked: Sequence[Run]) -> list[Cell]:
    """A number of every configuration, each against the best."""
    values = [each.values(name, ranked) for each in configurations]
    finished = [each.n for each in configurations]
    means = [  # of a configuration that has it of some seeds alone it would be the mean over lucky ones
        Mean.of(list(each.values())) if len(each) == count else None
        for each, count in zip(values, finished, strict=True)
    ]
    found = [
        Cell(each.mean(name), ranked=False) if mean is None else Cell(mean)
        for each, mean in zip(configurations, means, strict=True)
    ]
    sign = {MORE: -1, "": 0}.get(number(name).better, 1)
    places = [place for place, mean in enumerate(means) if mean is not None]
    if not sign or len(places) < 2:
        return found
    first = min(places, key=lambda place: sign * means[place].value)  # type: ignore[union-attr]
    others = [place for place in places if place != first]
    differences = [paired(values[place], values[first]) for place in others]
    adjusted = holm([None if each is None else each.p for each in differences])
    for place, difference, p in zip(others, differences, adjusted, strict=True):
        found[place] = Cell(means[place], to_best=difference, p=p)
    clear = [  # the means are over each row's own seeds, and may point the other way than common ones do
        p is not None and p < SIGNIFICANT and difference is not None and sign * difference.mean > 0
        for difference, p in zip(differences, adjusted, strict=True)
    ]
    found[first] = Cell(means[first], best=True, wins=all(clear))
    return found


def best(configurations: Sequence[Configuration], key: str) -> list[Row]:
    """Of each group that differs in one key alone the configuration of least mean val/simple over all its seeds.

    One that has it of fewer seeds than another of the group is not chosen: it would be the mean over lucky ones.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Configuration]] = {}
    for each in configurations:
        groups.setdefault(tuple((k, v) for k, v in each.choices.items() if k != key), []).append(each)
    found = []
    for group in groups.values():
        means = [each.mean(CHOSEN_BY) for each in group]
        most = max((mean.n for mean in means if mean is not None), default=0)
        known = [place for place, mean in enumerate(means) if mean is not None and mean.n == most]
        place = min(known, key=lambda place: means[place].value, default=0)  # type: ignore[union-attr]
        tried = sorted((each.choices.get(key, "") for each in group), key=in_order)
        ordered = len(tried) > 1 and all(math.isfinite(in_order(each)[0]) for each in tried)  # words have no edge
        edge = bool(known) and ordered and group[place].choices.get(key) in (tried[0], tried[-1])
        finished = any(run.without is None for each in group for run in each.runs)
        chosen = bool(known) or not finished
        none = Configuration(dict(group[place].choices) | {key: "?"})
        found.append(Row(group[place] if chosen else none, {}, edge=edge, chosen=chosen))
    return found


def _improved(
    section: Section, sections: Sequence[Section], by: str, tasks: Sequence[str], best_of: str | None
) -> Section:
    """The section with each row's probability of being improved upon by the method of the first row.

    A method is what a row has besides the tasks (schedule, data), over which it is followed.
    """
    if not (better := number(by).better):
        return section
    sign = -1 if better == MORE else 1
    aside = {*tasks, best_of}

    def method(row: Row) -> tuple[str, ...]:
        return tuple(value for key, value in row.configuration.choices.items() if key not in aside)

    found: dict[tuple[str, ...], dict[tuple[str, ...], list[float]]] = {}
    for place, each in enumerate(sections):
        for row in each.rows:
            if row.cells[by].ranked:
                task = (str(place), *(row.configuration.choices.get(key, "") for key in tasks))
                found.setdefault(method(row), {})[task] = [sign * v for v in row.configuration.values(by).values()]
    first = method(section.rows[0])

    def chance(row: Row) -> float | None:
        other = method(row)
        if row.cells[by].mean is None or other == first or first not in found or other not in found:
            return None
        common = [task for task in found[first] if task in found[other]]
        return improvement([found[first][task] for task in common], [found[other][task] for task in common])

    rows = [Row(row.configuration, row.cells, chance(row), row.edge, row.chosen) for row in section.rows]
    return Section(section.data, rows, section.left_out, section.missing)
