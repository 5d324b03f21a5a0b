"""What Slurm does to jobs, done by a real one (``make test-cluster``): every run ends as if nothing had happened."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from wandb_server import WandbServer

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
TRAIN = (sys.executable, str(ROOT / "src" / "train.py"))
STEPS = 16
PARTITION, HIGH = os.environ.get("PARTITION", "main"), os.environ.get("HIGH", "high")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


def words(seconds: float = 0.5) -> list[str]:
    """A run of small steps, each followed by so many seconds."""
    return [
        "data=moons",
        "model.width=8",
        f"trainer.max_steps={STEPS}",
        "callbacks=minimal",
        "callbacks.validation.every=2",
        f"+callbacks.dawdler={{_target_:dawdler.Dawdler,every:1,seconds:{seconds}}}",
        "metrics=[]",
        "logger=csv",
    ]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a test's commands are typed; its jobs do not outlive it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]))
    yield tmp_path
    for job in tmp_path.glob("job-*.out"):
        subprocess.run(["scancel", "-f", job.stem.removeprefix("job-")], capture_output=True, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the run that nothing interrupts, trained outside of Slurm."""
    place = tmp_path_factory.mktemp("whole")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    subprocess.run([*TRAIN, "run=a", *words(0)], cwd=place, env=env, check=True, capture_output=True, timeout=300)
    return weights(place / "logs" / "train" / "a")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a run has learned, by its last checkpoint."""
    kept = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    assert kept["global_step"] == STEPS
    return kept["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def submitted(*options: str, step: bool = True, command: tuple[str, ...] = TRAIN, typed: list[str]) -> str:
    """Submit a command as a batch job, as a step of it (srun) or as its script; the job's number."""
    script = shlex.join([*(["srun"] if step else ["exec"]), *command, *typed])
    said = [
        "sbatch",
        "--parsable",
        "-p",
        PARTITION,
        "-o",
        "job-%j.out",
        "--open-mode=append",
        *options,
        "--wrap",
        script,
    ]
    return subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip().partition(";")[0]


def job(number: str) -> dict[str, str]:
    """What Slurm knows of a job."""
    said = subprocess.run(["scontrol", "show", "job", "-o", number], capture_output=True, text=True, check=True).stdout
    return dict(word.partition("=")[::2] for word in said.split())


def until(true: Callable[[], Any], number: str, seconds: float = 200) -> None:
    """Wait for something that a job is to do."""
    log = Path(f"job-{number}.out")
    wait_for(true, lambda: f"{job(number)}: {log.read_text()[-2000:] if log.exists() else 'not begun'}", seconds)


def wait_for(true: Callable[[], Any], why: Callable[[], str] = lambda: "", seconds: float = 200) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, why()
        time.sleep(0.3)


def ended(number: str) -> dict[str, str]:
    """What Slurm knows of a job once it is over."""
    until(lambda: job(number)["JobState"] in OVER, number)
    return job(number)


def under_way(number: str, place: Path) -> None:
    """Wait until a job has made its second step, whose validation is on disk."""

    def two_steps() -> bool:
        file = place / "metrics.csv"
        return file.exists() and len(file.read_text().splitlines()) > 1

    until(two_steps, number)


def status(place: Path) -> dict[str, Any]:
    return json.loads((place / "status.json").read_text())


def said(number: str) -> str:
    return Path(f"job-{number}.out").read_text()


def test_preempt_a_job_that_gives_way_comes_back_in_the_same_directory_and_w_and_b_run(
    folder: Path, whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder / "logs" / "train" / "a"
    if not subprocess.run(["sinfo", "-h", "-p", HIGH], capture_output=True, check=True).stdout:
        pytest.skip(f"no partition {HIGH} to preempt from: HIGH=... names one")
    server = WandbServer()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server.address)
    number = submitted(typed=["run=a", *words(), "logger=wandb"])
    under_way(number, place)
    other = submitted("-p", HIGH, "-w", job(number)["NodeList"], "--exclusive", command=("sleep", "1"), typed=[])
    end = ended(number)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), said(number)
    assert "interrupted by SIGTERM" in said(number) and f"job {number} is requeued" in said(number)
    assert "resumed at step" in said(number) and ended(other)["JobState"] == "COMPLETED"
    assert status(place)["job"] == f"slurm {number}" and same(weights(place), whole)
    server.close()
    (name,) = server.runs
    rows = len((place / "metrics.csv").read_text().splitlines()) - 1
    assert name == (place / "wandb_id").read_text() and said(number).count("W&B: online") == 2
    assert server.runs[name].column("_step") == list(range(rows + 1)), "each row once, in order, and the results"
    assert server.runs[name].exit_code == 0


def test_requeue_a_command_without_a_name_and_with_overwrite_goes_on_with_what_it_began(folder: Path, whole) -> None:
    runs = folder / "logs" / "train"
    number = submitted(step=False, typed=["overwrite=true", *words()])
    until(lambda: any(runs.glob("*/status.json")), number)
    (place,) = runs.iterdir()
    under_way(number, place)
    subprocess.run(["scontrol", "requeue", number], check=True)
    end = ended(number)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), said(number)
    assert "Slurm has requeued job" in said(number) and "overwrite=true is done" in said(number)
    assert "resumed at step" in said(number)
    assert list(runs.iterdir()) == [place] and same(weights(place), whole)


