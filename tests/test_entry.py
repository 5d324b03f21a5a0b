"""What the person at the keyboard types and sees."""

import json
import re
import resource
import subprocess
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from conftest import TINY, choices

from scorelab.errors import UserError
from scorelab.evaluation import EvaluationSettings

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loss=foo"], "loss=foo: no such choice; choices: dsm, edm, esm, flow, hybrid, ism"),
        (
            ["metrics=[fid,foo]"],
            "metrics=foo: no such choice; choices: agreement, budget, colour, distances, exact_gap",
        ),
        (["losss=vlb"], "losss: no such key; did you mean loss?"),
        (["sed=1"], "sed: no such key; did you mean seed?"),
        (["model.chanels=3"], "model.chanels: no such key; did you mean channels?"),
        (["schedule.num_steps=0"], "num_steps must be at least 1, got 0"),
        (["vlb"], "vlb: not of the form key=value"),
        (["run=../../elsewhere"], "a run's name has letters, digits"),
        (["run=.."], "a run's name has letters, digits"),
        (["optimiser.lr=1e-3"], "optimiser.lr: no such key; did you mean optimizer?"),
        (["logger=none", "logger.mode=offline"], "logger.mode: no such entry"),
        (["+foo=1"], "foo: no such key"),
        (["+run=a b"], "run=a b: a run's name has letters, digits"),
        (["run=träume"], "run=träume: a run's name has letters, digits"),
        (["~seed"], "~seed: seed has to have a value"),
        (["--optimizer.lr=1e-3"], "--optimizer.lr=1e-3: keys stand without dashes: type optimizer.lr=1e-3"),
        (["extractor.weights=/a#b"], "needs quotes that the shell leaves: type 'extractor.weights=\"/a#b\"'"),
        (["init_from=a=b, (c)#d~'é"], "init_from=a=b, (c)#d~'é: no such directory"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: belongs to several runs: type -m and what is swept"),
        (["hydra/sweeper=optuna"], "hydra/sweeper=optuna: belongs to several runs: type -m and what is swept"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: a command works where it was typed"),
        (["hydra.job={chdir: true}"], "set its keys one by one"),
        (["hydra.output_subdir=x"], "hydra.output_subdir=x: the whole configuration is in the run's config.yaml"),
        (["hydra.job.name=x"], "hydra.job.name=x: a run is named with run="),
        (["hydra.runtime.output_dir=x"], "hydra.runtime.output_dir=x: Hydra itself says this"),
        (["model._target_=no.such.Net"], "model._target_=no.such.Net: cannot be imported (No module named 'no')"),
        (["seed=1e10"], "seed=10000000000.0: a whole number in 0 ... 4294967295 is needed"),
        (["seed=true"], "seed=True: expected int"),
        (["seed=null"], "seed=None: expected int"),
        (["~loss"], "~loss: a choice is needed; choices: dsm, edm, esm, flow, hybrid, ism"),
        (["loss=null"], "loss=null: a choice is needed; choices: dsm, edm, esm, flow, hybrid, ism"),
        (["seed=-1"], "seed=-1: a whole number in 0 ... 4294967295"),
        (
            ["trainer.devices=auto"],
            "trainer.devices=auto: a run trains on 1, 2, ... devices of each node: type their number",
        ),
        (["trainer.num_nodes=0"], "trainer.num_nodes=0: a run trains on 1, 2, ... nodes: type their number"),
        (["trainer.num_nodes=2"], "trainer.num_nodes=2 trainer.devices=1: no launcher has started the 2 processes"),
        (["trainer.max_time=soon"], "is not a valid duration"),
        (["trainer.max_time=20"], "trainer.max_time=20: type days, hours, minutes and seconds as DD:HH:MM:SS"),
        (
            ["trainer.max_epochs=1"],
            "trainer.max_epochs is set by the program: leave it out; a run's length is trainer.max_steps",
        ),
        (["on_nan=hope"], "on_nan='hope': expected Literal['stop', 'skip']"),
        (["callbacks.guard=null"], "callbacks.guard cannot be left out"),
        (["callbacks.keep.minutes=0"], "minutes must be above 0, got 0"),
        (["data.workers=-1"], "workers must be at least 0, got -1"),
        (["init_from=nowhere"], "init_from=nowhere: no such directory"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: possible: 32-true, bf16-mixed"),
        (["callbacks.validation=null"], "callbacks.validation cannot be left out"),
        (["schedule.num_steps=1"], "the bound needs schedule.num_steps of 2 or more"),
        (["extractor=digits", "extractor.weights=/no/file"], "extractor: weights=/no/file cannot be read"),
    ],
)
def test_bad_input_is_refused_in_one_line(typed, words: list[str], told: str) -> None:
    said = typed("train", *words)
    assert said.status == 2
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert not list(Path.cwd().glob("logs/train/*")), "a refused run leaves no directory"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=1e10"], "seed=10000000000.0: a whole number in 0 ... 4294967295 is needed"),
        (["seed=true"], "seed=True: expected int"),
        (["seed=-1"], "seed=-1: a whole number"),
        (["n=true"], "n=True: expected int"),
        (["n=0"], "n=0: a whole number in 1 ..."),
        (["n=nan"], "n=nan: expected int"),
        (["n=1e20"], "n=1e+20: "),
    ],
)
def test_numbers_are_told_by_type_then_by_range_wherever_they_are_typed(typed, words: list[str], told: str) -> None:
    commands = {"sample": ["run=x", *words], "eval": ["model=exact", "data=moons", *words]}
    for name in ["sample", "eval"] if words[0].startswith("seed") else ["sample"]:
        said = typed(name, *commands[name])
        assert said.status == 2 and told in said.err and len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["eval", "sample"])
