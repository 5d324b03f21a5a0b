"""What the person at the keyboard types and sees."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scorelab.lit.entry import entry

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def run(*words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "src" / words[0]), *words[1:]]
    return subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Type a command in this process; gives its exit status, stdout and stderr."""

    def type_(name: str, job: str, *words: str) -> tuple[object, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        status: object = 0
        try:
            entry(CONFIGS, name, job)
        except SystemExit as end:
            status = end.code
        told = capsys.readouterr()
        return status, told.out, told.err

    return type_


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
        (["trainer.devices=2"], "trainer.devices=2: a run trains on one device"),
        (["trainer.max_time=1"], "trainer.max_time is set by the program"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: possible: 32-true, bf16-mixed"),
        (["callbacks.validation=null"], "callbacks.validation cannot be left out"),
        (["schedule.num_steps=1"], "the bound needs schedule.num_steps of 2 or more"),
        (["extractor=digits", "extractor.weights=/no/file"], "extractor: "),
    ],
)
def test_bad_input_is_refused_in_one_line(typed, words: list[str], told: str) -> None:
    status, _, err = typed("train", "scorelab.lit.jobs:train", *words)
    assert status == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert not list(Path.cwd().glob("logs/train/*")), "a refused run leaves no directory"


@pytest.mark.parametrize(("name", "job"), [("eval", "evaluate"), ("sample", "sample")])
def test_a_missing_or_empty_run_is_refused_in_one_line(typed, tmp_path: Path, name: str, job: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "config.yaml").write_text("{}")
    for directory, told in (
        ("run=nowhere", "run=nowhere: no such directory"),
        ("run=empty", "run=empty: not a run's directory"),
        ("run=fresh", "run=fresh: holds no checkpoint"),
        ("seed=0", "run"),
    ):
        status, _, err = typed(name, f"scorelab.lit.jobs:{job}", directory)
        assert status == 2
        assert told in err
        assert len(err.strip().splitlines()) == 1


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


def test_cfg_shows_the_composed_config_and_trains_nothing(tmp_path: Path) -> None:
    told = run("train.py", "--cfg", "job", "loss=vlb", "model.channels=48", cwd=tmp_path)
    assert told.returncode == 0
    assert "scorelab.losses.VariationalBound" in told.stdout
    assert "channels: 48" in told.stdout
    assert not (tmp_path / "logs").exists()