def test_timeout_a_job_longer_than_its_limit_is_done_in_several(folder: Path, whole) -> None:
    number = submitted("-t", "1", "--signal=USR2@5", typed=["run=a", *words(4)])
    end = ended(number)
    assert end["JobState"] == "COMPLETED" and int(end["Restarts"]) >= 1, said(number)
    assert "interrupted by SIGUSR2" in said(number) and "resumed at step" in said(number)
    assert same(weights(folder / "logs" / "train" / "a"), whole)


def test_kill_a_killed_job_has_failed_and_the_same_command_finishes_it(folder: Path, whole) -> None:
    place = folder / "logs" / "train" / "a"
    number = submitted(typed=["run=a", *words()])
    under_way(number, place)
    os.kill(status(place)["pid"], 9)
    assert ended(number)["JobState"] == "FAILED"
    again = submitted(typed=["run=a", *words()])
    assert ended(again)["JobState"] == "COMPLETED", said(again)
    assert same(weights(place), whole)


@pytest.mark.parametrize("step", [True, False], ids=["srun", "script"])
def test_cancel_a_cancelled_job_saves_and_stays_cancelled(folder: Path, step: bool) -> None:
    place = folder / "logs" / "train" / "a"
    number = submitted(step=step, typed=["run=a", *words()])
    under_way(number, place)
    subprocess.run(["scancel", number], check=True)
    end = ended(number)
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "0"), said(number)
    assert f"not requeued, for job {number} was ended" in said(number)
    assert status(place)["state"] == "interrupted" and (place / "checkpoints" / "last.ckpt").exists()


def array(*typed: str, seconds: float = 0) -> subprocess.CompletedProcess[str]:
    """A sweep whose jobs Slurm runs."""
    launcher = [
        "hydra/launcher=submitit_slurm",
        f"hydra.launcher.partition={PARTITION}",
        "hydra.launcher.timeout_min=20",
    ]
    command = [*TRAIN, "-m", "name=s", *typed, *launcher, *words(seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def test_array_four_jobs_of_a_sweep_end_as_they_do_alone_though_one_is_requeued(folder: Path, whole) -> None:
    sweep = folder / "logs" / "sweeps" / "s"
    with ThreadPoolExecutor() as beside:
        sweeping = beside.submit(array, "loss=simple,vlb", "schedule=linear,cosine", seconds=1)
        wait_for(lambda: sweeping.done() or any(sweep.glob("*/metrics.csv")))
        place = next(sweep.glob("*/metrics.csv")).parent
        number = status(place)["job"].removeprefix("slurm ")
        under_way(number, place)
        subprocess.run(["scancel", "--signal=USR2", number], check=True)
    done = sweeping.result()
    assert done.returncode == 0, done.stdout + done.stderr
    states = {file.parent: status(file.parent) for file in sweep.glob("*/status.json")}
    assert [each["state"] for each in states.values()] == ["finished"] * 4
    numbers = [each["job"].removeprefix("slurm ") for each in states.values()]
    assert len({each.partition("_")[0] for each in numbers}) == 1, "one array"
    assert sorted(job(each)["Restarts"] for each in numbers) == ["0", "0", "0", "1"] and job(number)["Restarts"] == "1"
    assert sum(same(weights(each), whole) for each in states) == 1, "loss=simple schedule=cosine"


def test_fail_one_job_of_four_fails_alone(folder: Path) -> None:
    done = array("optimizer.lr=1e-3,2e-3,3e-3,1e30")
    assert done.returncode == 1, done.stdout + done.stderr
    places = [file.parent for file in (folder / "logs" / "sweeps" / "s").glob("*/status.json")]
    failed = [place for place in places if status(place)["state"] != "finished"]
    assert len(places) == 4 and len(failed) == 1, done.stdout
    config = yaml.safe_load((failed[0] / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 1e30 and status(failed[0])["state"] == "failed"
    assert job(status(failed[0])["job"].removeprefix("slurm "))["JobState"] == "FAILED"


def test_two_nodes_train_one_run_as_one_machine_does(folder: Path) -> None:
    run = [*words(0), "run=a", "trainer.accelerator=cpu", "callbacks.validation.every=8"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}  # both nodes are this host
    (folder / "one").mkdir()
    alone = [*TRAIN, *run, "trainer=ddp_cpu"]
    subprocess.run(alone, cwd=folder / "one", env=env, check=True, capture_output=True, timeout=300)
    spread = ["srun", "-p", PARTITION, "--nodes=2", "--ntasks-per-node=1", *TRAIN, *run, "trainer=slurm"]
    told = subprocess.run(
        [*spread, "trainer.num_nodes=2"], env=env, check=False, capture_output=True, text=True, timeout=300
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("metrics.json, metrics.csv") == 1, "the first process alone speaks"
    place = folder / "logs" / "train" / "a"
    assert same(weights(place), weights(folder / "one" / "logs" / "train" / "a"))
    record = json.loads((place / "metrics.json").read_text())["records"]["training"]
    assert (record["processes"], record["steps"]) == (2, STEPS)
