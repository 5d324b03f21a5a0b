"""Pictures of points in the plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scorelab.files import whole


def draw_plane(path: Path, sets: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """One panel per set of points (x, y), all on the axes of the last."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(sets), 4.3), layout="constrained")
    *_, reference = sets.values()
    limits = [_limits([point[axis] for point in reference]) for axis in (0, 1)]
    for place, (name, points) in enumerate(sets.items()):
        axes = figure.add_subplot(1, len(sets), place + 1)
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=3, alpha=0.5, linewidths=0)
        axes.set(title=f"{name} ({len(points):,})", xlim=limits[0], ylim=limits[1], aspect="equal")
        axes.grid(color="0.9", linewidth=0.5)
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    margin = 0.15 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin
