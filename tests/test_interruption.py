"""A signal may come at any moment: what was reached is saved, and the same command ends as if none had come."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, TINY
from faults.compare import differences
from torch import nn

from scorelab.app.again import Typed
from scorelab.data.module import DataModule, ignore_ending
from scorelab.errors import Interrupted
from scorelab.evaluation.noise_error import NoiseError
from scorelab.lit import callbacks
from scorelab.lit.module import DiffusionModule
from scorelab.run.signals import ENDING, SIGNALS, Signals, outlived

ROOT = Path(__file__).resolve().parent.parent


SEEN = (signal.SIGTERM, signal.SIGHUP)


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "logs" / "train" / "a" / "status.json").read_text())


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, signum: int) -> None:
    """Have the nth call of a function of ours begin with a signal to this process, and go on as ever."""
    real, calls = getattr(owner, name), []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            os.kill(os.getpid(), signum)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, signalled)


@pytest.mark.parametrize("hung_up", [signal.SIG_DFL], indirect=True)
@pytest.mark.parametrize(
    "signum",  # one handler serves them all: each is seen below, two of them in a run
    [pytest.param(each, marks=[] if each in SEEN else pytest.mark.slow) for each in ENDING],
    ids=lambda signum: signum.name,
)
def test_a_signal_in_a_step_saves_at_its_end_and_the_same_command_goes_on(
    typed, hung_up, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    once(monkeypatch, DiffusionModule, "training_step", 6, signum)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 128 + signum
    name = signal.Signals(signum).name
    assert "logs/train/a" in said.last and f"interrupted by {name}" in said.last and said.last.endswith("step 6")
    assert f"{name}: saving" in said.err
    assert status(tmp_path) | {"state": "interrupted", "step": 6} == status(tmp_path)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 0 and "resumed at step 6 (last.ckpt)" in said.err + said.out
    assert differences(small_run, tmp_path / "logs" / "train" / "a") == []


@pytest.mark.parametrize(
    ("owner", "name", "nth", "step"),
    [
        (callbacks, "noise_error", 2, 8),  # the second validation
        pytest.param(callbacks, "noise_error", 3, 12, marks=pytest.mark.slow),  # the last
        (callbacks, "draw_samples", 1, 6),
        pytest.param(callbacks, "save_samples", 2, 12, marks=pytest.mark.slow),
        (NoiseError, "run", 1, 12),  # evaluating
    ],
)
def test_a_signal_between_steps_cuts_short_what_is_done_there_and_it_is_made_up_for(
    typed, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, step: int
) -> None:
    once(monkeypatch, owner, name, nth, signal.SIGTERM)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 143
    assert f"goes on from step {step}" in said.last
    assert not (tmp_path / "logs" / "train" / "a" / "samples" / f"step_{step:07d}.png").exists() or name in ("run",)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 0 and f"resumed at step {step} " in said.err + said.out
    assert differences(small_run, tmp_path / "logs" / "train" / "a") == []


def test_a_signal_before_the_first_step_ends_the_run_and_every_handler_is_our_own_in_the_steps(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning takes SIGTERM between its preparations and the first step, when it asks for the data."""
    once(monkeypatch, DataModule, "train_dataloader", 1, signal.SIGTERM)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 143 and said.last == "logs/train/a was interrupted by SIGTERM, nothing saved yet"
    assert status(tmp_path)["state"] == "interrupted"
    monkeypatch.undo()

    def noted(self: DiffusionModule, *args: Any) -> Any:
        handlers.append([signal.getsignal(signum) for signum in ENDING if not outlived(signum)])
        return step(self, *args)

    step, handlers, before = DiffusionModule.training_step, [], [signal.getsignal(signum) for signum in ENDING]
    monkeypatch.setattr(DiffusionModule, "training_step", noted)
    assert typed("train", "run=a", *SMALL, "trainer.max_steps=2", "overwrite=true").status == 0
    assert len(handlers) == 2 and {handler.__func__ for each in handlers for handler in each} == {Signals._handle}
    assert [signal.getsignal(signum) for signum in ENDING] == before


def test_a_handler_that_lightning_has_put_in_is_gone_at_the_start_of_its_stage() -> None:
    """It clears the module's gradients there, before it asks for the data."""
    before = signal.getsignal(signal.SIGTERM)
    with SIGNALS.listening():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        module = DiffusionModule(nn.Identity(), nn.Identity(), None, None, None, None, seed=0)
        module.zero_grad()
        assert signal.getsignal(signal.SIGTERM) == SIGNALS._handle
    assert signal.getsignal(signal.SIGTERM) == before


HIT = """
import os, signal
from scorelab.data.module import DataModule

class Hit(DataModule):
    def train_dataloader(self):
        if self.trainer.global_rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().train_dataloader()
"""


@pytest.mark.slow
def test_one_of_two_processes_that_is_sent_a_signal_before_the_first_step_waits_for_nobody(tmp_path: Path) -> None:
    """Lightning's own handler of SIGTERM would wait for the other, which does not know of it."""
    (tmp_path / "hit.py").write_text(HIT)
    words = (*TINY, "run=a", "data._target_=hit.Hit", "trainer=ddp_cpu")
    command = [sys.executable, str(ROOT / "src" / "train.py"), *words]
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    said = subprocess.run(
        command, cwd=tmp_path, env=dict(os.environ) | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 143, said.stderr
    assert status(tmp_path)["state"] == "interrupted"


@pytest.mark.slow
def test_ctrl_c_while_the_other_process_starts_ends_both_at_once(tmp_path: Path) -> None:
    """A terminal sends it to all of them; the other has not come to handle it."""
    words = [sys.executable, str(ROOT / "src" / "train.py"), *TINY, "run=a", "trainer=ddp_cpu"]
    job = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "logs" / "train" / "a" / "rank1.log").exists() and job.poll() is None:
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(job.pid, signal.SIGINT)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130, err
    assert status(tmp_path)["state"] == "interrupted"