def test_a_missing_or_empty_run_is_refused_in_one_line(typed, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "config.yaml").write_text("{}")
    for directory, told in (
        ("run=nowhere", "run=nowhere: no such directory"),
        ("run=empty", "run=empty: not a run's directory"),
        ("run=fresh", "run=fresh: holds no checkpoint"),
        ("checkpoint=last", "run=DIR is needed: the directory of a trained run"),
        ("run=1e3", "run=1e3: no such directory"),
        ("run=2024_01_05", "run=2024_01_05: no such directory"),
        ("hydra.job.chdir=true", "a command works where it was typed"),
    ):
        said = typed(name, directory)
        assert said.status == 2
        assert told in said.err
        assert len(said.err.strip().splitlines()) == 1


def test_the_traceback_is_there_when_asked_for(typed) -> None:
    with pytest.raises(UserError, match="num_steps must be at least 1"):
        typed("train", "schedule.num_steps=0", "debug=true")


@pytest.mark.parametrize("name", ["train", "eval", "sample"])
def test_help_lists_groups_and_choices_within_a_second(name: str) -> None:
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, str(ROOT / "src" / f"{name}.py"), "--help"]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert told.returncode == 0
    assert f"sampler: {', '.join(choices('sampler'))}" in told.stdout
    assert f"python src/{name}.py" in told.stdout
    assert min(seconds) < 1.0  # of the processor: other work on the machine does not count


@pytest.mark.parametrize("name", ["train", "eval", "sample"])
def test_help_lists_what_the_entry_takes_and_nothing_else(typed, name: str) -> None:
    own = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    groups = {group for entry in own.pop("defaults") if isinstance(entry, dict) for group in entry if " " not in group}
    said = typed(name, "--help")
    assert said.status == 0
    listed = {line.split(":")[0] for line in said.out.splitlines() if re.fullmatch(r"\w+: [\w, ]+", line)}
    assert listed == groups
    del own["hydra"]
    keys = {f"{key}.{inner}" for key in own if isinstance(own[key], dict) for inner in own[key]} | {
        key for key in own if not isinstance(own[key], dict)
    }
    assert {line.split("=")[0] for line in said.out.splitlines() if re.match(r"[\w.]+=", line)} == keys
    if name == "eval":
        assert all(f"evaluation.{key.name}" in said.out for key in fields(EvaluationSettings))


def test_cfg_shows_the_composed_config_and_trains_nothing(typed, tmp_path: Path) -> None:
    said = typed("train", "--cfg", "job", "loss=vlb", "model.channels=48")
    assert said.status == 0
    assert "scorelab.losses.VariationalBound" in said.out
    assert "channels: 48" in said.out
    assert not (tmp_path / "logs").exists()


