"""Runs whose score is known, from the command line: points, subsets, the oracle in a network's place."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import type_in
from PIL import Image

SMALL = (
    "trainer.max_steps=20",
    "callbacks.validation.every=20",
    "callbacks.grid.every=20",
    "callbacks.grid.samples=64",
    "evaluation.samples=200",
    "sampler.steps=5",
    "logger=none",
)
LIMITED = ("data=mixture", "data.limit=200", "metrics=[simple,score_error,exact_gap,exact_nll,distances,memorization]")


def done(folder: Path, entry: str, *words: str, status: int = 0, pictures: bool = False) -> str:
    said = type_in(folder, entry, *words, pictures=pictures)
    assert said.status == status, said.out + said.err
    return said.out + said.err


def evaluated(folder: Path) -> dict:
    (file,) = folder.glob("**/metrics.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(scope="module")
def halves(folder: Path) -> str:
    """Two runs on disjoint halves, trained onto scores averaged over references; what the first prints."""
    told = done(
        folder, "train", "run=a", *LIMITED, "data.half=A", "loss=esm", "loss.references=16", *SMALL, pictures=True
    )
    done(folder, "train", "run=b", *LIMITED, "data.half=B", "loss=ssm", *SMALL)
    return told


@pytest.mark.slow
def test_a_run_on_a_subset_of_a_known_law_is_told_beside_the_law_and_beside_the_subset(
    folder: Path, halves: str
) -> None:
    content = json.loads((folder / "logs" / "train" / "a" / "metrics.json").read_text())
    metrics = content["metrics"]
    for name in ("test/score_error", "test/excess", "train/score_error", "test/exact_gap", "test/exact_nll"):
        assert metrics[name] is not None, name
    assert metrics["test/score_error"] != metrics["train/score_error"] > 0
    assert metrics["test/energy"] > metrics["test/energy_floor"]
    assert {"held_out", "train"} <= content["records"]["score_error"].keys()
    for row in ("score error", "to memorising", "energy distance", "exact −log p", "exact gap"):
        assert row in halves


@pytest.mark.parametrize("picture", ["truth.png", "field.png", "samples.png", "samples/step_0000020.png"])
def test_it_leaves_pictures(folder: Path, halves: str, picture: str) -> None:
    image = np.asarray(Image.open(folder / "logs" / "train" / "a" / picture).convert("L"))
    assert min(image.shape) > 200 and image.std() > 10


def test_the_truth_is_in_no_checkpoint(folder: Path, halves: str) -> None:
    path = folder / "logs" / "train" / "a" / "checkpoints" / "last.ckpt"
    names = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert names and not [name for name in names if "law" in name or "truth" in name or "points" in name]


def test_two_halves_are_compared_at_the_same_noise(folder: Path, halves: str) -> None:
    told = done(folder, "eval", "run=logs/train/a", "against=logs/train/b", "metrics=[agreement]")
    assert "agreement" in told
    content = evaluated(folder / "logs" / "train" / "a" / "eval")
    assert content["metrics"]["test/agreement"] > 0
    told = done(folder, "eval", "run=logs/train/a", "against=logs/train/none", "metrics=[agreement]", status=2)
    assert "no such directory" in told


def test_points_are_sampled_as_points(folder: Path, halves: str) -> None:
    done(folder, "sample", "run=logs/train/a", "n=10")
    (file,) = (folder / "logs" / "train" / "a" / "sample").glob("**/samples.npz")
    points = np.load(file)["arr_0"]
    assert points.shape == (10, 2) and points.dtype == np.float32 and np.isfinite(points).all()


def test_the_exact_score_is_judged_in_a_networks_place_without_a_run(folder: Path) -> None:
    words = ("model=exact", "data=moons", "sampler.steps=30", "metrics=[score_error,distances,exact_nll]", "name=exact")
    told = done(folder, "eval", *words)
    metrics = json.loads((folder / "logs" / "eval" / "exact" / "metrics.json").read_text())["metrics"]
    assert metrics["test/score_error"] < 1e-10
    assert abs(metrics["test/energy"]) < 0.01  # a moon has a diameter of 1.2
    assert "logs/eval/exact/metrics.json" in told
    told = done(folder, "eval", *words, "sampler.eta=1", status=2)
    assert "holds another evaluation: sampler.eta was 0.0, is now 1" in told


@pytest.mark.parametrize(
    ("entry", "words", "reason"),
    [
        ("eval", ("model=mlp", "data=moons", "name=no"), "model=exact needs no run"),
        ("train", ("model=exact", "run=no"), "nothing to train: python src/eval.py model=exact"),
        ("eval", ("model=exact", "data=moons", "name=../no"), "an evaluation's name has letters"),
    ],
)
def test_what_cannot_be_trained_or_judged_is_refused_in_one_line_and_leaves_nothing(
    folder: Path, entry: str, words: tuple[str, ...], reason: str
) -> None:
    told = done(folder, entry, *words, status=2)
    assert reason in told
    assert not list((folder / "logs").glob("*/no"))
