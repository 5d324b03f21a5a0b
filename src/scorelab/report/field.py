"""The picture of a learned score field beside the exact one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scorelab.files import whole


def draw_fields(path: Path, fields: Sequence[Mapping[str, Any]]) -> None:
    """Rows: the denoiser's score, the exact one, by log-SNR; arrows are sigma times the score, over the density p_t.

    Both rows have the same scale of arrows at one log-SNR.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * len(fields), 6.9), layout="constrained")
    for column, field in enumerate(fields):
        x, y = zip(*field["places"], strict=True)
        side, top = math.isqrt(len(x)), max(field["log_prob"])
        density = [math.exp(value - top) for value in field["log_prob"]]
        rows = [density[row * side : (row + 1) * side] for row in range(side)]
        lengths = sorted(math.hypot(*arrow) for arrow in field["exact"])
        usual = lengths[int(0.9 * len(lengths))] or 1.0
        for row, (name, arrows) in enumerate((("denoiser", field["said"]), ("exact", field["exact"]))):
            axes = figure.add_subplot(2, len(fields), row * len(fields) + column + 1)
            extent = (min(x), max(x), min(y), max(y))
            axes.imshow(rows, extent=extent, origin="lower", cmap="Blues", vmin=0, vmax=1.6, interpolation="bilinear")
            u, v = zip(*arrows, strict=True)
            axes.quiver(x, y, u, v, scale=0.8 * side * usual, width=0.004)
            axes.set(title=f"{name}, λ = {field['log_snr']:g}", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    figure.supxlabel("x_t / α", fontsize=9)
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=110)
