"""Yardsticks of samples beyond the Fréchet distance: what they say of perfect samples, and of such as have drifted."""

import math
from typing import Any

import pytest
import torch
from exact_cases import normal
from torch import Tensor

from scorelab.data.images import Digits
from scorelab.denoisers import Exact, FixedSmall
from scorelab.errors import Refusal
from scorelab.evaluation import (
    Colour,
    EvaluationContext,
    EvaluationSettings,
    Frechet,
    InceptionScore,
    KernelDistance,
    Memorization,
    PrecisionRecall,
    Recognition,
)
from scorelab.evaluation.features import features_of, reference_features
from scorelab.laws import FiniteSet
from scorelab.metrics.colour import parts, statistics
from scorelab.metrics.compared import inception_score, kernel_distance, precision_recall
from scorelab.metrics.features import DigitsExtractor
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine

SPLITS = Digits().splits()


def context(*sets: Tensor, **more: Any) -> EvaluationContext:
    """Digits, judged by given sets of samples."""
    train, test = SPLITS["train"], SPLITS["test"]
    exact = Exact(Cosine(100), FixedSmall(), FiniteSet(train.values, levels=17), 17)
    settings = EvaluationSettings(samples=len(sets[0]) if sets else 20, repeats=len(sets) or 2)
    made: dict[str, Any] = {
        "denoiser": exact,
        "sampler": DDIM(2),
        "settings": settings,
        "train": train.values,
        "train_labels": train.labels,
        "held_out": test.values,
        "labels": test.labels,
        "extractor": DigitsExtractor(),
        "exact_train": exact,
        "chance": 0.0,
    }
    found = EvaluationContext(**(made | {"loss": None, "timesteps": None} | more))
    if sets:
        found.sample_sets = list(sets)
    return found


def brighter(values: Tensor, share: float) -> Tensor:
    """Levels raised by a share of the range on average, by chance where it is less than one level."""
    shift = share * 16 * torch.ones(values.shape)
    raised = shift.floor() + (torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < shift % 1)
    return (values + raised).clamp(0, 16).to(torch.uint8)


def test_samples_two_percent_too_bright_are_many_standard_errors_off_and_held_out_images_are_not() -> None:
    test, off = SPLITS["test"].values, []
    for samples in (test, brighter(test, 0.02)):
        found = Colour().run(context(samples), None)
        off.append(found.records["standard_errors"]["colour_mean"])
    assert off[0] < 2 and off[1] > 5


def test_brightness_colours_and_spectrum_are_what_their_names_say() -> None:
    """A shift moves the mean alone, a contrast the covariance by its square less 1, a blur the spectrum."""
    x = 128 + 20 * normal(200, 3, 8, 8)
    mean, covariance, spectrum = (part.squared for part in parts(3))

    def seen(changed: Tensor) -> Tensor:
        return statistics(changed)

    assert mean(seen(x + 5), seen(x)) == pytest.approx(25)
    assert covariance(seen(x + 5), seen(x)) == pytest.approx(0, abs=1e-12)
    assert spectrum(seen(x + 5), seen(x)) == pytest.approx(0, abs=1e-12)
    centred = x - x.mean((0, 2, 3), keepdim=True)
    assert covariance(seen(1.1 * centred), seen(centred)) == pytest.approx(0.21**2)
    assert spectrum(seen(1.1 * centred), seen(centred)) == pytest.approx((2 * math.log(1.1)) ** 2)
    mixed = centred.clone()
    mixed[:, 1] = centred[:, 0]
    assert covariance(seen(mixed), seen(centred)) > 0.1


def test_the_power_by_radius_is_that_of_a_wave_where_it_is() -> None:
    across = torch.arange(16, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * 3 * across / 16).expand(1, 1, 16, 16)
    rings = statistics(wave)[0, 2:]
    assert rings.argmax() == 2 and rings[2] == pytest.approx(0.5) and rings.sum() == pytest.approx(0.5)


def test_the_exact_denoiser_keeps_the_brightness_of_noise_and_one_that_is_biased_does_not() -> None:
    class Brighter(Exact):
        def forward(self, x_t, t, label=None):
            said = super().forward(x_t, t, label)
            return said.__class__(said.x_t, said.alpha, said.sigma, said.x0 + 0.04, said.eps)

    exact = context().denoiser
    for denoiser, drifts in ((exact, False), (Brighter(exact.schedule, exact.variance, exact.law, 17), True)):
        low, chance = Colour().low(context(denoiser=denoiser))
        assert low is not None and chance is not None
        assert (low > 4 * chance) is drifts


