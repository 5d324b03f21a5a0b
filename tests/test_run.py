"""A run's directory: who works in it, whether it still does, where its weights come from, how long it may take."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, TINY
from faults.compare import differences

from scorelab.errors import UserError
from scorelab.run.checkpoints import read_checkpoint
from scorelab.run.directory import RunDir, first_free
from scorelab.run.heartbeat import Heartbeat
from scorelab.run.signals import ENDING, SIGNALS
from scorelab.run.status import SILENT, Status, read_status, write_status

ROOT = Path(__file__).resolve().parent.parent


def left(folder: Path, run: str = "a", name: str = "metrics.json") -> dict[str, Any]:
    return json.loads((folder / "logs" / "train" / run / name).read_text())


def weights(folder: Path, run: str, kind: str, name: str = "last") -> dict[str, torch.Tensor]:
    state = read_checkpoint(folder / "logs" / "train" / run / "checkpoints" / f"{name}.ckpt")["state_dict"]
    return {key.removeprefix(kind): value for key, value in state.items() if key.startswith(kind)}


def test_a_job_at_work_that_is_silent_or_gone_is_lost(tmp_path: Path) -> None:
    write_status(tmp_path, "running", 7, 1.5)
    status = read_status(tmp_path)
    assert status is not None and (status.state, status.step, status.it_per_s) == ("running", 7, 1.5)
    assert str(status) == f"running at step 7 on {socket.gethostname()}, pid {os.getpid()}"
    said = vars(status)
    for change, state in (
        ({"time": time.time() - SILENT - 1}, "lost"),
        ({"time": time.time() - SILENT + 30}, "running"),
        ({"host": "another", "pid": 1}, "running"),
        ({"host": "another", "time": time.time() - SILENT - 1}, "lost"),
        ({"state": "evaluating", "time": 0}, "lost"),
        ({"state": "finished", "time": 0}, "finished"),
        ({"state": "interrupted", "time": 0}, "interrupted"),
    ):
        (tmp_path / "status.json").write_text(json.dumps(said | change))
        found = read_status(tmp_path)
        assert found is not None and found.state == state, change
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / "status.json").write_text(json.dumps(said | {"pid": int(gone.stdout)}))
    found = read_status(tmp_path)
    assert found is not None and str(found) == "lost at step 7"


def take(path: Path, start: Any, stop: Any, taken: Any) -> None:
    start.wait()
    run = first_free(path)
    taken.put(run.path.name)
    stop.wait()


def test_jobs_that_nobody_named_take_a_directory_each_however_many_start_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, stop, taken = context.Barrier(4), context.Event(), context.Queue()
    jobs = [context.Process(target=take, args=(tmp_path / "now", start, stop, taken)) for _ in range(4)]
    for job in jobs:
        job.start()
    names = {taken.get(timeout=60) for _ in jobs}
    stop.set()
    for job in jobs:
        job.join()
    assert names == {"now", "now-2", "now-3", "now-4"}
    (tmp_path / "now" / "config.yaml").touch()
    (tmp_path / "now-2" / "train.log").touch()
    assert first_free(tmp_path / "now").path.name == "now-2"


def test_a_corpse_that_nobody_has_buried_is_gone_too(tmp_path: Path) -> None:
    write_status(tmp_path, "running", 7)
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    content = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(content | {"pid": child.pid}))
    found = read_status(tmp_path)
    child.wait()
    assert found is not None and found.state == "lost"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "running"}'])
def test_a_status_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None


def test_the_heart_beats_whatever_the_run_does(tmp_path: Path) -> None:
    steps = iter(range(0, 1000, 10))
    run, seen = RunDir(tmp_path), []
    with Heartbeat(run, lambda: next(steps), seconds=0.1) as heartbeat:
        for _ in range(3):
            time.sleep(0.25)
            seen.append(read_status(tmp_path))
        heartbeat.enter("evaluating")
        evaluating = read_status(tmp_path)
    assert all(isinstance(status, Status) for status in seen) and evaluating is not None
    times, speeds = ([getattr(status, name) for status in seen] for name in ("time", "it_per_s"))
    assert times == sorted(set(times)) and all(speed == pytest.approx(100, rel=0.7) for speed in speeds)
    assert evaluating.state == "evaluating"
    before = (tmp_path / "status.json").read_text()
    time.sleep(0.3)
    assert (tmp_path / "status.json").read_text() == before


def start(folder: Path, *words: str) -> subprocess.Popen:
    """A run of its own, once it has a checkpoint."""
    command = [sys.executable, str(ROOT / "src" / "train.py"), "run=a", *SMALL, "trainer.max_steps=100000", *words]
    job = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    last = folder / "logs" / "train" / "a" / "checkpoints" / "last.ckpt"
    while not last.exists() and job.poll() is None:
        time.sleep(0.02)
    return job


def test_after_kill_9_nothing_is_locked_though_a_process_forked_off_lives(tmp_path: Path) -> None:
    """As the workers of a run's data are, but forked from this process, which takes no time to start."""
    reader, writer = os.pipe()
    job = os.fork()
    if job == 0:
        try:
            run = RunDir(tmp_path / "a")
            run.lock()
            run.say("running", 3)
            worker = os.fork()
            if worker:
                os.write(writer, str(worker).encode())
            time.sleep(60)
        finally:
            os._exit(1)
    worker = int(os.read(reader, 20))
    try:
        with pytest.raises(UserError, match=f"is being worked on by {socket.gethostname()}, pid {job}, since 20"):
            RunDir(tmp_path / "a").lock()
        os.kill(job, signal.SIGKILL)
        os.waitpid(job, 0)
        run = RunDir(tmp_path / "a")
        run.lock()
        assert run.left_by is not None and str(run.left_by) == "lost at step 3"
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
def test_a_second_job_is_told_who_works_and_after_kill_9_nothing_is_locked_though_workers_live(
    typed, tmp_path: Path
) -> None:
    words = (*SMALL, "trainer.max_steps=100000", "data.workers=2")
    job = start(tmp_path, "data.workers=2")
    said = typed("train", "run=a", *words)
    assert said.status == 2
    assert f"run logs/train/a is being worked on by {socket.gethostname()}, pid {job.pid}, since 20" in said.last
    tasks = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    workers = [int(pid) for pid in tasks.read_text().split()] if tasks.exists() else []
    job.kill()
    job.wait()
    found = read_status(tmp_path / "logs" / "train" / "a")
    assert found is not None and found.state == "lost"
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # alive for as long as this takes
    try:
        run = RunDir(tmp_path / "logs" / "train" / "a")
        run.lock()
        assert run.left_by is not None and run.left_by.state == "lost"
        assert len(workers) >= 2
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)


