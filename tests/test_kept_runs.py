"""Two runs kept from the day the names stood: they load from then on, whatever changes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scorelab.config.stored import of_today
from scorelab.run.checkpoints import read_checkpoint
from scorelab.run.directory import RunDir
from scorelab.run.identity import first_difference, read_config

KEPT = Path(__file__).parent / "data"
SHAPES = {"digits": (3, 8, 8, 1), "moons": (3, 2)}
each_run = pytest.mark.parametrize("name", SHAPES)


@pytest.fixture
def run(name: str, tmp_path: Path) -> str:
    """A copy that a command can write into."""
    return str(shutil.copytree(KEPT / name, tmp_path / "kept" / name))


@each_run
def test_evaluating_a_kept_run_again_finds_the_figures_it_was_kept_with(name: str, run: str, typed) -> None:
    assert typed("eval", f"run={run}", "metrics=[simple]").status == 0
    (again,) = Path(run).glob("eval/*/metrics.json")
    kept, found = (
        json.loads(file.read_text())["metrics"]["test/simple"] for file in (Path(run) / "metrics.json", again)
    )
    assert found == pytest.approx(kept, rel=1e-5)


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
def test_a_kept_runs_own_configuration_is_no_other_one(name: str, run: str) -> None:
    """What its classes have gained since counts as their defaults."""
    config = read_config(Path(run) / "config.yaml")
    assert first_difference(of_today(config), of_today(config)) is None
    RunDir(Path(run)).check(of_today(config), of_today)
    assert RunDir(Path(run)).finished
