"""Samplers against closed forms: for a Gaussian law every step is affine and the ODE's flow is known."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import choose, each, each_continuous, each_form, each_grid
from exact_cases import Beside, ExactReverse, FiniteSetOracle, GaussianOracle, Watched, normal, seeded, tiny_unet
from torch import Tensor

from scorelab.denoisers import Denoiser, FixedLarge, FixedSmall, Learned, NetworkDenoiser
from scorelab.samplers import DDIM, DDPM, Sampler
from scorelab.schedules import Cosine, Linear, VariancePreserving

MEAN, STD = [0.4, -0.2, 1.5], [0.7, 1.3, 0.2]
BOTH_ENDS = pytest.mark.parametrize(("s", "t"), [(0.0, 0.02), (0.02, 0.04), (0.3, 0.5), (0.96, 1.0)])


def oracle(schedule, variance=None, levels=None) -> GaussianOracle:
    return GaussianOracle(schedule, variance or FixedSmall(), MEAN, STD, levels)


def at(value: float, n: int) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def affine(sampler: Sampler, denoiser: Denoiser, s: float, t: float, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, offset and spread (D,) of a step x_s = slope x_t + offset + spread z, the z replayed and fitted."""
    n = 8
    x, z = normal(n, dims, seed=1), torch.randn(n, dims, generator=seeded(2), dtype=torch.float64)
    estimate = denoiser(x, at(t, n))
    y = sampler.step(denoiser, estimate, at(s, n), at(t, n), seeded(2))
    fitted = []
    for dim in range(dims):
        design = torch.stack([x[:, dim], torch.ones(n, dtype=torch.float64), z[:, dim]], 1)
        fit = torch.linalg.lstsq(design, y[:, dim]).solution
        assert torch.allclose(design @ fit, y[:, dim], rtol=0, atol=1e-10)
        fitted.append(fit)
    slope, offset, spread = torch.stack(fitted, 1)
    return slope, offset, spread


def propagated(sampler: Sampler, denoiser: GaussianOracle, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) at t = 0 of the walk that starts from these at t = 1."""
    times = sampler.times(denoiser).tolist()
    for t, s in pairwise(times):
        slope, offset, spread = affine(sampler, denoiser, s, t, len(mean))
        mean, variance = slope * mean + offset, slope**2 * variance + spread**2
    return mean, variance


# --- steps that are exact


@each_form(50)
@each("sampler")
@BOTH_ENDS
@pytest.mark.parametrize("more", [{}, {"eta": 0.3}, {"eta": 1.0}])
def test_for_data_of_one_point_a_step_keeps_the_law_exactly(more, s, t, sampler, schedule, steps):
    """beta~ is right when x_0 is one point: N(alpha_t p, sigma_t^2) becomes N(alpha_s p, sigma_s^2)."""
    if more and sampler != "ddim":
        pytest.skip("eta is DDIM's")
    sampler, schedule = choose("sampler", sampler, **more), choose("schedule", schedule, num_steps=steps)
    denoiser = FiniteSetOracle(schedule, FixedSmall(), torch.tensor([MEAN]))
    slope, offset, spread = affine(sampler, denoiser, s, t, 3)
    alpha_s, alpha_t = schedule.alpha(at(s, 1)), schedule.alpha(at(t, 1))
    sigma_s, sigma_t = schedule.sigma(at(s, 1)), schedule.sigma(at(t, 1))
    point = torch.tensor([MEAN], dtype=torch.float32).double()[0]
    assert torch.allclose(slope * alpha_t * point + offset, alpha_s * point, rtol=0, atol=1e-9)
    cut = 0.0 if s else float(sigma_s**2)  # the walk may end in the data itself where a curve is cut before it
    assert torch.allclose(slope**2 * sigma_t**2 + spread**2, sigma_s**2.0, rtol=1e-7, atol=1e-12 + cut)


@each_form(50)
@pytest.mark.parametrize(("s", "t"), [(0.02, 0.04), (0.3, 0.5), (0.96, 1.0)])
def test_for_white_data_an_ancestral_step_with_the_large_variance_keeps_the_law_exactly(s, t, schedule, steps):
    """Where variance is preserved: else the large variance is none of any law's."""
    schedule = choose("schedule", schedule, num_steps=steps)
    if not isinstance(schedule, VariancePreserving):
        pytest.skip("x_t of white data is not white")
    denoiser = GaussianOracle(schedule, FixedLarge(), [0.0, 0.0], 1.0)
    slope, offset, spread = affine(DDPM(), denoiser, s, t, 2)
    assert torch.allclose(offset, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.allclose(slope**2 + spread**2, torch.ones(2, dtype=torch.float64), rtol=1e-9)


@each_form(50)
@pytest.mark.parametrize(("s", "t"), [(0.02, 0.04), (0.3, 0.5), (0.96, 1.0)])
def test_with_the_exact_reverse_variance_an_ancestral_step_keeps_a_gaussian_law_exactly(s, t, schedule, steps):
    denoiser = oracle(choose("schedule", schedule, num_steps=steps), ExactReverse(STD))
    slope, offset, spread = affine(DDPM(), denoiser, s, t, 3)
    before, after = denoiser.marginal(at(t, 1)), denoiser.marginal(at(s, 1))
    assert torch.allclose(slope * before.mean[0] + offset, after.mean[0], rtol=0, atol=1e-10)
    assert torch.allclose(slope**2 * before.variance[0] + spread**2, after.variance[0], rtol=1e-9)


@each_form(50)
@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("s", "t"), [(0.02, 0.04), (0.3, 0.5), (0.96, 1.0)])
def test_ddim_adds_noise_of_eta_times_the_root_of_beta_tilde(s, t, eta, schedule, steps):
    denoiser = oracle(choose("schedule", schedule, num_steps=steps))
    _, _, spread = affine(DDIM(eta=eta), denoiser, s, t, 3)
    alpha_s, alpha_t = (denoiser.schedule.alpha(at(time, 1)) for time in (s, t))
    sigma_s, sigma_t = (denoiser.schedule.sigma(at(time, 1)) for time in (s, t))
    beta_tilde = (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2) * sigma_s**2 / sigma_t**2
    assert torch.allclose(spread, (eta * beta_tilde.sqrt()).expand(3), rtol=1e-8, atol=1e-12)


