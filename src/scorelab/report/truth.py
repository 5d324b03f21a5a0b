"""The picture of a run beside the exact score of its training set."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

CURVES = {
    "network_train": "network, training images",
    "network_held_out": "network, held-out images",
    "oracle_held_out": "exact score of the training set, held-out images",
}


def draw_truth(path: Path, record: Mapping[str, Sequence[float | None]]) -> None:
    """The three error curves of ``oracle_gap``'s record by log-SNR.

    Where the network is below the exact score on held-out images it generalises; where its two curves come apart it
    memorises.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-4.8, 6.6, color="0.93", zorder=0)
    for name, label in CURVES.items():
        values = [math.nan if value is None else value for value in record[name]]
        axes.plot(
            [at for at in record["log_snr"] if at is not None],
            values,
            label=label,
            linewidth=1.6,
            marker=".",
            markersize=4,
        )
    axes.set(xlabel="log-SNR λ  (noise ← → data)", ylabel="‖ε − ε̂‖² / d", yscale="log", xlim=(-12.5, 12.5))
    axes.grid(color="0.85", linewidth=0.5)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    whole = path.with_name(f".{path.name}")
    figure.savefig(whole, format="png", dpi=130)
    whole.replace(path)
