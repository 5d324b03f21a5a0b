"""What a page draws of a run: curves thinned, distances by cost, its weight card, its sample grids."""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorelab.comparison.like import circumstances
from scorelab.comparison.runs import Run, read_run
from scorelab.report.card import curve as card_curve
from scorelab.report.numbers import LESS

MOST_POINTS = 400  # of a curve; longer ones are thinned, and the page says so
MOST_LEVELS = 1000  # of a card; of longer ones neighbours are merged, and the page says so
PICTURES = 24_000_000  # bytes of pictures in a page: those of the first rows
PROFILES = (  # curves over log-SNR in the records: place, curve, what it is, whether less is better
    ("score_error/held_out", "error", "score error, held-out data", LESS),
    ("simple", "error", "noise error, held-out data", LESS),
    ("exact_gap", "network_held_out", "noise error, held-out images of the gap", LESS),
    ("score_error/train", "error", "score error, noised training data", ""),
)


@dataclass(frozen=True)
class Curve:
    """Values by step, and how many there were before thinning."""

    steps: list[int]
    values: list[float]
    of: int


def thinned(points: Sequence[tuple[int, float]], most: int = MOST_POINTS, shared: Iterable[int] = ()) -> Curve:
    """A curve of so many evenly spaced points, the first and the last among them; ``shared`` steps are kept too."""
    kept = list(points)
    if len(points) > most:
        steps = {step for step, _ in few(points, most)} | set(shared)
        kept = [point for point in points if point[0] in steps]
    return Curve([step for step, _ in kept], [six(value) for _, value in kept], len(points))


def shared_steps(curves: Sequence[Sequence[tuple[int, float]]]) -> list[int]:
    """At which steps several curves are thinned alike: only where all have a value is there a mean of theirs."""
    common = set[int].intersection(*({step for step, _ in curve} for curve in curves))
    return few(sorted(common))


def few(points: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most so many, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def six(value: float) -> float:
    """Six digits: a page shows no more."""
    return float(f"{value:.6g}")


def profiles(records: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Curves over log-SNR, by what they are."""
    for place, name, told, _ in PROFILES:
        record: Any = records
        for part in place.split("/"):
            record = record.get(part) if isinstance(record, dict) else None
        if isinstance(record, dict) and isinstance(record.get(name), list) and "log_snr" in record:
            yield told, {"log_snr": record["log_snr"], "values": record[name]}


def evaluations(run: Run) -> list[dict[str, float]]:
    """Fréchet distances by how often the network was asked for a sample: the run's own, its budget's, those of eval.

    Of those of eval only such as are of the same weights and as many samples, drawn by the same sampler but for its
    steps and compared with the same in the same features, as the run's own. Of several at one cost it is the mean.
    """
    found = [run]
    for file in sorted(Path(run.place).glob("eval/*/metrics.json")):
        other = read_run(file.parent)
        same = circumstances(other, "test/fid") == circumstances(run, "test/fid") and _sampler(other) == _sampler(run)
        if same and not _other_weights(file):
            found.append(other)
    points: dict[float, list[float]] = {}
    for each in found:
        budget = each.records.get("budget") or {}
        for cost, distance in (
            ((each.records.get("fid") or {}).get("network_evaluations_per_sample"), each.metrics.get("test/fid")),
            (budget.get("evaluations_per_sample_of_network"), each.metrics.get("test/budget_network")),
        ):
            if cost and distance is not None:
                points.setdefault(float(cost), []).append(distance)
    return [{"evaluations": cost, "fid": six(math.fsum(each) / len(each))} for cost, each in points.items()]


def _sampler(run: Run) -> tuple[Any, dict[str, Any]]:
    record = run.records.get("fid") or {}
    arguments = record.get("sampler_arguments") or {}
    return record.get("sampler"), {key: value for key, value in arguments.items() if key != "steps"}


def _other_weights(file: Path) -> bool:
    """Whether an evaluation was of another denoiser than the run's own figures: other weights, or guided."""
    try:
        words = json.loads(file.read_text(encoding="utf-8")).get("overrides") or []
    except (OSError, ValueError, AttributeError):
        return True
    plain = ("checkpoint=last", "average=null", "guidance=1", "guidance=1.0")
    others = ("checkpoint=", "average=", "guidance=")
    return any(str(word).startswith(others) and str(word) not in plain for word in words)


def card(run: Run | None) -> dict[str, Any] | None:
    """A run's weight card as edges and densities, from noise to data; ``of`` is how many levels it had."""
    if run is None:
        return None
    try:
        text = (Path(run.place) / "card.csv").read_text(encoding="utf-8")
        head, *lines = (line for line in text.splitlines() if not line.startswith("#"))
        names = head.split(",")
        edges, density = card_curve([dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    size = max(1, math.ceil(len(density) / MOST_LEVELS))
    first = range(0, len(density), size)
    return {
        "edges": [six(edges[place]) for place in (*first, len(density))],
        "density": [_merged(edges, density, place, min(place + size, len(density))) for place in first],
        "of": len(density),
    }


def _merged(edges: Sequence[float], density: Sequence[float], start: int, end: int) -> float | None:
    """The density of several levels together: their mass over their width."""
    widths = [edges[place + 1] - edges[place] for place in range(start, end)]
    mass = math.fsum(density[start + place] * width for place, width in enumerate(widths))
    value = mass / sum(widths) if sum(widths) else math.nan
    return six(value) if math.isfinite(value) else None


class Room:
    """Room for so many bytes of pictures; ``refused`` counts runs whose pictures found none."""

    def __init__(self, most: int = PICTURES) -> None:
        self.left, self.refused = most, 0

    def pictures(self, run: Run) -> list[dict[str, Any]]:
        """A run's sample grids by step, all of them or none."""
        files = grids(run)
        size = sum(file.stat().st_size for file in files)
        if size > self.left:
            self.refused += 1
            return []
        self.left -= size
        return [
            {
                "step": int(file.stem.partition("_")[2]),
                "image": "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
            }
            for file in files
        ]


def grids(run: Run) -> list[Path]:
    """The files of a run's sample grids, by step."""
    files = sorted((Path(run.place) / "samples").glob("step_*.png"))
    return [file for file in files if file.stem.partition("_")[2].isdigit()]
