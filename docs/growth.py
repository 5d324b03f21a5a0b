"""Draw docs/growth.png, how time and memory grow, from what benchmarks/growth.py has measured: make figures."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

HERE = Path(__file__).parent
PANELS = {
    "side": "side of the image, pixels",
    "channels": "channels at full resolution",
    "batch": "images in a batch",
    "points": "points of an exact score",
    "runs": "runs compared",
}

with (HERE.parent / "benchmarks" / "growth.csv").open(newline="") as file:
    rows = [(row["grows"], int(row["size"]), float(row["seconds"]), float(row["mib"])) for row in csv.DictReader(file)]
figure, panels = plt.subplots(2, len(PANELS), figsize=(14, 5.2), sharex="col", layout="constrained")
for (name, title), (above, below) in zip(PANELS.items(), panels.T, strict=True):
    sizes, seconds, mib = zip(*[row[1:] for row in rows if row[0] == name], strict=True)
    for panel, values in ((above, seconds), (below, mib)):
        panel.loglog(sizes, values, "o-", color="C0")
        panel.grid(alpha=0.3)
        panel.minorticks_off()
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.set_xlabel(title)
panels[0, 0].set_ylabel("seconds")
panels[1, 0].set_ylabel("MiB")
figure.savefig(HERE / "growth.png", dpi=110)
