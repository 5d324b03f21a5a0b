"""A ranking as text for a terminal, as CSV for other programs, as LaTeX for a paper."""

import csv
import io
import re
from collections.abc import Sequence

from scorelab.comparison.ranking import SIGNIFICANT, Cell, Ranking, Row, Section
from scorelab.comparison.statistics import FEWEST
from scorelab.report.numbers import MORE, number, with_error

TEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\\": r"\textbackslash{}",
    "\n": " ",
    "\r": " ",
}


def text(found: Ranking) -> str:
    """The table of every data set, what its columns mean, what was left out."""
    parts = [_section(found, section) for section in found.sections]
    return "\n".join([*parts, *_notes(found)])


def _section(found: Ranking, section: Section) -> str:
    keys = [key for key in found.keys if len(found.sections) == 1 or key != "data"]
    heads = [*keys, "n", *_after(found, list(map(short, found.columns)), ["to best", "improved"])]
    lines = [heads, *(_cells(found, row, keys) for row in section.rows)]
    used = [place for place in range(len(heads)) if place <= len(keys) or any(line[place] for line in lines[1:])]
    widths = {place: max(len(line[place]) for line in lines) for place in used}
    body = [
        "  ".join(
            line[place].ljust(widths[place]) if place < len(keys) else line[place].rjust(widths[place])
            for place in used
        )
        for line in lines
    ]
    told = [f"data={section.data}"] if len(found.sections) > 1 else []
    lost = [f"  {name}: {why}" for name, why in section.missing.items()]
    return "\n".join([*told, *(f"  {line}".rstrip() for line in body), *_verdict(found, section), *lost])


def _cells(found: Ranking, row: Row, keys: Sequence[str]) -> list[str]:
    choices = [_choice(found, row, key) for key in keys]
    have = row.configuration.n
    count = f"{have}{' t' if row.limited else ''}"
    told = [cell_text(row.cells[name], have) for name in found.columns]
    improved = "" if row.improved is None else f"{row.improved:.2f}"
    return [*choices, count, *_after(found, told, [_to_best(row.cells[found.by], found.by), improved])]


def _after(found: Ranking, columns: list[str], more: list[str]) -> list[str]:
    """Columns with two more right after the one that ranks."""
    place = found.columns.index(found.by) + 1
    return [*columns[:place], *more, *columns[place:]]


def _choice(found: Ranking, row: Row, key: str) -> str:
    value = " ".join(row.configuration.choices.get(key, "").split("\n"))
    return value + ("|" if key == found.best_of and row.edge else "")


def cell_text(cell: Cell, have: int) -> str:
    """Mean ± standard error, * where it wins, in brackets where it is not ranked."""
    if cell.mean is None:
        return "–"
    value, se = with_error(cell.mean.value, cell.mean.se)
    words = value if se is None else f"{value} ± {se}"
    words += f" ({cell.mean.n} of {have})" if cell.mean.n < have else ""
    return f"({words})" if not cell.ranked else words + ("*" if cell.wins else "")


def _to_best(cell: Cell, by: str) -> str:
    if cell.best:
        return "best" if cell.wins else "most" if number(by).better == MORE else "least"
    if cell.to_best is None:
        return ""
    told = f"{cell.to_best.mean:+.3g}"
    if cell.to_best.low is not None:
        told += f" [{cell.to_best.low:.3g}, {cell.to_best.high:.3g}]"
    return told


def _verdict(found: Ranking, section: Section) -> list[str]:
    """Whether the first row is the best, in words."""
    ranked = [row for row in section.rows if row.cells[found.by].ranked and row.cells[found.by].mean is not None]
    if len(ranked) < 2:
        return []
    first, others = ranked[0], ranked[1:]
    name = first.configuration.name
    if not number(found.by).better:
        return [f"  no winner by {found.by}: neither less nor more of it is better"]
    if first.cells[found.by].wins:
        rest = "every other that has finished" if section.missing else "every other"
        return [f"  * {name} is the best by {found.by}: better than {rest}, paired by seed (95 %, Holm)"]
    few = [row for row in others if (to := row.cells[found.by].to_best) is None or to.n < FEWEST]
    unclear = [row for row in others if row not in few and not _worse(row, found.by)]
    parts = [f"{name} cannot be told from {_names(unclear)}"] if unclear else []
    parts += [f"it takes {FEWEST} seeds in common with {name}: {_names(few)}"] if few else []
    return [f"  no winner by {found.by}: {'; '.join(parts)}"]


def _worse(row: Row, by: str) -> bool:
    """Whether a row is known to be worse than the first, over common seeds."""
    cell, sign = row.cells[by], -1 if number(by).better == MORE else 1
    return cell.to_best is not None and cell.p is not None and cell.p < SIGNIFICANT and sign * cell.to_best.mean > 0


def _names(rows: Sequence[Row]) -> str:
    return _some([row.configuration.name for row in rows])


