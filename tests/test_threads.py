"""How many threads a run computes with: chosen by its work and the cores it may use, written down, and kept."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import TINY

from scorelab.app.train import had
from scorelab.config import threads
from scorelab.config.threads import WORTH, choose, of_one, taken_up, use
from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.errors import UserError
from scorelab.networks import MLP
from scorelab.run import cores as of_machine
from scorelab.run.cores import GIVEN, cores, quota, said, settle_threads, share
from scorelab.run.directory import RunDir
from scorelab.schedules import Cosine


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores whose user has said nothing of threads, and no cluster; all is put back afterwards."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in (GIVEN, "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back, whatever is set in a test
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(of_machine, "quota", lambda: None)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({}, 16),
        ({GIVEN: "0"}, 16),
        ({GIVEN: "3"}, 3),
        ({GIVEN: "64"}, 16),
        ({"SLURM_CPUS_ON_NODE": "8"}, 16),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 2),
    ],
)
def test_a_process_uses_the_cores_that_it_was_given(
    nothing_said, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], number: int
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert cores() == number


@pytest.mark.parametrize(
    ("groups", "files", "number"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/a", {"a/cpu.max": "max 100000"}, None),
        (
            "3:cpuset:/\n1:cpu,cpuacct:/elsewhere",
            {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
    ],
)
def test_a_container_s_limit_is_one_of_cores(
    tmp_path: Path, groups: str, files: dict[str, str], number: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / "group" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "group" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(groups + "\n")
    assert quota(tmp_path / "group", tmp_path / "own") == number


def test_libraries_begin_with_one_thread_and_what_the_user_says_stays(
    nothing_said, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_threads()
    assert (os.environ["OMP_NUM_THREADS"], said(), share(4)) == ("1", None, {GIVEN: "4"})
    assert int(os.environ["GOMP_SPINCOUNT"]) < 10_000
    settle_threads()  # as in a process that inherits all that
    assert said() is None
    monkeypatch.delenv(GIVEN)
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    settle_threads()
    assert (os.environ["OMP_NUM_THREADS"], said(), share(4)) == ("3,1", 3, {})
    assert GIVEN not in os.environ and "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize(
    ("typed", "kept", "environment", "worth", "processes", "number"),
    [
        (None, None, None, 0, 1, 1),
        (None, None, None, 0.9, 1, 1),
        (None, None, None, 2.5, 1, 2),
        (None, None, None, 900, 1, 16),
        (None, None, None, 900, 3, 5),
        (None, None, None, 900, 99, 1),
        (None, None, "4", 0, 1, 4),
        (None, 2, "4", 900, 1, 2),
        (None, 32, None, 0, 1, 32),
        (3, 2, "4", 900, 1, 3),
    ],
)
def test_threads_are_what_is_typed_else_kept_else_said_else_what_the_work_is_worth(
    nothing_said, monkeypatch, typed, kept, environment, worth: float, processes: int, number: int
) -> None:
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    chosen = choose(typed, kept, processes, lambda: worth * WORTH)
    assert chosen.number == number
    assert chosen.told.startswith("one thread, 16 cores" if number == 1 else f"{number} threads, 16 cores")
    assert choose(None, kept, processes, None).number is None  # a GPU's


def test_what_is_asked_of_a_stored_run_has_no_more_threads_than_cores(nothing_said, monkeypatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    denoiser = SimpleNamespace(device=torch.device("cpu"))
    for typed_, kept, processes, number in ((None, 4, 1, 4), (None, 64, 1, 16), (None, 64, 4, 4), (64, 4, 1, 64)):
        assert taken_up(denoiser, None, 64, typed_, kept, processes) == number
    assert used == [4, 16, 4, 64]
    use(None, 2)  # beside a GPU, in two processes
    assert used[-1] == 8


def test_no_number_of_threads_is_refused() -> None:
    with pytest.raises(UserError, match=r"threads=0: a whole number in 1 ... 1024 is needed"):
        choose(0, None, 1, lambda: 0.0)


def test_the_work_of_an_item_is_counted_and_leaves_no_trace() -> None:
    network = MLP((2,), width=16, conditional=True, label_dropout=0.5, classes=3)
    denoiser = NetworkDenoiser(Cosine(num_steps=10), network, Eps(), FixedSmall(), levels=None)
    before = torch.get_rng_state()
    products = 2 * sum(each.weight.numel() for each in network.modules() if isinstance(each, torch.nn.Linear))
    assert of_one(denoiser, (2,)) == products
    assert all(part.training for part in denoiser.modules()) and torch.equal(before, torch.get_rng_state())


def test_a_run_has_one_thread_of_its_own_accord_and_keeps_what_it_has(
    nothing_said, monkeypatch: pytest.MonkeyPatch, typed, tmp_path: Path
) -> None:
    monkeypatch.setenv(GIVEN, "0")
    place = tmp_path / "logs" / "train" / "a"
    said_of = typed("train", "run=a", *TINY)
    assert said_of.status == 0, said_of.err
    assert "one thread, 16 cores: for" in (place / "train.log").read_text()
    stored = yaml.safe_load((place / "config.yaml").read_text())
    assert stored["threads"] == 1
    assert json.loads((place / "metrics.json").read_text())["records"]["training"]["threads"] == 1

    monkeypatch.setattr(threads, "WORTH", 1.0)  # by its work it would have more by now
    (place / "metrics.json").unlink()
    assert typed("train", "run=a", *TINY).status == 0  # not refused: nothing else was typed
    assert "one thread, 16 cores: as before" in (place / "train.log").read_text()
    assert yaml.safe_load((place / "config.yaml").read_text())["threads"] == 1
    assert had(RunDir(place), False) == 1 and had(RunDir(place), True) is None

    again = typed("eval", f"run={place}", "metrics=[simple]")
    assert again.status == 0 and "one thread, 16 cores: as before" in again.out + again.err
    (file,) = place.glob("eval/*/metrics.json")
    assert json.loads(file.read_text())["config"]["threads"] == 1
