"""What makes each further sampler the published one, and the times that a walk may stop at."""

import math

import pytest
import torch
from conftest import choose, each, each_form
from exact_cases import GaussianOracle, Straight, Watched, normal, seeded
from test_samplers import MEAN, STD, affine, oracle, propagated

from scorelab.denoisers import FixedSmall
from scorelab.errors import Refusal
from scorelab.samplers import (
    DDIM,
    RK45,
    SPACINGS,
    Ask,
    DPMpp2M,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
)
from scorelab.schedules import EDM, JSD, VE, VP, Cosine, Flow, Linear


def times_of(sampler, schedule) -> torch.Tensor:
    return sampler.times(oracle(schedule))


# --- spacing


@each_form(100)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_spacing_falls_from_the_most_noise_within_what_was_trained(spacing, schedule, steps):
    denoiser = oracle(choose("schedule", schedule, num_steps=steps))
    for number in (1, 2, 10, 50):
        times = DDIM(number, spacing=spacing).times(denoiser)
        earliest, latest = denoiser.time_range()
        assert (times.diff() < 0).all() and float(times[-1]) == 0
        assert float(times[0]) <= latest and float(times[-2]) >= earliest * (1 - 1e-8)
        if spacing != "leading":
            assert float(times[0]) == latest
            assert len(times) == number + 1
        samples = DDIM(number, spacing=spacing)(denoiser, (2, 3), None, seeded())
        assert samples.isfinite().all()


def test_karras_on_edms_path_is_even_in_time_and_has_the_published_noise_levels():
    times = times_of(Heun(18), EDM())
    assert torch.allclose(times[:-1], torch.linspace(1, 0, 18, dtype=torch.float64), atol=1e-6)
    sigma = EDM().sigma(times[:-1])
    assert sigma[[0, 1, -1]].tolist() == pytest.approx([80, 57.586, 0.002], rel=1e-4)


def test_leading_and_trailing_on_a_grid_are_those_of_diffusers():
    grid = [round(1000 * t) for t in times_of(DDIM(4, spacing="leading"), Linear()).tolist()]
    assert grid == [751, 501, 251, 1, 0]
    grid = [round(1000 * t) for t in times_of(DDIM(4), Linear()).tolist()]
    assert grid == [1000, 750, 500, 250, 0]


def test_quadratic_is_even_in_the_root_of_time_and_log_snr_in_the_log_snr():
    root = times_of(DDIM(6, spacing="quadratic"), Linear())[:-1].sqrt()
    assert torch.allclose(root.diff(), root.diff()[0], rtol=1e-9)
    log_snr = VP().log_snr(times_of(DDIM(6, spacing="log_snr"), VP())[:-1])
    assert torch.allclose(log_snr.diff(), log_snr.diff()[0], rtol=1e-6)


def test_spacings_by_noise_level_refuse_a_process_that_ends_without_signal():
    for spacing in ("log_snr", "karras"):
        with pytest.raises(Refusal, match="spacing=trailing"):
            times_of(DDIM(5, spacing=spacing), JSD(40))
    with pytest.raises(Refusal, match="spacing must be one of trailing"):
        DDIM(5, spacing="odd")
    with pytest.raises(Refusal, match="at most the schedule's own 40 steps"):
        times_of(DDIM(50, spacing="leading"), Linear(40))


# --- samplers


@each_form(200)
def test_euler_is_ddim_without_noise(schedule, steps, double):
    denoiser = oracle(choose("schedule", schedule, num_steps=steps))
    first, second = (walk(denoiser, (16, 3), None, seeded(1)) for walk in (Euler(20), DDIM(20)))
    assert torch.allclose(first, second, rtol=1e-9, atol=1e-9)


def test_euler_on_straight_paths_is_a_step_along_the_velocity(double):
    ask, x = Ask(oracle(Flow())), normal(8, 3)
    t, s = torch.full((8,), 0.6), torch.full((8,), 0.4)
    estimate = ask(x, t)
    assert torch.allclose(Euler().step(ask, estimate, s, t, None), x - 0.2 * (estimate.eps - estimate.x0), rtol=1e-9)


def test_stirring_adds_the_variance_it_says_and_moves_the_time_with_it(double):
    """Of a point at x_0 = 0, one step of Euler from sigma (1 + gamma) leaves x~ sigma_s / (sigma (1 + gamma))."""
    denoiser = GaussianOracle(EDM(), FixedSmall(), [0.0], [1e-9])
    sampler = Euler(10, churn=2.0, churn_min=0.05, churn_max=50.0)
    t, s = (EDM().inverse(-2 * torch.log(torch.tensor([sigma]))) for sigma in (2.0, 1.0))
    slope, _, spread = affine(sampler, denoiser, float(s), float(t), 1)
    gamma = math.sqrt(2) - 1  # 2.0 over one step, cut
    assert float(slope) == pytest.approx(1 / (2 * (1 + gamma)), rel=1e-6)
    assert float(spread) == pytest.approx(math.sqrt((1 + gamma) ** 2 - 1) / (1 + gamma), rel=1e-6)
    outside = Euler(10, churn=2.0, churn_max=1.5)
    assert float(affine(outside, denoiser, float(s), float(t), 1)[2]) == pytest.approx(0, abs=1e-9)


def test_stirred_walks_keep_the_law_they_walk_through():
    denoiser = oracle(EDM())
    drawn = Heun(40, churn=10.0)(denoiser, (20_000, 3), None, seeded(4))
    for place in range(3):
        se = STD[place] / math.sqrt(len(drawn))
        assert float(drawn[:, place].mean()) == pytest.approx(MEAN[place], abs=5 * se)
        assert float(drawn[:, place].std()) == pytest.approx(STD[place], rel=0.03)


