"""The variational bound: each term against an independent computation, and the whole against closed forms."""

import math

import mpmath
import pytest
import torch
from conftest import choose, each, each_continuous, each_form, each_grid, each_preserving_grid
from exact_cases import ExactReverse, Exploding, GaussianOracle, Straight, normal
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from scorelab.denoisers import FixedLarge, FixedSmall, Learned
from scorelab.likelihood import (
    bits_per_dim,
    bound_rate,
    bound_term,
    decoder_nll,
    gaussian_log_prob,
    lattice_log_prob,
    level_decoder_nll,
    prior_kl,
    step_kl,
)
from scorelab.schedules import Cosine, Linear, VariancePreserving
from scorelab.tensors import from_levels

MEAN, STD = [0.4, -0.2, 1.5, 0.0], [0.7, 1.3, 0.2, 0.01]


def oracle(schedule, variance, levels=None) -> GaussianOracle:
    return GaussianOracle(schedule, variance, MEAN, STD, levels)


def levels_at(levels: int) -> Tensor:
    return torch.linspace(-1, 1, levels, dtype=torch.float64)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- one step


@each_grid
@each("variance")
@pytest.mark.parametrize("steps", [50, 1000])
def test_the_kl_of_a_step_is_that_of_its_two_gaussians(variance, schedule, steps):
    schedule, variance = choose("schedule", schedule, num_steps=steps), choose("variance", variance)
    grid = schedule.grid()
    s, t = grid[1:-1], grid[2:]
    step, x0, eps = schedule.transition(s, t), normal(len(t), 4, seed=1), normal(len(t), 4, seed=2)
    denoiser = oracle(schedule, variance)
    estimate = denoiser(denoiser.noised(x0, t, eps).x_t, t)
    log_variance = variance.log_variance(step, estimate)
    weight_t, weight_0 = step.mean_of_xt[:, None] * estimate.x_t, step.mean_of_x0[:, None]
    q = Normal(weight_t + weight_0 * x0, step.posterior_variance.sqrt()[:, None])
    p = Normal(weight_t + weight_0 * estimate.x0, (0.5 * log_variance).exp())
    expected = kl_divergence(q, p).sum(1)
    assert torch.allclose(step_kl(step, estimate, x0, log_variance), expected, rtol=1e-7, atol=1e-9)


@each_grid
def test_a_variance_per_dimension_is_summed_over_dimensions(schedule):
    schedule = choose("schedule", schedule, num_steps=100)
    s, t = tensor(0.3, 0.6), tensor(0.31, 0.7)
    step, denoiser = schedule.transition(s, t), oracle(schedule, FixedSmall())
    x0, log_variance = normal(2, 4, seed=3), normal(2, 4, seed=4)
    estimate = denoiser(x0, t)
    q = Normal(step.mean_of_x0[:, None] * x0, step.posterior_variance.sqrt()[:, None])
    p = Normal(step.mean_of_x0[:, None] * estimate.x0, (0.5 * log_variance).exp())
    assert torch.allclose(step_kl(step, estimate, x0, log_variance), kl_divergence(q, p).sum(1), rtol=1e-9)


