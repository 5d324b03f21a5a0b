"""A picture of a schedule that was learned."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from scorelab.files import whole


def draw_schedule(path: Path, curve: Mapping[str, Sequence[float]]) -> None:
    """Log-SNR by time beside the straight line between its ends, and how densely each is drawn.

    Args:
        path: of the picture.
        curve: ``t`` and ``log_snr``, from data to noise.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.7), layout="constrained")
    t, log_snr = curve["t"], curve["log_snr"]
    axes = figure.add_subplot(1, 2, 1)
    axes.plot(t, log_snr, label="learned")
    axes.plot([t[0], t[-1]], [log_snr[0], log_snr[-1]], color="0.6", linestyle="--", label="straight line")
    axes.set(xlabel="time t  (data → noise)", ylabel="log-SNR λ")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(color="0.9", linewidth=0.5)
    axes = figure.add_subplot(1, 2, 2)
    density = [
        (later - sooner) / (high - low)
        for (sooner, later), (high, low) in zip(pairwise(t), pairwise(log_snr), strict=True)
    ]
    axes.stairs(density[::-1], log_snr[::-1], baseline=None)
    axes.axhline((t[-1] - t[0]) / (log_snr[0] - log_snr[-1]), color="0.6", linestyle="--")
    axes.set(xlabel="log-SNR λ  (noise ← → data)", ylabel="density of λ at uniform times", ylim=(0, None))
    axes.grid(color="0.9", linewidth=0.5)
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=130)