LOSES = """
import os, signal
from pathlib import Path
from breaking import Breaks

class Loses(Breaks):
    def run(self, case, left):
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        return super().run(case, left)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_evaluates_is_named_and_the_run_goes_on_from_its_last_step(
    tmp_path: Path,
) -> None:
    (tmp_path / "loses.py").write_text(LOSES)
    words = (*TINY, "run=a", "metrics.mine._target_=loses.Loses", "trainer=ddp_cpu")
    command = [sys.executable, str(ROOT / "src" / "train.py"), *words]
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src"), str(ROOT / "tests")])
    said = subprocess.run(
        command, cwd=tmp_path, env=dict(os.environ) | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 2, said.stderr
    told = "error: the process of rank 1 died (signal 9): the same command goes on from step 2"
    assert said.stderr.strip().splitlines()[-1] == told


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_nothing_is_lost(small_run: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "src" / "train.py"), "run=a", *SMALL, "trainer.max_steps=100000"]
    job = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = tmp_path / "logs" / "train" / "a" / "checkpoints" / "last.ckpt"
    while not last.exists() and job.poll() is None:
        time.sleep(0.02)
    started = time.monotonic()
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 130 and time.monotonic() - started < 5
    assert "interrupted by SIGINT" in err or "stopped at once" in err  # the first may have been obeyed already
    assert status(tmp_path)["state"] == "interrupted"
    assert torch.load(last, weights_only=True)["global_step"] >= 4


@pytest.mark.parametrize("named", [(), ("run=a", "overwrite=true")])
def test_where_the_same_command_would_begin_anew_the_words_that_go_on_are_told(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    once(monkeypatch, callbacks, "noise_error", 2, signal.SIGTERM)
    said = typed("train", *SMALL, *named)
    assert said.status == 143
    told = shlex.split(said.last.partition(": ")[2].partition(" goes on from step 8")[0])
    assert told[:2] == [sys.orig_argv[0], "train.py"]
    said = typed("train", *told[2:])
    assert said.status == 0 and "resumed at step 8 " in said.out
    assert len(list((tmp_path / "logs" / "train").iterdir())) == 1


def test_a_sweep_goes_on_by_its_own_words_without_those_that_begin_it_anew() -> None:
    words = ["-m", "seed=0,1", "metrics=[simple,vlb]"]
    for anew in ("overwrite=true", "++overwrite=True", "overwrite='true'"):
        told = Typed("src/train.py", [*words, anew]).again("seed-0", sweep=True)
        assert shlex.split(told) == [sys.orig_argv[0], "src/train.py", *words]
    assert Typed("src/train.py", words).again("seed-0", sweep=True) == "the same command"


@pytest.fixture
def listening() -> Iterator[None]:
    with SIGNALS.listening():
        yield


@pytest.mark.parametrize("hung_up", [signal.SIG_DFL], indirect=True)
@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_every_ending_signal_is_obeyed_and_names_its_status(hung_up, listening, signum: int) -> None:
    with pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signum)
        time.sleep(1)
    assert stop.value.status == 128 + signum and signal.Signals(signum).name in stop.value.told


def test_a_second_ctrl_c_ends_the_process_there_and_then_but_for_a_farewell(tmp_path: Path) -> None:
    """Even where the run would lose something: in a process forked off, since none returns from this."""
    child = os.fork()
    if child == 0:
        try:
            with SIGNALS.listening(farewell=(tmp_path / "farewell").touch), SIGNALS.waiting():
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert (tmp_path / "farewell").exists()


def test_a_signal_waits_where_something_would_be_lost_and_nowhere_else(listening) -> None:
    with pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(1)
    assert stop.value.status == 128 + signal.SIGUSR1
    SIGNALS.received, done = None, []
    with pytest.raises(Interrupted), SIGNALS.waiting():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        done.append("whole")
        with pytest.raises(Interrupted), SIGNALS.waiting(False):
            done.append("never begun")
    assert done == ["whole"]


@pytest.fixture
def hung_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """What SIGHUP does when a run begins; tests may have been started with nohup themselves."""
    before = signal.signal(signal.SIGHUP, request.param)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("hung_up", [signal.SIG_IGN], indirect=True)
def test_a_run_started_with_nohup_outlives_its_terminal(hung_up) -> None:
    with SIGNALS.listening():
        os.kill(os.getpid(), signal.SIGHUP)
        assert SIGNALS.received is None


def test_data_workers_leave_every_ending_signal_to_the_run() -> None:
    child = os.fork()
    if child == 0:
        ignore_ending(0)
        for signum in ENDING:
            os.kill(os.getpid(), signum)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("hung_up", [signal.SIG_DFL], indirect=True)
def test_handlers_are_those_of_before_once_a_run_is_over(hung_up) -> None:
    before = [signal.getsignal(signum) for signum in ENDING]
    with SIGNALS.listening():
        assert all(signal.getsignal(signum) not in before for signum in ENDING)
    assert [signal.getsignal(signum) for signum in ENDING] == before


def test_a_process_forked_off_leaves_signals_to_its_parent(listening) -> None:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0 if SIGNALS.received is None else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_outside_of_the_main_thread_a_run_does_without_handlers() -> None:
    found: list[Callable[..., Any] | int | None] = []

    def listen() -> None:
        with SIGNALS.listening():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before]
