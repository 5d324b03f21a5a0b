"""A picture of what guidance does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorelab.files import whole


def draw_guidance(path: Path, record: Mapping[str, Any]) -> None:
    """The Fréchet distance by guidance scale, and how often the label that was asked for is recognised."""
    from matplotlib.figure import Figure

    known = record["control"] is not None
    figure = Figure(figsize=(8.6 if known else 4.6, 3.6), layout="constrained")
    axes = figure.add_subplot(1, 2 if known else 1, 1)
    axes.plot(record["scale"], record["fid"], marker=".")
    axes.axhline(record["floor_value"], color="0.6", linestyle="--", label="floor: perfect samples")
    axes.set(xlabel="guidance scale (1: none)", ylabel=f"Fréchet distance, {record['n']:,} samples", ylim=(0, None))
    axes.legend(frameon=False, fontsize=9)
    axes.grid(color="0.9", linewidth=0.5)
    if known:
        axes = figure.add_subplot(1, 2, 2)
        axes.plot(record["scale"], record["asked"], marker=".")
        axes.axhline(record["control"], color="0.6", linestyle="--", label=f"{record['control_n']:,} held-out images")
        axes.set(xlabel="guidance scale (1: none)", ylabel="recognised as the label asked for")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        axes.grid(color="0.9", linewidth=0.5)
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=130)
