"""What a run that a signal ends says to Slurm, by what Slurm says of its job; tests/cluster has a real one."""

import signal
from pathlib import Path

import pytest
import torch

from scorelab.app.requeued import begun_before, going_on
from scorelab.errors import Interrupted, MachineError
from scorelab.run.directory import RunDir
from scorelab.run.slurm import requeued, time_for_a_step
from scorelab.run.status import write_status

RUNNING = "JobId=7 JobState=RUNNING Restarts=0 BatchFlag=1"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An scontrol that shows a job so, and notes what else is asked of it."""

    def shows(job: str, requeues: bool = True) -> Path:
        asked = tmp_path / "asked"
        answer = f"echo '{job}'" if job else "echo unreachable >&2; exit 1"
        other = f'echo "$@" >> {asked}; {"exit 0" if requeues else "echo Access denied >&2; exit 1"}'
        program = tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\nif [ "$1" = show ]; then {answer}; else {other}; fi\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        return asked

    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return shows


def told(signum: int) -> str:
    """What a run says that a signal has ended."""
    with pytest.raises(Interrupted) as stop, requeued():
        raise Interrupted(signum)
    return stop.value.told


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_running_batch_job_is_requeued(slurm, signum: int) -> None:
    asked = slurm(RUNNING)
    assert told(signum).endswith("job 7 is requeued and goes on by itself")
    assert asked.read_text().split() == ["requeue", "7"]


def test_a_task_of_an_array_is_requeued_alone(slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = slurm(RUNNING)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    told(signal.SIGTERM)
    assert asked.read_text().split() == ["requeue", "5_2"]


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (RUNNING.replace("RUNNING", "COMPLETING"), "job 7 was ended (completing)"),
        (RUNNING.replace("RUNNING", "CANCELLED"), "job 7 was ended (cancelled)"),
        (RUNNING.replace("RUNNING", "COMPLETING") + " Reason=TimeLimit", "--signal=USR2@60"),
        (RUNNING.replace("BatchFlag=1", "BatchFlag=0"), "it is no batch job"),
        (RUNNING.replace("Restarts=0", "Restarts=1").replace("RUNNING", "COMPLETING"), "Slurm has requeued job 7"),
        ("", "Slurm does not answer (unreachable): scontrol requeue 7"),
    ],
)
def test_what_is_no_running_batch_job_is_not_requeued_and_told_why(slurm, job: str, why: str) -> None:
    asked = slurm(job)
    assert why in told(signal.SIGTERM) and not asked.exists()


def test_a_requeue_that_slurm_refuses_says_how_to_go_on(slurm) -> None:
    slurm(RUNNING, requeues=False)
    assert told(signal.SIGTERM).endswith("(Access denied): scontrol requeue 7, or the same command, goes on")


def test_a_person_and_a_closed_terminal_requeue_nothing(slurm) -> None:
    asked = slurm(RUNNING)
    assert told(signal.SIGINT) == "interrupted by SIGINT" and told(signal.SIGHUP) == "interrupted by SIGHUP"
    assert not asked.exists()


def test_outside_of_slurm_a_signal_is_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert told(signal.SIGTERM) == "interrupted by SIGTERM"


@pytest.mark.parametrize(
    ("signum", "saved", "fails"), [(12, None, True), (12, 3, True), (12, 4, False), (15, 3, False)]
)
def test_a_limit_that_leaves_no_time_for_a_step_ends_the_job_for_good(
    slurm, tmp_path: Path, signum: int, saved: int | None, fails: bool
) -> None:
    slurm(RUNNING)
    last = tmp_path / "last.ckpt"
    if saved is not None:
        torch.save({"global_step": 3}, last)
    expected = (MachineError, "before it had made a step") if fails else (Interrupted, "SIG")
    with pytest.raises(expected[0], match=expected[1]), time_for_a_step(tmp_path):
        if saved == 4:
            torch.save({"global_step": 4}, last)
        raise Interrupted(signum)


@pytest.mark.parametrize(
    ("restarts", "job", "state", "anew"),
    [("", "slurm 7", "failed", True), ("1", "slurm 6", "failed", True), ("1", "slurm 7", "waiting", True)]
    + [("1", "slurm 7", state, False) for state in ("running", "interrupted", "evaluating")],
)
def test_overwrite_is_obeyed_once_by_a_job_however_often_it_is_requeued(
    slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, job: str, state: str, anew: bool
) -> None:
    slurm(RUNNING)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    write_status(tmp_path, state, 3, job=job)
    run = RunDir(tmp_path)
    run.lock()
    assert going_on({"overwrite": True, "seed": 1}, run) == {"overwrite": anew, "seed": 1}


def test_a_run_that_the_clock_named_is_found_by_its_job_and_its_config(
    slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(RUNNING)
    runs = tmp_path / "train"
    for name, job, seed in (("a", "slurm 6", 0), ("b", "slurm 7", 1), ("c", "slurm 7", 0)):
        write_status_at(runs / name, job)
        RunDir(runs / name).claim({"seed": seed})
    assert begun_before(RunDir(runs / "new"), {"seed": 0}) is None, "the first time nothing is gone on with"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    found = begun_before(RunDir(runs / "new"), {"seed": 0})
    assert found is not None and found.path.name == "c"
    assert begun_before(RunDir(runs / "new"), {"seed": 2}) is None


def write_status_at(place: Path, job: str) -> None:
    place.mkdir(parents=True)
    write_status(place, "interrupted", 3, job=job)
