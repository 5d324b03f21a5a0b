"""Yardsticks on denoisers whose worth is known in closed form, and a budget that is kept."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import choices, choose, each
from oracles import FiniteSetOracle, GaussianOracle, Watched, normal, seeded
from torch import Tensor

from scorelab.denoisers import Denoiser, FixedLarge, FixedSmall
from scorelab.judge import (
    Bound,
    Case,
    Curve,
    Frechet,
    Metric,
    NoiseError,
    OverBudget,
    VariationalBound,
    judge,
    noise_error,
)
from scorelab.judge.base import draw_samples
from scorelab.judge.bound import exact_bound, sampled_bound, step_law
from scorelab.samplers import DDIM, DDPM
from scorelab.schedules import Cosine, Linear
from scorelab.tensors import from_levels, to_levels

SHAPE, LEVELS = (1, 4, 4), 17
WHOLE = [Linear(1000), Cosine(1000)]
PARTIAL = [Linear(30), Cosine(100, s=1.0), Cosine(4)]


def oracle(schedule=None, variance=None, levels: int | None = LEVELS) -> GaussianOracle:
    mean, std = 0.3 * normal(*SHAPE, seed=1), 0.2 + 0.3 * normal(*SHAPE, seed=2).abs()
    return GaussianOracle(schedule or Cosine(1000), variance or FixedSmall(), mean, std, levels)


def pixels(n: int, seed: int = 3) -> Tensor:
    return to_levels(oracle().draw(n, seeded(seed)), LEVELS)


def case(denoiser: Denoiser, metric: Metric, sampler=None) -> Case:
    train, held_out = pixels(40, 4), pixels(20, 5)
    labels = torch.arange(40) % 2
    return Case(denoiser, sampler or DDIM(10), metric, train, labels, held_out, labels[:20], extractor=None)


# --- the error of the predicted noise


def test_the_bins_are_40_from_minus_12_to_12_and_simple_is_the_19_of_them_from_minus_48_to_66():
    centres, width = Curve.centres(), 24 / 40
    assert centres.tolist() == pytest.approx([-12 + width * (k + 0.5) for k in range(40)])
    inside = (centres - width / 2 > -4.8 - 1e-9) & (centres + width / 2 < 6.6 + 1e-9)
    assert int(inside.sum()) == 19
    error, se = torch.arange(40).double() ** 2, torch.arange(40).double()
    curve = Curve(error, se, list(range(12, 31)))
    assert Curve(error, se, list(range(13, 40))).simple is None
    assert math.isnan(Curve(error * float("nan"), se, list(range(40))).simple or 0.0), "not finite is not missing"
    assert curve.simple == pytest.approx(float(error[inside].mean()))
    assert curve.simple_se == pytest.approx(float(se[inside].square().sum().sqrt()) / 19)


def test_two_judges_use_the_same_noise_whatever_has_been_drawn_before():
    denoiser, x0 = oracle(), oracle().draw(50, seeded())
    first = noise_error(denoiser, x0, None)
    torch.rand(100)
    again = noise_error(denoiser, x0, None, chunk=7)
    assert torch.allclose(first.error, again.error, rtol=1e-12, equal_nan=True)
    assert torch.allclose(first.se, again.se, rtol=1e-9, equal_nan=True)


@pytest.mark.parametrize("levels", [None, LEVELS])
def test_the_yardstick_is_the_same_under_two_schedules_for_what_depends_on_log_snr_alone(levels):
    x0 = oracle().draw(60, seeded())
    curves = [noise_error(oracle(schedule, levels=levels), x0, None) for schedule in WHOLE]
    assert curves[0].simple == pytest.approx(curves[1].simple, rel=1e-4)
    both = curves[0].error.isfinite() & curves[1].error.isfinite()
    assert both.sum() > 30
    assert torch.allclose(curves[0].error[both], curves[1].error[both], rtol=1e-4)


@each("schedule")
def test_a_perfect_denoiser_of_one_point_has_no_error_in_any_bin(schedule):
    point = normal(1, *SHAPE)
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=1000), FixedSmall(), point)
    curve = noise_error(denoiser, point.expand(20, -1, -1, -1), None)
    assert curve.error.isfinite().sum() > 30
    assert curve.error.nan_to_num(0).max() < 1e-12


@each("schedule")
def test_the_error_of_the_exact_denoiser_is_the_posterior_variance_of_the_noise(schedule):
    """In each bin the mean of alpha^2 std^2 / (alpha^2 std^2 + sigma^2) over dimensions and log-SNR."""
    denoiser = oracle(choose("schedule", schedule, num_steps=1000))
    curve = noise_error(denoiser, denoiser.draw(800, seeded(7)), None)
    within = (torch.arange(200, dtype=torch.float64) + 0.5) / 200 - 0.5
    snr = torch.exp(Curve.centres()[:, None] + 0.6 * within)[:, :, None]
    expected = (snr * denoiser.std.flatten() ** 2 / (snr * denoiser.std.flatten() ** 2 + 1)).mean((1, 2))
    there = curve.error.isfinite()
    assert there.sum() > 30
    assert ((curve.error - expected).abs()[there] < 5 * curve.se[there]).all()
    assert abs(curve.simple - float(expected[12:31].mean())) < 5 * curve.simple_se
    assert (curve.se[there] < 0.05 * expected[there].clamp(min=1e-3)).all()


def test_the_yardstick_does_not_clip_the_predicted_data():
    """x^_0 of 1.2 where the data are 1 is an error, even for pixels."""
    far = FiniteSetOracle(Linear(1000), FixedSmall(), torch.full((1, *SHAPE), 1.2), levels=LEVELS)
    curve = noise_error(far, torch.ones(10, *SHAPE), None)
    assert curve.error[20] == pytest.approx(0.04 * math.exp(Curve.centres()[20]), rel=0.35)


@pytest.mark.parametrize("schedule", PARTIAL, ids=["linear-30", "cosine-s", "cosine-4"])
def test_a_bin_not_wholly_inside_a_schedules_range_is_missing_and_simple_with_it(schedule):
    denoiser, x0 = oracle(schedule), oracle().draw(10, seeded())
    curve = noise_error(denoiser, x0, None)
    low, high = schedule.log_snr_range()
    centres = Curve.centres()
    inside = (centres - 0.3 >= low - 1e-9) & (centres + 0.3 <= high + 1e-9)
    assert 0 < inside.sum() < 40
    assert torch.equal(curve.error.isfinite(), inside)
    assert torch.equal(curve.se.isfinite(), inside)
    assert curve.simple is None
    assert curve.simple_se is None
    result = NoiseError().run(case(denoiser, Metric()), None)
    assert result.metrics == {"simple": None}
    assert f"{high:.1f}" in result.records["missing"]
    assert [value is not None for value in result.records["error"]] == inside.tolist()


def test_the_network_is_never_asked_outside_its_schedules_range():
    watched = Watched(oracle(Linear(30)))
    noise_error(watched, oracle().draw(10, seeded()), None)
    times = torch.cat(watched.times)
    assert times.min() >= 1 / 30 - 1e-12
    assert times.max() <= 1


# --- the bound


@pytest.mark.parametrize("variance", choices("variance"))
@pytest.mark.parametrize("make", [FiniteSetOracle, GaussianOracle])
def test_the_sampled_bound_is_the_exact_one_and_its_standard_error_is_its_scatter(make, variance):
    schedule, variance = Cosine(40), choose("variance", variance)
    x0 = from_levels(pixels(16), LEVELS)
    if make is FiniteSetOracle:
        denoiser = FiniteSetOracle(schedule, variance, from_levels(pixels(30, 9), LEVELS), LEVELS)
    else:
        denoiser = oracle(schedule, variance)
    exact = [exact_bound(denoiser, x0, None, seed) for seed in range(30)]
    found = [sampled_bound(denoiser, x0, None, 1e9, seed=100 + seed) for seed in range(40)]
    for name in ("total", "diffusion", "decoder"):
        one, other = (torch.tensor([getattr(bound, name) for bound in row]) for row in (exact, found))
        se = math.hypot(float(one.std()) / math.sqrt(30), float(other.std()) / math.sqrt(40))
        assert abs(float(one.mean() - other.mean())) < 4 * se, name
    assert found[0].prior == exact[0].prior
    scatter = float(torch.tensor([bound.total for bound in found]).std())
    claimed = math.sqrt(sum(bound.se**2 for bound in found) / 40)
    assert 0.5 < claimed / scatter < 2
    assert exact[0].se is None


def test_the_sampled_bound_goes_on_until_its_error_is_within_the_tolerance():
    denoiser, x0 = Watched(oracle(Cosine(40))), from_levels(pixels(16), LEVELS)
    loose = sampled_bound(denoiser, x0, None, 1e9)
    assert loose.evaluations == denoiser.images == 16 * 8 * 2
    tolerance = loose.se / 3
    tight = sampled_bound(denoiser, x0, None, tolerance)
    assert tight.se <= tolerance
    assert loose.evaluations * 4 < tight.evaluations == denoiser.images - loose.evaluations


@pytest.mark.parametrize("levels", [None, LEVELS])
def test_the_exact_bound_visits_every_step_of_every_image_once_and_clips_pixels_alone(levels):
    far = FiniteSetOracle(Cosine(20), FixedSmall(), torch.full((1, *SHAPE), 1.5), levels)
    one = FiniteSetOracle(Cosine(20), FixedSmall(), torch.full((1, *SHAPE), 1.0), levels)
    watched, x0 = Watched(far), torch.ones(3, *SHAPE)
    bound = exact_bound(watched, x0, None)
    times = torch.stack(watched.times)
    assert torch.allclose(times, far.schedule.grid()[1:, None].expand(20, 3))
    assert bound.evaluations == 60
    clipped = exact_bound(one, x0, None)
    assert (bound.total == pytest.approx(clipped.total, abs=1e-9)) is (levels is not None)
    assert clipped.diffusion == pytest.approx(0, abs=1e-9)


def test_the_exact_bound_of_perfect_pixels_is_the_prior_and_a_narrow_decoder():
    """One image, known: no diffusion loss, and the decoder gives its levels nearly all the mass."""
    image = from_levels(pixels(1), LEVELS)
    denoiser = FiniteSetOracle(Cosine(1000), FixedLarge(), image, LEVELS)
    bound = exact_bound(denoiser, image.expand(2, -1, -1, -1), None)
    step = denoiser.schedule
    ratio = [
        float(t.posterior_variance / t.forward_variance)
        for t in (step.transition(*step.grid()[i - 1 : i + 1, None]) for i in range(2, 1001))
    ]
    constant = sum(r - 1 - math.log(r) for r in ratio) / 2 / math.log(2)
    assert bound.diffusion == pytest.approx(constant, rel=1e-4)
    assert bound.decoder == pytest.approx(0, abs=1e-6)
    assert 0 < bound.prior < 1e-4


@each("schedule")
def test_the_law_of_steps_is_a_law_that_leaves_no_step_out(schedule):
    law = step_law(oracle(choose("schedule", schedule, num_steps=100)))
    assert len(law) == 99
    assert float(law.sum()) == pytest.approx(1)
    assert (law >= 0.1 / 99 - 1e-12).all()


@pytest.mark.parametrize("left", [0, 300, 2000])
def test_a_bound_that_cannot_be_told_within_its_evaluations_is_refused_with_what_it_needs(left):
    watched = Watched(oracle(Cosine(40)))
    with pytest.raises(OverBudget, match=f"about [0-9,]+ network evaluations.*{left:,} are left"):
        sampled_bound(watched, from_levels(pixels(16), LEVELS), None, 1e-4, left=left)
    assert watched.images <= max(left, 16 * 8 * 2)


# --- judging


def test_judging_says_beforehand_what_it_costs_and_spends_just_that():
    watched, said = Watched(oracle(Cosine(1000))), []
    parts = {"simple": NoiseError(), "vlb": VariationalBound()}
    verdict = judge(parts, case(watched, Metric(bound="exact")), said.append)
    bins = sum(value is not None for value in verdict.records["simple"]["error"])
    assert verdict.records["simple"]["evaluations"] == 20 * bins
    assert verdict.records["vlb"]["evaluations"] == 20 * 1000
    assert f"{20 * bins + 20_000:,} network evaluations" in said[0]
    assert len(said) == 1
    timing = 2 * 256
    assert watched.images == timing + 20 * bins + 20_000


def test_a_part_over_budget_is_left_out_by_name_with_its_reason_and_nothing_is_shrunk():
    denoiser = oracle(Cosine(100))
    whole = case(denoiser, Metric(bound="exact"))
    simple, full = NoiseError(), VariationalBound()
    cost = simple.cost(whole)
    for budget, there in ((cost + 2000, True), (cost + 1999, False)):
        watched, said = Watched(denoiser), []
        metric = Metric(bound="exact", budget=budget)
        verdict = judge({"simple": simple, "vlb": full}, case(watched, metric), said.append)
        record = verdict.records["vlb"]
        assert verdict.metrics["test/simple"] == simple.run(whole, None).metrics["simple"]
        if there:
            assert verdict.metrics["test/vlb"] == full.run(whole, None).metrics["vlb"]
            assert (record["evaluations"], record["images"], record["steps"]) == (2000, 20, 100)
            assert len(said) == 1
        else:
            assert [verdict.metrics[f"test/{name}"] for name in full.names] == [None] * 4
            assert record["evaluations"] == 0
            assert "2,000 network evaluations, 1,999 are left: raise metric.budget" in record["skipped"]
            assert "vlb skipped" in said[1]
            assert watched.images == 2 * 256 + cost


def test_a_part_left_out_does_not_take_the_next_with_it():
    metric = Metric(bound="exact", budget=1000)
    parts = {"vlb": VariationalBound(), "simple": NoiseError()}
    verdict = judge(parts, case(oracle(Cosine(1000)), metric), lambda line: None)
    assert verdict.metrics["test/vlb"] is None
    assert verdict.metrics["test/simple"] > 0


def test_a_sampled_bound_that_turns_out_too_long_is_left_out_too():
    metric = Metric(tolerance=1e-5, budget=20 * 16 + 5)
    verdict = judge({"vlb": VariationalBound()}, case(oracle(Cosine(1000)), metric), lambda line: None)
    assert verdict.metrics == dict.fromkeys(f"test/{name}" for name in VariationalBound.names)
    assert "raise metric.budget" in verdict.records["vlb"]["skipped"]


def test_samples_that_cannot_be_paid_are_never_drawn():
    watched = Watched(oracle(Cosine(50)))
    metric = Metric(chunk=16, budget=48 * 10 - 1)  # 40 samples are three whole chunks of 16
    verdict = judge({"fid": Frechet()}, case(watched, metric), lambda line: None)
    assert verdict.metrics == {"test/fid": None, "test/fid_floor": None, "test/fid_excess": None}
    assert "480 network evaluations, 479 are left" in verdict.records["fid"]["skipped"]
    assert watched.images == 2 * 16


def test_the_bound_is_its_prior_its_steps_and_its_decoder():
    assert Bound(1.0, 2.0, 4.0, None, 0).total == 7
    denoiser, x0 = oracle(Linear(30)), from_levels(pixels(16), LEVELS)
    alpha, sigma = (part.flatten()[0] for part in denoiser.coefficients(torch.ones(1)))
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    marginal = torch.distributions.Normal(alpha * x0.double(), sigma)
    expected = torch.distributions.kl_divergence(marginal, prior).mean() / math.log(2)
    assert exact_bound(denoiser, x0, None).prior == pytest.approx(float(expected), rel=1e-5)


def test_the_parts_of_the_bound_add_up_and_their_circumstances_are_recorded():
    denoiser = oracle(Cosine(40), FixedLarge())
    verdict = judge({"vlb": VariationalBound()}, case(denoiser, Metric(tolerance=0.05)), lambda line: None)
    parts = [verdict.metrics[f"test/vlb{part}"] for part in ("_prior", "_diffusion", "_decoder")]
    assert verdict.metrics["test/vlb"] == pytest.approx(sum(parts))
    record = verdict.records["vlb"]
    assert record["se_over_times_and_noise"] <= 0.05
    assert record["estimator"] == "sampled"
    assert (record["images"], record["steps"], record["decoder"], record["x0_clipped"]) == (20, 40, "levels", True)


# --- samples


def test_the_first_samples_do_not_depend_on_how_many_follow_nor_on_what_was_drawn_before():
    denoiser, labels = oracle(Cosine(50)), torch.arange(25) % 3
    few, many = (draw_samples(denoiser, DDPM(10), SHAPE, labels[:n], 0, 8) for n in (11, 25))
    assert torch.equal(few, many[:11])
    assert few.dtype == torch.uint8
    assert int(few.max()) < LEVELS
    assert not torch.equal(many[:8], many[8:16])
    assert not torch.equal(few, draw_samples(denoiser, DDPM(10), SHAPE, labels[:11], 1, 8))


def test_a_case_draws_as_many_samples_as_the_train_split_has_unless_told_and_only_once():
    watched = Watched(oracle(Cosine(50)))
    whole = case(watched, Metric(chunk=40))
    assert whole.sampling_cost == 40 * 10
    assert len(whole.samples) == 40
    assert whole.samples is whole.samples
    assert whole.sampling_cost == 0
    assert watched.images == 400


@pytest.mark.parametrize(("samples", "chunk"), [(7, 256), (40, 16), (45, 9)])
def test_samples_cost_what_was_said_beforehand(samples, chunk):
    watched = Watched(oracle(Cosine(50)))
    asked = case(watched, Metric(samples=samples, chunk=chunk))
    said = asked.sampling_cost
    assert len(asked.samples) == samples
    assert watched.images == said


def test_held_out_images_are_judged_as_data_in_minus_one_to_one():
    held = case(oracle(), Metric())
    x0, labels = held.held_out_data()
    assert torch.equal(to_levels(x0, LEVELS), held.held_out)
    assert x0.abs().max() <= 1
    assert len(labels) == 20


def test_images_are_not_judged_where_a_denoiser_knows_no_levels():
    with pytest.raises(ValueError, match="no pixel levels"):
        case(oracle(levels=None), Metric()).held_out_data()


@pytest.mark.parametrize(
    "numbers",
    [
        {"budget": -1},
        {"tolerance": 0.0},
        {"tolerance": -0.1},
        {"tolerance": math.nan},
        {"samples": 1},
        {"samples": 0},
        {"chunk": 0},
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        Metric(**numbers)


def test_numbers_at_their_limits_are_taken():
    assert Metric(budget=0, samples=2, chunk=1, tolerance=1e-9).budget == 0


class Broken(Denoiser):
    """Answers nothing finite."""

    def forward(self, x_t, t, label=None):
        truth = self.noised(x_t, t, x_t)
        return replace(truth, x0=truth.x0 * float("nan"))


def test_a_part_that_finds_no_number_says_so_and_its_cost_is_taken_from_the_budget():
    denoiser = Broken(Cosine(), FixedSmall(), LEVELS)
    judged = case(denoiser, Metric(budget=1000, tolerance=1e-9, chunk=64))
    lines: list[str] = []
    verdict = judge({"vlb": VariationalBound()}, judged, lines.append)
    assert verdict.metrics["test/vlb"] is None
    assert "not finite" in verdict.records["vlb"]["skipped"]
    assert verdict.records["vlb"]["evaluations"] == len(judged.held_out)