def test_a_run_lies_where_its_name_says_and_its_files_work_wherever_it_is_moved(typed, tmp_path: Path) -> None:
    assert typed("train", "run=2024_01_05", *TINY).status == 0
    (run,) = (tmp_path / "logs" / "train").iterdir()
    assert run.name == "2024_01_05"
    assert yaml.safe_load((run / "config.yaml").read_text())["run"] == "2024_01_05"
    assert typed("train", "run='2024_01_05'", *TINY).out.startswith("logs/train/2024_01_05 is finished")
    moved = tmp_path / "a=b, (c)#d~'é"
    run.rename(moved)
    assert typed("sample", f"run={moved.name}", "n=2", "sampler.steps=2").status == 0
    assert typed("eval", f"run={moved.name}", f"against={moved.name}", "metrics=[agreement]").status == 0
    assert len(list(moved.glob("sample/*/samples.npz"))) == len(list(moved.glob("eval/*/metrics.json"))) == 1
    assert typed("train", "run=1e3", f"init_from={moved.name}", *TINY).status == 0
    assert yaml.safe_load((tmp_path / "logs/train/1e3/config.yaml").read_text())["init_from"] == moved.name
    assert typed("train", f"init_from={moved.name}", "prediction=eps", *TINY).last.endswith("set prediction=v")
    swept = typed("train", "-m", f"init_from='{moved.name}',logs/train/1e3".replace("~'", "~\\'"), "name=007", *TINY)
    assert swept.status == 0, swept.err
    stored = [yaml.safe_load(file.read_text())["init_from"] for file in tmp_path.glob("logs/sweeps/007/*/config.yaml")]
    assert set(stored) == {moved.name, "logs/train/1e3"}
    assert moved.name in swept.out.split("logs/sweeps/007\n")[-1]


def test_a_run_that_nobody_named_gives_way_to_the_run_of_the_same_second(typed, tmp_path: Path) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Stopped":
            return cls(2024, 1, 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hydra.core.utils.datetime", Stopped)
        for seed in (1, 2):
            assert typed("train", f"seed={seed}", *TINY).status == 0
    runs = {place.name: place for place in (tmp_path / "logs" / "train").iterdir()}
    assert set(runs) == {"2024-01-05_00-00-00", "2024-01-05_00-00-00-2"}
    for seed, (name, place) in enumerate(sorted(runs.items()), 1):
        config = yaml.safe_load((place / "config.yaml").read_text())
        assert (config["run"], config["seed"]) == (name, seed)


def test_choices_of_ones_own_are_swept_like_the_programs(typed, tmp_path: Path) -> None:
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    (tmp_path / "own" / "loss").mkdir()
    (tmp_path / "own" / "loss" / "mine.yaml").write_text("_target_: scorelab.losses.Simple\nspace: v\n")
    sweep = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {loss: 'simple,mine'}}}\n"
    (tmp_path / "own" / "sweep" / "both.yaml").write_text(sweep)
    said = typed("train", "sweep=both", "--config-dir", "own", "name=both", *TINY)
    assert said.status == 0
    table = [line.split()[0] for line in said.out.split("logs/sweeps/both\n")[-1].splitlines()]
    assert table[0] == "loss" and set(table[1:3]) == {"simple", "mine"}
    listed = typed("train", "--config-dir=own", "loss=").last.rpartition("choices: ")[2]
    assert listed.split(", ") == sorted([*choices("loss"), "mine"])


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, outputs=1, classes=None, broken: bool = False):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        if broken:
            raise KeyError("of my own")

    def forward(self, x, t, label=None):
        raise RuntimeError("first line\\nsecond line")
"""


def test_a_fault_of_the_program_is_told_as_one_and_shown_in_train_log(typed, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "faulty_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    words = ("run=mine", "model._target_=faulty_net.Net", *(word for word in TINY if "width" not in word))
    said = typed("train", *words)
    fault = "a fault of the program"
    assert said.status == 1 and "Traceback" not in said.err + said.out
    assert said.last.startswith("error: RuntimeError: first line second line: ")
    assert fault in said.last and "logs/train/mine/train.log" in said.last
    log = (tmp_path / "logs/train/mine/train.log").read_text()
    assert "Traceback" in log and "faulty_net.py" in log
    status = json.loads((tmp_path / "logs/train/mine/status.json").read_text())
    assert (status["state"], status["reason"]) == ("failed", "RuntimeError: first line second line")
    said = typed("train", *words, "run=other", "model.broken=true")
    assert said.status == 1 and said.last.startswith("error: KeyError: 'of my own': ")
    assert fault in said.last and "debug=true" in said.last
    swept = typed("train", "-m", "seed=1,2", "name=faults", *words[1:])
    assert swept.status == 1 and swept.out.count(f"failed: RuntimeError: first line second line: {fault}") == 2
    assert "Traceback" not in swept.err + swept.out


def test_several_evaluations_of_which_one_fails_end_with_status_1(typed) -> None:
    said = typed("eval", "-m", "run=nowhere,1e3", "metrics=[simple]")
    assert said.status == 1
    assert "failed: run=nowhere: no such directory" in said.err and "failed: run=1e3: no such directory" in said.err
