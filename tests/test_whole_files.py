"""Under a file's name stands all of it, or what stood there before; and how a run ended is told from its lock on."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

from scorelab.files import temporary, whole
from scorelab.lit.pictures import save_grid
from scorelab.report.card import draw_cards, write_card
from scorelab.report.exact import draw_truth
from scorelab.report.field import draw_fields
from scorelab.report.plane import draw_plane
from scorelab.run.directory import RunDir

LEVEL = {"log_snr_low": -1.0, "log_snr_high": 1.0, "density": 1.0, "mass": 2.0}
PLACES = [(float(x), float(y)) for x in range(3) for y in range(3)]
FIELD = {"places": PLACES, "log_prob": [0.0] * 9, "exact": PLACES, "said": PLACES, "log_snr": 0.0}
CURVES = {"exact_gap": {"log_snr": [0.0, 1.0], "network_train": [1.0, 2.0], "gap_se": [0.1, 0.1]}}
WRITERS: dict[str, Callable[[Path], Any]] = {
    "write_card": lambda path: write_card(path, [LEVEL] * 20, ["λ"]),
    "draw_cards": lambda path: draw_cards(path, {"": {"": [LEVEL]}}),
    "draw_fields": lambda path: draw_fields(path, [FIELD]),
    "draw_plane": lambda path: draw_plane(path, {"a": PLACES}),
    "draw_truth": lambda path: draw_truth(path, CURVES),
    "save_grid": lambda path: save_grid(torch.randint(0, 256, (9, 1, 8, 8)).byte(), path),
}


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk that takes no more than so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_full_disk_cuts_short_is_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "made" / "for" / "it"
    WRITERS[name](path)
    before = path.read_bytes()
    assert len(before) > 100
    with no_file_above(100), pytest.raises(OSError, match="File too large"):
        WRITERS[name](path)
    assert list(path.parent.iterdir()) == [path] and path.read_bytes() == before


def test_what_is_written_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced, real = tmp_path / "file", [], os.fsync

    def sync(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size, path.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with whole(path) as file:
        file.write(b"x" * 1000)
    assert synced == [(path.stat().st_ino, 1000, False)]


def test_samples_are_whole_too_and_leftovers_are_swept(typed, tmp_path: Path) -> None:
    assert typed("train", "run=a", *TINY).status == 0
    drawn = partial(typed, "sample", "run=logs/train/a", "n=30000", "sampler.steps=2", pictures=True)
    assert drawn().status == 0
    [array] = (tmp_path / "logs" / "train" / "a" / "sample").glob("*/samples.npz")
    size, picture = array.stat().st_size, array.with_name("samples.png").stat().st_size
    before = array.read_bytes()
    assert size > picture
    array.unlink()
    left_over = array.with_name(f".samples.npz.{gone()}-1.part")
    left_over.touch()
    with no_file_above((size + picture) // 2):
        assert drawn().status == 2
    assert not array.exists() and not left_over.exists()
    assert drawn().status == 0 and array.read_bytes() == before
    assert {file.name for file in array.parent.iterdir()} == {"lock", "samples.json", "samples.npz", "samples.png"}


def gone() -> int:
    """A process that there was."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_a_killed_jobs_leftovers_are_swept_everywhere_but_not_what_another_entry_is_writing(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in (".", "checkpoints", "samples", "eval/x", "sample/y")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".picture.png.{gone()}-1.part").touch()
        temporary(folder / "picture.png").touch()  # of this process, which holds the lock and writes nothing now
    written = tmp_path / "eval" / "x" / f".metrics.json.{os.getppid()}-1.part"
    written.touch()
    RunDir(tmp_path).tidy()
    assert list(tmp_path.rglob(".*.part")) == [written]


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def test_what_fails_before_the_first_step_is_in_status_json_and_the_run_goes_on_once_it_is_mended(
    typed, tmp_path: Path
) -> None:
    place = tmp_path / "logs" / "train" / "a"
    (place / "metrics.csv").mkdir(parents=True)  # history cannot be read
    said = typed("train", "run=a", *TINY)
    assert said.status != 0 and "is a directory" in said.last
    assert state(place)["state"] == "failed" and "is a directory" in state(place)["reason"]
    (place / "metrics.csv").rmdir()
    assert typed("train", "run=a", *TINY).status == 0


def test_a_config_that_cannot_be_written_is_told_in_status_json_and_bars_no_later_job(typed, tmp_path: Path) -> None:
    place = tmp_path / "logs" / "train" / "a"
    with no_file_above(1000):
        said = typed("train", "run=a", *TINY)
    assert said.status == 2 and "no file may be larger" in said.last and said.last.endswith("nothing saved yet")
    assert state(place)["state"] == "failed" and state(place)["reason"] == said.last.removeprefix("error: ")
    assert typed("train", "run=a", *TINY).status == 0


def test_a_log_that_cannot_be_written_costs_nothing(typed, tmp_path: Path) -> None:
    (tmp_path / "logs" / "train" / "a" / "train.log").mkdir(parents=True)
    said = typed("train", "run=a", *TINY)
    assert said.status == 0 and "Traceback" not in said.err


def test_a_run_being_overwritten_is_at_no_moment_finished_without_what_belongs_to_it(tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.json", "metrics.csv"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoints" / "deep").mkdir(parents=True)
    removed: list[str] = []
    real = Path.unlink
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **_: (removed.append(path.name), real(path))[1])
        RunDir(tmp_path).clear()
    assert removed == ["metrics.json", "metrics.csv", "config.yaml"] and not list(tmp_path.iterdir())
