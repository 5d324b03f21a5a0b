"""Like with like: which runs may be ranked by a number, and why the others may not."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scorelab.comparison.runs import Run
from scorelab.report.numbers import yardstick
from scorelab.run.identity import dotted, is_machine

CIRCUMSTANCES = (  # in a yardstick's records: what its number depends on, and no choice of the run is
    "data",
    "reference",
    "n",
    "images",
    "sets",
    "extractor",
    "extractor_hash",
    "rounding",
    "labels",
    "subset_size",
    "subsets",
    "splits",
    "neighbours",
    "items",
    "of",
    "lattice",
    "dequantisation",
    "decoder",
)
FIGURES = re.compile(r"\d[\d,.]*")
WIDTH = re.compile(r", (at sigma/alpha|s\^2) (=|between) .*$")  # of a decoder: schedule and variance decide it


@dataclass(frozen=True)
class LeftOut:
    """Runs that a number does not rank, and why."""

    runs: tuple[str, ...]
    why: str


def data_of(run: Run) -> str:
    """What a run was trained and judged on: its source as configured."""
    source = (run.config.get("data") or {}).get("source")
    plain = {key: value for key, value in dotted(source).items() if not is_machine(f"data.source.{key}")}
    return json.dumps(plain, sort_keys=True, default=str)


def circumstances(run: Run, name: str) -> dict[str, str]:
    """What a number of a run depends on besides the run, as its records say.

    ``data`` is the fingerprint of all that the source gave: a folder's files may have changed between two runs.
    """
    split, _, short = name.rpartition("/")
    if split == "val":
        return _while_training(run, short)
    if split != "test":
        return {}
    record = _record(run, name)
    known: dict[str, Any] = {}
    for inner in (record.get("held_out"), record, record.get(short)):  # of the score's errors; of the common bound
        known |= inner if isinstance(inner, dict) else {}
    found = {key: str(known[key]) for key in CIRCUMSTANCES if known.get(key) is not None}
    fingerprint = (run.records.get("data") or {}).get("fingerprint")
    if fingerprint and (run.config.get("data") or {}).get("limit") is None:
        found["data"] = str(fingerprint)
    if "decoder" in found:  # its kind; how wide it is belongs to the run's own choices
        found["decoder"] = WIDTH.sub("", found["decoder"])
    return found


def _while_training(run: Run, short: str) -> dict[str, str]:
    """How many held-out items, or samples, a number told while training is of."""
    callbacks = run.config.get("callbacks") or {}
    key, node, argument = ("n", "grid", "samples") if short.startswith("fid") else ("items", "validation", "items")
    count = (callbacks.get(node) or {}).get(argument)
    return {} if count is None else {key: str(count)}


def _record(run: Run, name: str) -> Mapping[str, Any]:
    return run.records.get(yardstick(name)) or {}


def lacking(runs: Sequence[Run], name: str) -> list[LeftOut]:
    """Finished runs that were to have a number and have none, by the reason that they tell.

    Reasons that differ in their figures alone are one, that of the first run.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for run in runs:
        if run.metrics.get(name) is None:
            record = _record(run, name)
            told = next((record[key] for key in ("skipped", "failed", "missing") if record.get(key)), None)
            if told is not None:
                found.setdefault(FIGURES.sub("", str(told)), (str(told), []))[1].append(run.name)
    return [LeftOut(tuple(names), why) for why, names in found.values()]


def alike(runs: Sequence[Run], name: str) -> tuple[list[Run], list[LeftOut]]:
    """The runs that a number ranks: the largest group under the same circumstances, the first of equals; the others."""
    told = [run for run in runs if run.metrics.get(name) is not None]
    if not told:
        return [], []
    kinds = {id(run): circumstances(run, name) for run in told}
    counts = Counter(json.dumps(kind, sort_keys=True) for kind in kinds.values())
    usual = json.loads(counts.most_common(1)[0][0])
    ranked = [run for run in told if kinds[id(run)] == usual]
    others: dict[str, list[str]] = {}
    for run in told:
        if kinds[id(run)] != usual:
            others.setdefault(_difference(kinds[id(run)], usual), []).append(run.name)
    return ranked, [LeftOut(tuple(names), why) for why, names in others.items()]


def _difference(kind: Mapping[str, str], usual: Mapping[str, str]) -> str:
    key = next(key for key in CIRCUMSTANCES if kind.get(key) != usual.get(key))
    return f"{key} is {kind.get(key, 'not recorded')}, of the others {usual.get(key, 'not recorded')}"
