"""What the person at the keyboard types and sees."""

import os
import re
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from scorelab.judge import Metric

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def run(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "src" / words[0]), *words[1:]]
    return subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loss=foo"], "loss=foo: no such choice; choices: dsm, esm, hybrid, ism"),
        (["judge=[fid,foo]"], "judge=foo: no such choice; choices: agreement, budget, distances, exact_nll, fid"),
        (["losss=vlb"], "losss: no such key; did you mean loss?"),
        (["sed=1"], "sed: no such key; did you mean seed?"),
        (["model.chanels=3"], "model.chanels: no such key; did you mean channels?"),
        (["optimizer.lr=abc"], "optimizer.lr='abc': expected"),
        (["schedule.num_steps=0"], "num_steps must be at least 1, got 0"),
        (["trainer.max_steps=-3"], "trainer.max_steps must be at least 1, got -3"),
        (["vlb"], "vlb: not of the form key=value"),
        (["run=../../elsewhere"], "a run's name has letters, digits"),
        (["run=.."], "a run's name has letters, digits"),
        (["optimiser.lr=1e-3"], "optimiser.lr: no such key; did you mean optimizer?"),
        (["logger=none", "logger.mode=offline"], "logger.mode: no such entry"),
        (["+foo=1"], "foo: no such key"),
        (["~loss"], "~loss: a choice is needed; choices: dsm, esm, hybrid, ism"),
        (["loss=null"], "loss=null: a choice is needed; choices: dsm, esm, hybrid, ism"),
        (["seed=-1"], "seed=-1: a seed lies in 0"),
        (
            ["trainer.devices=auto"],
            "trainer.devices=auto, num_nodes=1: a run trains on 1, 2, ... devices of one machine",
        ),
        (["trainer.num_nodes=2"], "trainer.devices=1, num_nodes=2: a run trains on 1, 2, ... devices"),
        (["trainer.max_time=soon"], "is not a valid duration"),
        (["trainer.max_time=20"], "trainer.max_time=20: type days, hours, minutes and seconds as DD:HH:MM:SS"),
        (["trainer.max_epochs=1"], "trainer.max_epochs is set by the program"),
        (["on_nan=hope"], "on_nan='hope': expected Literal['stop', 'skip']"),
        (["callbacks.guard=null"], "callbacks.guard cannot be left out"),
        (["callbacks.keep.minutes=0"], "minutes must be above 0, got 0"),
        (["data.workers=-1"], "workers must be at least 0, got -1"),
        (["init_from=nowhere"], "init_from=nowhere: no such directory"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: possible: 32-true, bf16-mixed"),
        (["callbacks.validation=null"], "callbacks.validation cannot be left out"),
        (["schedule.num_steps=1"], "the bound needs schedule.num_steps of 2 or more"),
        (["extractor=digits", "extractor.weights=/no/file"], "extractor: "),
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


@pytest.mark.parametrize("name", ["eval", "sample"])
def test_a_missing_or_empty_run_is_refused_in_one_line(typed, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "config.yaml").write_text("{}")
    for directory, told in (
        ("run=nowhere", "run=nowhere: no such directory"),
        ("run=empty", "run=empty: not a run's directory"),
        ("run=fresh", "run=fresh: holds no checkpoint"),
        ("seed=0", "run"),
    ):
        said = typed(name, directory)
        assert said.status == 2
        assert told in said.err
        assert len(said.err.strip().splitlines()) == 1


def test_the_traceback_is_there_when_asked_for() -> None:
    told = run("train.py", "schedule.num_steps=0", "debug=true")
    assert told.returncode != 0
    assert "Traceback" in told.stderr


@pytest.mark.parametrize("name", ["train", "eval", "sample"])
def test_help_lists_groups_and_choices_within_a_second(name: str) -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = run(f"{name}.py", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert told.returncode == 0
    assert "sampler: ddim, ddpm" in told.stdout
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
        assert all(f"metric.{key.name}" in said.out for key in fields(Metric))


def test_cfg_shows_the_composed_config_and_trains_nothing(tmp_path: Path) -> None:
    told = run("train.py", "--cfg", "job", "loss=vlb", "model.channels=48", cwd=tmp_path)
    assert told.returncode == 0
    assert "scorelab.losses.VariationalBound" in told.stdout
    assert "channels: 48" in told.stdout
    assert not (tmp_path / "logs").exists()
