"""Sample quality at equal CPU seconds of one thread: scorelab and three other projects, each by its own loop.

    pip install -e '.[bench]'
    OMP_NUM_THREADS=1 python benchmarks/quality.py diffusers width=32 lr=2e-3 batch=64 --seed 0
    OMP_NUM_THREADS=1 python benchmarks/quality.py scorelab data.batch_size=256
    python benchmarks/quality.py table

One call is one run: a network is trained for ``--seconds`` of the processor's time, and two lines are put below
the others in quality.csv, for DDIM and for ancestral sampling (eta 0 and 1) of 50 network evaluations. Each is of
two sets of samples: their Fréchet distance in the features of the data's classifier to the train split, less what
perfect samples have; the share that the classifier is sure of; the share of copies. ``table`` makes markdown of the
lines: the settings tried of each project, and seeds together.

Others train as ``loops.py`` says. Where a rate is to fall until a last step, twenty steps that change nothing say how
many there will be; they are not counted. Scorelab's seconds are those of its command less those of one that takes
twenty steps and validates, draws and evaluates as often: like those of the others they are of training alone. How many
steps they hold is told by a timing before, so they may be some per cent more or fewer than asked: both are written.
"""

import argparse
import csv
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path

import torch
from loops import EVALUATIONS, OTHERS, WARM, Setting, Trained
from torch import Tensor

from scorelab.app.load import load
from scorelab.data.base import Source
from scorelab.data.hub import HuggingFace
from scorelab.data.images import Digits
from scorelab.evaluation.features import features_of
from scorelab.metrics.copies import memorization
from scorelab.metrics.features import DigitsExtractor, MnistExtractor
from scorelab.metrics.fidelity import class_chance, frechet_between, frechet_floor, recognition
from scorelab.samplers import DDIM
from scorelab.tensors import as_data, to_bytes

FILE, ROOT = Path(__file__).with_suffix(".csv"), Path(__file__).parents[1]
SETS, ETAS = 2, (0.0, 1.0)


@dataclass(frozen=True)
class Line:
    """One run and what its samples are worth, as it stands in the file."""

    day: str
    data: str
    who: str
    setting: str
    eta: float
    seed: int
    asked: float  # seconds
    seconds: float
    weights: int
    steps: int
    excess: float
    excess_se: float  # over the sets of samples
    recognised: float
    copies: float


