"""Samples in any number: drawn a batch at a time, kept whole, gone on with to the same bits."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, TINY, Said, type_in
from PIL import Image

from scorelab.app import sample as sampling
from scorelab.app.kept import Arrays, batches_missing
from scorelab.run.lock import Lock

ROOT = Path(__file__).resolve().parent.parent
RUN = ("run=logs/train/a", "evaluation.chunk=8")  # so a batch is 8 samples


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs of a small run with labels, made once: copy it."""
    folder = tmp_path_factory.mktemp("conditional")
    said = type_in(folder, "train", "run=a", *SMALL, "model.conditional=true", "trainer.max_steps=2")
    assert said.status == 0, said.err
    return folder / "logs"


@pytest.fixture
def run(conditional: Path, tmp_path: Path) -> Path:
    shutil.copytree(conditional, tmp_path / "logs")
    return tmp_path / "logs" / "train" / "a"


def drawn(said: Said) -> Path:
    """The result of a command that ended well."""
    assert said.status == 0, said.err
    return Path(said.out.strip().splitlines()[-1])


def content(result: Path) -> dict[str, bytes]:
    """What stands in a result, by name, to the byte."""
    files = [result] if result.is_file() else sorted(result.iterdir())
    return {file.name: file.read_bytes() for file in files}


def killed(folder: Path, owner: Any, name: str, nth: int, *words: str) -> None:
    """Type sample in a process of its own that is killed where it calls a function the nth time."""
    real, calls = getattr(owner, name), []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    if (child := os.fork()) == 0:
        setattr(owner, name, deadly)
        type_in(folder, "sample", *words)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