def test_a_run_begins_with_the_judged_weights_of_another_and_knows_it_when_resumed(
    typed, finished: Path, tmp_path: Path
) -> None:
    one = (*SMALL, "trainer.max_steps=1", "optimizer.lr=0", "optimizer.weight_decay=0", "init_from=logs/train/a")
    said = typed("train", "run=b", *one, "loss=vlb", "schedule=linear")
    assert said.status == 0, said.err
    assert "begun with the weights of logs/train/a at step 12" in said.out
    learned, begun = weights(tmp_path, "a", "averaged.network."), weights(tmp_path, "b", "denoiser.network.")
    assert learned.keys() == begun.keys() and all(torch.equal(learned[key], begun[key]) for key in learned)
    tables = [weights(tmp_path, run, "denoiser.schedule.") for run in ("a", "b")]
    assert all(not torch.equal(value, tables[1][key]) for key, value in tables[0].items() if key in tables[1])
    assert left(tmp_path, "b")["records"]["training"]["init_from"] == {"run": "logs/train/a", "step": 12}


def test_where_it_began_is_not_needed_again_and_other_networks_are_refused(
    typed, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scorelab.lit.module import DiffusionModule

    said = typed("train", "run=c", *SMALL, "init_from=logs/train/a", "prediction=v")
    assert (
        said.last
        == "error: init_from=logs/train/a: its network was trained with another prediction: set prediction=eps"
    )
    said = typed("train", "run=c", *SMALL, "init_from=logs/train/a", "model.channels=16")
    assert said.status == 2 and "last.ckpt is of another network: " in said.last
    assert not (tmp_path / "logs" / "train" / "c").exists()
    words = ("train", "run=b", *SMALL, "init_from=logs/train/a")
    real = DiffusionModule.training_step
    monkeypatch.setattr(
        DiffusionModule,
        "training_step",
        lambda self, *args: (
            os.kill(os.getpid(), signal.SIGTERM) if self.global_step == 5 else None,
            real(self, *args),
        )[1],
    )
    assert typed(*words).status == 143
    monkeypatch.setattr(DiffusionModule, "training_step", real)
    (tmp_path / "logs" / "train" / "a").rename(tmp_path / "elsewhere")
    said = typed(*words)
    assert said.status == 0 and "resumed at step 6" in said.out
    assert left(tmp_path, "b")["records"]["training"]["init_from"] == {"run": "logs/train/a", "step": 12}


def test_a_run_can_be_judged_with_less_memory_than_it_was_begun_with(typed, tmp_path: Path) -> None:
    said = typed("train", "run=a", *TINY, "evaluation.chunk=100000000000")
    assert "lower evaluation.chunk" in said.last and "the same command goes on from step 2" in said.last
    said = typed("train", "run=a", *TINY, "evaluation.chunk=50")
    assert said.status == 0 and left(tmp_path)["config"]["evaluation"]["chunk"] == 50


def test_while_a_run_trains_signals_are_its_own(typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's handler of SIGTERM waits, inside the handler, for processes that know nothing of the signal."""
    from scorelab.lit.module import DiffusionModule

    real, seen = DiffusionModule.training_step, set()
    # under nohup, a closed terminal ends nothing
    ignored = {signal.SIG_IGN} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()

    def step(self: Any, *args: Any) -> Any:
        seen.update(signal.getsignal(signum) for signum in ENDING)
        return real(self, *args)

    monkeypatch.setattr(DiffusionModule, "training_step", step)
    typed("train", "run=a", *TINY)
    assert seen - ignored == {SIGNALS._handle}


def test_damaged_files_of_a_run_are_told_in_one_line(typed, finished: Path) -> None:
    run = finished
    config = (run / "config.yaml").read_text()
    for content, told in (("", "is empty"), ("a: [", "is damaged"), ("\0\0", "is damaged")):
        (run / "config.yaml").write_text(content)
        said = typed("train", "run=a", *SMALL)
        assert said.status == 2 and f"config.yaml {told}: overwrite=true starts anew" in said.last
    (run / "config.yaml").write_text(config)
    (run / "metrics.json").unlink()
    for name in ("last", "best", "previous"):
        (run / "checkpoints" / f"{name}.ckpt").write_bytes(b"junk")
    said = typed("train", "run=a", *SMALL)
    assert said.status == 2 and "no other is left, overwrite=true starts anew" in said.last
    assert "goes on from" not in said.last
    said = typed("eval", "run=logs/train/a")
    assert said.status == 2 and "there is also checkpoint=best or previous" in said.last
    said = typed("train", "run=a", *SMALL, "overwrite=true")
    assert said.status == 0


def test_a_run_limited_in_time_is_judged_where_it_stands_and_marked(typed, tmp_path: Path) -> None:
    words = (*TINY, "trainer.max_steps=100000", "trainer.max_time=00:00:00:02")
    said = typed("train", "run=a", *words)
    assert said.status == 0, said.err
    content = left(tmp_path)
    assert content["time_limited"] is True and content["status"] == "finished"
    steps = content["records"]["training"]["steps"]
    assert 0 < steps < 100000 and left(tmp_path, name="status.json")["step"] == steps
    assert read_checkpoint(tmp_path / "logs" / "train" / "a" / "checkpoints" / "last.ckpt")["global_step"] == steps
    assert f"time-limited: stopped after {steps} steps" in said.out
    (tmp_path / "logs" / "train" / "a" / "metrics.json").unlink()  # as if it had been killed while it was evaluated
    said = typed("train", "run=a", *words)
    assert said.status == 0 and left(tmp_path)["records"]["training"]["steps"] == steps
    assert left(tmp_path)["metrics"] == content["metrics"]


def test_one_that_is_not_says_nothing_of_it(small_run: Path) -> None:
    assert "time_limited" not in json.loads((small_run / "metrics.json").read_text())


@pytest.mark.parametrize(
    "words", [("callbacks.keep.minutes=0.0001", "data.workers=2"), ("deterministic=true",)], ids=["workers", "same"]
)
def test_saving_often_and_many_workers_change_no_bit_and_nor_does_determinism(
    typed, small_run: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    try:
        said = typed("train", "run=b", *SMALL, *words)
    finally:
        torch.use_deterministic_algorithms(False)
    assert said.status == 0, said.err
    assert differences(small_run, tmp_path / "logs" / "train" / "b") == []


def test_deterministic_asks_torch_for_it(typed, tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        typed("train", "run=a", *TINY, "deterministic=true")
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        typed("train", "run=b", *TINY)
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def test_the_seconds_of_all_jobs_are_added_up(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.lock()
    run.started -= 100
    run.say("interrupted", 3)
    again = RunDir(tmp_path)
    again.left_by = read_status(tmp_path)
    again.close("finished", {})
    assert json.loads((tmp_path / "metrics.json").read_text())["seconds"] == pytest.approx(100, abs=5)
