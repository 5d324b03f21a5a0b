"""Yardsticks on denoisers whose worth is known in closed form, and a budget that is kept."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import choose, each, each_grid
from exact_cases import FiniteSetOracle, GaussianOracle, Watched, digits_like, network, normal, seeded
from torch import Tensor

from scorelab.denoisers import Denoiser, FixedLarge, FixedSmall, Rescheduled
from scorelab.errors import OverBudget, Unavailable
from scorelab.evaluation import (
    EvaluationContext,
    EvaluationSettings,
    Frechet,
    HeldOutBound,
    NoiseError,
    NoiseErrorCurve,
    Recognition,
    noise_error,
    run_yardsticks,
)
from scorelab.evaluation.base import draw_samples
from scorelab.evaluation.curves import ByBin, Mean, centres, integral
from scorelab.evaluation.noise_error import common_bound
from scorelab.likelihood import Bound, exact_bound, sampled_bound
from scorelab.likelihood.terms import step_law
from scorelab.log_snr import SIMPLE
from scorelab.losses import Simple, Uniform
from scorelab.metrics.features import Extractor
from scorelab.metrics.fidelity import Chance, class_chance, floor_kind, frechet_floor
from scorelab.samplers import DDIM, DDPM
from scorelab.schedules import VP, Cosine, Linear, Sigmoid
from scorelab.tensors import from_levels, to_levels

SHAPE, LEVELS = (1, 4, 4), 17
WHOLE = [Linear(1000), Cosine(1000)]
PARTIAL = [Linear(30), Cosine(100, s=1.0), Cosine(4)]


def named(schedule) -> str:
    """Its class and number of steps."""
    return f"{type(schedule).__name__}-{schedule.num_steps}"


def oracle(schedule=None, variance=None, levels: int | None = LEVELS) -> GaussianOracle:
    mean, std = 0.3 * normal(*SHAPE, seed=1), 0.2 + 0.3 * normal(*SHAPE, seed=2).abs()
    return GaussianOracle(schedule or Cosine(1000), variance or FixedSmall(), mean, std, levels)


def pixels(n: int, seed: int = 3) -> Tensor:
    return to_levels(oracle().draw(n, seeded(seed)), LEVELS)


def curve_of(each: Tensor, reached: range, cut: Tensor | None = None) -> NoiseErrorCurve:
    """A curve of these errors (40, N)."""
    return NoiseErrorCurve(*(ByBin(errors, list(reached)) for errors in (each, each if cut is None else cut)))


def case(denoiser: Denoiser, metric: EvaluationSettings, sampler=None) -> EvaluationContext:
    train, held_out = pixels(40, 4), pixels(20, 5)
    labels = torch.arange(40) % 2
    return EvaluationContext(
        denoiser, sampler or DDIM(10), metric, train, labels, held_out, labels[:20], None, Simple(), Uniform()
    )


# --- the error of the predicted noise


def test_the_bins_are_40_from_minus_12_to_12_and_simple_is_the_19_of_them_from_minus_48_to_66():
    middle, width = centres(), 24 / 40
    assert middle.tolist() == pytest.approx([-12 + width * (k + 0.5) for k in range(40)])
    inside = (middle - width / 2 > -4.8 - 1e-9) & (middle + width / 2 < 6.6 + 1e-9)
    assert int(inside.sum()) == 19
    error = normal(40, 25).square()
    curve = curve_of(error, range(12, 31))
    assert curve_of(error, range(13, 40)).simple is None
    assert math.isnan(curve_of(error * float("nan"), range(40)).simple or 0.0), "not finite is not missing"
    assert curve.simple == pytest.approx(float(error[inside].mean()))
    assert curve.errors.over(SIMPLE).se == pytest.approx(float(error[inside].mean(0).std()) / 5), (
        "of the images' own means"
    )
    assert curve.errors.se.tolist() == pytest.approx((error.std(1) / 5).tolist())


def test_two_judges_use_the_same_noise_whatever_has_been_drawn_before():
    denoiser, x0 = oracle(), oracle().draw(50, seeded())
    first = noise_error(denoiser, x0, None)
    torch.rand(100)
    again = noise_error(denoiser, x0, None, chunk=7)
    assert torch.allclose(first.errors.mean, again.errors.mean, rtol=1e-12, equal_nan=True)
    assert torch.allclose(first.errors.se, again.errors.se, rtol=1e-9, equal_nan=True)


@pytest.mark.parametrize("levels", [None, LEVELS])
def test_the_yardstick_is_the_same_under_two_schedules_for_what_depends_on_log_snr_alone(levels):
    x0 = oracle().draw(60, seeded())
    curves = [noise_error(oracle(schedule, levels=levels), x0, None) for schedule in WHOLE]
    assert curves[0].simple == pytest.approx(curves[1].simple, rel=1e-4)
    both = curves[0].errors.mean.isfinite() & curves[1].errors.mean.isfinite()
    assert both.sum() > 30
    assert torch.allclose(curves[0].errors.mean[both], curves[1].errors.mean[both], rtol=1e-4)


@each_grid
def test_a_perfect_denoiser_of_one_point_has_no_error_in_any_bin(schedule):
    point = normal(1, *SHAPE)
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=1000), FixedSmall(), point)
    curve = noise_error(denoiser, point.expand(20, -1, -1, -1), None)
    assert curve.errors.mean.isfinite().sum() > 20
    assert curve.errors.mean.nan_to_num(0).max() < 1e-12


@each_grid
def test_the_error_of_the_exact_denoiser_is_the_posterior_variance_of_the_noise(schedule):
    """In each bin the mean of alpha^2 std^2 / (alpha^2 std^2 + sigma^2) over dimensions and log-SNR."""
    denoiser = oracle(choose("schedule", schedule, num_steps=1000))
    curve = noise_error(denoiser, denoiser.draw(800, seeded(7)), None)
    within = (torch.arange(200, dtype=torch.float64) + 0.5) / 200 - 0.5
    snr = torch.exp(centres()[:, None] + 0.6 * within)[:, :, None]
    expected = (snr * denoiser.std.flatten() ** 2 / (snr * denoiser.std.flatten() ** 2 + 1)).mean((1, 2))
    there = curve.errors.mean.isfinite()
    assert there.sum() > 20
    assert ((curve.errors.mean - expected).abs()[there] < 5 * curve.errors.se[there]).all()
    if curve.simple is None:  # of a table whose first step is too noisy
        assert schedule == "constant"
        return
    assert abs(curve.simple - float(expected[12:31].mean())) < 5 * curve.errors.over(SIMPLE).se
    assert (curve.errors.se[there] < 0.05 * expected[there].clamp(min=1e-3)).all()


def test_the_yardstick_does_not_clip_the_predicted_data():
    """x^_0 of 1.2 where the data are 1 is an error, even for pixels."""
    far = FiniteSetOracle(Linear(1000), FixedSmall(), torch.full((1, *SHAPE), 1.2), levels=LEVELS)
    curve = noise_error(far, torch.ones(10, *SHAPE), None)
    assert curve.errors.mean[20] == pytest.approx(0.04 * math.exp(centres()[20]), rel=0.35)


@pytest.mark.parametrize("schedule", PARTIAL, ids=["linear-30", "cosine-s", "cosine-4"])
def test_a_bin_not_wholly_inside_a_schedules_range_is_missing_and_simple_with_it(schedule):
    denoiser, x0 = oracle(schedule), oracle().draw(10, seeded())
    curve = noise_error(denoiser, x0, None)
    low, high = schedule.log_snr_range()
    inside = (centres() - 0.3 >= low - 1e-9) & (centres() + 0.3 <= high + 1e-9)
    assert 0 < inside.sum() < 40
    assert torch.equal(curve.errors.mean.isfinite(), inside)
    assert torch.equal(curve.errors.se.isfinite(), inside)
    assert curve.simple is None
    assert curve.errors.over(SIMPLE).se is None
    result = NoiseError().run(case(denoiser, EvaluationSettings()), None)
    assert result.metrics == {"simple": None, "vlb_common": None}
    assert result.records["simple_se"] is result.records["vlb_common_se"] is None
    assert f"{low:.1f}, {high:.1f}] does not contain [-4.8, 6.6]" in result.records["missing"]
    assert [value is not None for value in result.records["error"]] == inside.tolist()


def test_the_network_is_never_asked_outside_its_schedules_range():
    watched = Watched(oracle(Linear(30)))
    noise_error(watched, oracle().draw(10, seeded()), None)
    times = torch.cat(watched.times)
    assert times.min() >= 1 / 30 - 1e-12
    assert times.max() <= 1


# --- the bound that all schedules share


class Undecided(Denoiser):
    """Another denoiser, which puts a learned variance a third of the way."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner = inner

    def forward(self, x_t, t, label=None):
        return replace(self.inner(x_t, t, label), variance_fraction=torch.full_like(x_t, 1 / 3))


