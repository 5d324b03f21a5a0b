"""What a machine does to a run is told in one line; the run is marked failed and goes on once it is mended."""

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL

from scorelab.data.base import Split
from scorelab.data.images import Digits
from scorelab.lit.checkpoint_io import Checkpoints
from scorelab.lit.module import DiffusionModule
from scorelab.run.checkpoints import read_checkpoint
from scorelab.run.machine import machine_error


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "logs" / "train" / "a" / "status.json").read_text())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB at logs/."""
    place = tmp_path / "logs"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize(  # another file each time
    "room",
    [990_000, 850_000, pytest.param(900_000, marks=pytest.mark.slow), pytest.param(650_000, marks=pytest.mark.slow)],
)
def test_a_full_disk_is_told_in_one_line_and_the_run_goes_on_once_there_is_room(
    typed, tmp_path: Path, small_disk: Path, room: int
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(room))
    said = typed("train", "run=a", *SMALL)
    assert said.status == 2
    assert said.last.startswith("error: no space is left for ") and "Traceback" not in said.err
    first = said.last
    if (tmp_path / "logs" / "train" / "a" / "status.json").exists():
        assert status(tmp_path)["state"] == "failed"
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 0
    if "goes on from step" in first:
        assert f"resumed at step {first.rpartition(' ')[2]} " in said.out
    assert not list((tmp_path / "logs" / "train" / "a").rglob(".*.part"))


def test_a_read_only_directory_is_told_in_one_line(typed, tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = typed("train", "run=a", *SMALL)
    assert said.status == 2 and len(said.err.strip().splitlines()) == 1
    assert "may not be read or written (Read-only file system): give the run a place where it may" in said.last


class Vanishing(Digits):
    """A data set of a user's own that reads a file for every batch."""

    file = Path("digits.pt")

    def splits(self) -> dict[str, Split]:
        found = super().splits()
        torch.save(found["train"].values, self.file)
        return found | {"train": OnDisk(self.file.absolute(), found["train"].labels)}


class OnDisk:
    """Rows that are read when they are asked for."""

    def __init__(self, file: Path, labels: torch.Tensor) -> None:
        self.file, self.labels, self.chance = file, labels, 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def values(self) -> torch.Tensor:
        return torch.load(self.file, weights_only=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_file_that_vanishes_is_named(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    at_step(monkeypatch, 6, lambda: Path("digits.pt").rename("moved.pt"))
    words = (*SMALL, "data.source._target_=test_machine_errors.Vanishing", f"data.workers={workers}")
    said = typed("train", "run=a", *words)
    assert said.status == 2
    assert (
        f"{tmp_path / 'digits.pt'} is not there any more: put it back: the same command goes on from step " in said.last
    )
    assert status(tmp_path)["state"] == "failed" and status(tmp_path)["reason"] == said.last.removeprefix("error: ")
    monkeypatch.undo()
    assert typed("train", "run=a", *words).status == 0
    assert multiprocessing_children() == []


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Have something happen once, as a training step begins."""
    real, done = DiffusionModule.training_step, []

    def stepped(self: DiffusionModule, *args: Any) -> Any:
        if self.trainer.global_step == step and not done:
            done.append(act())
        return real(self, *args)

    monkeypatch.setattr(DiffusionModule, "training_step", stepped)


def multiprocessing_children() -> list[Any]:
    return multiprocessing.active_children()


def test_a_worker_that_dies_is_told_in_one_line(typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(monkeypatch, 6, lambda: os.kill(multiprocessing_children()[0].pid, signal.SIGKILL))
    said = typed("train", "run=a", *SMALL, "data.workers=2", "trainer.max_steps=400")
    assert said.status == 2 and "Traceback" not in said.err
    ways = r"\(pid.* is killed by signal: Killed|\(pid.* exited unexpectedly|is gone \(.*\)"  # one of them wins a race
    assert re.search(rf"DataLoader worker ({ways}): was memory short", said.last)
    assert "data.workers=0 needs none: the same command goes on from step " in said.last
    assert status(tmp_path)["state"] == "failed"
    assert multiprocessing_children() == []


def put(queue: Any) -> None:
    """Hand a tensor over, and be there until killed."""
    queue.put(torch.zeros(3))
    time.sleep(600)


def test_a_worker_that_dies_as_its_batch_is_fetched_is_told_the_same_way(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=put, args=(queue,))
    worker.start()
    assert queue._reader.poll(60)  # the handle is here, the tensor is still the worker's
    worker.kill()
    worker.join()
    with pytest.raises(OSError) as caught:
        queue.get()
    assert str(machine_error(caught.value, tmp_path, "x")) == (
        "DataLoader worker is gone ([Errno 111] Connection refused): was memory short? data.workers=0 needs none"
    )


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("data.batch_size=100000000000", "data.batch_size (with trainer.accumulate_grad_batches higher in proportion)"),
        ("evaluation.chunk=100000000000", "evaluation.chunk"),
    ],
)
def test_where_memory_is_short_it_says_what_to_lower(typed, tmp_path: Path, word: str, key: str) -> None:
    said = typed("train", "run=a", *SMALL, word)
    assert said.status == 2
    assert f"error: out of memory: lower {key}" in said.last
    assert status(tmp_path)["state"] == "failed"
    assert json.loads((tmp_path / "logs" / "train" / "a" / "metrics.json").read_text())["status"] == "failed"


def test_a_gpu_out_of_memory_is_told_the_same_way(tmp_path: Path) -> None:
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139.81 GiB of which 3.00 MiB is"
        " free.\nSee documentation for Memory Management"
    )
    assert str(machine_error(error, tmp_path, "x")) == "out of memory: lower x (tried to allocate 20.00 mib)"


def test_an_error_of_our_own_is_no_mishap(tmp_path: Path) -> None:
    for error in (ValueError("x"), RuntimeError("shapes differ"), OSError(errno.EINVAL, "Invalid argument")):
        assert machine_error(error, tmp_path, "x") is None


@pytest.mark.slow
def test_a_large_checkpoint_is_written_beside_the_training(tmp_path: Path) -> None:
    """35.7 M weights, their averages and two moments each: 571 MB. The best of three: others use the machine too."""
    values = {f"{part}.{n}": torch.randn(3_570_000) for part in ("raw", "averaged", "m", "v") for n in range(10)}
    found = [stops(Checkpoints(), values, tmp_path / "last.ckpt") for _ in range(3)]
    assert min(found) < 1, found
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 1


def stops(writer: Checkpoints, values: dict[str, torch.Tensor], path: Path) -> float:
    """The longest that training stands still, in seconds: for the copy, or in a step while it is written."""
    longest, before = 0.0, time.perf_counter()
    writer.save_checkpoint({"global_step": 1, "state_dict": values}, path)
    while writer.writing is not None and not writer.writing.done():
        longest, before = max(longest, time.perf_counter() - before), time.perf_counter()
        torch.randn(200, 200) @ torch.randn(200, 200)
    writer.wait()
    writer.teardown()
    return longest
