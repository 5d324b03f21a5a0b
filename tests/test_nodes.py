"""Processes that srun or torchrun has started on several nodes train one run, as those of one machine do."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY
from faults.compare import unlike_last

from scorelab.app.nodes import as_asked
from scorelab.errors import UserError
from scorelab.run.launch import Launched, launched
from scorelab.run.processes import free_port
from scorelab.run.surroundings import FORGOTTEN

ROOT = Path(__file__).resolve().parent.parent
STEPS = 20
WORDS = (*TINY, f"trainer.max_steps={STEPS}", "callbacks.keep.minutes=1e-9", "trainer.accelerator=cpu")
NODES = (*WORDS, "trainer=slurm", "trainer.num_nodes=2")
STEP = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NAME": "train",
}
# sends this process a signal when it is of that rank and has come to that step
HIT = """
import os
from scorelab.data.module import DataModule

class Hit(DataModule):
    def on_before_batch_transfer(self, batch, index):
        rank, step, signum = map(int, os.environ.get("HIT", "9 0 0").split())
        if (self.trainer.global_rank, self.trainer.global_step) == (rank, step):
            os.kill(os.getpid(), signum)
        return batch
"""


def path(folder: Path) -> str:
    return os.pathsep.join([str(folder), str(ROOT / "src"), str(ROOT / "tests")])


@dataclass(frozen=True)
class Ended:
    """A process's end, what it said, and when that was."""

    returncode: int
    stdout: str
    stderr: str
    at: float


def ended(job: subprocess.Popen) -> Ended:
    out, err = job.communicate(timeout=280)
    return Ended(job.returncode, out, err, time.monotonic())


def typed_on_each(folder: Path, *words: str, **env: str) -> list[Ended]:
    """What the two tasks that srun starts of one command end with, side by side on this machine."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    where["PATH"] = str(Path(sys.executable).parent)  # where no scontrol is, which knows of no such job
    jobs = []
    for rank in "01":
        given = os.environ | STEP | where | {"SLURM_PROCID": rank, "SLURM_NODEID": rank, "PYTHONPATH": path(folder)}
        command = [sys.executable, str(ROOT / "src" / "train.py"), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        jobs.append(subprocess.Popen(command, cwd=folder, env=given | env, **pipes))
    try:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(ended, jobs))
    finally:
        for job in jobs:
            job.kill()


def last_line(said: Ended) -> str:
    lines = [line for line in said.stderr.strip().splitlines() if line]
    return lines[-1] if lines else ""


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes on one machine that nothing interrupts."""
    folder = tmp_path_factory.mktemp("one")
    command = [sys.executable, str(ROOT / "src" / "train.py"), *WORDS, "run=a", "trainer=ddp_cpu"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert said.returncode == 0, said.stderr
    return folder / "logs" / "train" / "a"


def same_weights(one: Path, other: Path) -> None:
    assert unlike_last(*(run / "checkpoints" / "last.ckpt" for run in (one, other))) == []


@pytest.mark.slow
def test_two_nodes_train_as_one_machine_bit_by_bit_and_the_first_alone_speaks(
    one_machine: Path, tmp_path: Path
) -> None:
    first, second = typed_on_each(tmp_path, *NODES, "run=a")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    run = tmp_path / "logs" / "train" / "a"
    same_weights(one_machine, run)
    assert (second.stdout, second.stderr) == ("", "")
    assert not list(run.glob("rank*")) and (run / "metrics.json").exists()


@pytest.mark.slow
def test_where_the_first_skips_or_refuses_a_run_the_others_end_as_it_does_without_a_word(tmp_path: Path) -> None:
    typed_on_each(tmp_path, *NODES, "run=a")
    again = typed_on_each(tmp_path, *NODES, "run=a")
    assert [each.returncode for each in again] == [0, 0] and "is finished" in again[0].stdout
    refused = typed_on_each(tmp_path, *NODES, "run=a", "seed=1")
    assert [each.returncode for each in refused] == [2, 2] and "has another configuration" in last_line(refused[0])
    assert (refused[1].stdout, refused[1].stderr) == ("", "")


@pytest.mark.slow
def test_torchruns_two_agents_train_as_one_machine_and_leave_one_directory_named_by_the_clock(
    one_machine: Path, tmp_path: Path
) -> None:
    port, agents = free_port(), []
    for node in "01":
        agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        agent += [f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        given = os.environ | {"PYTHONPATH": path(tmp_path)}
        agents.append(subprocess.Popen([*agent, str(ROOT / "src" / "train.py"), *NODES], cwd=tmp_path, env=given))
        time.sleep(1.1)  # so that the clock names another directory
    assert [agent.wait(280) for agent in agents] == [0, 0]
    (run,) = (tmp_path / "logs" / "train").iterdir()
    same_weights(one_machine, run)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_is_killed_the_other_ends_in_a_line_and_the_same_command_goes_on(
    one_machine: Path, tmp_path: Path, rank: int
) -> None:
    (tmp_path / "hit.py").write_text(HIT)
    words = (*NODES, "run=a", "data._target_=hit.Hit")
    said = typed_on_each(tmp_path, *words, HIT=f"{rank} 12 {int(signal.SIGKILL)}")
    assert said[rank].returncode == -signal.SIGKILL
    left = said[1 - rank]
    assert left.returncode == 2 and "Traceback" not in left.stderr, left.stderr
    told = {
        0: r"error: the first process \(.+\) has ended: ",
        1: r"error: the process of rank 1 \(.+\) died: ",
    }
    assert re.match(told[rank], last_line(left)) and "goes on from" in last_line(left)
    assert left.at - said[rank].at < 30
    said = typed_on_each(tmp_path, *words)
    assert [each.returncode for each in said] == [0, 0]
    assert re.search(r"resumed at step 1[12] ", said[0].stdout)
    same_weights(one_machine, tmp_path / "logs" / "train" / "a")


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "signum"), [(0, signal.SIGUSR2), (1, signal.SIGTERM)])
def test_a_signal_to_one_of_them_saves_at_the_end_of_the_step_and_ends_all(
    one_machine: Path, tmp_path: Path, rank: int, signum: int
) -> None:
    (tmp_path / "hit.py").write_text(HIT)
    words = (*NODES, "run=a", "data._target_=hit.Hit")
    said = typed_on_each(tmp_path, *words, HIT=f"{rank} 12 {int(signum)}")
    assert [each.returncode for each in said] == [128 + signum] * 2, said[0].stderr + said[1].stderr
    assert last_line(said[0]).endswith("goes on from step 13")
    said = typed_on_each(tmp_path, *words)
    assert [each.returncode for each in said] == [0, 0] and "resumed at step 13 " in said[0].stdout
    same_weights(one_machine, tmp_path / "logs" / "train" / "a")


