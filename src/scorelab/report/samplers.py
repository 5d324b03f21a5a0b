"""A picture of samplers by what they cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorelab.files import whole

PANELS = (("fid", "this network"), ("exact_fid", "the exact score: the sampler's error alone"))
MARKERS = "os^vDP*X"


def draw_samplers(path: Path, record: Mapping[str, Any]) -> None:
    """The Fréchet distance of each sampler by evaluations, of the network and, where known, of the exact score."""
    from matplotlib.figure import Figure

    by_sampler = record["by_sampler"]
    panels = [
        each for each in PANELS if any(line[each[0]] is not None for lines in by_sampler.values() for line in lines)
    ]
    figure = Figure(figsize=(0.6 + 4.9 * len(panels), 4.2), layout="constrained")
    first = None
    for place, (name, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1, sharey=first)
        first = first or axes
        for (sampler, lines), marker in zip(by_sampler.items(), MARKERS * len(by_sampler), strict=False):
            known = [line for line in lines if line[name] is not None]
            at, values = [line["evaluations"] for line in known], [line[name] for line in known]
            axes.errorbar(at, values, [line[f"{name}_se"] or 0 for line in known], label=sampler, marker=marker, ms=4)
        axes.axhline(record["floor_value"], color="0.6", linestyle="--", label="floor: perfect samples")
        axes.set(title=title, xlabel="network evaluations per sample", xscale="log", yscale="log")
        axes.grid(color="0.9", linewidth=0.5, which="both")
    figure.axes[0].set_ylabel(f"Fréchet distance, {record['n']:,} samples")
    figure.axes[-1].legend(frameon=False, fontsize=8)
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=130)
