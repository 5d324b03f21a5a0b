"""Distances between sets of points, without features."""

import math

import pytest
import torch
from exact_cases import Watched, normal, seeded
from torch import Tensor

from scorelab.data.images import Digits
from scorelab.data.module import DataModule
from scorelab.data.synthetic import Gaussian, Ring
from scorelab.denoisers import Denoiser, Exact, FixedSmall
from scorelab.evaluation import Distances, EvaluationContext, EvaluationSettings
from scorelab.losses import Simple, Uniform
from scorelab.metrics.points import energy_distance, sliced_wasserstein
from scorelab.samplers import DDIM
from scorelab.schedules import VP
from scorelab.tensors import generator


def between(x: Tensor, y: Tensor, same: bool) -> float:
    """The mean distance of a pair, by two loops; of distinct points where both sets are one."""
    found = [
        math.dist(a, b)
        for i, a in enumerate(x.flatten(1).tolist())
        for j, b in enumerate(y.flatten(1).tolist())
        if not same or i != j
    ]
    return sum(found) / len(found)


# --- energy distance


def test_the_energy_distance_is_what_two_loops_over_pairs_of_distinct_points_say():
    x, y = normal(7, 2, 3), 0.5 + 2 * normal(11, 2, 3, seed=1)
    expected = 2 * between(x, y, False) - between(x, x, True) - between(y, y, True)
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert energy_distance(y, x) == pytest.approx(expected, rel=1e-10)
    assert energy_distance(x.float(), y) == pytest.approx(expected, rel=1e-5)


def test_the_energy_distance_of_two_points_is_twice_how_far_they_are_apart():
    x = torch.zeros(5, 2)
    assert energy_distance(x, x + torch.tensor([3.0, 4.0])) == pytest.approx(10)
    assert energy_distance(x, x) == 0


def test_under_one_law_the_energy_distance_is_0_on_average_however_few_the_points():
    found = torch.tensor(
        [energy_distance(normal(6, 2, seed=k), normal(9, 2, seed=1000 + k)) for k in range(400)], dtype=torch.float64
    )
    assert abs(float(found.mean())) < 5 * float(found.std()) / math.sqrt(400)
    assert (found < 0).any()
    shifted = [energy_distance(normal(6, 2, seed=k), 1 + normal(9, 2, seed=1000 + k)) for k in range(100)]
    assert sum(shifted) / 100 > 0.5


def test_the_energy_distance_of_two_normal_laws_is_known():
    """In one dimension E|N(m, s^2)| = s sqrt(2/pi) exp(-m^2/2s^2) + m erf(m/(s sqrt 2))."""

    def folded(m: float, s: float) -> float:
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * math.sqrt(2)))

    expected = 2 * folded(0.7, math.sqrt(1 + 4)) - folded(0, math.sqrt(2)) - folded(0, math.sqrt(8))
    found = torch.tensor(
        [energy_distance(normal(300, 1, seed=k), 0.7 + 2 * normal(300, 1, seed=500 + k)) for k in range(40)]
    )
    assert abs(float(found.mean()) - expected) < 5 * float(found.std()) / math.sqrt(40)


# --- sliced Wasserstein distance


def test_in_one_dimension_a_shift_is_its_size_and_a_stretch_its_effect_on_the_spread():
    x = normal(50, 1)
    for c in (0.3, -2.0):
        assert sliced_wasserstein(x, x[torch.randperm(50, generator=seeded())] + c, seeded()) == pytest.approx(abs(c))
    expected = float((2 * x - x).square().mean().sqrt())
    assert sliced_wasserstein(x, 2 * x, seeded()) == pytest.approx(expected)


@pytest.mark.parametrize("dims", [2, 5])
def test_a_shift_is_its_size_over_the_root_of_the_dimension(dims):
    """E (theta . c)^2 = |c|^2 / d."""
    x, c = normal(20, dims), torch.arange(1, dims + 1, dtype=torch.float64)
    found = sliced_wasserstein(x, x + c, seeded(), directions=40_000)
    assert found == pytest.approx(float(c.norm()) / math.sqrt(dims), rel=0.02)


def test_directions_are_those_of_the_generator():
    x, y = normal(30, 2), normal(30, 2, seed=1)
    theta = torch.randn(2, 3, generator=seeded(4), dtype=torch.float64)
    theta = theta / theta.norm(dim=0)
    apart = [(x @ v).sort().values - (y @ v).sort().values for v in theta.T]
    expected = torch.cat(apart).square().mean().sqrt()
    assert sliced_wasserstein(x, y, seeded(4), directions=3) == pytest.approx(float(expected), rel=1e-10)
    assert sliced_wasserstein(x, y, seeded(4)) != sliced_wasserstein(x, y, seeded(5))