def by_scorelab(data: str, words: list[str], seed: int, seconds: float) -> Trained:
    """Its own command, with as many steps as the seconds are expected to hold."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "src" / "train.py"),
            "logger=none",
            "metrics=[simple]",
            "evaluation.held_out=2",
        ]
        command += [f"seed={seed}", *WHERE[data], *words]

        def spent(name: str, steps: int) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [*command, f"run={name}", f"trainer.max_steps={steps}"],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        aside = spent("aside", WARM)
        steps = WARM + int(seconds * 10 * WARM / (spent("timed", 11 * WARM) - aside))
        taken = spent("run", steps) - aside
        run = load(Path(folder, "logs", "train", "run"), device="cpu")

    seeds = count(1000 * seed)

    def sample(n: int, eta: float) -> Tensor:
        walk = dataclasses.replace(run, sampler=DDIM(EVALUATIONS, eta))
        return as_data(walk.samples(n, seed=next(seeds)), run.data.levels)

    size = sum(parameter.numel() for parameter in run.denoiser.parameters())
    return Trained(size, steps, taken, sample)


MNIST = ROOT.parent / "shared" / "data" / "mnist"
WHERE = {
    "digits": ["data=digits"],
    "mnist": ["data=huggingface", f"data.path={MNIST}", "extractor=mnist"],
}


def source_of(data: str) -> Source:
    return Digits() if data == "digits" else HuggingFace(str(MNIST))


@torch.no_grad()
def judged(sample: Callable[[int], Tensor], data: str) -> dict[str, float]:
    """Sets of samples against the train split."""
    source = source_of(data)
    train = source.splits()["train"]
    extractor = DigitsExtractor() if data == "digits" else MnistExtractor()
    values, n = torch.as_tensor(train.values), min(len(train.values), 1437)
    reference = features_of(values, source.levels, extractor)
    floor = frechet_floor(reference, None, n, train.labels, class_chance(n, len(reference), False, train.chance)).value
    excess, known, copied = [], [], []
    for _ in range(SETS):
        drawn = torch.cat([sample(len(part)) for part in torch.arange(n).split(256)]).clamp(-1, 1)
        levels = ((drawn + 1) / 2 * (source.levels - 1)).round().to(torch.uint8)
        excess.append(frechet_between(features_of(levels, source.levels, extractor), reference) - floor)
        known.append(recognition(to_bytes(levels, source.levels), extractor).share)
        copied.append(memorization(levels, values))
    return {
        "excess": round(statistics.mean(excess), 4),
        "excess_se": round(statistics.stdev(excess) / SETS**0.5, 4),
        "recognised": round(statistics.mean(known), 4),
        "copies": round(statistics.mean(copied), 4),
    }


def write(line: Line) -> None:
    """Below the others."""
    new = not FILE.exists()
    with FILE.open("a", newline="") as file:
        out = csv.DictWriter(file, [field.name for field in fields(Line)], lineterminator="\n")
        if new:
            out.writeheader()
        out.writerow(asdict(line))


def table(lines: Iterable[dict[str, str]]) -> str:
    """Markdown: a row for each setting, its seeds together, ± the standard error of their mean, best first."""
    together: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line in lines:
        key = tuple(line[name] for name in ("data", "asked", "who", "setting", "eta"))
        together.setdefault(key, []).append(line)

    def mean(of: list[dict[str, str]], name: str, digits: int) -> str:
        each = [float(line[name]) for line in of]
        se = f" ± {statistics.stdev(each) / len(each) ** 0.5:.{digits}f}" if len(each) > 1 else ""
        return f"{statistics.mean(each):.{digits}f}{se}"

    def order(item: tuple[tuple[str, ...], list[dict[str, str]]]) -> tuple[str, float, float]:
        return item[0][0], float(item[0][1]), statistics.mean(float(line["excess"]) for line in item[1])

    told = [
        "| data | CPU s | taken | project | setting | eta | seeds | weights | steps | excess | recognised | copies |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (data, budget, who, setting, eta), of in sorted(together.items(), key=order):
        what = f"{data} | {float(budget):g} | {mean(of, 'seconds', 0)} | {who} | {setting} | {float(eta):g} | {len(of)}"
        size, steps = int(of[0]["weights"]), round(statistics.mean(int(line["steps"]) for line in of))
        worth = f"{mean(of, 'excess', 2)} | {mean(of, 'recognised', 3)} | {mean(of, 'copies', 4)}"
        told.append(f"| {what} | {size:,} | {steps:,} | {worth} |")
    return "\n".join(told)


def setting_of(words: list[str]) -> Setting:
    try:
        given = dict(word.split("=") for word in words)
        kinds = {"width": int, "lr": float, "batch": int}
        return Setting(**{name: kinds[name](number) for name, number in given.items()})
    except (KeyError, ValueError):
        raise SystemExit(f"{' '.join(words)}: what can be set is width=N lr=RATE batch=N") from None


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("who", choices=["scorelab", *OTHERS, "table"])
    asked.add_argument("words", nargs="*", help="width= lr= batch=, or what scorelab's command is told")
    asked.add_argument("--seconds", type=float, default=180)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--data", choices=WHERE, default="digits")
    given = asked.parse_args()
    if given.who == "table":
        with FILE.open(newline="") as file:
            print(table(csv.DictReader(file)))
        return
    torch.manual_seed(given.seed)
    if given.who == "scorelab":
        setting = " ".join(given.words) or "default"
        found = by_scorelab(given.data, given.words, given.seed, given.seconds)
    else:
        of = setting_of(given.words)
        setting = of.told
        source = source_of(given.data)
        x0 = as_data(torch.as_tensor(source.splits()["train"].values), source.levels)
        found = OTHERS[given.who](x0, of, given.seconds)
    size = (given.seed, given.seconds, round(found.seconds, 1), found.weights, found.steps)
    for eta in ETAS:
        worth = judged(partial(found.sample, eta=eta), given.data)
        line = Line(str(date.today()), given.data, given.who, setting, eta, *size, **worth)
        write(line)
        print(json.dumps(asdict(line)))


if __name__ == "__main__":
    main()