def started(world: int, local: int) -> Launched:
    return Launched("srun", 0, world, local, {})


@pytest.mark.parametrize(
    ("here", "told"),
    [
        (None, "no launcher has started the 4 processes: start the command with srun --nodes=2 --ntasks-per-node=2"),
        (started(2, 1), "srun has started 2 processes, 1 on this node: start"),
        (started(4, 4), "srun has started 4 processes, 4 on this node: start"),
    ],
)
def test_other_processes_than_asked_for_are_refused_with_how_to_start_them(
    here: Launched | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scorelab.app.nodes.sweeps_here", lambda: False)
    assert as_asked(started(4, 2), 2, 2).world == 4
    with pytest.raises(UserError) as refused:
        as_asked(here, 2, 2)
    assert str(refused.value).startswith(f"trainer.num_nodes=2 trainer.devices=2: {told}")


def test_several_nodes_without_a_launcher_and_in_a_sweep_of_this_process_are_refused(typed, tmp_path: Path) -> None:
    said = typed("train", *TINY, "run=a", "trainer.num_nodes=2")
    assert said.status == 2 and "torchrun --nnodes=2 --nproc-per-node=1" in said.last
    assert not (tmp_path / "logs" / "train" / "a" / "config.yaml").exists()
    said = typed("train", "-m", *TINY, "seed=0,1", "trainer.num_nodes=2")
    assert said.status == 1 and "started over nodes by hydra/launcher=submitit_slurm" in said.err


def test_a_step_says_which_task_this_is_and_no_two_steps_meet_at_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    FORGOTTEN.clear()
    for name, value in (STEP | {"SLURM_PROCID": "1", "SLURM_NTASKS": "9", "SLURM_NODELIST": "node[0-8]"}).items():
        monkeypatch.setenv(name, value)
    here, ports = launched(), set()
    assert here and (here.launcher, here.rank, here.world, here.local) == ("srun", 1, 2, 1)
    assert here.environment["SLURM_NTASKS"] == "2" and here.environment["SLURM_NODELIST"] == "node[1-2]"
    for job, step in ((77, 0), (78, 0), (77, 1), (10077, 2)):
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        monkeypatch.setenv("SLURM_STEP_ID", str(step))
        ports.add(launched().environment["MASTER_PORT"])  # type: ignore[union-attr]
    assert len(ports) == 4


def test_a_batch_script_is_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    FORGOTTEN.clear()
    for name in (*STEP, "RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert launched() is None