def test_the_kernel_distance_is_its_formula_and_has_no_bias() -> None:
    x, y = normal(40, 5, seed=1), normal(50, 5, seed=2) + 0.3

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 5 + 1) ** 3

    rows = [(kernel(a, a).sum() - kernel(a, a).diagonal().sum()) / (len(a) * (len(a) - 1)) for a in (x, y[:40])]
    expected = rows[0] + rows[1] - 2 * kernel(x, y[:40]).mean()
    found = kernel_distance(x, y[:40], size=40, subsets=1)
    assert found.value == pytest.approx(float(expected), rel=1e-6)
    alike = [kernel_distance(normal(30, 5, seed=k), normal(30, 5, seed=99 + k)).value for k in range(60)]
    assert abs(sum(alike) / 60) < 3 * torch.tensor(alike).std() / math.sqrt(60)
    with pytest.raises(Refusal, match="2 images"):
        kernel_distance(x[:1], y)


def test_precision_and_recall_tell_what_is_missing_from_what_is_too_much() -> None:
    reference = torch.cat([normal(100, 4, seed=1), normal(100, 4, seed=2) + 50])
    half = normal(200, 4, seed=3)
    found = precision_recall(half, reference)
    assert found.precision > 0.8 and found.recall < 0.6
    found = precision_recall(torch.cat([reference[:100], 200 + normal(100, 4, seed=4)]), reference)
    assert found.precision == pytest.approx(0.5) and found.recall >= 0.5
    with pytest.raises(Refusal, match="more than 3 images"):
        precision_recall(half[:3], reference)


def test_the_inception_score_counts_the_classes_that_are_there() -> None:
    sure = 100 * torch.eye(10, dtype=torch.float64).repeat(6, 1)
    assert inception_score(sure).value == pytest.approx(10)
    assert inception_score(sure[:1].repeat(20, 1)).value == pytest.approx(1)
    assert inception_score(torch.zeros(20, 10)).value == pytest.approx(1)


def test_held_out_digits_look_like_perfect_samples_to_every_yardstick() -> None:
    judged = context(SPLITS["test"].values)
    kid = KernelDistance(subsets=5).run(judged, None)
    assert abs(kid.metrics["kid"] - kid.metrics["kid_floor"]) < 3 * kid.records["excess_se"]
    shares = PrecisionRecall().run(judged, None).metrics
    assert shares["precision"] == shares["precision_control"] > 0.7
    assert shares["recall"] == shares["recall_control"] > 0.7
    score = InceptionScore().run(judged, None)
    assert score.metrics["is"] == score.metrics["is_control"] > 8 and score.records["is_classes"] == 10


@pytest.mark.parametrize("yardstick", [Frechet(), Memorization(), Recognition(), InceptionScore()], ids=type)
def test_of_several_sets_the_mean_is_told_and_its_standard_error(yardstick: Any) -> None:
    sets = SPLITS["test"].values[:90], SPLITS["test"].values[90:], SPLITS["val"].values[:90]
    each = [yardstick.run(context(one), None) for one in sets]
    found = yardstick.run(context(*sets), None)
    for name, values in found.records["repeats"].items():
        alone = torch.tensor([one.metrics[name] for one in each], dtype=torch.float64)
        assert values == pytest.approx(alone.tolist())
        assert found.metrics[name] == pytest.approx(float(alone.mean()))
        assert found.records["repeats_se"][name] == pytest.approx(float(alone.std() / math.sqrt(3)))
    if isinstance(yardstick, Frechet):
        assert found.metrics["fid_excess"] == pytest.approx(found.metrics["fid"] - found.metrics["fid_floor"])
        assert found.records["excess_se"] < each[0].records["excess_se"]
    assert "repeats" not in each[0].records


def test_several_sets_cost_as_many_evaluations_and_have_noise_of_their_own() -> None:
    judged = context()
    assert judged.sampling_cost == 2 * 20 * 2
    first, second = judged.sample_sets
    assert judged.sampling_cost == 0 and not torch.equal(first, second)
    assert torch.equal(first, context(settings=EvaluationSettings(samples=20)).samples)


def test_features_of_a_reference_are_kept_and_never_read_for_another(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SCORELAB_CACHE", str(tmp_path))
    monkeypatch.setattr("scorelab.evaluation.features.LARGE", 100)
    values, extractor = SPLITS["train"].values[:200], DigitsExtractor()
    expected = features_of(values, 17, extractor)
    for _ in range(2):
        assert torch.equal(reference_features(values, 17, extractor), expected)
    assert len(list(tmp_path.glob("*/values"))) == 1
    changed = values.clone()
    changed[7, 0, 3, 3] += 1
    assert torch.equal(reference_features(changed, 17, extractor), features_of(changed, 17, extractor))
    assert not torch.equal(reference_features(changed, 17, extractor), expected)
    assert len(list(tmp_path.glob("*/values"))) == 2
    next(tmp_path.glob("*/values")).write_bytes(b"cut")
    for each in (values, changed):
        assert torch.equal(reference_features(each, 17, extractor), features_of(each, 17, extractor))


def test_where_the_cache_cannot_be_written_they_are_computed(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCORELAB_CACHE", str(tmp_path / "file" / "folder"))
    monkeypatch.setattr("scorelab.evaluation.features.LARGE", 100)
    values, extractor = SPLITS["train"].values[:120], DigitsExtractor()
    assert torch.equal(reference_features(values, 17, extractor), features_of(values, 17, extractor))