def gaussian_integral(denoiser: GaussianOracle, low: float, high: float, x0: Tensor | None = None) -> float:
    """1/2 int E||eps - eps^||^2 dlambda in bits/dim, at x_0 or on average over its law.

    With u = S std^2 and r = (x_0 - mean)^2 / std^2 the error is (u^2 + u r) / (1 + u)^2, and dlambda = du / u.
    """
    off = torch.ones(1, *SHAPE).double() if x0 is None else ((x0.double() - denoiser.mean) / denoiser.std) ** 2

    def primitive(log_snr: float) -> Tensor:
        u = math.exp(log_snr) * denoiser.std**2
        return torch.log1p(u) + (1 - off) / (1 + u)

    return float((primitive(high) - primitive(low)).mean()) / (2 * math.log(2))


def level_entropy(log_snr: float, levels: int, x0: Tensor) -> float:
    """-E log2 P(x_0 | x_t) of the softmax over levels, by quadrature over the noise, as a mean over pixels."""
    eps = torch.linspace(-9, 9, 6001, dtype=torch.float64)
    law = torch.exp(-eps.square() / 2)
    law = law / law.sum()
    sigma, k = math.exp(-log_snr / 2), torch.linspace(-1, 1, levels, dtype=torch.float64)
    found = []
    for value in x0.double().unique():
        at = value + sigma * eps  # x_t / alpha
        logits = -((at[:, None] - k) ** 2) / (2 * sigma**2)
        right = int((k - value).abs().argmin())
        nats = -(torch.log_softmax(logits, 1)[:, right] * law).sum()
        found.append(float(nats) * float((x0.double() == value).double().mean()))
    return sum(found) / math.log(2)


