"""Samplers against closed forms: for a Gaussian law every step is affine and the ODE's flow is known.

What every sampler owes is asked of each choice; what is true of DDIM and DDPM alone, of them.
"""

import math
from itertools import pairwise, product

import pytest
import torch
from conftest import CONTINUOUS, choices, choose, each_continuous, each_form, each_grid, forms, kinds
from exact_cases import (
    Beside,
    ExactReverse,
    FiniteSetOracle,
    GaussianOracle,
    Says,
    Straight,
    Watched,
    normal,
    seeded,
    tiny_unet,
)
from torch import Tensor

from scorelab.denoisers import Denoiser, Eps, Estimate, FixedLarge, FixedSmall, Learned, NetworkDenoiser
from scorelab.errors import Unavailable
from scorelab.samplers import DDIM, DDPM, Ask, Sampler, draw_samples
from scorelab.schedules import VP, Cosine, LearnedSchedule, Linear, Schedule, VarianceExploding
from scorelab.tensors import like

MEAN, STD = [0.4, -0.2, 1.5], [0.7, 1.3, 0.2]
WITHIN = [(0.02, 0.04), (0.3, 0.5), (0.96, 1.0)]


def oracle(schedule, variance=None, levels=None) -> GaussianOracle:
    return GaussianOracle(schedule, variance or FixedSmall(), MEAN, STD, levels)


STEPPING = [name for name in choices("sampler") if not choose("sampler", name).adaptive]
each_stepping = pytest.mark.parametrize("sampler", STEPPING)


def each_pair(steps: int) -> pytest.MarkDecorator:
    """Every sampler under a schedule of each kind, and one sampler under every schedule."""
    pairs = [(sampler, *kind) for sampler in STEPPING for kind in kinds(steps)]
    return pytest.mark.parametrize(
        ("sampler", "schedule", "steps"), dict.fromkeys(pairs + [("heun", *form) for form in forms(steps)])
    )


def at(value: float, n: int) -> Tensor:
    return torch.full((n,), value, dtype=torch.float64)


def beta_tilde(schedule: Schedule, s: float, t: float) -> Tensor:
    """The variance of x_s given x_t and x_0, from alpha and sigma."""
    alpha_s, alpha_t, sigma_s, sigma_t = (of(at(u, 1)) for of in (schedule.alpha, schedule.sigma) for u in (s, t))
    return sigma_s**2 * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)


def preserves_variance(schedule: Schedule) -> bool:
    t = torch.linspace(0.1, 0.9, 9)
    return torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(9).double())