def test_heun_takes_35_evaluations_for_18_steps():
    watched = Watched(oracle(EDM()))
    Heun(18)(watched, (2, 3), None, seeded())
    assert len(watched.times) == Heun(18).evaluations(watched) == 35


def test_the_first_step_of_dpmpp_is_ddims_and_the_second_looks_back(double):
    denoiser = oracle(VP())
    ask, x = Ask(denoiser), normal(8, 3)
    walk = torch.tensor([0.9, 0.7, 0.5])
    once, first = (sampler.walk(Ask(denoiser), x, walk[:2], None) for sampler in (DPMpp2M(), DDIM()))
    assert torch.allclose(once, first, rtol=1e-12)
    t, s, u = (torch.full((8,), float(time)) for time in walk)
    half = [0.5 * VP().log_snr(time) for time in (t, s, u)]
    r = (half[1] - half[0]) / (half[2] - half[1])
    told, last = ask(first, s).x0, ask(x, t).x0
    d = (1 + 1 / (2 * r))[:, None] * told - (1 / (2 * r))[:, None] * last
    sigma, alpha = VP().sigma(u) / VP().sigma(s), VP().alpha(u) * (1 - torch.exp(half[1] - half[2]))
    assert torch.allclose(DPMpp2M().walk(Ask(denoiser), x, walk, None), sigma[:, None] * first + alpha[:, None] * d)


@each("sampler")
def test_a_walk_begins_without_signal_or_is_refused(sampler, double):
    walk, denoiser = choose("sampler", sampler), GaussianOracle(Straight(50), FixedSmall(), MEAN, STD)
    if walk.needs_signal:
        with pytest.raises(Refusal, match="needs some signal"):
            walk.evaluations(denoiser)
        return
    assert walk.with_steps(8)(denoiser, (4, 3), None, seeded()).isfinite().all()


def test_stirring_does_no_harm_where_there_is_no_signal(double):
    denoiser = GaussianOracle(Straight(50), FixedSmall(), MEAN, STD)
    assert Euler(8, churn=2.0)(denoiser, (4, 3), None, seeded()).isfinite().all()


def test_a_step_of_euler_maruyama_is_the_reverse_equations(double):
    denoiser, x = oracle(VP()), normal(8, 3)
    t = torch.full((8,), 0.6)
    estimate = denoiser(x, t)
    g2 = float(VP().g2(t)[0])
    slope, _, spread = affine(EulerMaruyama(), denoiser, 0.58, 0.6, 3)
    assert torch.allclose(spread, torch.full((3,), math.sqrt(0.02 * g2)), rtol=1e-9)
    expected = x + 0.02 * (g2 / 2 * x + g2 * estimate.score)
    marginal = denoiser.marginal(t[:1])
    assert torch.allclose(slope, 1 + 0.02 * g2 * (0.5 - 1 / marginal.variance[0]), rtol=1e-9)
    assert torch.allclose(slope * x + (expected - slope * x), expected)


@pytest.mark.parametrize("schedule", [VE(), VP(), Cosine(1000)], ids=lambda s: type(s).__name__)
def test_the_moments_after_a_thousand_corrected_steps_are_right_to_a_twentieth(schedule, double):
    """By propagation, without sampling, up to the last step."""
    denoiser = oracle(schedule)
    times = PredictorCorrector(1000).times(denoiser)[:-1]
    zero, std = torch.zeros(3), torch.full((3,), denoiser.prior_std)
    mean, variance = propagated(PredictorCorrector(), denoiser, times, zero, std**2)
    expected = denoiser.marginal(times[-1:])
    assert torch.allclose(mean, expected.mean[0], rtol=0.05, atol=0.05 * max(STD))
    assert torch.allclose(variance, expected.variance[0], rtol=0.1, atol=0)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow(), Cosine(1000)], ids=lambda s: type(s).__name__)
def test_the_adaptive_solver_is_right_to_ten_times_its_tolerance(schedule, tolerance, double):
    """Against the flow of a Gaussian, which keeps (x - alpha mean) / std_t, from the first time to the last but one."""
    denoiser, z = oracle(schedule), normal(64, 3, seed=5)
    watched = Watched(denoiser)
    first, last, _ = RK45(tolerance).times(denoiser).split(1)
    before, after = denoiser.marginal(first), denoiser.marginal(last)
    ask = Ask(watched)
    found = RK45(tolerance).walk(ask, before.mean + before.stddev * z, torch.cat([first, last]), None)
    scale = max(1.0, float(after.stddev.max()))
    assert (found - after.mean - after.stddev * z).abs().max() < 10 * tolerance * scale * z.abs().max()
    assert 10 < ask.count < 600


def test_the_adaptive_solver_says_about_how_often_it_asks_and_needs_some_signal():
    watched = Watched(oracle(Cosine()))
    drawn = RK45(1e-3)(watched, (4, 3), None, seeded())
    assert drawn.isfinite().all() and torch.equal(drawn, watched.said.x0)
    assert RK45().with_steps(3).tolerance == RK45().tolerance
    with pytest.raises(Refusal, match="needs some signal"):
        RK45().evaluations(oracle(JSD(40)))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Euler(churn=-1.0), "churn must be at least 0"),
        (lambda: PredictorCorrector(snr=0.0), "snr must lie in"),
        (lambda: RK45(0.0), "tolerance must lie in"),
        (lambda: Heun(0), "steps must be at least 1"),
    ],
)
def test_what_makes_no_sampler_is_refused(make, told):
    with pytest.raises(Refusal, match=told):
        make()
