"""Two runs kept from the day the names stood: they load from then on, whatever changes."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIGS
from hydra import compose, initialize_config_dir

from scorelab.app.words import Line
from scorelab.config.build import sized
from scorelab.config.check import completed
from scorelab.config.choices import with_choices
from scorelab.config.stored import of_today
from scorelab.run.checkpoints import read_checkpoint
from scorelab.run.identity import first_difference, read_config

KEPT = Path(__file__).parent / "data"
SHAPES = {"digits": (3, 8, 8, 1), "moons": (3, 2)}
BOTH = (
    "trainer.max_steps=8",
    "callbacks.validation.every=4",
    "callbacks.grid.every=8",
    "callbacks.log.every=2",
    "evaluation.samples=60",
    "logger=none",
)
MADE = {  # the words each was made with, beside its directory
    "digits": (
        *BOTH,
        "metrics=[simple]",
        "model.channels=8",
        "model.multipliers=[1]",
        "loss=hybrid",
        "timesteps=importance",
        "sampler.steps=2",
        "data.batch_size=16",
        "callbacks.grid.samples=8",
        "callbacks.grid.shown=8",
    ),
    "moons": (
        *BOTH,
        "metrics=[simple,vlb]",
        "evaluation.tolerance=1",
        "data=moons",
        "model.width=8",
        "loss=dsm",
        "schedule=vp",
        "sampler=ddpm",
        "sampler.steps=5",
    ),
}
BYTES = {  # the past is not mended: a kept run that does not load any more is a fault of what loads it
    "digits/checkpoints/last.ckpt": "f22759d5703a5277bde3c863af17101e79a17403249e1bc42505f5840391534d",
    "digits/config.yaml": "06c4f9a1c5607f2440486f967125b47f186791030d78969429193d225e9fd8d4",
    "digits/metrics.csv": "80e8f83356833d103ba740a72e755192a87cff7885823f202f48562f27bcf675",
    "digits/metrics.json": "361fe155e49495d17b7072c845c78f0e80e2b0ceaa818e4100556a99a02b0fcb",
    "digits/status.json": "8300a9534a742ca5e41a46cfcef087b4f1f5f0fbcd10495c2d919ac4020617a5",
    "moons/checkpoints/last.ckpt": "e85e437f9f71ef071f4c94a6a8090eefaf8a5f393d2105272b6aa5e2642203dd",
    "moons/config.yaml": "bc57e694aaea4d288f91bb1043fa795cf8b926755ef0fa5c4773a4811ed302f4",
    "moons/metrics.csv": "195474f3687799f5c9220b77586a00183e8d7e9f51cd8084af05c1d6bc563da5",
    "moons/metrics.json": "446d3bc29fe10f365275968a7bd15cbfedcfc248db55a8723d0cde5c6f86ffdb",
    "moons/status.json": "84afab03ed2daa5098b88e0edef3b101ef3a05010cec095f27052ee03c76b11d",
}
each_run = pytest.mark.parametrize("name", SHAPES)


def composed(*words: str) -> dict[str, Any]:
    """What a run of these words is today."""
    line = Line.typed(["run=today", *words]).for_hydra("train")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return sized(completed(with_choices(compose("train", line.words), [CONFIGS])))


@pytest.fixture
def run(name: str, tmp_path: Path) -> str:
    """A copy that a command can write into."""
    return str(shutil.copytree(KEPT / name, tmp_path / "kept" / name))


def test_the_kept_runs_are_those_that_were_kept_byte_for_byte() -> None:
    found = {
        str(file.relative_to(KEPT)): sha256(file.read_bytes()).hexdigest() for file in KEPT.rglob("*") if file.is_file()
    }
    assert found == BYTES


@each_run
def test_evaluating_a_kept_run_again_finds_the_figures_it_was_kept_with(name: str, run: str, typed) -> None:
    assert typed("eval", f"run={run}", "metrics=[simple]").status == 0
    (again,) = Path(run).glob("eval/*/metrics.json")
    kept, found = (
        json.loads(file.read_text())["metrics"]["test/simple"] for file in (Path(run) / "metrics.json", again)
    )
    assert found == pytest.approx(kept, rel=1e-5)


@each_run
def test_a_kept_run_is_evaluated_as_it_was_where_nothing_else_is_typed(name: str, run: str, typed) -> None:
    said = typed("eval", f"run={run}")
    assert said.status == 0, said.err
    (again,) = Path(run).glob("eval/*/metrics.json")
    kept, found = (json.loads(file.read_text())["metrics"] for file in (Path(run) / "metrics.json", again))
    of_test = {key: value for key, value in kept.items() if key.startswith("test/")}
    assert found == pytest.approx(of_test, rel=1e-5)


@each_run
def test_a_kept_run_can_be_sampled_from(name: str, run: str, typed) -> None:
    assert typed("sample", f"run={run}", "n=3").status == 0
    (drawn,) = Path(run).glob("sample/*/samples.npz")
    assert np.load(drawn)["arr_0"].shape == SHAPES[name]


@each_run
def test_another_run_can_begin_with_the_weights_of_a_kept_one(name: str, run: str, typed) -> None:
    prediction, small = ("model.channels=8", "model.multipliers=[1]"), ("data=moons", "model.width=8")
    words = ("trainer.max_steps=1", "metrics=[simple]", "logger=none", "callbacks=minimal")
    made = {"digits": ("loss=hybrid", *prediction), "moons": small}[name]
    said = typed("train", "run=new", f"init_from={run}", *made, *words)
    assert said.status == 0, said.err
    step = read_checkpoint(Path(run) / "checkpoints" / "last.ckpt")["global_step"]
    assert (
        json.loads(Path("logs/train/new/metrics.json").read_text())["records"]["training"]["init_from"]["step"] == step
    )


@each_run
def test_the_words_that_made_a_kept_run_make_no_other_one_today(name: str, run: str) -> None:
    """What its classes have gained since counts as their defaults; any other word is seen."""
    stored = of_today(read_config(Path(run) / "config.yaml"))
    assert first_difference(stored, composed(*MADE[name])) is None
    assert "seed was 0, is now 1" in str(first_difference(stored, composed(*MADE[name], "seed=1")))


@each_run
def test_typed_again_the_words_that_made_a_kept_run_find_it_finished(name: str, run: str, typed) -> None:
    Path("logs").mkdir()
    shutil.move(Path(run).parent, "logs/train")
    said = typed("train", f"run={name}", *MADE[name])
    assert said.status == 0, said.err
    assert "is finished" in said.out + said.err
    for file in BYTES:
        if file.startswith(name):
            assert Path("logs/train", file).read_bytes() == (KEPT / file).read_bytes(), file