DEATHS = {
    "npz, between batches": ("npz", sampling, "draw_chunk", 3, 16),
    "npz, while a part is written": ("npz", os, "fsync", 4, 16),  # samples.json is the first
    "npz, while all are put together": ("npz", shutil, "rmtree", 1, 0),
    "png, between batches": ("png", sampling, "draw_chunk", 3, 16),
    "png, within a batch": ("png", Image.Image, "save", 12, 11),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_job_goes_on_and_ends_with_the_bits_of_one_that_nothing_ended(
    typed, run: Path, tmp_path: Path, death: str
) -> None:
    form, owner, name, nth, there = DEATHS[death]
    words = (*RUN, "n=45", f"format={form}", "seed=3")
    first = drawn(typed("sample", *words))
    before, folder = content(first), first.parent
    shutil.rmtree(folder)
    killed(tmp_path, owner, name, nth, *words)
    assert not (form == "npz" and there and first.exists()) and not (folder / "labels.npy").exists()
    said = typed("sample", *words)
    assert content(drawn(said)) == before
    assert (f"{there} of them are there" if there else "is finished") in said.out
    assert not list(folder.glob("**/.*")) and not (folder / "parts").exists()


def test_a_larger_number_begins_with_what_a_smaller_one_has_drawn(typed, run: Path) -> None:
    """In whole batches, so that none of it is the rounding of another batch."""
    for form, shown in (("npz", 8), ("png", 8)):
        whole = content(drawn(typed("sample", *RUN, "n=30", f"format={form}")))
        shutil.rmtree(run / "sample")
        few = drawn(typed("sample", *RUN, "n=12", f"format={form}"))
        kept = content(few)
        said = typed("sample", *RUN, "n=30", f"format={form}")
        assert f"{shown} of them are there" in said.out and content(drawn(said)) == whole
        assert content(few) == kept
        said = typed("sample", *RUN, "n=20", f"format={form}")  # and a smaller one with a larger one's
        assert "16 of them are there" in said.out and drawn(said).exists()
        shutil.rmtree(run / "sample")


def test_but_not_with_what_was_drawn_in_other_batches(typed, run: Path) -> None:
    drawn(typed("sample", *RUN, "n=12"))
    assert "are there" not in typed("sample", "run=logs/train/a", "evaluation.chunk=4", "n=30").out


def test_what_is_finished_is_left_alone(typed, run: Path) -> None:
    for form in ("npz", "png"):
        result = drawn(typed("sample", *RUN, "n=9", f"format={form}"))
        files = [file for file in result.parent.rglob("*") if file.is_file() and file.name != "lock"]
        times = [file.stat().st_mtime_ns for file in files]
        said = typed("sample", *RUN, "n=9", f"format={form}")
        assert "is finished: 9 samples" in said.out and drawn(said) == result
        assert [file.stat().st_mtime_ns for file in files] == times


def test_images_and_labels_are_those_of_the_array(typed, run: Path) -> None:
    array = np.load(drawn(typed("sample", *RUN, "n=12")))
    folder = drawn(typed("sample", *RUN, "n=12", "format=png"))
    assert sorted(file.name for file in folder.iterdir()) == [f"{place:06d}.png" for place in range(12)]
    images = np.stack([np.asarray(Image.open(folder / f"{place:06d}.png")) for place in range(12)])
    assert np.array_equal(images, array["arr_0"][..., 0])
    assert array["arr_1"].tolist() == np.load(folder.parent / "labels.npy").tolist() == [*range(10), 0, 1]
    with Image.open(folder.parent / "samples.png") as picture:
        assert picture.size[0] > 3 * 48
    one = np.load(drawn(typed("sample", *RUN, "n=3", "label=7")))
    assert one["arr_1"].tolist() == [7, 7, 7]


def test_it_says_what_is_there_and_what_a_sample_costs(typed, run: Path) -> None:
    said = typed("sample", *RUN, "n=20", "sampler.steps=5")
    assert "drawing 20 samples: 5 network evaluations each" in said.out and said.err == ""
    about = json.loads((drawn(said).parent / "samples.json").read_text())
    assert (about["n"], about["seed"], about["batch"], about["network_evaluations_per_sample"]) == (20, 0, 8, 5)
    assert about["sampler"]["_target_"] == "scorelab.samplers.DDIM" and about["sampler"]["steps"] == 5


@pytest.mark.parametrize("word", ["seed=1", "sampler.steps=20", "label=2", "sampler=ddpm"])
def test_other_samples_lie_elsewhere(typed, run: Path, word: str) -> None:
    first = drawn(typed("sample", *RUN, "n=2", "sampler.steps=2"))
    other = drawn(typed("sample", *RUN, "n=2", *(["sampler.steps=2"] if "steps" not in word else []), word))
    assert other != first
    if "steps" not in word:  # what has hardly been trained ends in black and white, by however many steps
        assert not np.array_equal(np.load(first)["arr_0"], np.load(other)["arr_0"])


def test_so_do_those_of_other_weights_under_the_same_name(typed, run: Path) -> None:
    """A run that was trained on is another one: its samples never stand among the old ones."""
    first = drawn(typed("sample", *RUN, "n=2"))
    file = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    averaged = next(key for key in checkpoint["state_dict"] if key.startswith("averaged.network"))
    checkpoint["state_dict"][averaged] += 1e-3
    from scorelab.run.checkpoints import write_checkpoint

    checkpoint.pop("scorelab")
    write_checkpoint(checkpoint, file, best=False)
    assert drawn(typed("sample", *RUN, "n=2")).parent != first.parent


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line_that_says_how_far_it_came(
    typed, run: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    real, calls = sampling.draw_chunk, []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signum)
        return real(*args, **kwargs)

    monkeypatch.setattr(sampling, "draw_chunk", signalled)
    said = typed("sample", *RUN, "n=30")
    name = signal.Signals(signum).name
    assert said.status == 128 + signum
    assert said.err.strip() == f"interrupted by {name}, 16 of 30 samples drawn: the same command goes on"
    assert "16 of them are there" in typed("sample", *RUN, "n=30").out


def test_a_full_disk_ends_it_in_one_line_and_it_goes_on(typed, run: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))  # a part of 8 images has 640 bytes
    try:
        said = typed("sample", *RUN, "n=20")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.status == 2 and len(said.err.strip().splitlines()) == 1 and "make room" in said.last, said.err
    assert drawn(typed("sample", *RUN, "n=20")).exists()


