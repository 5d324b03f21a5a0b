"""A run against the exact score of its training set."""

import math

import pytest
import torch
from exact_cases import Offset, digits_like, seeded
from torch import Tensor

from scorelab.config.build import exact_denoiser as of_law
from scorelab.data.images import Digits
from scorelab.data.module import DataModule
from scorelab.denoisers import BestLinear, Denoiser, Exact, FixedSmall
from scorelab.evaluation import EvaluationContext, EvaluationSettings, ExactGap
from scorelab.evaluation.curves import bins_in_range, centres
from scorelab.evaluation.noise_error import noise_error
from scorelab.laws import FiniteSet
from scorelab.log_snr import SIMPLE
from scorelab.losses import Simple, Uniform
from scorelab.report.exact import draw_truth
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine, Linear
from scorelab.tensors import from_levels, to_levels

SCHEDULE = Cosine(1000)
TRAIN, HELD_OUT = (to_levels(digits_like(n, seed), 17) for n, seed in ((60, 1), (20, 2)))


def memory(schedule=SCHEDULE, labels: Tensor | None = None) -> Exact:
    return exact(from_levels(TRAIN, 17), schedule, labels)


def exact(points: Tensor, schedule=SCHEDULE, labels: Tensor | None = None) -> Exact:
    return Exact(schedule, FixedSmall(), FiniteSet(points, labels), 17, labels is not None)


def case(denoiser: Denoiser, truth: Denoiser | None, labels: Tensor | None = None) -> EvaluationContext:
    train_labels = torch.zeros(60).long() if labels is None else labels
    held = torch.zeros(20).long() if labels is None else labels[:20]
    split = (TRAIN, train_labels, HELD_OUT, held)
    return EvaluationContext(
        denoiser, DDIM(2), EvaluationSettings(chunk=7), *split, None, Simple(), Uniform(), exact_train=truth
    )


def test_the_exact_score_of_the_training_set_has_no_gap_to_itself():
    found = ExactGap().run(case(memory(), memory()), None)
    assert found.metrics["exact_gap"] == 0
    assert found.records["network_held_out"] == found.records["exact_held_out"]
    assert found.records["se"] == 0


def test_the_gap_is_the_networks_error_less_the_oracles_on_the_same_noise_and_its_error_that_of_the_pairs():
    """A constant offset c adds c^2 + 2 c mean(eps^ - eps), image by image."""
    network = Offset(memory(), 0.3)
    found = ExactGap().run(case(network, memory()), None)
    x0 = from_levels(HELD_OUT, 17)
    mine, its = (noise_error(each, x0, None).errors.each[SIMPLE] for each in (network, memory()))
    differences = mine - its
    assert found.metrics["exact_gap"] == pytest.approx(float(differences.mean()), rel=1e-5)
    by_bin = differences.std(1) / math.sqrt(20)
    assert found.records["se"] == pytest.approx(float(differences.mean(0).std()) / math.sqrt(20), rel=1e-4)
    assert found.records["gap_se"][SIMPLE] == pytest.approx(by_bin.tolist(), rel=1e-3, abs=1e-6)


def test_the_training_set_is_known_by_heart_and_held_out_images_are_not():
    """At small noise the exact score finds a training image again, and takes a held-out one for another."""
    record = ExactGap().run(case(memory(), memory()), None).records
    at = min(range(40), key=lambda bin: abs(record["log_snr"][bin] - 6))
    assert record["network_train"][at] == pytest.approx(0, abs=1e-6)
    assert record["exact_held_out"][at] > 10
    at = min(range(40), key=lambda bin: abs(record["log_snr"][bin] + 9))
    assert record["network_train"][at] == pytest.approx(record["exact_held_out"][at], rel=0.5)


def test_a_network_that_knows_the_law_beats_the_list_on_held_out_images():
    everything = torch.cat([TRAIN, HELD_OUT])
    wiser = exact(from_levels(everything, 17))
    found = ExactGap().run(case(wiser, memory()), None)
    assert found.metrics["exact_gap"] < -5 * found.records["se"] < 0


def test_beside_it_stands_the_gap_of_the_best_linear_denoiser_of_the_training_set():
    linear = BestLinear(SCHEDULE, FixedSmall(), memory().law, 17)
    of_network, of_itself = (ExactGap().run(case(each, memory()), None) for each in (Offset(memory(), 0.3), linear))
    assert of_network.metrics["exact_gap_linear"] == pytest.approx(of_itself.metrics["exact_gap"], rel=1e-6)
    assert of_network.records["linear_held_out"] == of_itself.records["network_held_out"]
    assert of_network.metrics["exact_gap_linear"] < -1, "mean and covariance of a list say more than the list"


def test_data_of_too_many_dimensions_have_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scorelab.evaluation.linear.MOST_DIMS", 63)
    found = ExactGap().run(case(memory(), memory()), None)
    assert found.metrics.keys() == {"exact_gap"} and "linear_held_out" not in found.records


def test_labels_reach_the_oracle_that_knows_them():
    labels = torch.arange(60) % 2
    blind, knowing = (ExactGap().run(case(memory(), memory(labels=each), labels), None) for each in (None, labels))
    assert blind.metrics["exact_gap"] == 0
    assert knowing.metrics["exact_gap"] != 0


def test_it_costs_what_it_says_and_needs_a_truth_and_the_whole_range():
    part = ExactGap()
    assert part.cost(case(memory(), None)) == len(bins_in_range(memory())) * 40
    assert part.inapplicable(case(memory(), None)) == "this data has no exact score"
    short = memory(Linear(30))
    found = part.run(case(short, short), None)
    assert set(found.metrics.values()) == {None} and "does not contain [-4.8, 6.6]" in found.records["missing"]


@pytest.mark.parametrize("labelled", [False, True])
def test_the_digits_truth_is_the_finite_set_of_the_train_split_alone(labelled):
    data = DataModule(Digits())
    truth = of_law(data.training_law(), memory(), labelled)
    train = data.splits["train"]
    assert torch.equal(truth.law.points.reshape(-1, 1, 8, 8), train.values) and truth.law.levels == 17
    assert truth.schedule is memory().schedule
    x0, label = from_levels(train.values[:5], 17), train.labels[:5]
    t = torch.full((5,), 0.02, dtype=torch.float64)
    x_t = truth.noised(x0, t, torch.randn(x0.shape, generator=seeded())).x_t
    assert torch.allclose(truth(x_t, t, label).x0, x0, atol=1e-4)
    other = truth(x_t, t, (label + 1) % 10).x0
    assert (torch.allclose(other, x0, atol=1e-4)) is not labelled


def test_the_picture_shows_the_three_curves(tmp_path):
    from PIL import Image

    records = [ExactGap().run(case(each, memory()), None).records for each in (memory(), Offset(memory(), 0.5))]
    for number, record in enumerate(records):
        draw_truth(tmp_path / f"{number}.png", {"exact_gap": record})
    one, other = (Image.open(tmp_path / f"{number}.png").tobytes() for number in (0, 1))
    assert len(one) > 100_000 and one != other
    assert len(centres()) == len(records[0]["log_snr"])
    draw_truth(tmp_path / "nothing.png", {"simple": {}})
    assert not (tmp_path / "nothing.png").exists()
