"""Sweeps whose jobs run elsewhere: the same runs, the same table; how a sweep stands, told from its directories."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CONFIGS, type_in

from scorelab.app.compare import main, standings
from scorelab.app.submitting import mark_waiting, say_end
from scorelab.app.sweep import Sweep, SweepJob
from scorelab.app.sweeping import past, queue
from scorelab.app.task import Outcome
from scorelab.errors import UserError
from scorelab.run.directory import RunDir
from scorelab.run.jobs import write_jobs
from scorelab.run.status import write_status

SMALL = ("model.channels=8", "model.multipliers=[1]", "trainer.max_steps=4", "callbacks=minimal", "metrics=[simple]")
THREE = ("optimizer.lr=1e-3,2e-3,1e18", "trainer.gradient_clip_val=0", "lr_schedule.warmup=0", "logger=none")
HOLD = """
import sys
from pathlib import Path
from scorelab.run.lock import Lock
lock = Lock(Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
sys.stdin.read()
"""
SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "optimizer.lr=interval(1e-3,2e-3)", "loss=simple,vlb")


def said_by(folder: Path, *words: str, status: int = 0) -> str:
    said = type_in(folder, "train", "-m", *words, *SMALL)
    assert said.status == status, said.out + said.err
    return said.out


def table(text: str, name: str) -> list[str]:
    lines = text.splitlines()
    return [line.rstrip() for line in lines[lines.index(f"logs/sweeps/{name}") + 1 :]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep of which one job fails, one job after another in this process, and its table."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, said_by(folder, *THREE, "name=one", status=1)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_whoever_runs_the_jobs_runs_figures_and_table_are_the_same(
    alone: tuple[Path, str], launcher: str, tmp_path: Path
) -> None:
    folder, told = alone
    other = said_by(tmp_path, *THREE, "name=one", f"hydra/launcher={launcher}", status=1)
    assert table(other, "one") == table(told, "one")
    assert sum("failed: the loss is" in line for line in table(other, "one")) == 1
    names = [{place.name for place in root.glob("logs/sweeps/one/[a-z]*/")} for root in (folder, tmp_path)]
    assert names[0] == names[1]
    for file in folder.glob("logs/sweeps/one/*/metrics.json"):
        ours, theirs = (json.loads((root / file.relative_to(folder)).read_text()) for root in (folder, tmp_path))
        assert (ours["status"], ours["metrics"]) == (theirs["status"], theirs["metrics"])
    again = said_by(tmp_path, *THREE, "name=one", f"hydra/launcher={launcher}", status=1)
    assert len(re.findall(r": finished, skipped$", again, re.MULTILINE)) == 2
    assert len(re.findall(r"1e\+18.*: failed: the loss is .*: tried again$", again, re.MULTILINE)) == 1
    assert table(again, "one") == table(told, "one")


def test_a_job_that_ends_without_a_word_has_failed_for_what_its_log_ends_with(tmp_path: Path, capsys) -> None:
    place = tmp_path / "a"
    mark_waiting(place, "slurm 12_3")
    (tmp_path / ".submitit" / "12").mkdir(parents=True)
    (tmp_path / ".submitit" / "12" / "12_3_0_log.err").write_text(
        "Traceback\nModuleNotFoundError: No module named 'x'\n\n"
    )
    say_end(place, "12_3")
    why = "ended without a word before its first step; its log ends with: ModuleNotFoundError: No module named 'x'"
    assert capsys.readouterr().out == f"a: failed: {why}\n"
    assert SweepJob([], {}, place).failure == f"failed: {why}"


def test_a_killed_job_that_slurm_has_no_more_has_failed_and_one_at_work_elsewhere_has_not(tmp_path: Path) -> None:
    write_status(tmp_path, "running", 7, job="slurm 12_3")
    say_end(tmp_path, "12_3")
    assert SweepJob([], {}, tmp_path).failure == (
        "failed: ended without a word at step 7 or later; its log ends with: nothing"
    )
    write_status(tmp_path, "running", 7)
    job = [sys.executable, "-c", f"{HOLD}", str(tmp_path)]
    with subprocess.Popen(job, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        say_end(tmp_path, "")
        assert (SweepJob([], {}, tmp_path).failure or "").startswith("running at step 7")
        other.communicate(b"")


def test_a_job_that_died_before_it_wrote_anything_has_failed(tmp_path: Path) -> None:
    say_end(tmp_path / "a", "7")
    assert (SweepJob([], {}, tmp_path / "a").failure or "").startswith("failed: ended without a word")


def test_a_job_that_was_lost_has_failed(tmp_path: Path) -> None:
    """One that has not given a sign of life for minutes, on a machine that nobody can look at from here."""
    write_status(tmp_path, "running", 5)
    status = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(status | {"time": status["time"] - 300, "host": "elsewhere"}))
    say_end(tmp_path, "7")
    assert (SweepJob([], {}, tmp_path).failure or "").startswith("failed: ended without a word")


def test_a_job_that_is_over_before_it_is_said_to_wait_is_over(tmp_path: Path) -> None:
    write_status(tmp_path, "failed", 3, reason="no room", job="slurm 12_3")
    mark_waiting(tmp_path, "slurm 12_3")
    assert SweepJob([], {}, tmp_path).failure == "failed: no room"
    mark_waiting(tmp_path, "slurm 13_3")
    assert SweepJob([], {}, tmp_path).failure == "waiting in the queue (slurm 13_3) at step 3"


@pytest.mark.slow
def test_a_search_makes_the_validation_error_small_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    sweep = tmp_path / "logs" / "sweeps" / "found"
    told = said_by(tmp_path, *SEARCH, "logger=none", "name=found")
    runs = [json.loads(file.read_text()) for file in sweep.glob("*/metrics.json")]
    assert len(runs) == 3
    assert sum(line.split()[0] in ("simple", "vlb") for line in table(told, "found")) == 3
    least = min(run["metrics"]["val/simple"] for run in runs)
    assert f"Best value: {least}" in told
    before = {file: file.stat().st_mtime_ns for file in sweep.glob("*/checkpoints/last.ckpt")}
    assert f"Best value: {least}" in said_by(tmp_path, *SEARCH, "logger=none", "name=found")
    assert before == {file: file.stat().st_mtime_ns for file in sweep.glob("*/checkpoints/last.ckpt")}


# --- before a job begins


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("detach=true",), "detach=true goes with hydra/launcher=submitit_slurm and no search: the jobs of another"),
        (("hydra/sweeper=nevergrad",), "hydra/sweeper=nevergrad: possible: hydra/sweeper=basic, optuna"),
        (("hydra/launcher=rays",), "hydra/launcher=rays: no such choice; choices: "),
        (("hydra/launcher=joblib", "hydra.launcher.n_job=2"), "hydra.launcher.n_job"),
    ],
)
def test_what_no_launcher_does_is_refused_in_one_line(typed, words: tuple[str, ...], told: str) -> None:
    said = typed("train", "-m", "seed=0,1", *words)
    assert said.status == 2 and told in said.last and len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize("word", ["hydra/launcher=submitit_slurm", "hydra/launcher=joblib", "hydra/sweeper=optuna"])
def test_a_launcher_that_is_not_installed_is_told_so(typed, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorelab.app.entry.find_spec", lambda name: None)
    said = typed("train", "-m", "seed=0,1", word)
    assert (
        said.status == 2
        and said.last == f"error: {word}: not installed: type make cluster, or pip install '.[cluster]'"
    )


def test_where_no_slurm_is_its_launcher_is_refused_before_any_job(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = typed("train", "-m", "seed=0,1", "hydra/launcher=submitit_slurm")
    assert said.status == 2 and "no Slurm here (no sbatch); joblib and submitit_local need none" in said.last


def test_detach_belongs_to_a_sweep(typed) -> None:
    assert "detach=true: detach belongs to a sweep" in typed("train", "detach=true").last


def test_a_search_is_checked_and_named_by_what_it_searches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = Sweep.planned(["-m", *SEARCH], CONFIGS, "train")
    assert sweep.searches and sweep.swept == ["optimizer.lr", "loss"] and len(sweep.jobs) == 1
    assert sweep.jobs[0].config["optimizer"]["lr"] == 1e-3
    assert sweep.path.name.startswith("lr_loss-")


def test_a_search_takes_a_job_without_the_figure_for_failed() -> None:
    assert float(Outcome(0.25)) == 0.25
    with pytest.raises(ValueError, match="out of memory"):
        float(Outcome(failure="out of memory"))


def test_each_job_that_has_a_past_is_told_and_only_those_to_be_done_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where no squeue is

    def stands(state: str | None, overwrite: bool = False, **more: object) -> tuple[str | None, bool]:
        place = tmp_path / f"{state}{overwrite}"
        if state == "finished":
            RunDir(place).close("finished", {}, step=9)
        elif state is not None:
            place.mkdir(exist_ok=True)
            write_status(place, state, 7, **more)  # type: ignore[arg-type]
        found = past(SweepJob([], {"overwrite": overwrite}, place))
        return found.line, found.left

    assert stands(None) == (None, False)
    assert stands("finished") == ("finished, skipped", True)
    assert stands("finished", overwrite=True) == ("begun anew", False)
    assert stands("interrupted") == ("interrupted at step 7: resumed", False)
    assert stands("failed", reason="no room") == ("failed: no room: tried again", False)
    line, left = stands("running")
    assert left and line is not None and re.fullmatch(rf"running at step 7 on \S+, pid {os.getpid()}: left alone", line)
    assert stands("waiting", job="slurm 0") == (None, False), "what is no longer in the queue is submitted again"


# --- how a sweep stands


def test_how_a_sweep_stands_is_told_with_speed_time_left_and_reasons(tmp_path: Path, capsys) -> None:
    sweep = tmp_path / "sweep"
    write_jobs(sweep, ["a", "b", "c", "d", "e", "f"])
    for name in "abcde":
        (sweep / name).mkdir()
    (sweep / "a" / "config.yaml").write_text("trainer: {max_steps: 3000}")
    write_status(sweep / "a", "running", 1200, 20.0)
    write_status(sweep / "b", "finished", 3000)
    write_status(sweep / "c", "failed", 3, reason="out of memory: lower data.batch_size")
    write_status(sweep / "d", "running", 5)
    old = json.loads((sweep / "d" / "status.json").read_text())
    (sweep / "d" / "status.json").write_text(json.dumps(old | {"time": time.time() - 300}))
    write_status(sweep / "e", "interrupted", 50)
    main([str(sweep), "status=true"])
    lines = capsys.readouterr().out.splitlines()
    told = "6 runs: 1 running, 1 waiting, 1 interrupted, 1 lost, 1 failed, 1 finished"
    assert lines[0] == f"{sweep}: {told}"
    assert re.fullmatch(r"  a  running     step 1,200 of 3,000, 20 it/s, 1\.5 min left, on \S+", lines[1])
    assert [line.split()[:2] for line in lines[2:]] == [
        ["f", "waiting"],
        ["e", "interrupted"],
        ["d", "lost"],
        ["c", "failed"],
        ["b", "finished"],
    ]
    assert lines[5].endswith("out of memory: lower data.batch_size")


def test_a_job_that_slurm_does_not_know_any_more_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where no squeue is
    write_status(tmp_path, "waiting", job="slurm 12_3")
    (found,) = standings([tmp_path])
    assert (found.state, found.told) == ("lost", "was waiting in the queue (slurm 12_3)")


def test_where_slurm_does_not_answer_a_job_goes_on_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    write_status(tmp_path, "waiting", job="slurm 12_3")
    (found,) = standings([tmp_path])
    assert (found.state, found.told) == ("waiting", "slurm 12_3, slurm does not answer")
    queue.cache_clear()
    with pytest.raises(UserError, match="which does not answer: no controller"):
        past(SweepJob([], {"overwrite": False}, tmp_path))


def test_looking_on_ends_when_nothing_is_at_work(tmp_path: Path, capsys) -> None:
    (tmp_path / "a").mkdir()
    write_status(tmp_path / "a", "finished", 3)
    main([str(tmp_path), "watch=true"])
    assert "1 runs: 1 finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere", "status=true"), "nowhere: no such directory"),
        ((".", "status=true"), ".: holds no runs"),
        ((".", "statu=true"), "statu: no such key; possible: out, by, columns"),
        ((".", "status=maybe"), "status=maybe: true or false"),
        (("status=true",), "type a directory of runs"),
        ((".",), ".: holds no runs"),
    ],
)
def test_what_compare_cannot_do_is_told_in_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("error: ") and told in line
