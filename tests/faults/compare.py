"""Whether two run directories say the same, bit by bit, of all but their clocks and their names."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

Compared = Callable[[Path, Path], list[str]]

TEMPORARY = re.compile(r"^\.|\.(part|tmp)|\.\d+$")
OWN = re.compile(r"^lock$|\.log$|^config\.yaml$")  # of the job, or of the run's name
SPEEDS = ("train/it_per_s",)
# counts of what a process did, not of what a run did; and the sum over all, with them
COUNTS = re.compile(r"^(loops|scorelab\.sha256)\b")


def differences(whole: Path, torn: Path) -> list[str]:
    """What the torn run's directory lacks, has too much, or says otherwise; empty where it is as good as the whole."""
    names, others = (files(folder) for folder in (whole, torn))
    found = [f"{name} is missing" for name in sorted(names - others)]
    found += [f"{name} should not be there" for name in sorted(others - names)]
    found += [f"{name} is temporary" for name in sorted(names & others) if TEMPORARY.search(Path(name).name)]
    for name in sorted(names & others):
        base = Path(name).name
        if not OWN.search(base):
            compared = BY_NAME.get(base, unlike_bytes)
            found += [f"{name}: {told}" for told in compared(whole / name, torn / name)]
    return found


def files(folder: Path) -> set[str]:
    """The relative paths of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def unlike_bytes(whole: Path, torn: Path) -> list[str]:
    """Pictures and tables."""
    return [] if whole.read_bytes() == torn.read_bytes() else ["other bytes"]


def unlike_last(whole: Path, torn: Path) -> list[str]:
    """All that a checkpoint holds: weights, optimiser, histories, generators, callbacks."""
    return unlike(*(torch.load(path, map_location="cpu", weights_only=True) for path in (whole, torn)))


def unlike_best(whole: Path, torn: Path) -> list[str]:
    """Weights, and the step they are of."""
    either = [torch.load(path, map_location="cpu", weights_only=True) for path in (whole, torn)]
    return unlike(*({key: content[key] for key in ("state_dict", "global_step")} for content in either))


def unlike_previous(whole: Path, torn: Path) -> list[str]:
    """The checkpoint before the last: the same where it is of the same step; it depends on when others were written."""
    steps = [torch.load(path, map_location="cpu", weights_only=True)["global_step"] for path in (whole, torn)]
    return unlike_last(whole, torn) if steps[0] == steps[1] else []


def unlike_metrics(whole: Path, torn: Path) -> list[str]:
    """The results's numbers."""
    return unlike(*(pick(path, "status", "metrics") for path in (whole, torn)))


def unlike_status(whole: Path, torn: Path) -> list[str]:
    """What the run says it is doing, and at which step."""
    return unlike(*(pick(path, "state", "step") for path in (whole, torn)))


def unlike_history(whole: Path, torn: Path) -> list[str]:
    """The rows, in their order, speeds aside; the first row that differs."""
    pairs = zip_longest(rows(whole), rows(torn), fillvalue={})
    for number, (row, other) in enumerate(pairs):
        if row != other:
            return [f"row {number} is {other}, not {row}"]
    return []


def pick(path: Path, *keys: str) -> dict[str, Any]:
    """Some keys of a JSON file."""
    content = json.loads(path.read_text())
    return {key: content.get(key) for key in keys}


def rows(path: Path) -> list[dict[str, str]]:
    """What each row of a history says, without empty cells."""
    with path.open(newline="") as file:
        return [
            {key: value for key, value in row.items() if value and key not in SPEEDS} for row in csv.DictReader(file)
        ]


def unlike(whole: Any, torn: Any) -> list[str]:
    """The leaves in which two nested values differ, in one line that names the first few."""
    ones, others = dict(leaves(whole)), dict(leaves(torn))
    paths = [path for path in {**ones, **others} if not COUNTS.search(path)]
    nothing = object()
    found = [path for path in paths if not same(ones.get(path, nothing), others.get(path, nothing))]
    if not found:
        return []
    first = found[0]
    shown = f"{brief(others.get(first))}, not {brief(ones.get(first))}"
    parts = sorted({re.split(r"[.\[]", path)[0] for path in found})
    return [f"{first} is {shown} ({len(found)} of {len(paths)} values differ, in {', '.join(parts)})"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by their paths."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{place}]")
    else:
        yield path, value


def same(one: Any, other: Any) -> bool:
    """Whether two leaves are the same bits."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and raw(one) == raw(other)
    if type(one) is not type(other):
        return False
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def raw(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes; NaN is the same as the same NaN."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def brief(value: Any) -> str:
    """A leaf in a few words."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} of sum {float(value.double().sum()):.9g}"
    return repr(value)[:60]


BY_NAME: dict[str, Compared] = {
    "last.ckpt": unlike_last,
    "best.ckpt": unlike_best,
    "previous.ckpt": unlike_previous,
    "metrics.json": unlike_metrics,
    "status.json": unlike_status,
    "metrics.csv": unlike_history,
}
