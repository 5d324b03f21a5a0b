"""Sweeps: what -m leaves and prints, on real runs; names; the table."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import type_in
from hydra.core.override_parser.overrides_parser import OverridesParser

from scorelab.app.names import job_directory
from scorelab.app.sweep import Sweep
from scorelab.errors import UserError
from scorelab.run.directory import RunDir

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
SMALL = (
    "model.channels=8",
    "model.multipliers=[1]",
    "trainer.max_steps=2",
    "callbacks=minimal",
    "metrics=[simple]",
)


def swept(folder: Path, *words: str, status: int = 0) -> str:
    """What a sweep says, typed in a folder, errors first."""
    said = type_in(folder, "train", "-m", *words)
    assert said.status == status, said.out + said.err
    return said.err + said.out


def jobs_in(folder: Path, sweep: str) -> dict[str, dict]:
    """The results of every run of a sweep, by directory."""
    found = (folder / "logs" / "sweeps" / sweep).glob("*/metrics.json")
    return {file.parent.name: json.loads(file.read_text()) for file in found}


# --- a whole sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


GRID = ("loss=simple,hybrid", "schedule=linear,cosine", "name=grid", *SMALL, "logger.mode=offline")


@pytest.fixture(scope="module")
def grid(folder: Path) -> str:
    """What the first sweep prints."""
    return swept(folder, *GRID)


@pytest.fixture
def copied(folder: Path, grid: str, tmp_path: Path) -> Path:
    """The first sweep, for a test to do with as it likes."""
    shutil.copytree(folder / "logs", tmp_path / "logs", copy_function=shutil.copy2)
    return tmp_path


def test_every_job_of_a_sweep_has_its_own_directory_named_by_its_overrides(folder: Path, grid: str) -> None:
    runs = jobs_in(folder, "grid")
    said = {tuple(re.findall(r"(?:loss|schedule)-([a-z]+)", name)) for name in runs}
    assert said == {(loss, schedule) for loss in ("simple", "hybrid") for schedule in ("linear", "cosine")}
    for name, results in runs.items():
        assert results["status"] == "finished"
        assert results["config"]["run"] == name
        loss = results["config"]["loss"]["_target_"].rpartition(".")[2].lower()
        assert f"loss-{loss}" in name
        for file in ("config.yaml", "card.csv", "card.png", "train.log", "checkpoints/last.ckpt"):
            assert (folder / "logs" / "sweeps" / "grid" / name / file).is_file()


def test_every_job_of_a_sweep_is_its_own_wandb_run_in_one_group(folder: Path, grid: str) -> None:
    ids = set()
    for name in jobs_in(folder, "grid"):
        run = folder / "logs" / "sweeps" / "grid" / name
        identity = (run / "wandb_id").read_text()
        (file,) = run.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb")
        content = file.read_bytes()
        loss = re.search(r"loss-([a-z]+)", name)[1]
        for said in (b"grid", name.encode(), f'"{loss}"'.encode(), b'"eps"'):
            assert said in content, said
        ids.add(identity)
    assert len(ids) == 4


def test_a_sweep_ends_with_one_table_of_all_yardsticks(grid: str) -> None:
    lines = grid.strip().splitlines()
    at = lines.index("logs/sweeps/grid")
    heads = re.split(r"\s\s+", lines[at + 1].strip())
    assert [*heads[:6], heads[-1]] == ["loss", "schedule", "n", "vlb_common", "simple", "to best", "val/simple"]
    rows = [line.split() for line in lines[at + 2 : at + 6]]
    assert {tuple(row[:2]) for row in rows} == {(a, b) for a in ("simple", "hybrid") for b in ("linear", "cosine")}
    assert all(re.fullmatch(r"\d\.\d{3}", number) for row in rows for number in (row[3], row[4], row[-1]))
    assert [row[4] for row in rows] == sorted(row[4] for row in rows)


def test_the_same_sweep_again_prints_the_table_and_does_nothing(copied: Path, grid: str) -> None:
    before = {file: file.stat().st_mtime_ns for file in (copied / "logs").rglob("*") if file.is_file()}
    told = swept(copied, *GRID)
    assert told.strip() == grid[grid.index("logs/sweeps/grid\n") :].strip()
    assert {file: file.stat().st_mtime_ns for file in (copied / "logs").rglob("*") if file.is_file()} == before


def test_a_sweep_goes_on_where_it_stood(copied: Path, grid: str) -> None:
    """One job was being evaluated when the sweep was killed; test-slow kills one."""
    (torn, *others) = sorted((copied / "logs" / "sweeps" / "grid").glob("*/metrics.json"))
    before, done = json.loads(torn.read_text()), {file: file.stat().st_mtime_ns for file in others}
    torn.unlink()
    told = swept(copied, *GRID)
    assert told.count("resumed at step 2 (last.ckpt)") == 1 and told.endswith(grid[grid.index("logs/sweeps/grid\n") :])
    assert json.loads(torn.read_text())["metrics"] == before["metrics"]
    assert {file: file.stat().st_mtime_ns for file in others} == done


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_stood(tmp_path: Path) -> None:
    words = ("seed=1,2,3", "name=killed", *SMALL, "logger=none")
    command = [sys.executable, str(ROOT / "src" / "train.py"), "-m", *words]
    job = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 200
    while not jobs_in(tmp_path, "killed") and time.time() < deadline:
        time.sleep(0.05)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    done = {name: results for name, results in jobs_in(tmp_path, "killed").items() if results["status"] == "finished"}
    assert done and len(done) < 3
    swept(tmp_path, *words)
    after = jobs_in(tmp_path, "killed")
    assert len(after) == 3 and all(results["status"] == "finished" for results in after.values())
    assert {name: after[name] for name in done} == done


def test_a_job_that_fails_does_not_stop_the_others_and_is_told(tmp_path: Path) -> None:
    words = ("optimizer.lr=1e18,1e-3", "name=fails", "trainer.gradient_clip_val=0", "lr_schedule.warmup=0")
    told = swept(tmp_path, *words, "logger=none", *SMALL, status=1)
    assert "Traceback" not in told
    assert re.search(r"^  0\.001\s+1\s+\d", told, re.MULTILINE)
    assert re.search(
        r"^  optimizer\.lr-1e.?18.*: failed: the loss is (inf|nan) in step [12] at t = ", told, re.MULTILINE
    )
    failed = next(v for name, v in jobs_in(tmp_path, "fails").items() if "1e+18" in name)
    assert failed["status"] == "failed" and "the loss is" in failed["reason"]
    assert swept(tmp_path, *words, "logger=none", *SMALL, status=1).count("Launching") == 1


# --- refusals


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("loss=simple,hybrid", "variance=fixed_small"), "loss-hybrid_variance-fixed_small: loss=hybrid: with a fixed"),
        (("schedule=cosine,linear", "schedule.num_steps=20"), "schedule: beta reaches 1 at num_steps=20"),
        (
            ("schedule=cosine,vp", "loss=hybrid"),
            "loss-hybrid_schedule-vp: loss=hybrid: this loss learns the variance of steps",
        ),
        (("loss=simple,vlbb",), "loss=vlbb: no such choice; choices: dsm, edm, esm, flow, hybrid, ism"),
        (("loss=simple,vlb", "optimizer.lrr=1"), "optimizer.lrr: no such key; did you mean lr?"),
        (("loss=simple,vlb", "run=a"), "run=a: run names a single run; a sweep is named with name="),
        (("loss=simple,vlb", "name=a/b"), "a sweep's name has letters, digits"),
        (("seed=interval(0,1)",), "seed=interval(0,1): a sweep needs its values one by one: seed=A,B,..."),
        (("loss=simple,simple",), "two jobs of this sweep would be one run"),
        (("loss=simple,vlb", "best_of=optimizer.lr"), "best_of=optimizer.lr: not swept; swept: loss"),
        (("trainer.accelerator=cpu,auto",), "two jobs of this sweep would be one run"),
        (("seed=1,2", "trainer.num_nodes=0"), "trainer.num_nodes=0: a run trains on 1, 2, ... nodes"),
        (("seed=1,2", "hydra.sweep.subdir=x"), "hydra.sweep.subdir=x: a job's directory is named by its overrides"),
        (("seed=1,2", "hydra.mode=RUN"), "hydra.mode=RUN: type -m for several runs"),
        (("seed=1,2", "--cfg", "job"), "--cfg and --info show a single run"),
    ],
)
def test_a_sweep_with_one_impossible_job_is_refused_before_any_runs(
    typed, words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    said = typed("train", "-m", *words)
    assert said.status == 2
    assert len(said.err.strip().splitlines()) == 1 and told in said.last
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_configuration_is_refused_before_any_job(copied: Path) -> None:
    (run, *_) = (copied / "logs" / "sweeps" / "grid").glob("*loss-hybrid*schedule-linear*")
    stored = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(stored.replace("bound: 0.001", "bound: 0.01"))
    told = swept(copied, *GRID, status=2)
    assert "loss.bound was 0.01, is now 0.001" in told and "Launching" not in told


# --- names


def planned(*words: str) -> Sweep:
    return Sweep.planned(list(words), CONFIGS, "train")


def test_a_named_sweep_is_the_same_as_its_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    by_name = planned("sweep=loss_by_schedule", "seed=0")
    typed_out = planned("-m", "loss=simple,vlb,hybrid,dsm", "schedule=linear,cosine", "seed=0")
    assert [job.path.name for job in by_name.jobs] == [job.path.name for job in typed_out.jobs]
    for one, other in zip(by_name.jobs, typed_out.jobs, strict=True):
        assert {k: v for k, v in one.config.items() if k != "run"} == {
            k: v for k, v in other.config.items() if k != "run"
        }


def test_a_sweep_is_named_by_what_it_sweeps_and_never_by_the_clock_or_the_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    first = planned("-m", "loss=simple,vlb", "seed=3", "schedule=linear,cosine", "logger=none")
    again = planned("-m", "loss=simple,vlb", "schedule=linear,cosine", "seed=3", "debug=true")
    other = planned("-m", "loss=simple,vlb", "schedule=linear,cosine", "seed=4")
    assert re.fullmatch(r"logs/sweeps/loss_schedule-[0-9a-f]{6}", str(first.path))
    assert first.path == again.path != other.path
    assert {job.path for job in first.jobs} == {job.path for job in again.jobs}
    assert planned("-m", "loss=simple,vlb", "name=mine").path == Path("logs/sweeps/mine")


def test_fair_crosses_objectives_schedules_and_three_rates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = planned("sweep=fair")
    chosen = {
        (j.config["loss"]["_target_"], j.config["schedule"]["_target_"], j.config["optimizer"]["lr"])
        for j in sweep.jobs
    }
    assert len(chosen) == len(sweep.jobs) == 24
    assert len({rate for *_, rate in chosen}) == 3
    assert sweep.best_of == "optimizer.lr"


def test_a_directory_says_choices_then_values_and_can_be_typed_back() -> None:
    name = job_directory(["++optimizer.lr=1e-3", "loss=vlb", "schedule=cosine", "logger=none", "hydra/launcher=x"])
    assert name == "loss-vlb_schedule-cosine_optimizer.lr-1e-3"
    awkward = job_directory(["metrics=[simple,vlb]", "++extractor.weights=/a/b c"])
    assert re.fullmatch(r"[\w.+-]+", awkward)
    for value in (name, awkward):
        assert OverridesParser.create().parse_override(f"run=logs/sweeps/a/{value}").value() == f"logs/sweeps/a/{value}"


def test_what_belongs_to_the_machine_names_nothing() -> None:
    """The same runs on another machine, and a larger sweep of the same name, find what is finished."""
    machine = ["trainer.accelerator=cpu", "++callbacks.keep.minutes=10", "logger.mode=offline", "overwrite=true"]
    assert job_directory(["loss=vlb", *machine]) == job_directory(["loss=vlb"]) == "loss-vlb"


def test_what_all_jobs_of_a_sweep_share_is_in_their_names_as_a_hash() -> None:
    def name(*words: str) -> str:
        return job_directory(list(words), ["loss"])

    assert name("loss=vlb") == "loss-vlb"
    one, other = name("loss=vlb", "optimizer.lr=1e-3"), name("loss=vlb", "optimizer.lr=2e-3")
    assert one != other and all(each.startswith("loss-vlb-") for each in (one, other))
    assert name("loss=simple", "optimizer.lr=1e-3").removeprefix("loss-simple") == one.removeprefix("loss-vlb")


def test_each_job_of_a_sweep_is_planned_with_its_own_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = planned("-m", "loss=simple,vlb", "seed=3,5", "data=moons").jobs
    assert [job.config["seed"] for job in jobs] == [3, 5, 3, 5]
    assert all(f"seed-{job.config['seed']}" in job.path.name for job in jobs)


def test_long_or_cleaned_names_stay_apart_and_short_enough() -> None:
    names = {job_directory([f"++a.{'b' * 150}={value}"]) for value in range(50)}
    names |= {job_directory([f"metrics={value}"]) for value in ("[a,b]", "(a,b)", "[a-b]", "-a-b-")}
    assert len(names) == 54 and max(map(len, names)) <= 120


def test_an_impossible_job_is_named_in_its_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^loss-simple_variance-learned: loss=simple: this loss gives a learned variance no gradient"
    ):
        planned("-m", "loss=vlb,simple", "variance=learned")


def test_a_refused_job_is_told_by_its_directory_unless_it_is_finished(tmp_path: Path) -> None:
    from scorelab.app.sweep import SweepJob

    job = SweepJob([], {}, tmp_path)
    assert job.failure == "not started"
    RunDir(tmp_path).refused("no such data")
    assert job.failure == "failed: no such data"
    RunDir(tmp_path).close("finished", {})
    assert job.failure is None
    RunDir(tmp_path).refused("no such data")
    assert job.failure is None
    (tmp_path / "metrics.json").write_text('{"status": ')
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        _ = job.results