def _notes(found: Ranking) -> list[str]:
    rows = [row for section in found.sections for row in section.rows]
    notes = [f"  {name}: {why}" for name, why in found.unknown.items()]
    notes += [f"  {line}" for line in found.along]
    for section in found.sections:
        for name, others in section.left_out.items():
            notes += [f"  not ranked by {name}: {_some(each.runs)}: {each.why}" for each in others]
    if found.best_of is not None:
        notes.append(f"  {found.best_of}: of each group the one of least val/simple, shown by its other numbers")
        if any(row.edge for row in rows):
            notes.append(f"  | {found.best_of} stands at the edge of those tried: try beyond it")
        if not all(row.chosen for row in rows):
            notes.append(f"  ? no val/simple to choose {found.best_of} by")
    if any(row.limited for row in rows):
        notes.append("  t limited in time, and so by the machine's speed")
    if any(row.cells[found.by].to_best is not None for row in rows):
        notes.append(
            f"  to best: its {found.by} less that of the first row, over common seeds, with the 95 % interval of this "
            "pair alone: * asks for more, the more rows there are"
        )
    if any(row.improved is not None for row in rows):
        notes.append(
            "  improved: how likely a run of the first row's kind is better than one of this, across schedules and data"
        )
    if any(row.cells[name].mean and row.cells[name].mean.se is not None for row in rows for name in found.columns):  # type: ignore[union-attr]
        notes.append("  ± one standard error over the n seeds")
    width = max(len(name) for name in found.columns)
    return notes + [f"  {name.ljust(width)}  {number(name)}, {taken(name)}" for name in found.columns]


def taken(name: str) -> str:
    """Which of a run's many values a number is."""
    split, _, last = name.rpartition("/")
    if last.endswith("_best"):
        return "the best of the run"
    if name.startswith("test/"):
        return "of the last weights"
    return "the last of the run" if split == "val" else "of the whole run"


def short(name: str) -> str:
    """Fid of test/fid: what is typed as columns=."""
    return name.removeprefix("test/")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def csv_text(found: Ranking) -> str:
    """compare.csv: a line per configuration; of each number mean, standard error, how many, and against the best."""
    parts = ("", " se", " n", " to best", " low", " high", " p Holm", " best")
    head = [
        "data", *(key for key in found.keys if key != "data"), "n", "time limited", "at edge", "improved",
        *(f"{name} ({taken(name)}){part}" if not part else f"{name}{part}" for name in found.columns for part in parts),
    ]  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for section in found.sections:
        for row in section.rows:
            choices = [row.configuration.choices.get(key, "") for key in found.keys if key != "data"]
            line = [section.data, *choices, row.configuration.n, int(row.limited), int(row.edge), _plain(row.improved)]
            writer.writerow(line + [part for name in found.columns for part in _csv_cell(row.cells[name], name)])
    return out.getvalue()


def _csv_cell(cell: Cell, name: str) -> list[object]:
    mean, to = cell.mean, cell.to_best
    parts = [None if mean is None else each for each in ((mean.value, mean.se, mean.n) if mean else (None,) * 3)]
    parts += [to.mean, to.low, to.high] if to else [None] * 3
    first = "most" if number(name).better == MORE else "least"
    verdict = "" if not cell.ranked else "wins" if cell.wins else first if cell.best else ""
    return [*map(_plain, [*parts, cell.p]), "not ranked" if mean and not cell.ranked else verdict]


def _plain(value: float | int | None) -> object:
    return "" if value is None else value if isinstance(value, int) else f"{value:.9g}"


def tex(found: Ranking) -> str:
    """compare.tex: a booktabs table for each data set; what wins in bold."""
    parts = []
    for section in found.sections:
        keys = [key for key in found.keys if len({row.configuration.choices.get(key) for row in section.rows}) > 1]
        heads = [*map(_escaped, keys), "$n$", *(_escaped(short(name)) for name in found.columns)]
        lines = [_tex_row(found, row, keys) for row in section.rows]
        caption = f"% {section.data or 'one data set'}; mean ± one standard error over seeds; bold wins"
        parts.append(
            "\n".join(
                [
                    *caption.splitlines(),
                    rf"\begin{{tabular}}{{{'l' * len(keys)}{'r' * (len(found.columns) + 1)}}}",
                    r"\toprule",
                    " & ".join(heads) + r" \\",
                    r"\midrule",
                    *lines,
                    r"\bottomrule",
                    r"\end{tabular}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _tex_row(found: Ranking, row: Row, keys: Sequence[str]) -> str:
    cells = [_tex_cell(row.cells[name]) for name in found.columns]
    words = [_escaped(row.configuration.choices.get(key, "")) for key in keys]
    marks = "".join([r"\,t" if row.limited else "", r"\,$|$" if row.edge else ""])
    # the row before ends in \\, to which a [ or * here would belong
    return "{}" + " & ".join([*words, f"{row.configuration.n}{marks}", *cells]) + r" \\"


def _tex_cell(cell: Cell) -> str:
    if cell.mean is None:
        return "--"
    value, se = with_error(cell.mean.value, cell.mean.se)
    value = rf"\mathbf{{{value}}}" if cell.wins else value
    words = f"${value}$" if se is None else rf"${value} \pm {se}$"
    return words if cell.ranked else f"({words})"


def _escaped(words: str) -> str:
    return re.sub(r"[&%$#_{}~^<>|\\\n\r]", lambda found: TEX[found[0]], words)