@pytest.mark.parametrize("trained", ["cosine", "linear", "vp"])
def test_one_network_is_worth_the_same_in_the_times_of_every_schedule(trained):
    """A network of (x_t, t) under one schedule, asked in another's: the same images, noise and log-SNR."""
    denoiser, x0 = network(trained, steps=None if trained == "vp" else 1000), digits_like(24)
    others = [Cosine(1000), Linear(1000), VP(), VP(1000), Cosine(None)]
    seen = []
    for shown in (denoiser, *(Rescheduled(denoiser, schedule) for schedule in others)):
        curve = noise_error(shown, x0, None)
        seen.append((curve.simple, common_bound(shown, curve, x0).value))
    assert torch.tensor(seen).std(0).max() < 1e-4
    for simple, bound in seen:
        assert simple == pytest.approx(seen[0][0], rel=1e-4)
        assert bound == pytest.approx(seen[0][1], rel=1e-4)


@pytest.mark.parametrize("levels", [None, LEVELS])
@pytest.mark.parametrize("schedule", [Cosine(1000), Linear(1000), VP(), VP(1000), Cosine(None)], ids=named)
def test_the_common_integral_of_a_gaussian_is_that_of_its_posterior_variance(schedule, levels):
    denoiser = oracle(schedule, levels=levels)
    x0 = denoiser.draw(400, seeded(11))
    curve = noise_error(denoiser, x0, None)
    each = integral(curve.errors.each)
    se = float(each.std()) / math.sqrt(len(each))
    expected = gaussian_integral(denoiser, -4.8, 9.0)
    assert se < 0.02 * expected
    if levels is None:
        assert abs(curve.integral - expected) < 5 * se
        assert common_bound(denoiser, curve, x0) == Mean(), "points have no softmax over levels"
    else:  # a Gaussian does not keep to [-1, 1], so that the cut matters; what is cut is the same for all schedules
        reference = noise_error(oracle(Cosine(1000)), x0, None)
        assert curve.integral == pytest.approx(reference.integral, rel=1e-4)
        assert torch.equal(curve.cut.mean.isfinite(), curve.errors.mean.isfinite())


