"""The memory of a run on a mapped set beside that of a digits run, and how long its steps wait for data.

    python benchmarks/mapped_memory.py [images] [steps]

Makes a set of images (100,000 unless told, 64x64x3 bytes) through the cache, in a temporary folder, and trains the
smallest U-Net on it as src/train.py does, one thread, mapped and in memory, and on 1,000 of its kind, whose memory is
the network's. Prints for each run the most memory that was ever resident (VmHWM), before and with its evaluation, and
the share of a step that waits for its batch. Aims: mapped less than 500 MB over digits; waiting below 1 % in memory,
2 % mapped.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import Callback
from torch import Tensor

from scorelab.data.base import Source, Split
from scorelab.data.cache import TensorCache
from scorelab.data.module import DataModule

ROOT = Path(__file__).resolve().parent.parent
HELD = 32  # of val and of test
SMALL = ("model.channels=8", "model.multipliers=[1,1]", "data.batch_size=16", "trainer=cpu", "logger=none")
SMALL += ("callbacks=minimal", "callbacks.validation.every=1000000", "metrics=[simple]")
SMALL += ("evaluation.samples=16", "sampler.steps=2", "evaluation.chunk=16", "callbacks.validation.chunk=16")


class Noise(Source):
    """Random bytes, made once into the cache."""

    shape, levels, classes = (3, 64, 64), 256, 10

    def __init__(self, folder: str, images: int, resident_mb: float) -> None:
        self.images, self.cache = images, TensorCache(folder, resident_mb=resident_mb)

    def splits(self) -> dict[str, Split]:
        """Train, then val and test behind it."""
        n = self.images + 2 * HELD
        values = self.cache.take({"images": n}, self.shape, torch.uint8, self.made).values
        ends = {"train": (0, self.images), "val": (self.images, n - HELD), "test": (n - HELD, n)}
        return {name: Split(values[a:b], torch.arange(a, b) % 10) for name, (a, b) in ends.items()}

    def made(self, put: Callable[[Tensor], None]) -> dict[str, Any]:
        """All of it, some at a time."""
        generator = torch.Generator().manual_seed(0)
        for rows in torch.arange(self.images + 2 * HELD).split(512):
            put(torch.randint(0, 256, (len(rows), *self.shape), dtype=torch.uint8, generator=generator))
        return {}


class Timed(DataModule):
    """Data that notes how long each batch was waited for."""

    waits: ClassVar[list[float]] = []

    def train_dataloader(self) -> Any:
        """The same batches."""
        return TimedLoader(super().train_dataloader())


class TimedLoader:
    """The batches of a loader."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        """One after the other, timed."""
        batches = iter(self.loader)
        while True:
            began = time.perf_counter()
            batch = next(batches)
            Timed.waits.append(time.perf_counter() - began)
            yield batch


class Clock(Callback):
    """How long steps take, and what share of them is waiting; what was resident when training ended."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """A batch is there."""
        self.starts.append(time.perf_counter())

    def on_train_end(self, *_: Any) -> None:
        """Say it, without the first steps, which make what is made once."""
        steps = [later - start for start, later in zip(self.starts, self.starts[1:], strict=False)][5:]
        wait, step = statistics.median(Timed.waits[5:]), statistics.median(steps)  # other jobs come between
        told = f"trained: {resident():.0f} MB, {1e3 * step:.1f} ms a step, waiting {1e3 * wait:.2f} ms"
        print(f"  {told} = {100 * wait / step:.2f} %", flush=True)


def resident() -> float:
    """The most megabytes that were ever resident of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def child(words: list[str]) -> None:
    """One run as src/train.py does it; what was resident at its end."""
    from scorelab.app.entry import entry

    sys.argv = ["train.py", *words]
    entry(ROOT / "configs", "train", "scorelab.app.train:train")
    print(f"  whole run: {resident():.0f} MB", flush=True)


def run(title: str, folder: str, *words: str) -> None:
    """A run in a process of its own."""
    print(title, flush=True)
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    clock = ("+callbacks.clock={_target_: mapped_memory.Clock}", "data._target_=mapped_memory.Timed")
    command = [sys.executable, __file__, "run", *clock, *SMALL, *words]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=True)


def main() -> None:
    images, steps = (int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((1, 100_000), (2, 100)))
    with tempfile.TemporaryDirectory() as folder:
        length = f"trainer.max_steps={steps}"
        run("digits", folder, "run=digits", length)
        for n, kind, resident_mb in ((1000, "in memory", 1e6), (images, "mapped", 0), (images, "in memory", 1e6)):
            of = f"folder: {folder}/cache, images: {n}, resident_mb: {resident_mb}"
            words = (f"run={kind.replace(' ', '_')}-{n}", length, "data.extractor=null")
            source = f"data.source={{_target_: mapped_memory.Noise, {of}}}"
            run(f"{n:,} images of 64x64x3, {kind}", folder, source, *words)


if __name__ == "__main__":
    child(sys.argv[2:]) if sys.argv[1:2] == ["run"] else main()
