"""Numbers that go wrong stop a run before it spoils its checkpoints, or are passed over and counted."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, TINY

from scorelab.errors import UserError
from scorelab.lit.guard import DivergenceGuard
from scorelab.run.checkpoints import read_checkpoint
from scorelab.schedules import Cosine

# of points, since images see no other numbers go wrong and take longer
POISONED = (
    *TINY,
    "data.batch_size=16",
    "trainer.max_steps=12",
    "callbacks=default",
    "callbacks.grid=null",
    "callbacks.validation.every=4",
    "callbacks.log.every=3",
    "loss._target_=poisoned.Poisoned",
)


def left(folder: Path, name: str = "metrics.json") -> dict[str, Any]:
    return json.loads((folder / "logs" / "train" / "a" / name).read_text())


def last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "logs" / "train" / "a" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_time_and_log_snr(
    typed, tmp_path: Path, value: str
) -> None:
    said = typed("train", "run=a", *POISONED, "loss.above=0.985", f"loss.value={value}", "callbacks.validation.every=1")
    assert said.status == 2
    patterns = (r"step (\d+) at", r"t = ([\d.]+)", r"log-SNR (-[\d.]+)", r"(\d+) of 16 samples", r"of step (\d+)")
    found = [re.search(pattern, said.last) for pattern in patterns]
    assert None not in found and f"the loss is {value}" in said.last, said.last
    step, t, log_snr, bad, kept = (float(each[1]) for each in found if each)
    for helps in ("optimizer.lr", "on_nan=skip", "init_from=logs/train/a"):
        assert helps in said.last
    assert 0.985 < t <= 1 and bad >= 1 and kept == step - 1 > 0
    assert log_snr == pytest.approx(float(Cosine(1000).log_snr(torch.tensor([t], dtype=torch.float64))), rel=0.01)
    assert left(tmp_path)["status"] == "failed" and left(tmp_path)["reason"] == said.last.removeprefix("error: ")
    assert last(tmp_path)["global_step"] == kept
    assert all(value.isfinite().all() for value in last(tmp_path)["state_dict"].values() if torch.is_tensor(value))


def test_a_gradient_that_is_not_finite_stops_it_too(typed, tmp_path: Path) -> None:
    said = typed("train", "run=a", *POISONED, "loss.above=0.985", "loss.gradient=true")
    assert said.status == 2
    assert re.search(r"the gradients' norm is nan in step \d+; its largest loss, [\d.]+, at t = [\d.]+, ", said.last)


def column(folder: Path, name: str) -> list[float]:
    with (folder / "logs" / "train" / "a" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("gradient", ["false", "true"])
@pytest.mark.parametrize("parts", [1, 2])
def test_such_steps_are_passed_over_and_counted_where_that_is_asked_for(
    typed, tmp_path: Path, gradient: str, parts: int
) -> None:
    words = (*POISONED, "loss.above=0.95", f"loss.gradient={gradient}", "on_nan=skip")
    said = typed("train", "run=a", *words, f"trainer.accumulate_grad_batches={parts}")
    assert said.status == 0, said.err
    skipped = left(tmp_path)["records"]["training"]["skipped"]
    assert 0 < skipped < 12
    assert column(tmp_path, "train/skipped") == list(range(1, skipped + 1))
    losses, norms = (column(tmp_path, f"train/{name}") for name in ("loss", "grad_norm"))
    assert all(math.isfinite(loss) and loss > 0.05 for loss in losses) and all(math.isfinite(norm) for norm in norms)
    assert last(tmp_path)["callbacks"]["DivergenceGuard"]["skipped"] == skipped
    state = last(tmp_path)["optimizer_states"][0]["state"]
    assert {int(moments["step"]) for moments in state.values()} == {12 - skipped}
    assert math.isfinite(left(tmp_path)["metrics"]["test/simple"])


def test_a_step_passed_over_leaves_weights_and_moments_as_they_were(typed, tmp_path: Path) -> None:
    words = ("loss.above=-1", "on_nan=skip", "callbacks.guard.most=100")
    typed("train", "run=a", *POISONED, *words, "trainer.max_steps=1")
    before = last(tmp_path)
    typed("train", "run=a", *POISONED, *words, "trainer.max_steps=9", "overwrite=true")
    after = last(tmp_path)
    assert after["global_step"] == 9 and after["optimizer_states"][0]["state"] == {}
    assert all(
        torch.equal(before["state_dict"][key], value) for key, value in after["state_dict"].items() if ".net" in key
    )


def test_at_most_so_many_in_a_row_are_passed_over(typed, tmp_path: Path) -> None:
    said = typed("train", "run=a", *POISONED, "loss.above=-1", "on_nan=skip", "callbacks.guard.most=3")
    assert said.status == 2
    assert "in step 4 at t = " in said.last
    assert "(16 of 16 samples); so were the 3 steps before, which were skipped: lower optimizer.lr" in said.last


def fed(losses: list[float], **numbers: Any) -> DivergenceGuard:
    """A guard that has weighed such means over 100 steps, each of one spread."""
    guard = DivergenceGuard(**numbers)
    for mean in losses:
        guard.seen += 50
        guard.weigh(torch.tensor([100.0, 100 * mean, 100 * (mean**2 + 0.1**2)], dtype=torch.float64))
    return guard


def test_a_loss_that_rises_far_above_where_it_began_stops_the_run() -> None:
    with pytest.raises(UserError) as told:
        fed([1.0, 0.4, 0.2, 0.3, 5.3])
    for named in ("diverges", "5.3", "step 250", "was 1 ", "0.2 at best", "optimizer.lr"):
        assert named in str(told.value)


@pytest.mark.parametrize(
    "losses", [[1.0, 0.2, 4.9], [-0.6, -0.8, -0.7, 0.3], [5.0, 5.4, 4.7, 5.45], [0.5] * 5, [0.2, 0.25, 0.1]]
)
def test_one_that_does_not_is_left_alone(losses: list[float]) -> None:
    fed(losses)


def test_negative_losses_are_weighed_by_how_far_they_fell(typed) -> None:
    with pytest.raises(UserError, match="diverges"):
        fed([-0.6, -0.8, 0.5])
    fed([-0.6, -0.8, 0.5], factor=math.inf)


def test_a_run_that_diverges_is_stopped(typed, tmp_path: Path) -> None:
    words = ("optimizer.lr=3", "trainer.gradient_clip_val=0", "callbacks.guard.every=4", "trainer.max_steps=60")
    said = typed("train", "run=a", *SMALL, *words, "loss.normalize=false", "lr_schedule=constant")
    assert said.status == 2 and "error: the run diverges: its loss is " in said.last, said.last
    assert left(tmp_path, "status.json")["state"] == "failed"