def affine(sampler: Sampler, denoiser: Denoiser, s: float, t: float, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, offset and spread (D,) of a step x_s = slope x_t + offset + spread z, the z replayed and fitted.

    Of a step that draws twice, the spread of both together.
    """
    n, draws = 8, seeded(2)
    x = normal(n, dims, seed=1)
    one, two = (torch.randn(n, dims, generator=draws, dtype=torch.float64) for _ in range(2))
    y = sampler.walk(Ask(denoiser), x, torch.tensor([t, s], dtype=torch.float64), seeded(2))
    design = torch.stack([x, torch.ones_like(x), one, two], 2).transpose(0, 1)
    fit = torch.linalg.lstsq(design, y.T[..., None]).solution
    assert torch.allclose((design @ fit)[..., 0].T, y, rtol=0, atol=1e-10)
    slope, offset, *spreads = fit[..., 0].T
    return slope, offset, torch.stack(spreads).norm(dim=0)


def propagated(
    sampler: Sampler, denoiser: Denoiser, times: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) at the end of a walk along these times that starts from these."""
    for t, s in pairwise(times.tolist()):
        slope, offset, spread = affine(sampler, denoiser, s, t, len(mean))
        mean, variance = slope * mean + offset, slope**2 * variance + spread**2
    return mean, variance


# --- what every sampler owes


def slope_of(steps: list[int], errors: list[float]) -> float:
    x, y = torch.log(torch.tensor(steps).double()), torch.log(torch.tensor(errors).double())
    return float(-((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def measured_order(sampler: Sampler, denoiser: GaussianOracle) -> tuple[float, float]:
    """By how much the error falls with the step, between two log-SNRs in even steps of time; and the last error.

    Of deterministic walks against the ODE's flow, which keeps (x - alpha mean) / std_t; of stochastic ones in law.
    """
    start, end = denoiser.schedule.inverse(torch.tensor([-4.0, 3.0])).tolist()
    before, after = denoiser.marginal(at(start, 1)), denoiser.marginal(at(end, 1))
    slow = not sampler.stochastic or isinstance(denoiser.schedule, VarianceExploding)  # to show its order
    numbers, errors = [80, 160, 320] if slow else [20, 40, 80], []
    for number in numbers:
        times = torch.linspace(start, end, number + 1)
        if sampler.stochastic:
            mean, variance = propagated(sampler, denoiser, times, before.mean[0], before.variance[0])
            errors.append(float((mean - after.mean[0]).norm() + (variance - after.variance[0]).norm()))
        else:
            z = normal(200, 3, seed=5)
            found = sampler.walk(Ask(denoiser), before.mean + before.stddev * z, times, None)
            errors.append(float((found - after.mean - after.stddev * z).norm()) / math.sqrt(len(z)))
    return slope_of(numbers, errors), errors[-1]


@each_pair(1280)
def test_the_error_between_two_times_falls_with_the_declared_order(sampler, schedule, steps, double):
    if sampler == "pc":
        pytest.skip("its corrector has an error of its own, which no number of steps makes small")
    sampler = choose("sampler", sampler)
    order, error = measured_order(sampler, oracle(choose("schedule", schedule, num_steps=steps), FixedLarge()))
    assert order == pytest.approx(sampler.order, abs=0.2)
    assert error < 0.1


@each_pair(50)
def test_a_walk_asks_as_often_as_it_says_and_only_what_was_trained(sampler, schedule, steps):
    """From its first time downwards, in any number of steps, more than T too."""
    denoiser = oracle(choose("schedule", schedule, num_steps=steps))
    for number in (1, 2, 7, 50, 73):
        walk, watched = choose("sampler", sampler, steps=number), Watched(denoiser)
        samples = walk(watched, (2, 3), None, seeded())
        told, times = torch.cat(watched.times).reshape(-1, 2)[:, 0], walk.times(watched)
        assert len(watched.times) == walk.evaluations(watched), number
        assert float(told[0]) == float(times[0]) == pytest.approx(denoiser.schedule.t_max, rel=1e-9)
        assert float(times[-1]) == 0
        assert (times.diff() < 0).all() and float(told.min()) >= denoiser.schedule.t_min * (1 - 1e-8)
        assert samples.isfinite().all()
        if walk.spacing == "trailing":
            even = [denoiser.schedule.t_max, *(1 - k / number for k in range(1, number))]
            even = [t for t in even if t >= denoiser.schedule.t_min - 1e-12 and t > 0]
            assert times.tolist() == pytest.approx([*even, 0], abs=1e-12)


@each_stepping
def test_the_last_call_is_what_samples_are(sampler):
    for variance in ("fixed_small", "learned"):
        watched = Watched(oracle(Cosine(50), choose("variance", variance)))
        found = choose("sampler", sampler, steps=3)(watched, (4, 3), None, seeded(1))
        assert torch.equal(found, watched.said.x0)


@each_stepping
def test_a_step_uses_noise_if_and_only_if_the_sampler_says_it_is_stochastic(sampler):
    sampler, denoiser = choose("sampler", sampler), oracle(Cosine(50))
    one, two = (sampler.walk(Ask(denoiser), normal(4, 3), torch.tensor([0.5, 0.4]), seeded(seed)) for seed in (1, 2))
    assert sampler.stochastic == (not torch.equal(one, two))


class Clipped(Denoiser):
    """Another denoiser, of pixels, that clips what it says itself."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner = inner

    def forward(self, x_t, t, label=None):
        return self.inner(x_t, t, label).clipped()


@each_stepping
def test_every_call_of_a_walk_is_clipped_for_pixels_alone_and_none_where_clipping_is_off(sampler):
    points, pixels = oracle(Cosine(50)), oracle(Cosine(50), levels=17)
    clipping, free = choose("sampler", sampler, steps=9), choose("sampler", sampler, steps=9, clip=False)
    clipped = clipping(pixels, (32, 3), None, seeded())
    assert torch.equal(clipped, free(Clipped(pixels), (32, 3), None, seeded()))
    assert torch.equal(clipping(points, (32, 3), None, seeded()), free(pixels, (32, 3), None, seeded()))
    assert not torch.equal(clipped, free(pixels, (32, 3), None, seeded()))
    assert clipped.abs().max() <= 1


class ByLabel(Denoiser):
    """The law of one point: that of the label, or 0 where there is none."""

    def forward(self, x_t, t, label=None):
        point = torch.zeros_like(x_t) if label is None else (label - 1.0)[:, None].expand_as(x_t)
        return Estimate.from_x0(x_t, like(self.schedule.alpha(t), x_t), like(self.schedule.sigma(t), x_t), point)


@each_stepping
def test_every_call_of_a_walk_is_told_the_label(sampler):
    label, told = torch.arange(6) % 3, []
    denoiser = ByLabel(Cosine(50), FixedSmall())
    denoiser.register_forward_pre_hook(lambda _, given: told.append(given[2]))
    samples = choose("sampler", sampler, steps=8)(denoiser, (6, 2), label, seeded())
    assert torch.equal(samples, (label - 1.0)[:, None].expand(-1, 2))
    assert told and all(given is not None and torch.equal(given, label) for given in told)


@each_pair(1000)
def test_samples_of_a_finite_set_are_its_points_each_as_often(sampler, schedule, steps):
    points = torch.tensor([[0.6, 0.6], [-0.6, 0.6], [0.6, -0.6], [-0.6, -0.6]])
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=steps), FixedSmall(), points)
    if float(denoiser.schedule.log_snr(at(0.01, 1))) < 5:
        pytest.skip("the last of 100 steps begins where a point is not yet told from another")
    n = 1000
    samples = choose("sampler", sampler, steps=100)(denoiser, (n, 2), None, seeded(1))
    distance = torch.cdist(samples, points)
    assert (distance.min(1).values < 1e-3).double().mean() > 0.998
    counts = distance.argmin(1).bincount(minlength=4).double()
    assert ((counts - n / 4).abs() < 5 * math.sqrt(n * 0.25 * 0.75)).all()


@each_stepping
def test_a_walk_is_deterministic_given_its_generator_and_leaves_all_others_alone(sampler):
    sampler, denoiser = choose("sampler", sampler, steps=10), oracle(Cosine(50))
    state = torch.random.get_rng_state()
    first, again, other = (sampler(denoiser, (4, 3), None, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@each_stepping
def test_another_number_of_steps_makes_another_sampler_and_leaves_the_first(sampler):
    first, direct, denoiser = (*(choose("sampler", sampler, steps=n) for n in (4, 9)), oracle(Cosine(50)))
    other = first.with_steps(9)
    assert type(other) is type(first) and (first.steps, other.steps) == (4, 9)
    assert torch.equal(*(walk(denoiser, (4, 3), None, seeded()) for walk in (other, direct)))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        first.with_steps(0)


@each_stepping
@pytest.mark.parametrize("steps", [0, -1])
def test_a_walk_without_steps_is_refused(sampler, steps):
    with pytest.raises(ValueError, match="steps must be at least 1"):
        choose("sampler", sampler, steps=steps)


# --- the walk


class Midpoint(Sampler):
    """Order 2: the slope in the middle of a step, in x/alpha over sigma/alpha."""

    order, stochastic, evaluations_per_step = 2, False, 2

    def step(self, ask, estimate, s, t, generator):
        middle = (s + t) / 2
        there = ask(self.moved(ask.schedule, estimate, middle, t, estimate.eps), middle)
        return self.moved(ask.schedule, estimate, s, t, there.eps)

    def moved(self, schedule: Schedule, estimate: Estimate, s: Tensor, t: Tensor, slope: Tensor) -> Tensor:
        away = schedule.sigma(s) / schedule.alpha(s) - schedule.sigma(t) / schedule.alpha(t)
        return like(schedule.alpha(s), slope) * (estimate.x_t / estimate.alpha + like(away, slope) * slope)


class Miscounted(Midpoint):
    evaluations_per_step = 1


def test_a_step_may_ask_again_and_each_call_is_counted():
    watched = Watched(oracle(VP()))
    for steps, evaluations in ((1, 1), (2, 3), (9, 17)):
        sampler, before = Midpoint(steps), len(watched.times)
        sampler(watched, (2, 3), None, seeded())
        assert len(watched.times) - before == sampler.evaluations(watched) == evaluations
    ask = Ask(watched)
    assert ask.count == 0
    ask(normal(2, 3), at(0.5, 2))
    assert ask.count == 1


def test_a_sampler_that_asks_more_often_than_it_says_is_told_so_by_name():
    assert Miscounted(1)(oracle(VP()), (2, 3)).isfinite().all(), "the last step asks once"
    with pytest.raises(RuntimeError, match=r"^Miscounted asked 5 times .* says 3: .*evaluations_per_step"):
        Miscounted(3)(oracle(VP()), (2, 3))


class Counted(Linear):
    asked = 0

    def log_alpha_bar(self, t):
        self.asked += 1
        return super().log_alpha_bar(t)


@each_stepping
def test_a_schedule_is_asked_about_a_walk_and_not_about_its_steps(sampler):
    def asked(steps: int) -> int:
        schedule = Counted()
        of = NetworkDenoiser(schedule, Says(torch.zeros(4, 3)), Eps(), FixedSmall())
        walking = choose("sampler", sampler).with_steps(steps)
        times, start = walking.times(of), normal(4, 3)
        before = schedule.asked
        walking.walk(Ask(of), start, times, seeded(1))
        return schedule.asked - before

    assert 0 < asked(3) == asked(30) < 10


def test_samples_that_are_no_numbers_are_not_drawn():
    """They would be levels, and have a distance, like any other."""
    with pytest.raises(Unavailable, match=r"^Midpoint ended in samples that are not finite$"):
        draw_samples(oracle(Straight(50)), Midpoint(3), (3,), torch.zeros(2, dtype=torch.long), 0, 2)


class Wandering(Midpoint):
    def __init__(self, *times: float) -> None:
        super().__init__(len(times) - 1)
        self.along = torch.tensor(times, dtype=torch.float64)

    def times(self, denoiser):
        return self.along


@pytest.mark.parametrize("times", [(1.0, math.nan, 0.0), (1.0, 1.0, 0.0), (1.0, 0.5, 0.1)])
def test_a_sampler_whose_times_do_not_fall_to_0_is_told_so_by_name(times):
    with pytest.raises(RuntimeError, match=r"^Wandering\.times must fall"):
        Wandering(*times)(oracle(VP()), (2, 3))


@each_form(1280)
def test_the_order_that_is_measured_tells_one_from_two(schedule, steps, double):
    """What the test of every sampler's order finds for one that is of order 2."""
    denoiser = oracle(choose("schedule", schedule, num_steps=steps))
    assert measured_order(Midpoint(1), denoiser)[0] == pytest.approx(2, abs=0.2)


def test_a_continuous_walk_has_all_its_steps_but_those_nearer_to_the_data_than_training_went():
    for name in CONTINUOUS:
        denoiser = oracle(choose("schedule", name, num_steps=None))
        if denoiser.schedule.t_min == 0:
            assert DDIM(50).evaluations(denoiser) == 50
            continue
        number = int(2.5 / denoiser.schedule.t_min)
        times = DDIM(number).times(denoiser)
        assert denoiser.schedule.t_min * (1 - 1e-8) <= float(times[-2]) <= denoiser.schedule.t_min + 1 / number
        assert DDIM(number).evaluations(denoiser) == len(times) - 1 == number - 2


@each_grid
def test_ancestral_sampling_without_a_number_of_steps_takes_the_schedules_own(schedule):
    denoiser = oracle(choose("schedule", schedule, num_steps=30))
    assert torch.equal(DDPM().times(denoiser), denoiser.schedule.grid().flip(0))


@each_continuous
def test_ancestral_sampling_of_a_continuous_process_needs_a_number_of_steps(schedule):
    with pytest.raises(ValueError, match=r"no steps of its own: set sampler\.steps"):
        DDPM().times(oracle(choose("schedule", schedule, num_steps=None)))


def test_a_walk_starts_from_the_schedules_prior():
    schedule = Linear(50)
    schedule.prior_std = 3.0
    ask = Ask(oracle(schedule))
    by_hand = 3.0 * torch.randn((16, 3), generator=seeded(4))
    by_hand = DDIM().step(ask, ask(by_hand, at(1.0, 16)), at(0.5, 16), at(1.0, 16), None)
    assert torch.equal(DDIM(2)(oracle(schedule), (16, 3), None, seeded(4)), ask(by_hand, at(0.5, 16)).x0)


# --- ancestral steps and DDIM's

FAMILY = [DDPM(), DDIM(), DDIM(eta=0.3), DDIM(eta=1.0)]


@each_form(50)
def test_for_data_of_one_point_a_step_keeps_the_law_exactly(schedule, steps):
    """beta~ is right when x_0 is one point: N(alpha_t p, sigma_t^2) becomes N(alpha_s p, sigma_s^2)."""
    schedule = choose("schedule", schedule, num_steps=steps)
    denoiser = FiniteSetOracle(schedule, FixedSmall(), torch.tensor([MEAN]))
    point = denoiser.points[0]
    for sampler, (s, t) in product(FAMILY, [(0.0, 0.02), *WITHIN]):
        slope, offset, spread = affine(sampler, denoiser, s, t, 3)
        alpha_s, alpha_t = schedule.alpha(at(s, 1)), schedule.alpha(at(t, 1))
        sigma_s, sigma_t = schedule.sigma(at(s, 1)), schedule.sigma(at(t, 1))
        # the walk may end in the data itself where a curve is cut before it
        missing = abs(1 - float(alpha_s)) if s == 0 else 0.0
        assert torch.allclose(slope * alpha_t * point + offset, alpha_s * point, rtol=0, atol=1e-9 + 2 * missing)
        cut = 0.0 if s else float(sigma_s**2)
        assert torch.allclose(slope**2 * sigma_t**2 + spread**2, sigma_s**2.0, rtol=1e-7, atol=1e-12 + cut)


@each_form(50)
def test_for_white_data_an_ancestral_step_with_the_large_variance_keeps_the_law_exactly(schedule, steps):
    denoiser = GaussianOracle(choose("schedule", schedule, num_steps=steps), FixedLarge(), [0.0, 0.0], 1.0)
    if not preserves_variance(denoiser.schedule):
        pytest.skip("sigma^2_{t|s} is Var(x_s | x_t) of white data where variance is preserved")
    for s, t in WITHIN:
        slope, offset, spread = affine(DDPM(), denoiser, s, t, 2)
        assert torch.allclose(offset, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
        assert torch.allclose(slope**2 + spread**2, torch.ones(2, dtype=torch.float64), rtol=1e-9)


@each_form(50)
def test_with_the_exact_reverse_variance_an_ancestral_step_keeps_a_gaussian_law_exactly(schedule, steps):
    denoiser = oracle(choose("schedule", schedule, num_steps=steps), ExactReverse(STD))
    for s, t in WITHIN:
        slope, offset, spread = affine(DDPM(), denoiser, s, t, 3)
        before, after = denoiser.marginal(at(t, 1)), denoiser.marginal(at(s, 1))
        assert torch.allclose(slope * before.mean[0] + offset, after.mean[0], rtol=0, atol=1e-10)
        assert torch.allclose(slope**2 * before.variance[0] + spread**2, after.variance[0], rtol=1e-9)


@each_form(50)
def test_ddim_adds_noise_of_eta_times_the_root_of_beta_tilde(schedule, steps):
    denoiser = oracle(choose("schedule", schedule, num_steps=steps))
    for eta, (s, t) in product((0.0, 0.3, 0.7, 1.0), WITHIN):
        _, _, spread = affine(DDIM(eta=eta), denoiser, s, t, 3)
        expected = eta * beta_tilde(denoiser.schedule, s, t).sqrt()
        assert torch.allclose(spread, expected.expand(3), rtol=1e-8, atol=1e-12), (eta, s, t)
        assert DDIM(eta=eta).stochastic == (eta > 0)


@each_continuous
def test_a_step_to_the_data_is_the_predicted_data_but_for_the_noise_its_curve_starts_with(schedule):
    """Which is 4.5e-5 of a cosine cut at log-SNR 20, the least of one that explodes or is learned, or none."""
    schedule = choose("schedule", schedule, num_steps=None)
    ask, noise = Ask(oracle(schedule)), float(schedule.sigma(at(0, 1)))
    assert noise < 5e-5 or isinstance(schedule, VarianceExploding | LearnedSchedule)
    estimate = ask(normal(4, 3), at(0.02, 4))
    for sampler in FAMILY:
        end = sampler.step(ask, estimate, at(0, 4), at(0.02, 4), seeded(1))
        assert torch.allclose(end, estimate.x0, rtol=0, atol=1e-12 + 5 * noise)


@each_form(50)
@pytest.mark.parametrize("levels", [None, 256])
def test_ddim_at_eta_one_is_ancestral_sampling_with_beta_tilde(levels, schedule, steps, double):
    """Given the same noise; with levels x^_0 is clipped, and eps^ is recomputed from it."""
    schedule = choose("schedule", schedule, num_steps=steps)
    denoiser = oracle(schedule, FixedSmall(), levels)
    by_ddim, by_ddpm = (sampler(denoiser, (64, 3), None, seeded(3)) for sampler in (DDIM(10, eta=1.0), DDPM(10)))
    assert torch.allclose(by_ddim, by_ddpm, rtol=0, atol=1e-8 + 10 * float(schedule.sigma(at(0, 1))))
    if levels:
        free = DDPM(10, clip=False)(denoiser, (64, 3), None, seeded(3))
        assert (free - by_ddpm).abs().max() > 0.1


@each_grid
@pytest.mark.parametrize(("fraction", "fixed"), [(0.0, FixedSmall), (1.0, FixedLarge)])
def test_ancestral_sampling_with_a_learned_variance_at_either_end_is_that_with_the_fixed_one(fraction, fixed, schedule):
    """Bit for bit, given the same generator."""
    schedule = choose("schedule", schedule, num_steps=30)
    for levels in (None, 17):
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


def by_ddpms_letters(denoiser: GaussianOracle, small: bool) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) of what ancestral sampling over the whole grid ends in, from alpha_bar alone."""
    schedule, grid = denoiser.schedule, denoiser.schedule.grid()
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for i in range(len(grid) - 1, 0, -1):
        now, before = schedule.alpha(grid[i : i + 1]) ** 2, schedule.alpha(grid[i - 1 : i]) ** 2
        beta = 1 - now / before
        gain = now.sqrt() * denoiser.std**2 / (now * denoiser.std**2 + 1 - now)
        of_x_t, of_x0 = (1 - beta).sqrt() * (1 - before) / (1 - now), before.sqrt() * beta / (1 - now)
        spread = beta * (1 - before) / (1 - now) if small else beta
        mean = of_x_t * mean + of_x0 * (denoiser.mean + gain * (mean - now.sqrt() * denoiser.mean))
        variance = (of_x_t + of_x0 * gain) ** 2 * variance + (spread if i > 1 else 0)
    return mean, variance


@pytest.mark.parametrize("make", [FixedSmall, FixedLarge])
@each_grid
def test_an_ancestral_walk_has_the_mean_and_the_variance_of_ddpms_letters(schedule, make, double):
    denoiser = oracle(choose("schedule", schedule, num_steps=25), make())
    if not preserves_variance(denoiser.schedule):
        pytest.skip("DDPM's letters are those of a process that preserves variance")
    found = propagated(DDPM(), denoiser, DDPM().times(denoiser), torch.zeros(3), torch.ones(3))
    for one, other in zip(found, by_ddpms_letters(denoiser, make is FixedSmall), strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9)


def test_ancestral_samples_have_the_mean_and_the_variance_of_their_affine_steps():
    """So the noise of each step, sample and dimension is its own."""
    denoiser, n = oracle(Cosine(25), FixedLarge()), 20_000
    mean, variance = by_ddpms_letters(denoiser, small=False)
    samples = DDPM()(denoiser, (n, 3), None, seeded(11)).double()
    assert ((samples.mean(0) - mean).abs() < 5 * torch.sqrt(variance / n)).all()
    assert ((samples.var(0) - variance).abs() < 5 * variance * math.sqrt(2 / n)).all()
    cross = torch.corrcoef(samples.T) - torch.eye(3)
    assert cross.abs().max() < 5 / math.sqrt(n)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_ddim_refuses_an_eta_outside_zero_to_one(eta):
    with pytest.raises(ValueError, match="eta must lie in"):
        DDIM(eta=eta)