def test_a_set_of_another_size_is_read_at_its_quantiles():
    x, y = normal(40, 2), normal(20, 2, seed=1)
    assert sliced_wasserstein(x, x.repeat_interleave(3, 0), seeded()) < 1e-12
    expected = sliced_wasserstein(x, y.repeat(2, 1), seeded())
    assert sliced_wasserstein(x, y, seeded()) == pytest.approx(expected)
    assert sliced_wasserstein(y, x, seeded()) == pytest.approx(expected)
    uneven = sliced_wasserstein(normal(4000, 1), 0.5 + normal(2700, 1, seed=1), seeded())
    assert uneven == pytest.approx(0.5, abs=0.1)


def test_its_bias_falls_with_the_number_of_points():
    means = []
    for n in (25, 400):
        pairs = [(normal(n, 2, seed=k), normal(n, 2, seed=1000 + k)) for k in range(20)]
        means.append(sum(sliced_wasserstein(x, y, seeded(k)) for k, (x, y) in enumerate(pairs)) / 20)
    assert 0 < means[1] < 0.4 * means[0]


@pytest.mark.parametrize("points", [(1, 5), (5, 1)])
def test_one_point_has_no_distance_to_others(points):
    x, y = (normal(n, 2) for n in points)
    for found in (energy_distance, lambda x, y: sliced_wasserstein(x, y, seeded())):
        with pytest.raises(ValueError, match="a distance needs at least 2 points, got 1"):
            found(x, y)


# --- of a run's samples


def case(
    denoiser: Denoiser, data: DataModule, law: Denoiser | None = None, samples: int = 400, steps: int = 60
) -> EvaluationContext:
    train, test = data.splits["train"], data.splits["test"]
    split = (train.values, train.labels, test.values, test.labels)
    return EvaluationContext(
        denoiser,
        DDIM(steps),
        EvaluationSettings(samples=samples, chunk=100),
        *split,
        None,
        Simple(),
        Uniform(),
        exact_held_out=law,
    )


def exact(source) -> Exact:
    return Exact(VP(), FixedSmall(), source.law())


def test_samples_of_the_law_are_as_near_to_held_out_data_as_fresh_draws_and_others_are_not():
    data = DataModule(Ring())
    found = Distances().run(case(exact(Ring()), data, exact(Ring())), None)
    assert set(found.metrics) == set(Distances.names)
    energy_se, sliced_se = found.records["floor_se"]
    spread = math.sqrt(10)  # of one set, not of the mean of ten
    assert abs(found.metrics["energy"] - found.metrics["energy_floor"]) < 5 * spread * energy_se + 0.01
    assert abs(found.metrics["sliced_wasserstein"] / found.metrics["sliced_wasserstein_floor"] - 1) < 1
    assert 0 < sliced_se < 0.1 * found.metrics["sliced_wasserstein_floor"] * spread
    worse = Distances().run(case(exact(Gaussian()), data, exact(Ring())), None).metrics
    assert worse["energy"] > worse["energy_floor"] + 20 * energy_se
    assert worse["sliced_wasserstein"] > 3 * worse["sliced_wasserstein_floor"]


def test_both_distances_are_to_held_out_data_and_floors_means_over_fresh_draws_of_as_many():
    data, evaluated = DataModule(Ring()), case(exact(Ring()), DataModule(Ring()), exact(Ring()), samples=60, steps=5)
    found = Distances(floors=4).run(evaluated, None)
    held_out = data.splits["test"].values
    draws = [Ring().law().draw(60, generator("floor", k)).x0.float() for k in range(4)]
    by_name = {
        "energy": energy_distance,
        "sliced_wasserstein": lambda x, y: sliced_wasserstein(x, y, generator("directions")),
    }
    for place, (name, distance) in enumerate(by_name.items()):
        assert found.metrics[name] == pytest.approx(distance(evaluated.samples, held_out), rel=1e-9)
        floors = torch.tensor([distance(each, held_out) for each in draws], dtype=torch.float64)
        assert found.metrics[f"{name}_floor"] == pytest.approx(float(floors.mean()), rel=1e-9)
        assert found.records["floor_se"][place] == pytest.approx(float(floors.std()) / 2, rel=1e-9)
    assert (found.records["n"], found.records["reference"]) == (60, "held-out, 1500")


def test_floors_are_told_of_a_known_law_only_and_levels_not_at_all():
    found = Distances().run(case(exact(Ring()), DataModule(Ring()), samples=50, steps=3), None)
    assert set(found.metrics) == {"energy", "sliced_wasserstein"} and "floor_se" not in found.records
    digits = DataModule(Digits(), limit=30)
    with_levels = Exact(VP(), FixedSmall(), digits.training_law(), 17)
    assert "images of levels are compared by features" in Distances().inapplicable(case(with_levels, digits))


def test_distances_cost_the_samples_alone():
    watched = Watched(exact(Ring()))
    evaluated = case(watched, DataModule(Ring()), exact(Ring()), samples=150, steps=3)
    assert Distances().cost(evaluated) == 150 * 3
    found = Distances(floors=2).run(evaluated, None)
    assert watched.images == found.evaluations == 450
    assert Distances().cost(evaluated) == 0, "they are drawn once"


def test_one_floor_has_no_error():
    with pytest.raises(ValueError, match="floors must be at least 2, got 1"):
        Distances(floors=1)
