"""An objective of a user's own, from a module and a directory outside the package, is trained with and evaluated."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, choices

LOSS = """
import torch
from scorelab.losses import WeightedError

class Mine(WeightedError):
    def __init__(self, power: float = 0.5, normalize: bool = True):
        super().__init__(normalize)
        self.power = power

    def weight(self, denoiser, t):
        return torch.sigmoid(denoiser.schedule.log_snr(t)) ** self.power
"""
COSTLY = ("vlb", "hybrid", "likelihood", "esm", "ism", "ssm")
POINTS = (*(word for word in SMALL if not word.startswith("model")), "data=moons", "model.width=8", "model.blocks=1")


def test_a_loss_of_ones_own_trains_has_a_card_and_is_in_the_matrix_beside_the_programs(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses.py").write_text(LOSS)
    (tmp_path / "own" / "loss").mkdir(parents=True)
    (tmp_path / "own" / "loss" / "mine.yaml").write_text("_target_: my_losses.Mine\n")
    (tmp_path / "own" / "loss" / "milder.yaml").write_text("defaults: [mine]\npower: 0.25\n")
    (tmp_path / "own" / "loss" / "draft.yaml").write_text("- half written, and chosen by nobody\n")
    monkeypatch.syspath_prepend(tmp_path)
    without = [f"metrics.objectives.{name}=null" for name in COSTLY]
    words = ("run=a", "loss=mine", *POINTS, "metrics=[objectives]", "metrics.objectives.items=2", *without)
    told = typed("train", "--config-dir=own", *words)
    assert told.status == 0, told.last
    run = tmp_path / "logs" / "train" / "a"
    kept = set(choices("loss")) - set(COSTLY) | {"mine", "milder"}
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert {f"test/objective_{name}" for name in kept} == {name for name in metrics if "objective" in name}
    assert all(metrics[f"test/objective_{name}"] > 0 for name in ("mine", "milder"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["loss"] == {"_target_": "my_losses.Mine", "power": 0.5, "normalize": True}
    assert config["metrics"]["objectives"]["milder"] == config["loss"] | {"power": 0.25}
    rows = [line.split(",") for line in (run / "card.csv").read_text().splitlines() if not line.startswith("#")]
    columns = {name: torch.tensor([float(row[k]) for row in rows[1:]]).double() for k, name in enumerate(rows[0])}
    assert torch.allclose(columns["weight"], torch.sigmoid(columns["log_snr_low"]).sqrt(), rtol=1e-5)
    again = typed("eval", "run=logs/train/a", "metrics=[simple]")
    assert again.status == 0, again.last
    refused = typed("train", "--config-dir=own", "loss=mine", "data=moons", "variance=learned")
    assert refused.status == 2 and refused.last.startswith("error: loss=mine: this loss gives a learned variance no")