@each_grid
@pytest.mark.parametrize("steps", [50, 1000])
def test_at_beta_tilde_the_kl_is_half_expm1_of_the_fall_in_log_snr_times_the_noise_error(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    grid = schedule.grid()
    s, t = grid[1:-1], grid[2:]
    denoiser = oracle(schedule, FixedSmall())
    truth = denoiser.noised(normal(len(t), 4, seed=1), t, normal(len(t), 4, seed=2))
    estimate = denoiser(truth.x_t, t)
    step = schedule.transition(s, t)
    found = step_kl(step, estimate, truth.x0, FixedSmall().log_variance(step, estimate))
    fall = schedule.log_snr(s) - schedule.log_snr(t)
    expected = 0.5 * torch.expm1(fall) * (truth.eps - estimate.eps).square().sum(1)
    assert torch.allclose(found, expected, rtol=1e-6)
    if not isinstance(schedule, VariancePreserving):
        return
    alpha_bar_s, alpha_bar = schedule.alpha(s) ** 2, schedule.alpha(t) ** 2
    alpha = alpha_bar / alpha_bar_s
    beta = 1 - alpha
    posterior = beta * (1 - alpha_bar_s) / (1 - alpha_bar)
    in_ddpms_letters = beta**2 / (2 * posterior * alpha * (1 - alpha_bar))
    assert torch.allclose(found, in_ddpms_letters * (truth.eps - estimate.eps).square().sum(1), rtol=1e-6)


def test_the_large_variance_costs_049_bits_per_dim_even_a_perfect_denoiser_on_linear():
    """T = 1000, steps 2 ... T (FACTS.md); without the constant of the KL it would cost nothing."""
    schedule = Linear(1000)
    grid = schedule.grid()
    step = schedule.transition(grid[1:-1], grid[2:])
    x0 = normal(999, 5)
    truth = oracle(schedule, FixedLarge()).noised(x0, grid[2:], normal(999, 5, seed=1))
    kl = step_kl(step, truth, x0, FixedLarge().log_variance(step, truth))
    ratio = step.posterior_variance / step.forward_variance
    assert float(bits_per_dim(kl, 5).sum()) == pytest.approx(
        float((ratio - 1 - ratio.log()).sum()) / 2 / math.log(2), rel=1e-9
    )
    assert float(bits_per_dim(kl, 5).sum()) == pytest.approx(0.49, abs=0.005)
    small = step_kl(step, truth, x0, FixedSmall().log_variance(step, truth))
    assert torch.equal(small, torch.zeros_like(small))


# --- the prior


@each_form(21, 1000)
def test_the_prior_term_is_the_kl_of_the_last_marginal_to_the_law_sampling_starts_from(schedule, steps):
    made = choose("schedule", schedule, num_steps=steps)
    for schedule in (made, Cosine(5), Exploding(steps, 0.01, 0.5), Exploding(steps, 0.01, 3.0), Straight(steps)):
        prior_is_the_kl_of_the_last_marginal(schedule)


def prior_is_the_kl_of_the_last_marginal(schedule):
    x0, end = 2 * normal(6, 1, 3, 2), tensor(schedule.t_max)
    q = Normal(schedule.alpha(end) * x0, schedule.sigma(end))
    p = Normal(torch.zeros_like(x0), torch.full_like(x0, schedule.prior_std))
    expected = kl_divergence(q, p).flatten(1).sum(1)
    assert torch.allclose(prior_kl(schedule, x0), expected, rtol=1e-6, atol=1e-10)
    assert torch.allclose(prior_kl(schedule, x0.float()), expected, rtol=1e-5, atol=1e-10)


# --- the decoder


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("std", [1e-3, 1e-2, 0.1, 1.0, 30.0])
def test_the_levels_share_out_all_the_mass(levels, std):
    x = levels_at(levels)
    for mean in (-40.0, -1.5, -1.0, -0.3333, 0.0, 0.00392, 0.62, 0.999, 1.2, 40.0):
        log_prob = lattice_log_prob(x, torch.full_like(x, mean), tensor(2 * math.log(std)), levels)
        assert float(log_prob.logsumexp(0)) == pytest.approx(0, abs=1e-11), mean


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_bin_reaches_half_a_level_to_both_sides_and_the_end_bins_to_infinity(levels):
    x, std = levels_at(levels), 0.7 / (levels - 1)
    log_prob = lattice_log_prob(x, x, tensor(2 * math.log(std)), levels)
    half = math.erf(1 / (levels - 1) / std / math.sqrt(2))
    expected = [half] * levels
    expected[0] = expected[-1] = 0.5 + half / 2
    assert log_prob.exp().tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("std", [0.01, 0.1, 0.5])
def test_within_reach_a_level_has_the_difference_of_two_normal_integrals(levels, std):
    x, mean = levels_at(levels)[1:-1], 0.1234
    half = 1 / (levels - 1)

    def integral(z):
        return 0.5 * (1 + torch.erf((z - mean) / (std * math.sqrt(2))))

    expected = integral(x + half) - integral(x - half)
    found = lattice_log_prob(x, torch.full_like(x, mean), tensor(2 * math.log(std)), levels).exp()
    near = (x - mean).abs() < 4 * std
    assert near.any()
    assert torch.allclose(found[near], expected[near], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("level", [0, 1, 7, 16])
@pytest.mark.parametrize("std", [0.003, 0.3])
@pytest.mark.parametrize("mean", [-9.0, -1.1, -0.06, 0.93, 5.0])
def test_far_in_the_tail_no_clamp_cuts_the_log_probability(level, std, mean):
    """Against 60 digits: z reaches thousands, where Phi is 0 in float64 and a published clamp says log 1e-12."""
    x = levels_at(17)[level]
    found = lattice_log_prob(x, tensor(mean), tensor(2 * math.log(std)), 17)
    with mpmath.workdps(60):
        low, high = ((mpmath.mpf(float(x)) + edge - mpmath.mpf(mean)) / std for edge in (-0.0625, 0.0625))
        if low + high > 0:  # the upper tail, by its mirror image: 1 - Phi would cancel
            low, high, level = -high, -low, 16 - level
        mass = mpmath.ncdf(high if level < 16 else mpmath.inf) - mpmath.ncdf(low if level > 0 else -mpmath.inf)
        expected = float(mpmath.log(mass))
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_lattices_gradients_are_finite_everywhere_and_pull_towards_the_level(levels, dtype):
    x, log_variance = levels_at(levels), torch.linspace(-16, 4, 11, dtype=dtype)
    mean = torch.tensor([-1e3, -20, -1.1, -1, -0.5, 0, 0.01, 0.5, 1, 1.1, 20, 1e3], dtype=dtype)
    x, mean, log_variance = (
        part.clone() for part in torch.broadcast_tensors(x[:, None, None].to(dtype), mean[:, None], log_variance)
    )
    mean.requires_grad_()
    log_variance.requires_grad_()
    log_prob = lattice_log_prob(x, mean, log_variance, levels)
    to_mean, to_log_variance = torch.autograd.grad(log_prob.sum(), (mean, log_variance))
    assert log_prob.isfinite().all()
    assert (log_prob <= 0).all()
    assert to_mean.isfinite().all()
    assert to_log_variance.isfinite().all()
    outside = (mean - x).abs() > 2 / (levels - 1)
    inner = outside & (x.abs() < 1)
    assert (torch.sign(to_mean)[inner] == torch.sign(x - mean)[inner]).all()


def test_the_decoder_of_points_is_the_normal_density():
    x, mean, log_variance = normal(5, 3), normal(5, 3, seed=1), normal(5, 3, seed=2)
    expected = Normal(mean, (0.5 * log_variance).exp()).log_prob(x)
    assert torch.allclose(gaussian_log_prob(x, mean, log_variance), expected, rtol=1e-12)


@each_preserving_grid
@each("variance")
@pytest.mark.parametrize("levels", [None, 17])
def test_the_decoder_is_centred_on_the_predicted_data_and_summed_over_dimensions(levels, variance, schedule):
    schedule = choose("schedule", schedule, num_steps=1000)
    variance = choose("variance", variance)
    if not variance.bounded:
        pytest.skip("any number, whatever the process")
    denoiser = oracle(schedule, variance, levels)
    one, two = (schedule.alpha(schedule.grid()[[i]]) ** 2 for i in (1, 2))
    x0 = levels_at(17)[torch.tensor([[0, 8, 16, 9], [1, 7, 15, 8]])]
    estimate = denoiser(denoiser.noised(x0, tensor(1e-3, 1e-3), normal(2, 4)).x_t, tensor(1e-3, 1e-3))
    if levels is None:
        expected = Normal(estimate.x0, (1 - one).sqrt()).log_prob(x0)
    else:
        log_variance = torch.log((1 - two / one) * (1 - one) / (1 - two))
        if isinstance(variance, Learned):  # half way to sigma^2_{1|0}
            log_variance = 0.5 * log_variance + 0.5 * torch.log(1 - one)
        expected = lattice_log_prob(x0, estimate.x0, log_variance, levels)
    assert torch.allclose(decoder_nll(denoiser, estimate, x0), -expected.sum(1), rtol=1e-7)


# --- the decoder of a continuous process


FORMS = pytest.mark.parametrize("time", [0.05, 0.3, 0.9])


@each_form(100)
@FORMS
@pytest.mark.parametrize("levels", [2, 17])
def test_the_level_decoder_is_the_softmax_of_how_far_x_t_lies_from_every_level(levels, time, schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), tensor(time).expand(3)
    k = torch.randint(0, levels, (3, 2, 4), generator=torch.Generator().manual_seed(1))
    x0, eps = levels_at(levels)[k], normal(3, 2, 4)
    alpha, sigma = schedule.alpha(t)[:1], schedule.sigma(t)[:1]
    x_t = alpha * x0 + sigma * eps
    logits = -((x_t[..., None] - alpha * levels_at(levels)) ** 2) / (2 * sigma**2)
    expected = -logits.log_softmax(-1).gather(-1, k[..., None]).sum((1, 2, 3))
    assert torch.allclose(level_decoder_nll(schedule.log_snr(t), x0, eps, levels), expected, rtol=1e-7, atol=1e-9)


@each_form(100)
@FORMS
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_at_one_x_t_the_level_decoder_is_a_probability_over_levels(levels, time, schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), tensor(time).expand(levels)
    x0 = from_levels(torch.arange(levels), levels).double()[:, None]
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    near = schedule.alpha(t)[:1] * x0[levels // 3] + 0.7 * schedule.sigma(t)[:1]
    nll = level_decoder_nll(schedule.log_snr(t), x0, (near - alpha * x0) / sigma, levels)
    assert float((-nll).logsumexp(0)) == pytest.approx(0, abs=1e-9)
    assert (nll >= 0).all()


@each_continuous
def test_the_level_decoder_costs_nothing_at_a_high_snr_and_the_uniform_law_at_none(schedule):
    schedule = choose("schedule", schedule, num_steps=None)
    x0, eps = levels_at(17)[None], normal(1, 17)
    clean = level_decoder_nll(schedule.log_snr(tensor(schedule.t_min)), x0, eps, 17)
    assert 0 <= float(clean) < 1e-12
    noise = level_decoder_nll(schedule.log_snr(tensor(1)), x0, eps, 17)
    assert float(noise) == pytest.approx(17 * math.log(17), rel=0.02)


# --- the rate of a continuous process


@pytest.mark.parametrize("form", ["cosine", "sigmoid", "vp", "exploding"])
def test_the_rate_of_the_bound_is_half_the_fall_of_the_log_snr_times_the_noise_error(form):
    schedule = Exploding(None) if form == "exploding" else choose("schedule", form, num_steps=None)
    denoiser, t, h = oracle(schedule, FixedSmall()), tensor(0.03, 0.2, 0.5, 0.97), 1e-6
    eps = normal(4, 4, seed=2)
    estimate = denoiser(denoiser.noised(normal(4, 4, seed=1), t, eps).x_t, t)
    fall = (schedule.log_snr(t - h) - schedule.log_snr(t + h)) / (2 * h)
    expected = 0.5 * fall * (eps - estimate.eps).square().sum(1)
    assert torch.allclose(bound_rate(schedule, estimate, eps, t), expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["cosine", "sigmoid", "vp", "exploding", "straight"])
def test_the_rate_adds_up_to_the_information_between_its_ends_whatever_the_schedules_shape(form):
    """For a Gaussian 1/2 int E||eps - eps^||^2 dlambda is 1/2 sum ln(1 + S std^2) between the ends."""
    makers = {"exploding": Exploding, "straight": Straight}
    schedule = makers[form](None) if form in makers else choose("schedule", form, num_steps=None)
    denoiser = oracle(schedule, FixedSmall())
    low, high = -9.0, 9.0
    latest, earliest = schedule.inverse(tensor(low, high))
    n = 20_000
    place = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t = earliest + (latest - earliest) * place**3  # finer where the log-SNR falls fast
    rates = []
    for sign in (-1.0, 1.0):
        for other in (-1.0, 1.0):  # the rate is quadratic in both, so its mean is that over +-1
            x0 = (denoiser.mean + sign * denoiser.std).expand(n, -1)
            eps = torch.full_like(x0, other)
            rates.append(bound_rate(schedule, denoiser(denoiser.noised(x0, t, eps).x_t, t), eps, t))
    found = (torch.stack(rates).mean(0) * 3 * place**2).mean() * (latest - earliest)
    information = 0.5 * torch.log1p(torch.exp(tensor(low, high))[:, None] * denoiser.std**2).sum(1).diff()
    assert float(found) == pytest.approx(float(information), rel=1e-4)


# --- the whole bound


@each_grid
@each("variance")
@pytest.mark.parametrize("levels", [None, 17])
def test_the_term_at_i_1_is_the_decoder_and_at_i_from_2_the_step_from_i_minus_1(levels, variance, schedule):
    schedule, variance = choose("schedule", schedule, num_steps=50), choose("variance", variance)
    denoiser, grid = oracle(schedule, variance, levels), schedule.grid()
    i = torch.tensor([1, 2, 3, 49, 50, 1])
    x0, t = levels_at(17)[torch.arange(24).reshape(6, 4) % 17], grid[i]
    estimate = denoiser(denoiser.noised(x0, t, normal(6, 4)).x_t, t)
    found = bound_term(denoiser, estimate, x0, t)
    step = schedule.transition(grid[(i - 1).clamp(min=1)], grid[i.clamp(min=2)])
    kl = step_kl(step, estimate, x0, variance.log_variance(step, estimate))
    decoder = decoder_nll(denoiser, estimate, x0)
    expected = torch.where(i == 1, decoder, kl)
    assert torch.allclose(found, expected, rtol=1e-9)
    assert (found[[0, 5]] != kl[[0, 5]]).all()
    assert torch.allclose(bound_term(denoiser, estimate, x0, t.float()), expected, rtol=1e-9)


def expected_bound(denoiser: GaussianOracle, x0: Tensor) -> Tensor:
    """The bound at each x_0 (B, D), exactly averaged over the noise.

    Every term is a sum over dimensions of quadratics in eps there, whose Gaussian mean is the mean at eps = -1, 1.
    """
    steps, images = denoiser.schedule.num_steps, len(x0)
    t = denoiser.schedule.grid()[1:].repeat_interleave(2 * images)
    eps = tensor(-1, 1).repeat_interleave(images).repeat(steps)[:, None].expand(-1, x0.shape[1])
    truth = denoiser.noised(x0.repeat(2 * steps, 1), t, eps)
    terms = bound_term(denoiser, denoiser(truth.x_t, t), truth.x0, t)
    return prior_kl(denoiser.schedule, x0) + terms.reshape(steps, 2, images).mean(1).sum(0)


def expected_bound_of_the_law(denoiser: GaussianOracle) -> float:
    """The bound exactly averaged over x_0 ~ N(mean, std^2) too, by the same rule in both at once."""
    x0 = denoiser.mean + denoiser.std * tensor(-1, 1)[:, None]
    return float(expected_bound(denoiser, x0).mean())


def entropy_and_prior(denoiser: GaussianOracle) -> float:
    end = denoiser.marginal(torch.ones(1, dtype=torch.float64))
    entropy = Normal(denoiser.mean, denoiser.std).entropy().sum()
    prior = Normal(torch.zeros_like(end.mean), denoiser.schedule.prior_std)
    return float(entropy + kl_divergence(end, prior).sum())


@pytest.mark.parametrize(
    ("make", "steps"), [(Cosine, 2), (Cosine, 3), (Cosine, 10), (Cosine, 200), (Linear, 21), (Linear, 1000)]
)
def test_with_the_exact_reverse_variance_the_bound_is_entropy_plus_prior(make, steps):
    denoiser = oracle(make(steps), ExactReverse(STD))
    assert expected_bound_of_the_law(denoiser) == pytest.approx(entropy_and_prior(denoiser), abs=1e-8)


@pytest.mark.parametrize(("make", "steps"), [(Cosine, 2), (Cosine, 1000), (Linear, 21), (Linear, 1000)])
def test_of_unit_variance_the_large_variance_is_the_exact_one_and_the_bound_the_entropy(make, steps):
    """To rounding: x_t has unit variance too, and s^2 = sigma^2_{t|s} is Var(x_s | x_t)."""
    denoiser = GaussianOracle(make(steps), FixedLarge(), [0.0], [1.0])
    assert expected_bound_of_the_law(denoiser) == pytest.approx(entropy_and_prior(denoiser), abs=1e-13)


class PixelsEntry(FixedSmall):
    """At i = 1 the variance that pixels have, beta~ of i = 2, for a density as well."""

    def log_decoder_variance(self, first, second, pixels, estimate):
        return super().log_decoder_variance(first, second, True, estimate)


@pytest.mark.parametrize(
    ("make", "variance", "nats"),
    [(Linear, FixedSmall, 0.465), (Cosine, FixedSmall, 0.407), (Linear, PixelsEntry, 0.579)],
)
def test_the_small_variance_misses_the_entropy_of_unit_variance_by_known_nats(make, variance, nats):
    """At T = 1000 (FACTS.md): beta~ is too small by 1/T of itself and more, T times over, and worst at i = 2."""
    denoiser = GaussianOracle(make(1000), variance(), [0.0], [1.0])
    assert expected_bound_of_the_law(denoiser) - entropy_and_prior(denoiser) == pytest.approx(nats, abs=5e-4)


@each_grid
@each("variance")
@pytest.mark.parametrize("steps", [25, 1000])
def test_with_another_variance_the_bound_lies_above_and_falls_with_the_number_of_steps(variance, schedule, steps):
    variance = choose("variance", variance)
    if not variance.bounded:
        pytest.skip("what the network says of it does not shrink with the steps")
    coarse, fine = (oracle(choose("schedule", schedule, num_steps=n), variance) for n in (steps, 2 * steps))
    gap = expected_bound_of_the_law(coarse) - entropy_and_prior(coarse)
    finer = expected_bound_of_the_law(fine) - entropy_and_prior(fine)
    assert gap > finer > 0


def model_law(denoiser: GaussianOracle) -> Normal:
    """The law of x_0 under the reverse chain itself: affine steps of Gaussians, so a Gaussian."""
    schedule, grid = denoiser.schedule, denoiser.schedule.grid()
    mean, variance = torch.zeros_like(denoiser.mean), torch.full_like(denoiser.mean, schedule.prior_std**2)
    for i in range(len(grid) - 1, 0, -1):
        t, s = grid[i : i + 1], grid[i - 1 : i]
        step = schedule.transition(s, t)
        at_zero, at_one = (denoiser(torch.full_like(denoiser.mean, x)[None], t).x0[0] for x in (0.0, 1.0))
        slope = step.mean_of_xt + step.mean_of_x0 * (at_one - at_zero)
        estimate = denoiser(denoiser.mean[None], t)
        if i > 1:
            log_variance = denoiser.variance.log_variance(step, estimate)
        else:
            second = schedule.transition(grid[1:2], grid[2:3])
            log_variance = denoiser.variance.log_decoder_variance(step, second, False, estimate)
        mean = slope * mean + step.mean_of_x0 * at_zero
        variance = slope**2 * variance + log_variance[0].exp()
    return Normal(mean, variance.sqrt())


@each("variance")
@pytest.mark.parametrize(("make", "steps"), [(Cosine, 3), (Cosine, 30), (Linear, 30)])
def test_the_bound_of_every_single_point_lies_above_its_exact_nll(make, steps, variance):
    for law in (choose("variance", variance), ExactReverse(STD)):
        denoiser = oracle(make(steps), law)
        x0 = torch.cat([denoiser.mean + k * denoiser.std * normal(4, 4, seed=k) for k in (1, 2, 3)])
        nll = -model_law(denoiser).log_prob(x0).sum(1)
        assert (expected_bound(denoiser, x0) > nll - 1e-9).all()


def test_with_the_exact_reverse_variance_the_chain_itself_is_the_data_law():
    """Up to what the prior forgets of x_T, which the cosine schedule makes nothing of."""
    law = model_law(oracle(Cosine(100), ExactReverse(STD)))
    assert torch.allclose(law.mean, tensor(*MEAN), rtol=0, atol=1e-4)
    assert torch.allclose(law.stddev, tensor(*STD), rtol=1e-4)


@pytest.mark.parametrize("steps", [1])
def test_the_bound_refuses_a_process_of_one_step(steps):
    denoiser = oracle(Cosine(steps), FixedSmall())
    t = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="num_steps of at least 2"):
        bound_term(denoiser, denoiser(normal(2, 4), t), normal(2, 4), t)


@pytest.mark.parametrize("dims", [1, 64, 3072])
def test_eight_bits_per_dim_are_the_uniform_law_over_256_levels(dims):
    nats = torch.full((3,), dims * math.log(256))
    assert bits_per_dim(nats, dims).tolist() == pytest.approx([8.0] * 3)
