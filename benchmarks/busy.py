"""Steps a second of a run under each policy of threads, alone and beside other jobs.

    python benchmarks/busy.py [--others 0,1,2] [--rounds 5] [--seconds 6] [--kind loop] [group=choice] [key=value] ...

Every policy has a process of its own, started once, which trains the run of these words by the program's own trainer
and stands still but for its turns; the turns of all policies go round, so that what else the machine does meets all of
them. "itself" is what the program chooses. After the steps each policy computes Fréchet distances of features of as
many dimensions as --distances names. The other jobs are of a --kind: "loop", an endless loop of one thread; "spin",
small matrix products on all threads, which spin as PyTorch does where nobody has said otherwise; "run", the same run,
its threads chosen as "itself", which is what a sweep with hydra/launcher=joblib has beside each job. Prints for each
number of other jobs the threads, the median over rounds, that as a part of the best policy's, the least and the most.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAID = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "SCORELAB_CORES")
LONG = ("trainer=cpu", "trainer.max_steps=100000000", "lr_schedule=constant", "metrics=[]", "logger=none")
QUIET = ("callbacks=minimal", "callbacks.validation.every=100000000", "callbacks.keep.minutes=100000")
OTHERS = {
    "loop": "while True: pass",
    "spin": "import torch\na = torch.ones(128, 128)\nwhile True: a @ a",
}


def policies(cores: int) -> dict[str, dict[str, str]]:
    """What the environment says, by policy; "itself" says nothing."""
    several = {"OMP_NUM_THREADS": str(cores)}
    waits = {f"{cores} threads, spin {n}": several | {"GOMP_SPINCOUNT": str(n)} for n in (100, 1000, 10000, 300000)}
    passive = {f"{cores} threads, passive": several | {"OMP_WAIT_POLICY": "PASSIVE"}}
    return {"itself": {}, "1 thread": {"OMP_NUM_THREADS": "1"}} | waits | passive  # 300,000 is libgomp's own


class Turns:
    """A process that works when it is told to."""

    def __init__(self, given: dict[str, str], words: list[str]) -> None:
        env = {name: value for name, value in os.environ.items() if name not in SAID} | given
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, __file__, "--turns", *words]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=env | {"PYTHONPATH": path}, **pipes)
        self.threads = self.answer()

    def answer(self) -> str:
        """The next line that is meant for this one."""
        for line in self.process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise SystemExit("a policy's process has ended; what it said stands above")

    def told(self, what: str) -> None:
        """Begin a turn."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def asked(self, what: str) -> float:
        """What a turn comes to."""
        self.told(what)
        return float(self.answer())


def take_turns(words: list[str]) -> None:
    """In such a process: train when told to, and count."""
    from scorelab.run.surroundings import settle

    settle()
    from functools import partial

    import torch
    from hydra import compose, initialize_config_dir
    from lightning import Callback

    from scorelab.app.words import Line
    from scorelab.config.build import build, sized
    from scorelab.config.check import completed
    from scorelab.config.choices import with_choices
    from scorelab.config.threads import choose, use, work
    from scorelab.config.trainer import build_trainer, quiet
    from scorelab.metrics.fidelity import frechet_between
    from scorelab.tracking.logger import RunLogger

    quiet()
    configs = ROOT / "configs"
    with initialize_config_dir(str(configs), version_base="1.3"):
        line = Line.typed(words).for_hydra("train")
        config = sized(completed(with_choices(compose("train", line.words), [configs])))
    objects = build(config)
    cost = partial(work, objects.module.denoiser, objects.data, config["evaluation"]["chunk"])
    use(choose(None, None, 1, cost).number)

    def distance(dims: int) -> float:
        """Distances of 1,000 items each a second."""
        one, other = (torch.randn(1000, dims, dtype=torch.float64) for _ in range(2))
        began = time.perf_counter()
        frechet_between(one, other)
        return 1 / (time.perf_counter() - began)

    class Wait(Callback):
        """Between two steps: wait for a turn, and say what came of it."""

        until, began, steps = 0.0, 0.0, 0

        def on_train_batch_start(self, trainer, module, batch, index) -> None:
            now = time.perf_counter()
            if now < self.until:
                self.steps += 1
                return
            if self.steps:
                print(f"> {self.steps / (now - self.began)}", flush=True)
            while (word := sys.stdin.readline()).startswith("distance"):
                print(f"> {distance(int(word.split()[1]))}", flush=True)
            if not word:
                os._exit(0)  # whoever asked is gone
            self.began = time.perf_counter()
            self.until, self.steps = self.began + float(word), 1

    print(f"> {torch.get_num_threads()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, Path(folder), RunLogger()).trainer
        trainer.callbacks.insert(0, Wait())
        trainer.fit(objects.module, objects.data)


def others(number: int, kind: str, words: list[str]) -> list[subprocess.Popen]:
    """Other jobs, at work."""
    if kind == "run":
        runs = [Turns({}, words) for _ in range(number)]
        for run in runs:
            run.told("1e9")
        return [run.process for run in runs]
    env = {name: value for name, value in os.environ.items() if name not in SAID}
    found = [subprocess.Popen([sys.executable, "-c", OTHERS[kind]], env=env) for _ in range(number)]
    time.sleep(5 if number else 0)
    return found


def table(title: str, found: dict[str, list[float]], threads: dict[str, str]) -> None:
    """Print medians with the least and the most, and what part of the best each is."""
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(title, flush=True)
    for name, values in found.items():
        part = medians[name] / max(medians.values())
        spread = f"{min(values):.3g} ... {max(values):.3g}"
        print(f"  {name:<24} {threads[name]:>3} {medians[name]:>9.3g} {part:>6.2f}   {spread}", flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--others", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--kind", choices=[*OTHERS, "run"], default="loop")
    parser.add_argument("--distances", default="64,512")
    parser.add_argument("--only", default="", help="policies whose name holds one of these, divided by commas")
    asked, given = parser.parse_known_args()
    words, cores = [*LONG, *QUIET, *given], len(os.sched_getaffinity(0))
    wanted = {name: env for name, env in policies(cores).items() if any(each in name for each in asked.only.split(","))}
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{' '.join(given) or 'the default run'}: {cores} cores, load before {load}", flush=True)
    runs = {name: Turns(env, words) for name, env in wanted.items()}
    threads = {name: run.threads for name, run in runs.items()}
    for run in runs.values():
        run.asked("2")  # the first steps are slower
    try:
        for number in map(int, asked.others.split(",")):
            beside = others(number, asked.kind, words)
            try:
                turns = {"steps": str(asked.seconds)}
                turns |= {f"distances of {d} dimensions": f"distance {d}" for d in asked.distances.split(",") if d}
                for what, turn in turns.items():
                    found: dict[str, list[float]] = {name: [] for name in runs}
                    for _ in range(asked.rounds):
                        for name, run in runs.items():
                            found[name].append(run.asked(turn))
                    table(f"{what} a second beside {number} ({asked.kind})", found, threads)
            finally:
                for other in beside:
                    other.kill()
                    other.wait()
    finally:
        for run in runs.values():
            run.process.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--turns"]:
        take_turns(sys.argv[2:])
    else:
        main()
