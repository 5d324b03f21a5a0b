"""How time and memory grow: with the side of images, channels, batch, points of an exact score, runs compared.

    OMP_NUM_THREADS=1 python benchmarks/growth.py            writes benchmarks/growth.csv, which make figures draws

Each row is a process of its own on one thread: seconds are the median of several calls, MiB what it grows by.
"""

import argparse
import csv
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "benchmarks" / "growth.csv"
SIDE, CHANNELS, BATCH = 16, 32, 32  # what stays while another grows
GROWS = {
    "side": [8, 16, 32, 64],
    "channels": [8, 16, 32, 64, 128],
    "batch": [8, 16, 32, 64, 128, 256],
    "points": [1_000, 4_000, 16_000, 64_000],
    "runs": [10, 100, 1_000],
}
CALLS = 7


def step(side: int = SIDE, channels: int = CHANNELS, batch: int = BATCH) -> Callable[[], object]:
    """A training step of a U-Net of three resolutions on images of one channel."""
    from peers import Size
    from train_step import stepper

    from scorelab.networks import LightUNet

    return stepper(
        LightUNet((1, side, side), channels, [1, 2, 4], [1, 2, 2], [side // 4]), Size((1, side, side), batch, {})
    )


def posterior(points: int) -> Callable[[], object]:
    """The exact score of a finite set of 28 x 28 images, asked about 256 of them, noised."""
    import torch

    from scorelab.laws import FiniteSet
    from scorelab.tensors import from_levels

    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (points, 784), generator=draw, dtype=torch.uint8)
    law, one = FiniteSet(values, levels=256), torch.ones(256, dtype=torch.float64)
    x = from_levels(values[:256], 256).double() + torch.randn(256, 784, generator=draw, dtype=torch.float64)
    return lambda: law.posterior(x, one, one)


def comparison(runs: int, place: Path) -> list[str]:
    """The command that compares so many runs: those of results/ again and again, each time of other seeds."""
    stored = sorted((ROOT / "results").glob("*/*/metrics.json"))
    for number in range(runs):
        source = stored[number % len(stored)].parent
        target = place / f"run-{number}"
        shutil.copytree(source, target)
        metrics = json.loads((target / "metrics.json").read_text())
        metrics["config"]["seed"] += 10 * (number // len(stored))
        (target / "metrics.json").write_text(json.dumps(metrics))
    return [sys.executable, str(ROOT / "src" / "compare.py"), str(place), f"out={place / 'out'}"]


def measured(kind: str, size: int) -> tuple[float, float]:
    """Seconds and MiB, in this process."""
    if kind == "runs":
        with tempfile.TemporaryDirectory() as place:
            command, seconds = comparison(size, Path(place)), []
            for _ in range(3):
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds.append(time.perf_counter() - began)
        return statistics.median(seconds), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    import torch
    from common import Memory

    torch.set_num_threads(1)
    (posterior(300) if kind == "points" else step(8, 8, 1))()  # what is loaded at first use is not counted
    memory = Memory()
    call, seconds = posterior(size) if kind == "points" else step(**{kind: size}), []
    for _ in range(CALLS + 1):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[1:]), memory.grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help="measure one row and print it")
    given = parser.parse_args()
    if given.one:
        print(*measured(given.one[0], int(given.one[1])))
        return
    lines = []
    for kind, sizes in GROWS.items():
        for size in sizes:
            command = [sys.executable, __file__, "--one", kind, str(size)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-2:]
            lines.append([kind, size, *(f"{float(number):.4g}" for number in said)])
            print(*lines[-1], flush=True)
    with FILE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["grows", "size", "seconds", "mib"], *lines])


if __name__ == "__main__":
    main()
