"""Compare runs: rank what they have left; tables, a picture, a page. Nothing is imported that trains."""

import argparse
import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from scorelab.app.standing import counted, lines, standings, watch
from scorelab.comparison.folding import FOLDED, described
from scorelab.comparison.page import write_page
from scorelab.comparison.payload import differences, payload
from scorelab.comparison.picture import draw_comparison, draw_curves
from scorelab.comparison.places import places
from scorelab.comparison.ranking import Ranking, ranking
from scorelab.comparison.runs import Run, read_run
from scorelab.comparison.sheets import csv_text, tex, text
from scorelab.comparison.targets import Target, with_target
from scorelab.config.groups import Choices
from scorelab.errors import UserError
from scorelab.files import write_text
from scorelab.run.identity import is_machine
from scorelab.run.surroundings import settle
from scorelab.tracking.fetched import FetchedRun, fetch

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")
CONFIGS = Path(__file__).resolve().parents[3] / "configs"
ACROSS = ("schedule", "data")
CALLED = Choices([CONFIGS])
HELP = """Compare runs: a table with standard errors, CSV, LaTeX, a picture and a page.

  python src/compare.py logs/sweeps/NAME                 rank the runs of a sweep, seeds folded
  python src/compare.py DIR DIR ... by=fid columns=fid,vlb_common
  python src/compare.py DIR status=true watch=true       how its runs stand: waiting, running, failed ...
"""
KEYS = {
    "out": "the directory to write to (the first one)",
    "by": "the number that ranks: score_error, fid_excess, val/simple ...",
    "columns": "numbers shown, by commas: fid,vlb_common,recognised,seconds",
    "fold": "keys that make runs repetitions of each other (seed)",
    "best_of": "a key of which each group shows the value of least val/simple (that of a fair sweep)",
    "across": "keys over which the probability of improvement goes (schedule,data)",
    "target": "seconds and images to a target: 'target=fid<20'",
    "figures": "png or pdf",
    "page": "false leaves the page out",
    "wandb": "ENTITY/PROJECT: the runs of a project at W&B, beside those in directories or alone",
    "status": "true: how runs stand, nothing else",
    "watch": "true: look on while they do",
}


@dataclass(frozen=True)
class Asked:
    """The keys of the command."""

    out: Path | None = None
    by: str | None = None
    columns: tuple[str, ...] = ()
    fold: tuple[str, ...] = FOLDED
    best_of: str | None = None
    across: tuple[str, ...] = ACROSS
    target: Target | None = None
    figures: str = "png"
    page: bool = True
    wandb: str | None = None
    status: bool = False
    watch: bool = False


def asked(words: Sequence[str]) -> Asked:
    """The keys that were typed.

    Raises:
        UserError: for one that does not exist, or a value that is none of its own.
    """
    kinds = {field.name: field.type for field in fields(Asked)}
    keys: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in kinds:
            raise UserError(f"{key}: no such key; possible: {', '.join(kinds)}")
        if not value:
            raise UserError(f"{key}= has no value: {KEYS[key]}")
        keys[key] = _value(key, value, kinds[key])
    return Asked(**keys)


def _value(key: str, value: str, kind: Any) -> Any:
    if kind is bool:
        if value.lower() not in (*TRUE, *FALSE):
            raise UserError(f"{key}={value}: true or false")
        return value.lower() in TRUE
    if key == "figures" and value not in ("png", "pdf"):
        raise UserError(f"figures={value}: png or pdf")
    if key == "target":
        return Target.read(value)
    if kind == tuple[str, ...]:
        return tuple(filter(None, (word.strip() for word in value.strip("[]").split(","))))
    return Path(value) if key == "out" else value


def compared(runs: Sequence[Run], keys: Asked) -> Ranking:
    """The runs, ranked as asked.

    Raises:
        UserError: for a number that no run has, or a key in which they do not differ.
    """
    if keys.target is not None:
        runs = with_target(runs, keys.target)
    if all(run.without is not None for run in runs):
        raise UserError(f"none of {len(runs)} runs has figures yet: status=true says how they stand")
    columns = [named(each, runs) for each in keys.columns]
    _see_keys(runs, keys)
    by = None if keys.by is None else named(keys.by, runs)
    typed = {run.config.get("best_of") for run in runs}
    best_of = keys.best_of or (typed.pop() if len(typed) == 1 else None)
    more = keys.target.columns if keys.target else ()
    found = ranking(runs, CALLED, columns, by, keys.fold, best_of, keys.across, more)
    if best_of is not None and best_of not in found.keys:
        if keys.best_of is not None:
            raise UserError(
                f"best_of={best_of}: runs do not differ in it; they do in {', '.join(found.keys) or 'nothing'}"
            )
        return ranking(runs, CALLED, columns, by, keys.fold, None, keys.across, more)
    return found


