"""Weight cards as a table and as a picture."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from scorelab.files import whole, write_text
from scorelab.log_snr import RANGE

Rows = Sequence[Mapping[str, float]]
LINES = ("-", "--", ":", "-.")


def write_card(path: Path, rows: Rows, notes: Sequence[str] = ()) -> None:
    """card.csv: one row per noise level, from data to noise; what the card leaves out stands above, after a #."""
    text = io.StringIO()
    text.writelines(f"# {note}\n" for note in notes)
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({key: f"{value:.9g}" for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def draw_cards(path: Path, panels: Mapping[str, Mapping[str, Rows]], notes: Sequence[str] = ()) -> None:
    """One panel per title, one curve per card: the effective weight by log-SNR, relative to its mean where shaded.

    An atom of a T-step process is spread evenly over its interval; i = 1, whose interval is endless, is left out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.6 * len(panels), 3.9), layout="constrained")
    for place, (title, cards) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        axes.axvspan(*RANGE, color="0.93", zorder=0)
        for (name, rows), line in zip(cards.items(), LINES * len(cards), strict=False):
            edges, density = curve(rows)
            axes.stairs(density, edges, baseline=None, label=name, linewidth=1.6, linestyle=line)
        axes.set(title=title, xlabel="log-SNR λ  (noise ← → data)", yscale="log", xlim=(-21, 14), ylim=(3e-5, 1e3))
        axes.grid(color="0.85", linewidth=0.5)
        if len(cards) > 1:
            axes.legend(fontsize=9, frameon=False, loc="upper right")
        if place == 0:
            axes.set_ylabel("weight on ‖ε − ε̂‖², w(λ) p(λ)\nrelative to its mean over the grey range")
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=7)
    with whole(path) as file:
        figure.savefig(file, format="png", dpi=130)


def curve(rows: Rows) -> tuple[list[float], list[float]]:
    """Edges and densities from noise to data, relative to the mean density over [-4.8, 6.6].

    Levels without a weight or with an endless interval are gaps at either end.
    """
    finite = ("density", "log_snr_low", "log_snr_high")
    known = [row for row in reversed(rows) if all(math.isfinite(row[key]) for key in finite)]
    if not known:
        return [0.0, 1.0], [math.nan]
    edges = [known[0]["log_snr_low"], *(row["log_snr_high"] for row in known)]
    inside = [row for row in known if row["log_snr_low"] >= RANGE[0] and row["log_snr_high"] <= RANGE[1]]
    length = sum(row["log_snr_high"] - row["log_snr_low"] for row in inside)
    mean = sum(row["mass"] for row in inside) / length if length else 1.0
    return edges, [row["density"] / mean if mean else math.nan for row in known]