@each_grid
@each("variance")
@each("sampler")
def test_the_last_step_is_noise_free_and_lands_on_the_predicted_data(sampler, variance, schedule):
    for more in ({}, {"eta": 1.0}) if sampler == "ddim" else ({},):
        walk = choose("sampler", sampler, steps=3, **more)
        watched = Watched(oracle(choose("schedule", schedule, num_steps=50), choose("variance", variance)))
        found = walk(watched, (4, 3), None, seeded(1))
        assert found.isfinite().all()
        assert torch.equal(found, watched.said.x0)


@each_continuous
@each("sampler")
def test_a_continuous_walk_ends_on_the_predicted_data_but_for_the_noise_its_curve_starts_with(sampler, schedule):
    """Which is 4.5e-5 of a cosine cut at log-SNR 20, and none of the others."""
    schedule = choose("schedule", schedule, num_steps=None)
    denoiser, walk, noise = oracle(schedule), choose("sampler", sampler), float(schedule.sigma(at(0, 1)))
    assert noise < 5e-5
    estimate = denoiser(normal(4, 3), at(0.02, 4))
    end = walk.step(denoiser, estimate, at(0, 4), at(0.02, 4), seeded(1))
    assert torch.allclose(end, estimate.x0, rtol=0, atol=1e-12 + 5 * noise)


@each("sampler")
@pytest.mark.parametrize("more", [{}, {"eta": 0.5}])
def test_a_step_uses_noise_if_and_only_if_the_sampler_says_it_is_stochastic(sampler, more):
    if more and sampler != "ddim":
        pytest.skip("eta is DDIM's")
    sampler, denoiser = choose("sampler", sampler, **more), oracle(Cosine(50))
    estimate = denoiser(normal(4, 3), at(0.5, 4))
    one, two = (sampler.step(denoiser, estimate, at(0.4, 4), at(0.5, 4), seeded(seed)) for seed in (1, 2))
    assert sampler.stochastic == (not torch.equal(one, two))


# --- whole walks


@each_form(50)
@pytest.mark.parametrize("number", [10, 50])
@pytest.mark.parametrize("levels", [None, 256])
def test_ddim_at_eta_one_is_ancestral_sampling_with_beta_tilde(levels, number, schedule, steps, double):
    """Given the same noise; with levels x^_0 is clipped, and eps^ is recomputed from it."""
    schedule = choose("schedule", schedule, num_steps=steps)
    denoiser = oracle(schedule, FixedSmall(), levels)
    by_ddim, by_ddpm = (
        sampler(denoiser, (64, 3), None, seeded(3)) for sampler in (DDIM(number, eta=1.0), DDPM(number))
    )
    assert torch.allclose(by_ddim, by_ddpm, rtol=0, atol=1e-8 + 10 * float(schedule.sigma(at(0, 1))))
    if levels:
        free = DDPM(number, clip=False)(denoiser, (64, 3), None, seeded(3))
        assert by_ddpm.abs().max() <= 1 + 1e-6 < free.abs().max()
        assert (free - by_ddpm).abs().max() > 0.1