def _see_keys(runs: Sequence[Run], keys: Asked) -> None:
    """See that what was typed to be folded, or to go across, is a key of some run."""
    typed = {"fold": keys.fold if keys.fold != FOLDED else (), "across": keys.across if keys.across != ACROSS else ()}
    known = {key for run in runs for key in described(run, CALLED)} if any(typed.values()) else set()
    for name, words in typed.items():
        for key in words:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                raise UserError(
                    f"{name}={key}: no run has such a key{'; did you mean ' if near else ''}{''.join(near)}"
                )


def named(name: str, runs: Sequence[Run]) -> str:
    """A number as typed, by its whole name: fid is test/fid, where a run has that.

    Raises:
        UserError: for one that no run has.
    """
    known = {key for run in runs for key in run.metrics}
    for whole in (name, f"test/{name}", f"val/{name}"):
        if whole in known:
            return whole
    raise UserError(
        f"{name}: no run has such a number; they have {', '.join(sorted(k.removeprefix('test/') for k in known))}"
    )


def read(typed: Sequence[Path], project: str | None = None) -> list[Run]:
    """All runs in some directories, and those of a project at W&B.

    Raises:
        UserError: for a directory or project that holds none.
    """
    found = [read_run(place.path, place.name) for place in places(typed)]
    return found if project is None else [*found, *map(of_wandb, fetch(project))]


def of_wandb(run: FetchedRun) -> Run:
    """A run at W&B as one on disk."""
    why = None if run.state == "finished" and run.metrics else f"{run.state} at W&B"
    metrics = run.metrics | ({"seconds": run.seconds} if math.isfinite(run.seconds) else {})
    limited = bool((run.config.get("trainer") or {}).get("max_time"))
    return Run(run.address, run.name, run.config, metrics, run.records, why, limited, run.rows)


def compare(typed: Sequence[Path], keys: Asked) -> None:
    """Print the table; write compare.csv, compare.tex, the picture, the learning curves and the page."""
    found = compared(read(typed, keys.wandb), keys)
    print(text(found), flush=True)
    write(
        found,
        keys.out or next(iter(typed), Path()),
        ", ".join([*map(str, typed), *filter(None, [keys.wandb])]),
        keys,
    )


def write(found: Ranking, out: Path, title: str, keys: Asked) -> None:
    """What a comparison leaves in a directory.

    Raises:
        UserError: where that cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "compare.csv", csv_text(found))
        write_text(out / "compare.tex", tex(found))
        if keys.page:
            write_page(out / "compare.html", payload(found, title, differing(found, keys.fold)))
        draw_comparison(out / f"compare.{keys.figures}", found)
        draw_curves(out / f"curves.{keys.figures}", found)
    except OSError as error:
        raise UserError(f"out={out}: {error.strerror or error}") from error


def differing(found: Ranking, fold: Sequence[str]) -> dict[str, list[str]]:
    """The keys in which configurations differ, what a machine decides and what is folded aside, each one's values."""
    configurations = [row.configuration for section in found.sections for row in section.rows]
    told = [described(each.runs[0], CALLED) for each in configurations]
    plain = [
        {key: word for key, word in words.items() if key not in fold and not is_machine(key) and not _said(key, words)}
        for words in told
    ]
    return differences(plain)


def _said(key: str, words: Mapping[str, Any]) -> bool:
    """Whether a key is the class of a choice that has a name."""
    return key.endswith("._target_") and key.removesuffix("._target_") in words


def main(argv: Sequence[str] | None = None) -> None:
    """Compare runs, or tell how they stand; exit status 2 for what the user can change."""
    settle()
    told = "\n".join(f"  {key:<9}{words}" for key, words in KEYS.items())
    parser = argparse.ArgumentParser(
        prog="compare", description=f"{HELP}\nKeys:\n{told}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="DIR or key=value", help="directories of runs or sweeps, and keys")
    words = parser.parse_args(argv).words
    try:
        keys = asked([word for word in words if "=" in word and not Path(word).is_dir()])
        typed = [Path(word) for word in words if "=" not in word or Path(word).is_dir()]
        if not typed and keys.wandb is None:
            raise UserError("type a directory of runs: logs/sweeps/NAME, logs/train, ...")
        title = ", ".join(map(str, typed))
        if keys.wandb is not None and (keys.watch or keys.status):
            raise UserError("status=true and watch=true look at directories: leave wandb= out")
        if keys.watch:
            watch(typed, title)
        elif keys.status:
            found = standings(typed)
            print("\n".join([counted(found, title), *lines(found)]))
        else:
            compare(typed, keys)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
