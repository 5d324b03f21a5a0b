"""The picture of a run beside what is known exactly."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scorelab.files import whole
from scorelab.log_snr import RANGE

LINEAR = "best linear denoiser, held-out data"
CURVES = (
    ("exact_gap", "network_train", "network, training data"),
    ("exact_gap", "network_held_out", "network, held-out data"),
    ("exact_gap", "exact_held_out", "exact score of the training set, held-out data"),
    ("simple", "error", "network, held-out data"),
    ("exact_gap", "linear_held_out", LINEAR),
    ("score_error/held_out", "linear", LINEAR),
    ("score_error/held_out", "floor", "true score, held-out data: the least there is"),
    ("score_error/held_out", "error", "network against the true score"),
    ("score_error/train", "error", "network against the training set's score, training data"),
)


def draw_truth(path: Path, records: Mapping[str, Any]) -> None:
    """The error curves by log-SNR that the records of ``exact_gap`` and ``score_error`` hold; nothing without them.

    Where the network is below the training set's exact score on held-out data it generalises; where its own curves on
    training and held-out data come apart it memorises. Where it is below the best linear denoiser it has learned more
    than the data's mean and covariance.
    """
    found: dict[str, tuple[Sequence[float], Sequence[float | None]]] = {}
    for place, name, label in CURVES:
        record = _record(records, place)
        if name in record and label not in found:
            found[label] = (record["log_snr"], record[name])
    if not ("gap_se" in _record(records, "exact_gap") or "floor" in _record(records, "score_error/held_out")):
        return
    _draw(path, found)


def _record(records: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    for part in place.split("/"):
        records = records.get(part, {})
    return records


def _draw(path: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float | None]]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(*RANGE, color="0.93", zorder=0)
    for label, (at, values) in curves.items():
        shown = [math.nan if value is None or value <= 0 else value for value in values]
        style = {"color": "0.45", "linestyle": "--"} if label == LINEAR else {"marker": ".", "markersize": 4}
        axes.plot(at, shown, label=label, linewidth=1.6, **style)
    axes.set(xlabel="log-SNR λ  (noise ← → data)", ylabel="‖ε − ε̂‖² / d", yscale="log", xlim=(-12.5, 12.5))
    axes.grid(color="0.85", linewidth=0.5)
    axes.legend(fontsize=8, frameon=False, loc="best")
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=130)