@each_grid
@pytest.mark.parametrize(("fraction", "fixed"), [(0.0, FixedSmall), (1.0, FixedLarge)])
@pytest.mark.parametrize("levels", [None, 17])
def test_ancestral_sampling_with_a_learned_variance_at_either_end_is_that_with_the_fixed_one(
    levels, fraction, fixed, schedule
):
    """Bit for bit, given the same generator."""
    schedule = choose("schedule", schedule, num_steps=50)
    learned = GaussianOracle(schedule, Learned(), MEAN, STD, levels, fraction)
    one, other = (DDPM()(law, (16, 3), None, seeded(3)) for law in (learned, oracle(schedule, fixed(), levels)))
    assert torch.equal(one, other)
    assert one.isfinite().all()


@pytest.mark.parametrize(("v", "fixed"), [(-1.0, FixedSmall), (1.0, FixedLarge)])
def test_a_network_that_says_one_or_minus_one_of_the_variance_walks_like_the_fixed_one(v, fixed):
    schedule, prediction, unet = Cosine(30), choose("prediction", "eps"), tiny_unet()
    learned = NetworkDenoiser(schedule, Beside(unet, v), prediction, Learned(), levels=17)
    other = NetworkDenoiser(schedule, unet, prediction, fixed(), levels=17)
    assert torch.equal(*(DDPM()(law, (4, 1, 8, 8), None, seeded(3)) for law in (learned, other)))


@each("sampler")
def test_clipping_is_for_pixels_alone_and_can_be_switched_off(sampler):
    points, pixels = oracle(Cosine(50)), oracle(Cosine(50), levels=17)
    clipping, free = choose("sampler", sampler, steps=20), choose("sampler", sampler, steps=20, clip=False)
    for_points, for_pixels = (clipping(law, (32, 3), None, seeded()) for law in (points, pixels))
    assert for_pixels.abs().max() <= 1
    assert torch.equal(for_points, free(pixels, (32, 3), None, seeded()))
    assert for_points.abs().max() > 1


@pytest.mark.parametrize("make", [FixedSmall, FixedLarge])
@each_grid
def test_ancestral_samples_have_the_mean_and_the_variance_of_their_affine_steps(schedule, make):
    denoiser, n = oracle(choose("schedule", schedule, num_steps=25), make()), 100_000
    schedule, grid = denoiser.schedule, denoiser.schedule.grid()
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for i in range(25, 0, -1):
        now, before = schedule.alpha(grid[i : i + 1]) ** 2, schedule.alpha(grid[i - 1 : i]) ** 2
        beta = 1 - now / before
        gain = now.sqrt() * denoiser.std**2 / (now * denoiser.std**2 + 1 - now)
        of_x_t, of_x0 = (1 - beta).sqrt() * (1 - before) / (1 - now), before.sqrt() * beta / (1 - now)
        spread = beta * (1 - before) / (1 - now) if make is FixedSmall else beta
        mean = of_x_t * mean + of_x0 * (denoiser.mean + gain * (mean - now.sqrt() * denoiser.mean))
        variance = (of_x_t + of_x0 * gain) ** 2 * variance + (spread if i > 1 else 0)
    samples = DDPM()(denoiser, (n, 3), None, seeded(11)).double()
    assert ((samples.mean(0) - mean).abs() < 5 * torch.sqrt(variance / n)).all()
    assert ((samples.var(0) - variance).abs() < 5 * variance * math.sqrt(2 / n)).all()
    cross = torch.corrcoef(samples.T) - torch.eye(3)
    assert cross.abs().max() < 5 / math.sqrt(n)