@pytest.mark.parametrize("known", [8, 16])
@pytest.mark.parametrize("schedule", [Cosine(1000), Linear(1000), VP()], ids=named)
def test_the_common_bound_of_equally_likely_images_is_the_logarithm_of_how_many_the_denoiser_knows(schedule, known):
    """I-MMSE: 1/2 int mmse dS = I(x_0; x_t). Nothing else is left: a process that ends in noise, levels far apart.

    The data are 8 images; a denoiser that thinks 16 possible spends one bit more on each.
    """
    half = from_levels(pixels(8, 21), LEVELS)
    points = torch.cat([half[: known // 2], -half[: known // 2]])  # their mean is 0, so that x_t is nearly N(0, I)
    data = torch.cat([half[:4], -half[:4]])
    denoiser = FiniteSetOracle(schedule, FixedSmall(), points, LEVELS)
    x0 = data.repeat(200, 1, 1, 1)
    curve = noise_error(denoiser, x0, None)
    bound = common_bound(denoiser, curve, x0)
    entropy = math.log2(known) / 16
    assert bound.se < 0.02 * entropy
    assert bound.value > entropy - 3 * bound.se
    assert abs(bound.value - entropy) < 4 * bound.se + 1e-3


@pytest.mark.parametrize("levels", [17, 256])
def test_the_common_bound_of_one_known_image_is_what_its_ends_cost(levels):
    """No integral: KL(q(x | x_0) || N(0, I)) at log-SNR -4.8, and the softmax over levels at 9."""
    image = from_levels(torch.randint(0, levels, (1, 1, 16, 16), generator=seeded(5)), levels)
    denoiser = FiniteSetOracle(Cosine(1000), FixedSmall(), image, levels)
    x0 = image.expand(300, -1, -1, -1)
    curve = noise_error(denoiser, x0, None)
    assert curve.integral == pytest.approx(0, abs=1e-6)
    alpha2 = 1 / (1 + math.exp(4.8))
    marginal = torch.distributions.Normal(alpha2**0.5 * image.double(), (1 - alpha2) ** 0.5)
    prior = torch.distributions.kl_divergence(marginal, torch.distributions.Normal(0.0, 1.0)).mean() / math.log(2)
    decoder = level_entropy(9.0, levels, image)
    assert (decoder > 0.5) is (levels == 256)
    assert common_bound(denoiser, curve, x0).value == pytest.approx(float(prior) + decoder, rel=0.01, abs=1e-6)


def test_the_common_bound_clips_the_predicted_data_where_the_curve_does_not():
    far = FiniteSetOracle(Linear(1000), FixedSmall(), torch.full((1, *SHAPE), 1.2), levels=LEVELS)
    curve = noise_error(far, torch.ones(10, *SHAPE), None)
    assert curve.integral == pytest.approx(0, abs=1e-6)
    assert curve.simple > 1


def test_the_common_bound_has_the_23_bins_from_minus_48_to_9():
    error = torch.arange(40).double()[:, None] ** 2
    inside = error[(centres() > -4.8) & (centres() < 9.0)]
    assert len(inside) == 23
    curve = curve_of(error * float("nan"), range(12, 35), cut=error)
    assert curve.integral == pytest.approx(0.3 * float(inside.sum()) / math.log(2))
    assert curve_of(error, range(13, 40)).integral is None
    assert curve_of(error, range(34)).integral is None


def test_a_schedule_that_is_never_clean_enough_has_no_common_bound_and_says_why():
    """The sigmoid of 1,000 steps begins below a log-SNR of 9, so its simple error is known and its bound is not."""
    denoiser = oracle(Sigmoid(1000))
    result = NoiseError().run(case(denoiser, EvaluationSettings()), None)
    low, high = denoiser.log_snr_range()
    assert 6.6 < high < 9.0
    assert result.metrics["simple"] > 0
    assert result.metrics["vlb_common"] is None
    assert f"[{low:.1f}, {high:.1f}] does not contain [-4.8, 9.0]" in result.records["missing"]
    whole = NoiseError().run(case(oracle(Cosine(1000)), EvaluationSettings()), None)
    assert whole.metrics["vlb_common"] > 0
    assert "missing" not in whole.records


# --- the bound


@each("variance")
def test_the_sampled_bound_is_the_exact_one_and_its_standard_error_is_its_scatter(variance):
    """Of a list of images under a learned variance, and of a Gaussian under the others, so that both are seen."""
    make = FiniteSetOracle if variance == "learned" else GaussianOracle
    schedule, variance = Cosine(40), choose("variance", variance)
    x0 = from_levels(pixels(16), LEVELS)
    if make is FiniteSetOracle:
        denoiser = Undecided(FiniteSetOracle(schedule, variance, from_levels(pixels(30, 9), LEVELS), LEVELS))
    else:
        denoiser = Undecided(oracle(schedule, variance))
    exact = [exact_bound(denoiser, x0, None, seed) for seed in range(8)]
    found = [sampled_bound(denoiser, x0, None, 1e9, seed=100 + seed) for seed in range(24)]
    for name in ("total", "diffusion", "decoder"):
        one, other = (torch.tensor([getattr(bound, name) for bound in row]) for row in (exact, found))
        se = math.hypot(float(one.std()) / math.sqrt(8), float(other.std()) / math.sqrt(24))
        assert abs(float(one.mean() - other.mean())) < 4 * se, name
    assert found[0].prior == exact[0].prior
    scatter = float(torch.tensor([bound.total for bound in found]).std())
    claimed = math.sqrt(sum(bound.se**2 for bound in found) / 24)
    assert 0.5 < claimed / scatter < 2
    assert exact[0].se is None


def test_the_sampled_bound_goes_on_until_its_error_is_within_the_tolerance():
    denoiser, x0 = Watched(oracle(Cosine(40))), from_levels(pixels(16), LEVELS)
    loose = sampled_bound(denoiser, x0, None, 1e9)
    assert loose.evaluations == denoiser.images == 16 * (32 + 8)
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


@each_grid
def test_the_law_of_steps_is_a_law_that_leaves_no_step_out(schedule):
    law = step_law(oracle(choose("schedule", schedule, num_steps=100)))
    assert len(law) == 99
    assert float(law.sum()) == pytest.approx(1)
    assert (law >= 0.1 / 99 - 1e-12).all()


@pytest.mark.parametrize("left", [0, 300, 2000])
@pytest.mark.parametrize("schedule", [Cosine(40), VP()], ids=named)
def test_a_bound_that_cannot_be_told_within_its_evaluations_is_refused_with_what_it_needs(left, schedule):
    watched = Watched(oracle(schedule))
    with pytest.raises(OverBudget, match=f"about [0-9,]+ network evaluations.*{left:,} are left"):
        sampled_bound(watched, from_levels(pixels(16), LEVELS), None, 0.01, left=left)
    assert watched.images <= max(left, 16 * 8 * 2)


@pytest.mark.parametrize("left", [None, 10**12])
@pytest.mark.parametrize("schedule", [Cosine(40), VP()], ids=named)
def test_a_bound_that_would_take_more_rounds_than_there_are_is_refused_as_soon_as_that_can_be_told(schedule, left):
    """Whatever the budget: more of it would not help, and the reason does not ask for it."""
    watched = Watched(oracle(schedule))
    with pytest.raises(
        Unavailable, match=r"a standard error of 1e-05 bits/dim would take about \d\.\de\+\d+ rounds"
    ) as end:
        sampled_bound(watched, from_levels(pixels(16), LEVELS), None, 1e-5, left=left)
    assert not isinstance(end.value, OverBudget)
    assert end.value.evaluations == watched.images <= 16 * 8 * 2


def test_whatever_the_tolerance_a_bound_is_told_within_its_rounds_or_given_up(monkeypatch):
    """Told; or refused once it is clear that there would be more; or, between these, after the last round."""
    monkeypatch.setattr("scorelab.likelihood.bound.MOST", 42)
    x0, ends = from_levels(pixels(16), LEVELS), []
    spread = sampled_bound(oracle(Cosine(40)), x0, None, 1e9).se * math.sqrt(32)  # of a round
    for part in torch.linspace(1, 9, 41).tolist():
        watched, tolerance = Watched(oracle(Cosine(40))), spread / part
        try:
            bound = sampled_bound(watched, x0, None, tolerance, seed=2)
        except Unavailable as refusal:
            ends.append("early" if "would take about" in str(refusal) else "last")
            assert (watched.images == 42 * 16) is ("after 42 rounds" in str(refusal)) is (ends[-1] == "last")
            assert refusal.evaluations == watched.images
        else:
            ends.append("told")
            assert bound.se <= tolerance
        assert watched.images <= 42 * 16
    assert set(ends) == {"told", "last", "early"}
    assert (ends[0], ends[-1]) == ("told", "early")


class Shortened(Cosine):
    """The cosine's shape between the log-SNRs of VP's ends."""

    cut = (VP().log_snr_range()[0], 20.0)


CONTINUOUS = [VP(), Shortened(None), Cosine(None)]


@pytest.mark.parametrize("schedule", CONTINUOUS, ids=named)
def test_the_continuous_bound_of_a_gaussian_is_its_closed_form_and_meets_the_likelihood(schedule):
    """Points: prior KL, an integral and a Gaussian density at log-SNR 13.3; together -log p(x_0), but for the ends."""
    denoiser = oracle(schedule, levels=None)
    x0 = denoiser.draw(1000, seeded(31))
    bound = sampled_bound(denoiser, x0, None, 0.01, left=1_000_000)
    low, high = schedule.log_snr_range()
    assert high == pytest.approx(13.3)
    assert bound.se <= 0.01
    assert abs(bound.diffusion - gaussian_integral(denoiser, low, high, x0)) < 5 * bound.se
    density = (math.log(2 * math.pi) - high + 1) / (2 * math.log(2))
    assert abs(bound.decoder - density) < 5 * bound.se
    alpha2 = 1 / (1 + math.exp(-low))
    marginal = torch.distributions.Normal(alpha2**0.5 * x0, (1 - alpha2) ** 0.5)
    prior = torch.distributions.kl_divergence(marginal, torch.distributions.Normal(0.0, 1.0)).mean() / math.log(2)
    assert bound.prior == pytest.approx(float(prior), rel=1e-6)
    nll = float(denoiser.nll(x0).mean()) / (16 * math.log(2))
    assert abs(bound.total - nll) < 5 * bound.se + 1e-3


def test_the_continuous_bound_ignores_the_schedules_shape_between_the_same_ends():
    ends = [schedule.log_snr_range() for schedule in CONTINUOUS]
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)
    assert ends[2][0] == pytest.approx(-20)
    x0 = from_levels(pixels(500), LEVELS)
    one, same, longer = (sampled_bound(oracle(schedule), x0, None, 0.02, left=500_000) for schedule in CONTINUOUS)
    for name in ("prior", "diffusion", "decoder", "total"):
        assert getattr(one, name) == pytest.approx(getattr(same, name), rel=1e-6), name
    assert one.total != longer.total
    assert abs(one.total - longer.total) < 4 * math.hypot(one.se, longer.se)


@pytest.mark.parametrize("levels", [17, 256])
def test_the_continuous_bound_decodes_pixels_at_the_integrals_end_and_asks_no_network_for_it(levels):
    image = from_levels(torch.randint(0, levels, (1, *SHAPE), generator=seeded(5)), levels)
    watched = Watched(FiniteSetOracle(VP(), FixedSmall(), image, levels))
    bound = sampled_bound(watched, image.expand(100, -1, -1, -1), None, 1e-3, left=100_000)
    assert bound.diffusion == pytest.approx(0, abs=1e-6)
    decoder = level_entropy(13.3, levels, image)
    assert (decoder > 0.005) is (levels == 256)
    assert abs(bound.decoder - decoder) < 5 * bound.se + 1e-6
    assert bound.evaluations == watched.images == 100 * 32


def test_the_bound_of_many_steps_nears_the_continuous_one():
    """Of 8 known images, at their entropy: what T steps lose in the sum and, first of all, in the decoder, is gone."""
    half = from_levels(pixels(4, 21), LEVELS)
    points = torch.cat([half, -half])
    x0 = points.repeat(30, 1, 1, 1)
    limit = sampled_bound(FiniteSetOracle(VP(), FixedSmall(), points, LEVELS), x0, None, 3e-3, left=500_000)
    assert abs(limit.total - math.log2(8) / 16) < 5 * limit.se + 1e-4
    excess = []
    for steps in (25, 100, 400):
        bound = exact_bound(FiniteSetOracle(VP(steps), FixedSmall(), points, LEVELS), x0, None)
        excess.append((bound.total - limit.total, bound.diffusion - limit.diffusion))
    assert excess[0][0] > 1
    assert excess[0][1] > 0.05
    assert 0.05 < excess[1][0] < 0.2
    assert 0.01 < excess[1][1] < 0.5 * excess[0][1]
    assert abs(excess[2][0]) < 4 * limit.se + 0.005


def test_a_bound_is_refused_beforehand_where_there_are_no_steps_to_sum():
    part = HeldOutBound()
    with pytest.raises(ValueError, match=r"evaluation\.bound=sampled"):
        part.check(oracle(VP()), EvaluationSettings(bound="exact"))
    with pytest.raises(ValueError, match=r"num_steps of 2 or more"):
        part.check(oracle(Cosine(1)), EvaluationSettings())
    part.check(oracle(VP()), EvaluationSettings())
    part.check(oracle(Cosine(2)), EvaluationSettings(bound="exact"))
    NoiseError().check(oracle(Cosine(1)), EvaluationSettings(bound="exact"))


def test_the_continuous_bound_is_judged_within_its_cost_and_recorded_without_steps():
    watched = Watched(oracle(VP()))
    parts = {"vlb": HeldOutBound()}
    results = run_yardsticks(parts, case(watched, EvaluationSettings(tolerance=0.05, chunk=7)), lambda line: None)
    record = results.records["vlb"]
    assert results.metrics["test/vlb"] == pytest.approx(
        sum(results.metrics[f"test/vlb_{name}"] for name in ("prior", "diffusion", "decoder"))
    )
    assert record["se_over_times_and_noise"] <= 0.05
    assert record["steps"] is None
    assert record["log_snr"] == pytest.approx(VP().log_snr_range())
    assert parts["vlb"].cost(case(watched, EvaluationSettings())) == 20 * 32
    assert record["evaluations"] == watched.images - 3 * 7 >= 20 * 32


# --- evaluating


def test_judging_says_beforehand_what_it_costs_and_spends_just_that():
    watched, said = Watched(oracle(Cosine(1000))), []
    parts = {"simple": NoiseError(), "vlb": HeldOutBound()}
    results = run_yardsticks(parts, case(watched, EvaluationSettings(bound="exact")), said.append)
    bins = sum(value is not None for value in results.records["simple"]["error"])
    assert results.records["simple"]["evaluations"] == 20 * bins
    assert results.records["vlb"]["evaluations"] == 20 * 1000
    assert f"{20 * bins + 20_000:,} network evaluations" in said[0]
    assert len(said) == 1
    timing = 3 * 256
    assert watched.images == timing + 20 * bins + 20_000


def test_a_part_over_budget_is_left_out_by_name_with_its_reason_and_nothing_is_shrunk():
    denoiser = oracle(Cosine(100))
    whole = case(denoiser, EvaluationSettings(bound="exact"))
    simple, full = NoiseError(), HeldOutBound()
    cost = simple.cost(whole)
    for budget, there in ((cost + 2000, True), (cost + 1999, False)):
        watched, said = Watched(denoiser), []
        metric = EvaluationSettings(bound="exact", budget=budget)
        results = run_yardsticks({"simple": simple, "vlb": full}, case(watched, metric), said.append)
        record = results.records["vlb"]
        assert results.metrics["test/simple"] == simple.run(whole, None).metrics["simple"]
        if there:
            assert results.metrics["test/vlb"] == full.run(whole, None).metrics["vlb"]
            assert (record["evaluations"], record["images"], record["steps"]) == (2000, 20, 100)
            assert len(said) == 1
        else:
            assert [results.metrics[f"test/{name}"] for name in full.names] == [None] * 4
            assert record["evaluations"] == 0
            assert (
                "evaluations, 1,999 are left: set evaluation.bound=sampled, or raise evaluation.budget"
                in record["skipped"]
            )
            assert "vlb skipped" in said[1]
            assert watched.images == 3 * 256 + cost


def test_a_part_left_out_does_not_take_the_next_with_it():
    metric = EvaluationSettings(bound="exact", budget=1000)
    parts = {"vlb": HeldOutBound(), "simple": NoiseError()}
    results = run_yardsticks(parts, case(oracle(Cosine(1000)), metric), lambda line: None)
    assert results.metrics["test/vlb"] is None
    assert results.metrics["test/simple"] > 0


@pytest.mark.parametrize(("tolerance", "paid"), [(0.01, True), (1e-5, False)])
def test_a_sampled_bound_that_turns_out_too_long_is_left_out_too(tolerance, paid):
    """A larger budget is asked for where it would help, and not where there would be too many rounds."""
    metric = EvaluationSettings(tolerance=tolerance, budget=20 * 40 + 5)
    results = run_yardsticks({"vlb": HeldOutBound()}, case(oracle(Cosine(1000)), metric), lambda line: None)
    assert results.metrics == dict.fromkeys(f"test/{name}" for name in HeldOutBound.names)
    assert ("raise evaluation.budget" in results.records["vlb"]["skipped"]) is paid
    assert 0 < results.records["vlb"]["evaluations"] <= 20 * 40 + 5


def test_samples_that_cannot_be_paid_are_never_drawn():
    watched = Watched(oracle(Cosine(50)))
    metric = EvaluationSettings(chunk=16, budget=40 * 10 - 1)
    results = run_yardsticks({"fid": Frechet()}, case(watched, metric), lambda line: None)
    assert results.metrics == {"test/fid": None, "test/fid_floor": None, "test/fid_excess": None}
    assert (
        "400 network evaluations, 399 are left: lower evaluation.samples or sampler.steps, or raise"
        in results.records["fid"]["skipped"]
    )
    assert watched.images == 3 * 16


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
    results = run_yardsticks(
        {"vlb": HeldOutBound()}, case(denoiser, EvaluationSettings(tolerance=0.05)), lambda line: None
    )
    parts = [results.metrics[f"test/vlb{part}"] for part in ("_prior", "_diffusion", "_decoder")]
    assert results.metrics["test/vlb"] == pytest.approx(sum(parts))
    record = results.records["vlb"]
    assert record["se_over_times_and_noise"] <= 0.05
    assert record["estimator"] == "sampled"
    assert (record["images"], record["steps"], record["x0_clipped"]) == (20, 40, True)


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
    whole = case(watched, EvaluationSettings(chunk=40))
    assert whole.sampling_cost == 40 * 10
    assert len(whole.samples) == 40
    assert whole.samples is whole.samples
    assert whole.sampling_cost == 0
    assert watched.images == 400


@pytest.mark.parametrize(("samples", "chunk"), [(7, 256), (40, 16), (45, 9)])
def test_samples_cost_what_was_said_beforehand(samples, chunk):
    watched = Watched(oracle(Cosine(50)))
    asked = case(watched, EvaluationSettings(samples=samples, chunk=chunk))
    said = asked.sampling_cost
    assert len(asked.samples) == samples
    assert watched.images == said


@pytest.mark.parametrize(
    ("count", "conditional", "chance", "expected"),
    [
        (40, False, None, Chance()),
        (40, False, 0.0, Chance(1.0, 0.0)),
        (25, False, 0.3, Chance(1.0, 0.3)),
        (40, True, 0.0, Chance(0.0, 0.0)),
        (80, True, 1.0, Chance(0.0, 0.0)),
        (10, True, 0.0, Chance(0.75, 0.0)),
    ],
)
def test_the_floor_is_that_of_the_kind_of_samples_the_case_has(count, conditional, chance, expected):
    evaluated = replace(
        case(oracle(Cosine(50)), EvaluationSettings(samples=count)),
        conditional=conditional,
        chance=chance,
        extractor=Grey(),
    )
    train = evaluated.features_input(evaluated.train)
    floor = frechet_floor(train, Grey(), count, evaluated.train_labels, expected)
    found = Frechet().run(evaluated, None)
    assert found.metrics["fid_floor"] == pytest.approx(floor.value, rel=1e-12)
    assert found.metrics["fid_excess"] == pytest.approx(found.metrics["fid"] - floor.value)
    assert found.records["floor_se"] == floor.se and found.records["excess_se"] == floor.excess_se
    assert found.records["floor"] == floor_kind(conditional, chance)
    assert ("no labels" in found.records["floor"]) is (chance is None)


@pytest.mark.parametrize("count", [10, 40, 100, 130])
def test_labels_given_over_and_over_hold_chance_in_the_round_that_is_cut(count):
    """Against the variance of class counts of as many independent labels; 40/39 as the list is finite."""
    listed, shares = torch.arange(40) < 16, []
    for seed in range(3000):
        order = listed[torch.randperm(40, generator=seeded(seed))]
        shares.append(float(order.repeat(4)[:count].double().mean()))
    found = torch.tensor(shares).var().item() / (0.4 * 0.6 / count) * 39 / 40
    assert class_chance(count, 40, True, None).samples == pytest.approx(found, rel=0.15, abs=1e-9)


class Grey(Extractor):
    """The mean of each row."""

    num_features, name, hash = 4, "test-grey", "0" * 12

    def features(self, images):
        return images.double().mean((1, 3))


class Says(Extractor):
    """A classifier that is sure of bright images, by what it is told to call bright."""

    num_features, name, hash = 1, "test-says", "0" * 12

    def __init__(self, bright: float) -> None:
        super().__init__()
        self.bright = bright

    def features(self, images):
        return images.double().flatten(1).mean(1, keepdim=True)

    def logits(self, images):
        sure = self.features(images)[:, 0] > self.bright
        return torch.stack([torch.where(sure, 5.0, 0.1), torch.zeros(len(images))], 1)


def test_recognised_stands_beside_the_share_of_held_out_images_that_are():
    evaluated = replace(case(oracle(Cosine(50)), EvaluationSettings()), extractor=Says(0.0))
    held_out, samples = (
        evaluated.features_input(x).double().flatten(1).mean(1) for x in (evaluated.held_out, evaluated.samples)
    )
    bright = float(held_out.sort().values[4:6].mean())
    found = Recognition().run(replace(evaluated, extractor=Says(bright)), None).metrics
    assert found["recognised_control"] == pytest.approx(15 / 20)
    assert found["recognised"] == pytest.approx(float((samples > bright).double().mean()))
    assert found["recognised"] != found["recognised_control"]


def test_held_out_images_are_judged_as_data_in_minus_one_to_one():
    held = case(oracle(), EvaluationSettings())
    x0, labels = held.held_out_data()
    assert torch.equal(to_levels(x0, LEVELS), held.held_out)
    assert x0.abs().max() <= 1
    assert len(labels) == 20


def test_points_are_judged_as_they_are():
    """Data without levels are no pixels: nothing is mapped, rounded or cut, neither held-out data nor samples."""
    points = (3 * normal(20, 2, seed=5)).float()
    denoiser = GaussianOracle(Cosine(100), FixedSmall(), torch.zeros(2), torch.full((2,), 3.0))
    labels = torch.arange(20) % 2
    held = EvaluationContext(
        denoiser, DDIM(10), EvaluationSettings(), points, labels, points, labels, None, Simple(), Uniform()
    )
    x0, seen = held.held_out_data()
    assert torch.equal(x0, points)
    assert torch.equal(seen, labels)
    assert held.samples.shape == (20, 2)
    assert held.samples.dtype == torch.float32
    assert held.samples.abs().max() > 3
    found = NoiseError().run(held, None)
    assert found.metrics["simple"] > 0
    assert "vlb_common" not in found.metrics, "a softmax over levels ends it"


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
        EvaluationSettings(**numbers)


def test_numbers_at_their_limits_are_taken():
    assert EvaluationSettings(budget=0, samples=2, chunk=1, tolerance=1e-9).budget == 0


class Broken(Denoiser):
    """Answers nothing finite."""

    def forward(self, x_t, t, label=None):
        truth = self.noised(x_t, t, x_t)
        return replace(truth, x0=truth.x0 * float("nan"))


def test_a_part_that_finds_no_number_says_so_and_its_cost_is_taken_from_the_budget():
    denoiser = Broken(Cosine(), FixedSmall(), LEVELS)
    evaluated = case(denoiser, EvaluationSettings(budget=1000, tolerance=1e-9, chunk=64))
    lines: list[str] = []
    results = run_yardsticks({"vlb": HeldOutBound()}, evaluated, lines.append)
    assert results.metrics["test/vlb"] is None
    assert "not finite" in results.records["vlb"]["skipped"]
    assert results.records["vlb"]["evaluations"] == len(evaluated.held_out)
