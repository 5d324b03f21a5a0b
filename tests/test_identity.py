"""What a run is: its keys but for the machine's, each of which changes no figure."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import conftest
import pytest
import torch
from conftest import CONFIGS, Said, type_in
from faults.compare import rows, unlike

from scorelab.run.checkpoints import read_checkpoint
from scorelab.run.identity import MACHINE, dotted, first_difference, is_machine

TINY = (
    "data.limit=64",
    "data.batch_size=16",
    "model.channels=8",
    "model.multipliers=[1]",
    "trainer=cpu",
    "trainer.max_steps=6",
    "callbacks.validation.every=6",
    "callbacks.grid.every=3",
    "callbacks.grid.samples=24",
    "callbacks.grid.shown=8",
    "callbacks.log.every=3",
    "sampler=ddpm",  # draws noise at each step
    "sampler.steps=3",
    "evaluation.samples=30",
    "evaluation.tolerance=1",
    "metrics=[fid]",
    "logger=none",
)
CASES = {  # several at once, each of another part of the program
    "words": (
        "run=other",
        "overwrite=true",
        "debug=true",
        "threads=1",  # another number rounds otherwise
        "compile=false",  # so does compiled code
        "detach=false",
        "optimized_metric=val/simple",
        "logger=csv",
        "hydra/job_logging=stdout",
        "data.workers=1",
        "callbacks.log.every=2",
        "callbacks.log.bar=false",
        "callbacks.keep.minutes=0.0001",
    ),
    "left out": ("logger=wandb", "logger.mode=offline", "trainer.strategy=ddp", "callbacks.log=null"),
    "device": ("trainer.accelerator=auto",),  # on a GPU it rounds otherwise: nothing is compared there
    "sweep": ("sweep=one", "name=other", "best_of=null"),
    "chunks": ("callbacks.validation.chunk=50", "callbacks.grid.chunk=5", "evaluation.chunk=7"),  # more in test_chunk
}


@pytest.fixture(autouse=True)
def same_surroundings() -> Iterator[None]:
    """What Lightning tells the processes of a group stays in this test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def figures(said: Said, place: Path) -> dict[str, Any]:
    """Of a run: its results's numbers, what validation and pictures gave on the way, and its weights."""
    assert said.status == 0, said.err
    history = [
        (row["step"], key, float(row[key])) for row in rows(place / "metrics.csv") for key in row if "val/" in key
    ]
    return {
        "results": json.loads((place / "metrics.json").read_text())["metrics"],
        "history": {f"{key} at {step}": value for step, key, value in history},
        "weights": read_checkpoint(place / "checkpoints" / "last.ckpt")["state_dict"],
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run without any of these words gives."""
    folder = tmp_path_factory.mktemp("plain")
    return figures(type_in(folder, "train", "run=plain", *TINY), place_of(folder))


def place_of(folder: Path) -> Path:
    """The one run there is."""
    (found,) = folder.glob("logs/*/**/metrics.json")
    return found.parent


CACHED = [key for key in MACHINE if key.rpartition(".")[2] in ("cache", "cache_gb", "resident_mb")]  # in test_hub


@pytest.mark.parametrize("key", [key for key in MACHINE if key not in CACHED])
def test_every_key_of_the_machine_has_a_case(key: str) -> None:
    typed = [word.partition("=")[0] for words in CASES.values() for word in words]
    assert any(word == key or word.startswith((f"{key}.", f"{key}/")) for word in typed)


@pytest.mark.parametrize("case", CASES)
def test_a_key_of_the_machine_changes_nothing(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: dict[str, Any], case: str
) -> None:
    """Not one bit; where it sets how many images go through the network at once, no more than rounding."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "sweep" / "one.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: 0}}}\n"
    )
    monkeypatch.setattr(conftest, "CONFIGS", tmp_path / "configs")
    found = figures(typed("train", *TINY, *CASES[case]), place_of(tmp_path))
    if case == "device" and torch.cuda.is_available():
        return
    rounding = case == "chunks"
    for part in ("results", "history"):
        assert found[part].keys() == plain[part].keys()
        for name, value in plain[part].items():
            expected = pytest.approx(value, rel=1e-4, abs=1e-6) if rounding and value is not None else value
            assert found[part][name] == expected, name
    assert unlike(plain["weights"], found["weights"]) == []


@pytest.mark.parametrize(
    ("key", "machine"),
    [
        ("run", True),
        ("runner", False),
        ("name", True),
        ("namespace", False),
        ("data.source.name", False),
        ("debugger.on", False),
        ("logger", True),
        ("logger.mode", True),
        ("logger@mine", True),
        ("logger_options", False),
        ("evaluation.chunk", True),
        ("metric.chunks", False),
        ("callbacks.log.every", True),
        ("callbacks.logging.every", False),
        ("callbacks.keeper", False),
        ("trainer.strategy", True),
        ("trainer.strategy_name", False),
        ("hydra/launcher", True),
        ("hydra.job.chdir", True),
        ("hydrate", False),
        ("sweep", True),
        ("sweeper.n", False),
    ],
)
def test_keys_of_the_machine_are_whole(key: str, machine: bool) -> None:
    assert is_machine(key) is machine
    if "@" not in key and "/" not in key:
        config: Any = 1
        for name in reversed(key.split(".")):
            config = {name: config}
        assert dotted(config) == {key: 1}
        assert (first_difference({}, config) is None) is machine


def test_an_objective_that_the_program_has_gained_since_makes_no_other_run() -> None:
    """The matrix of objectives has one for every choice of loss; what changes in one that was there is a difference."""
    one, other = {"_target_": "One", "w": 1}, {"_target_": "Other"}
    old, new = (
        {"metrics": {"objectives": {"_target_": "All", "items": 64, "one": one, **more}}}
        for more in ({}, {"other": other})
    )
    assert first_difference(old, new) is None and first_difference(new, old) is None
    changed = {"metrics": {"objectives": {"_target_": "All", "items": 64, "one": one | {"w": 2}}}}
    assert first_difference(old, changed) == "metrics.objectives.one.w was 1, is now 2"
    assert first_difference(old, {"metrics": {"objectives": {"_target_": "All", "items": 32, "one": one}}}) is not None
    assert first_difference(old, {"metrics": {}}) is not None
    source = {"_target_": "Source", "inner": {"_target_": "Inner", "w": 1}}
    assert first_difference({"data": {"source": source}}, {"data": {"source": {"_target_": "Source"}}}) is not None
