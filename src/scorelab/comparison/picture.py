"""The one picture of a comparison, and the learning curves, drawn with matplotlib."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorelab.comparison.ranking import Ranking, Row, Section
from scorelab.comparison.sheets import short
from scorelab.comparison.statistics import Mean
from scorelab.files import whole
from scorelab.report.numbers import number

COLOURS = ("#1f77b4", "#e07b00", "#2a9d3f", "#c92a2a", "#8456b8", "#8c564b", "#d957a8", "#6b7280", "#a3a300", "#0fa3b1")
LINES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "D", "^", "X", "*")
BESIDE = ("test/fid_excess", "test/vlb_common", "test/simple", "test/energy", "val/simple")
ROW, WIDTH, LETTER = 0.2, 3.1, 0.075  # inches: of a configuration, of a panel, of a label's letter
MOST = 60  # configurations in a picture: the first of the table


def draw_comparison(path: Path, found: Ranking) -> None:
    """A row for each configuration, the best on top: means and their standard errors, seeds as small dots."""
    sections = [section for section in found.sections if any(_mean(row, found.by) for row in section.rows)]
    if not sections:
        return
    numbers = [[found.by, *_beside(section, found)] for section in sections]
    labels = [_label(row, found) for section in sections for row in section.rows[:MOST]]
    left = 0.5 + 0.15 * len(found.keys) + LETTER * max(map(len, labels))
    heights = [0.3 + ROW * min(len(section.rows), MOST) for section in sections]
    boxes = _boxes(left, [WIDTH] * max(map(len, numbers)), heights, below=0.65, right=0.2)
    for panels, section, names in zip(boxes.axes, sections, numbers, strict=True):
        _panels(panels[: len(names)], section, names, found)
        for unused in panels[len(names) :]:
            unused.remove()
    _save(boxes.figure, path)


def _beside(section: Section, found: Ranking) -> list[str]:
    """The number that stands beside the one that ranks: the first that these data have."""
    known = [name for name in BESIDE if any(_mean(row, name) for row in section.rows[:MOST])]
    return [name for name in known if name in found.columns and name != found.by][:1]


def _panels(axes: Sequence[Any], section: Section, numbers: Sequence[str], found: Ranking) -> None:
    rows = section.rows[:MOST]
    look = looks(found)
    for column, name in zip(axes, numbers, strict=True):
        for place, row in enumerate(rows):
            if (mean := _mean(row, name)) is None:
                continue
            colour, mark, _ = look(row)
            values = _values(row, name)
            column.plot(values, [place] * len(values), ".", color=colour, alpha=0.45, markersize=4)
            column.errorbar(mean.value, place, xerr=mean.se, fmt=mark, color=colour, markersize=6, elinewidth=1.3)
        drawn = [value for row in rows for value in _values(row, name)]
        least, most = min(drawn, default=0), max(drawn, default=0)
        if least > 0 and most > 8 * least:
            column.set_xscale("log")
            _plain(column.xaxis, most / least)
        column.set_xlabel(f"{short(name)}\n{number(name).better}", fontsize=9)
        column.set_ylim(len(rows) - 0.4, -0.6)
        column.grid(axis="x", color="0.85", linewidth=0.5)
        column.tick_params(labelsize=8, which="both")
        column.set_yticks(
            range(len(rows)), [_label(row, found) for row in rows] if column is axes[0] else [""] * len(rows)
        )
    left = f", the first {MOST} of {len(section.rows)}" if len(section.rows) > MOST else ""
    several = {row.configuration.n for row in rows}
    seeds = f"{min(several)} to {max(several)}" if len(several) > 1 else f"{several.pop()}"
    aside = sum((cell := row.cells[found.by]).mean is not None and not cell.ranked for row in rows)
    apart = f"; {aside} not ranked, not drawn" if aside else ""
    title = f"{section.data}{', ' if section.data else ''}{seeds} seeds; bars: one standard error{left}{apart}"
    axes[0].set_ylabel("\n".join(key for key in found.keys if key != "data" or len(found.sections) == 1), fontsize=8)
    axes[0].set_title(title, fontsize=9, loc="left")


def _label(row: Row, found: Ranking) -> str:
    words = [value for key, value in row.configuration.choices.items() if key != "data" or len(found.sections) == 1]
    return " ".join(words) + (" *" if row.cells[found.by].wins else "")


def looks(found: Ranking) -> Callable[[Row], tuple[str, str, str]]:
    """Colour, mark and line of a row: the colour tells its first key, the others tell its second."""
    keys = [key for key in found.keys if key != "data" or len(found.sections) == 1]
    rows = [row for section in found.sections for row in section.rows]
    known = [list(dict.fromkeys(row.configuration.choices.get(key, "") for row in rows)) for key in keys[:2]]

    def look(row: Row) -> tuple[str, str, str]:
        if not keys:
            return COLOURS[0], MARKS[0], LINES[0]
        first = known[0].index(row.configuration.choices.get(keys[0], ""))
        second = known[1].index(row.configuration.choices.get(keys[1], "")) if len(keys) > 1 else 0
        return COLOURS[first % len(COLOURS)], MARKS[second % len(MARKS)], LINES[second % len(LINES)]

    return look


def draw_curves(path: Path, found: Ranking, name: str = "val/simple") -> None:
    """A number while training, by step: the mean over seeds, each seed as a thin line."""
    sections = [s for s in found.sections if any(run.curve(name) for row in s.rows for run in row.configuration.runs)]
    if not sections:
        return
    labels = [_label(row, found) for section in sections for row in section.rows[:MOST]]
    columns = 1 + max(len(section.rows[:MOST]) for section in sections) // 28
    boxes = _boxes(
        0.95, [6.2], [3.8] * len(sections), below=0.6, right=columns * (0.6 + LETTER * max(map(len, labels)))
    )
    for (axes,), section in zip(boxes.axes, sections, strict=True):
        look, handles, names = looks(found), [], []
        for row in section.rows[:MOST]:
            runs = [run for run in row.configuration.runs if run.without is None]
            curves = [dict(points) for run in runs if (points := run.curve(name))]
            if not curves:
                continue
            colour, _, line = look(row)
            for curve in curves if len(curves) > 1 else []:
                axes.plot(list(curve), list(curve.values()), color=colour, linewidth=0.5, alpha=0.4, linestyle=line)
            steps = [step for step in curves[0] if all(step in curve for curve in curves)]
            means = [sum(curve[step] for curve in curves) / len(curves) for step in steps]
            handles += axes.plot(steps, means, color=colour, linewidth=1.5, linestyle=line)
            names.append(_label(row, found))
        axes.set(xlabel="step", ylabel=f"{name}, {number(name).better}")
        low, high = axes.get_ylim()
        if low > 0 and high > 4 * low:
            axes.set_yscale("log")
            _plain(axes.yaxis, high / low)
        left = f"the first {MOST} of {len(section.rows)}" if len(section.rows) > MOST else ""
        axes.set_title(", ".join(filter(None, [section.data, left])), fontsize=9, loc="left")
        axes.tick_params(labelsize=8, which="both")
        axes.grid(color="0.85", linewidth=0.5, which="both")
        if found.keys:
            place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "ncols": columns}
            axes.legend(handles, names, fontsize=7, frameon=False, **place)
    _save(boxes.figure, path)


def _plain(axis: Any, ratio: float) -> None:
    """Numbers as one says them along a logarithmic axis: 0.1, 1, and where it is short 0.2 and 0.5 too."""

    def told(value: float, _: object = None) -> str:
        leading = f"{value:e}"[0]
        return f"{value:g}" if leading == "1" or (ratio < 50 and leading in "25") else ""

    axis.set_major_formatter(told)
    axis.set_minor_formatter(told)


def _mean(row: Row, name: str) -> Mean | None:
    """What the table ranks; what it shows in brackets is not drawn among it."""
    cell = row.cells.get(name)
    return None if cell is None or not cell.ranked else cell.mean


def _values(row: Row, name: str) -> list[float]:
    return [] if _mean(row, name) is None else list(row.configuration.values(name).values())


@dataclass(frozen=True)
class Boxes:
    """A figure and its panels, by row and column."""

    figure: Any
    axes: list[list[Any]]


def _boxes(left: float, widths: Sequence[float], heights: Sequence[float], below: float, right: float) -> Boxes:
    """Panels of these sizes in inches, ``below`` under each: matplotlib's own layout takes longer than the rest."""
    from matplotlib.figure import Figure

    wide, gap, title = left + sum(widths) + 0.25 * (len(widths) - 1) + right, 0.25, 0.3
    tall = sum(height + below + title for height in heights)
    figure = Figure(figsize=(wide, tall))
    axes, top = [], tall
    for height in heights:
        top -= height + title
        row, at = [], left
        for width in widths:
            row.append(figure.add_axes((at / wide, top / tall, width / wide, height / tall)))
            at += width + gap
        axes.append(row)
        top -= below
    return Boxes(figure, axes)


def _save(figure: Any, path: Path) -> None:
    from matplotlib.text import Text

    for words in figure.findobj(Text):
        words.set_parse_math(False)  # a $ in a value is a $
    with whole(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=130)