def slope_of(steps: list[int], errors: list[float]) -> float:
    x, y = torch.log(torch.tensor(steps).double()), torch.log(torch.tensor(errors).double())
    return float(-((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


@each_form(1280)
@each("sampler")
def test_the_error_at_the_end_falls_with_the_declared_order(sampler, schedule, steps, double):
    """Deterministic walks: against the ODE's flow, which keeps (x - alpha mean) / std_t. Stochastic ones: in law."""
    numbers, errors = [40, 80, 160, 320], []
    denoiser = oracle(choose("schedule", schedule, num_steps=steps), FixedLarge())
    start = denoiser.marginal(at(1, 1))
    for number in numbers:
        walk = choose("sampler", sampler, steps=number)
        if walk.stochastic:
            mean, variance = propagated(walk, denoiser, start.mean[0], start.variance[0])
            errors.append(float((mean - denoiser.mean).norm() + (variance - denoiser.std**2).norm()))
        else:
            x1 = torch.randn((200, 3), generator=seeded(5))
            exact = denoiser.mean + denoiser.std * (x1 - start.mean) / start.stddev
            errors.append(float((walk(denoiser, (200, 3), None, seeded(5)) - exact).norm()))
    assert slope_of(numbers, errors) == pytest.approx(walk.order, abs=0.15)
    assert errors[-1] < 0.02 * math.sqrt(200)


@each_form(50)
@each("sampler")
@pytest.mark.parametrize("number", [1, 7, 50])
def test_a_walk_asks_the_network_as_often_as_it_says_from_one_down_to_t_1(number, sampler, schedule, steps):
    sampler = choose("sampler", sampler, steps=number)
    watched = Watched(oracle(choose("schedule", schedule, num_steps=steps)))
    sampler(watched, (2, 3), None, seeded())
    assert len(watched.times) == sampler.evaluations(watched) == number
    assert torch.cat(watched.times).reshape(-1, 2)[:, 0].tolist() == pytest.approx(
        [watched.schedule.t_max, *(1 - k / number for k in range(1, number))], abs=1e-12
    )


@each_grid
@each("sampler")
@pytest.mark.parametrize("steps", [51, 73, 400])
def test_more_steps_than_T_never_ask_nearer_to_the_data_than_training_went(steps, sampler, schedule):
    sampler = choose("sampler", sampler, steps=steps)
    watched = Watched(oracle(choose("schedule", schedule, num_steps=50)))
    samples = sampler(watched, (2, 3), None, seeded())
    times = torch.stack(watched.times)[:, 0]
    assert times.min() >= 0.02 - 1e-12
    assert (times.diff() < 0).all()
    assert len(times) == sampler.evaluations(watched) < steps
    assert samples.isfinite().all()


@each_continuous
@each("sampler")
def test_a_continuous_walk_never_asks_nearer_to_the_data_than_training_went(sampler, schedule):
    denoiser = oracle(choose("schedule", schedule, num_steps=None))
    number = int(2.5 / denoiser.schedule.t_min)
    sampler = choose("sampler", sampler, steps=number)
    t = sampler.times(denoiser)
    assert (float(t[0]), float(t[-1])) == (denoiser.schedule.t_max, 0)
    assert denoiser.schedule.t_min * (1 - 1e-8) <= float(t[-2]) <= denoiser.schedule.t_min + 1 / number
    assert (t.diff() < 0).all()
    assert sampler.evaluations(denoiser) == len(t) - 1 == number - 2


@each_grid
def test_ancestral_sampling_without_a_number_of_steps_takes_the_schedules_own(schedule):
    denoiser = oracle(choose("schedule", schedule, num_steps=30))
    assert torch.equal(DDPM().times(denoiser), denoiser.schedule.grid().flip(0))


@each_continuous
def test_ancestral_sampling_of_a_continuous_process_needs_a_number_of_steps(schedule):
    with pytest.raises(ValueError, match=r"no steps of its own: set sampler\.steps"):
        DDPM().times(oracle(choose("schedule", schedule, num_steps=None)))


@each_form(1000)
@each("sampler")
def test_samples_of_a_finite_set_are_its_points_each_as_often(sampler, schedule, steps):
    points = torch.tensor([[0.6, 0.6], [-0.6, 0.6], [0.6, -0.6], [-0.6, -0.6]])
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=steps), FixedSmall(), points)
    n = 4000
    samples = choose("sampler", sampler, steps=100)(denoiser, (n, 2), None, seeded(1))
    distance = torch.cdist(samples, points)
    assert (distance.min(1).values < 1e-3).double().mean() > 0.999
    counts = distance.argmin(1).bincount(minlength=4).double()
    assert ((counts - n / 4).abs() < 5 * math.sqrt(n * 0.25 * 0.75)).all()


@each("sampler")
def test_a_walk_is_deterministic_given_its_generator_and_leaves_all_others_alone(sampler):
    sampler, denoiser = choose("sampler", sampler, steps=10), oracle(Cosine(50))
    state = torch.random.get_rng_state()
    first, again, other = (sampler(denoiser, (4, 3), None, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_walk_starts_from_the_schedules_prior():
    schedule = Linear(50)
    schedule.prior_std = 3.0
    denoiser = oracle(schedule)
    by_hand = 3.0 * torch.randn((16, 3), generator=seeded(4))
    for t, s in ((1.0, 0.5), (0.5, 0.0)):
        estimate = denoiser(by_hand, at(t, 16))
        by_hand = DDIM().step(denoiser, estimate, at(s, 16), at(t, 16), None)
    assert torch.equal(DDIM(2)(denoiser, (16, 3), None, seeded(4)), by_hand)


@each("sampler")
@pytest.mark.parametrize("steps", [0, -1])
def test_a_walk_without_steps_is_refused(sampler, steps):
    with pytest.raises(ValueError, match="steps must be at least 1"):
        choose("sampler", sampler, steps=steps)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_ddim_refuses_an_eta_outside_zero_to_one(eta):
    with pytest.raises(ValueError, match="eta must lie in"):
        DDIM(eta=eta)
