"""How long a command takes to its first step, beside the import of torch and lightning, which it cannot do without.

    python benchmarks/startup.py [--rounds 8] [--wall] [--imports] [KEY=VALUE ...]

Each round starts new processes: one that imports torch and lightning; ``src/train.py`` on digits, with the overrides
that are given, up to its first step; the same as a sweep of eight, one after the other, up to the first step of the
eighth, each of one step and without evaluation; ``--help`` and ``--cfg job``. Told is their CPU time, or with
``--wall`` the time on the wall, which on an idle machine is what one waits. ``--imports`` prints instead which
packages the command imports beside those two, and how long each takes by ``-X importtime``.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import interleaved, machine, rows, table

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("logger=none", "metrics=[]", "callbacks=minimal", "trainer.max_steps=1")
SWEPT = 8
UNAVOIDABLE = "import torch, lightning"
TO_STEP = """
import os, runpy, sys
from scorelab.run.surroundings import settle
settle()
from scorelab.lit.module import DiffusionModule
left, step = [{jobs}], DiffusionModule.training_step
def counted(*given, **named):
    left[0] -= 1
    if not left[0]:
        os._exit(0)
    return step(*given, **named)
DiffusionModule.training_step = counted
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
sys.exit("no step was made")
"""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """A new process, in a folder of its own, for runs leave theirs where they are."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words[-5:])}: {done.stderr[-2000:]}")
    return done


def to_step(jobs: int, *words: str) -> tuple[str, ...]:
    """What to run up to the first step of the last of so many jobs."""
    return ("-c", TO_STEP.format(jobs=jobs, script=str(ROOT / "src" / "train.py")), *QUICK, *words)


def of_children() -> float:
    """The CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def imports(words: list[str]) -> str:
    """Markdown: milliseconds of each package's own modules, those of torch and lightning by themselves, most first."""
    spent: Counter[str] = Counter()
    for line in python("-X", "importtime", *to_step(1, *words)).stderr.splitlines():
        if found := re.match(r"import time:\s+(\d+) \|\s+\d+ \| +([\w.]+)", line):
            spent[found[2].partition(".")[0]] += int(found[1])
    listed = [f"| {name} | {micro / 1e3:.0f} |" for name, micro in spent.most_common(20)]
    return "\n".join(["| package | ms of its own modules |", "|---|---|", *listed])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--imports", action="store_true")
    asked, words = parser.parse_known_args()
    print(machine(), flush=True)
    if asked.imports:
        print(imports(words))
        return
    script = str(ROOT / "src" / "train.py")
    candidates: dict[str, Callable[[], object]] = {
        UNAVOIDABLE: partial(python, "-c", UNAVOIDABLE),
        "train.py, to its first step": partial(python, *to_step(1, *words)),
        f"train.py -m, to the first step of job {SWEPT}": partial(
            python, *to_step(SWEPT, "-m", f"seed=range({SWEPT})", *words)
        ),
        "train.py --help": partial(python, script, "--help"),
        "train.py --cfg job": partial(python, script, "--cfg", "job"),
    }
    clock = time.perf_counter if asked.wall else of_children
    what = "on the wall" if asked.wall else "CPU time"
    print(table(rows(interleaved(candidates, asked.rounds, clock=clock), UNAVOIDABLE), what, 1, "s"))


if __name__ == "__main__":
    main()