def test_two_jobs_do_not_draw_the_same(typed, run: Path) -> None:
    folder = drawn(typed("sample", *RUN, "n=3")).parent
    parent, child = os.pipe()
    if (other := os.fork()) == 0:
        lock = Lock(folder)
        lock.take()
        os.write(child, b"x")
        signal.pause()
    os.read(parent, 1)
    said = typed("sample", *RUN, "n=3")
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    assert said.status == 2 and "is being worked on by" in said.last and f"pid {other}" in said.last


def test_what_is_not_finite_is_no_sample(typed, tmp_path: Path) -> None:
    assert typed("train", "run=a", *TINY).status == 0
    file = tmp_path / "logs" / "train" / "a" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    for value in checkpoint["state_dict"].values():
        value.mul_(torch.nan) if value.is_floating_point() and value.dim() > 1 else None
    from scorelab.run.checkpoints import write_checkpoint

    checkpoint.pop("scorelab")
    write_checkpoint(checkpoint, file, best=False)
    said = typed("sample", "run=logs/train/a", "n=2")
    assert said.status == 2 and "not finite: another sampler=" in said.last
    assert not list(tmp_path.glob("**/samples.npz"))


def test_points_are_numbers(typed, tmp_path: Path) -> None:
    assert typed("train", "run=a", *TINY).status == 0
    said = typed("sample", *RUN, "n=20", "format=png")
    assert said.status == 2 and "format=png: these data are no images" in said.last and "format=npz" in said.last
    said = typed("sample", *RUN, "n=20", "format=jpg")
    assert said.status == 2 and "format='jpg'" in said.last and "'npz', 'png'" in said.last
    points = np.load(drawn(typed("sample", *RUN, "n=20")))
    assert points.files == ["arr_0"] and points["arr_0"].shape == (20, 2) and points["arr_0"].dtype == np.float32


@pytest.mark.parametrize("there", [[], [range(40)], [range(8, 16)], [range(5), range(5, 9), range(17, 40)]])
@pytest.mark.parametrize("n", [1, 16, 37])
def test_a_missing_batch_is_drawn_whole_and_no_other(there: list[range], n: int) -> None:
    held = {place for span in there for place in span}
    aligned = [range(first, min(first + 8, n)) for first in range(0, n, 8)]
    assert list(batches_missing(there, n, 8)) == [each for each in aligned if not set(each) <= held]


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b""), lambda file: file.write_bytes(b"x" * 200)])
def test_a_part_that_someone_has_cut_short_is_drawn_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    kept = Arrays(tmp_path, 16, (2,), np.float32, None)
    kept.put(0, np.zeros((8, 2), np.float32))
    kept.put(8, np.ones((8, 2), np.float32))
    damage(next(kept.parts.glob("000000008-*")))
    assert kept.there() == [range(8)]
    kept.put(8, np.ones((8, 2), np.float32))
    kept.finish(8)
    assert np.load(kept.result)["arr_0"][:, 0].tolist() == [0] * 8 + [1] * 8


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "png"])
def test_memory_does_not_grow_with_the_number(tmp_path: Path, run: Path, form: str) -> None:
    peaks = []
    for n in (256, 20_000):
        code = (
            "import resource, runpy, sys; sys.argv[0] = sys.argv.pop(1); "
            "runpy.run_path(sys.argv[0], run_name='__main__'); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        words = ("run=logs/train/a", f"n={n}", f"format={form}", "sampler.steps=1")
        command = [sys.executable, "-c", code, str(ROOT / "src" / "sample.py"), *words]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        peaks.append(int(said.stdout.strip().splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 20, peaks  # MB
