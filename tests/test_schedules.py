"""Noise schedules: what must hold of every one, then what makes each the published one."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import CONTINUOUS, choose, each, each_continuous, each_form
from exact_cases import normal

from scorelab.schedules import VP, Cosine, Linear, ScaledLinear, Sigmoid, Table, VariancePreserving

STEPS = pytest.mark.parametrize("steps", [50, 1000])
FORMS = each_form(50, 1000)


def between(steps: int | None, per_step: int = 4) -> torch.Tensor:
    """Times at and between the grid points, without 0."""
    steps = steps or 500
    return torch.arange(1, per_step * steps + 1, dtype=torch.float64) / (per_step * steps)


def one_steps(schedule):
    grid = schedule.grid()
    return schedule.transition(grid[:-1], grid[1:])


def test_all_curves_have_a_continuous_form_and_no_list_of_betas_has_one():
    assert {"cosine", "sigmoid", "vp"} <= set(CONTINUOUS)
    assert not {"linear", "scaled_linear"} & set(CONTINUOUS)


@FORMS
def test_the_log_snr_falls_strictly_and_is_finite_at_every_time_but_the_data(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    log_snr = schedule.log_snr(torch.cat([torch.zeros(1, dtype=torch.float64), between(steps)]))
    assert log_snr[1:].isfinite().all()
    assert (log_snr.diff() < 0).all()


@each_form(50, 1000, 4000)
def test_the_log_snr_is_infinite_at_the_data_except_where_a_curve_is_cut(schedule, steps):
    cut = schedule == "cosine" and steps is None
    schedule, start = choose("schedule", schedule, num_steps=steps), torch.zeros(1, dtype=torch.float64)
    assert float(schedule.log_snr(start)) == (pytest.approx(20, abs=1e-6) if cut else math.inf)
    assert float(schedule.alpha(start)) == (pytest.approx(1, abs=2e-9) if cut else 1)


@FORMS
def test_the_log_snr_is_that_of_alpha_and_sigma(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), between(steps)
    expected = 2 * torch.log(schedule.alpha(t) / schedule.sigma(t))
    assert torch.allclose(schedule.log_snr(t), expected, rtol=0, atol=1e-9)


@each_form(50, 1000, 4000)
def test_the_log_snr_inverts_at_grid_points_and_between(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), between(steps)
    assert torch.allclose(schedule.inverse(schedule.log_snr(t)), t, rtol=0, atol=1e-9)


@each_form(100)
def test_answers_are_float64_whatever_precision_asks(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), torch.tensor([0.25, 0.5])
    for name in ("alpha", "sigma", "log_snr", "f", "g2", "inverse"):
        assert getattr(schedule, name)(t).dtype == torch.float64
    assert torch.equal(schedule.alpha(t), schedule.alpha(t.double()))


@FORMS
def test_a_variance_preserving_process_preserves_variance(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), between(steps)
    if not isinstance(schedule, VariancePreserving):
        pytest.skip("this one does not")
    assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14)
    assert torch.allclose(schedule.g2(t), -2 * schedule.f(t), rtol=1e-12)


@FORMS
def test_drift_and_diffusion_are_the_derivatives_of_ln_alpha_and_of_the_log_snr(schedule, steps):
    schedule, steps = choose("schedule", schedule, num_steps=steps), steps or 200
    t = (torch.arange(steps, dtype=torch.float64)[:, None] + torch.tensor([0.3, 0.5, 0.8])).flatten() / steps
    h = 1e-4 / steps

    def slope(function):
        return (function(t + h) - function(t - h)) / (2 * h)

    f = slope(lambda u: torch.log(schedule.alpha(u)))
    g2 = -(schedule.sigma(t) ** 2) * slope(schedule.log_snr)
    assert torch.allclose(schedule.f(t), f, rtol=1e-5, atol=1e-8)
    assert torch.allclose(schedule.g2(t), g2, rtol=1e-5, atol=1e-8)


@each("schedule")
@STEPS
def test_all_one_step_kernels_compose_to_the_marginal(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    step, grid = one_steps(schedule), schedule.grid()
    factor, variance = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for i in range(steps):
        ratio = step.alpha_t[i] / step.alpha_s[i]
        factor, variance = ratio * factor, ratio**2 * variance + step.forward_variance[i]
        assert float(factor) == pytest.approx(float(schedule.alpha(grid[[i + 1]])), rel=1e-10)
        assert float(variance) == pytest.approx(float(schedule.sigma(grid[[i + 1]])) ** 2, rel=1e-10)


@each_form(1000)
@pytest.mark.parametrize("timesteps", [(0.001, 0.4, 1.0), (0.02, 0.0312, 0.04), (0.9, 0.95, 1.0), (0.5, 0.50001, 0.6)])
def test_kernels_between_any_three_times_compose(schedule, steps, times):
    """q(x_t | x_s) is q(x_u | x_s), then q(x_t | x_u): the means' factors multiply, the variances add up."""
    schedule = choose("schedule", schedule, num_steps=steps)
    s, u, t = (torch.tensor([time], dtype=torch.float64) for time in times)
    first, second, both = schedule.transition(s, u), schedule.transition(u, t), schedule.transition(s, t)
    ratio = second.alpha_t / second.alpha_s
    assert torch.allclose(ratio * first.alpha_t / first.alpha_s, both.alpha_t / both.alpha_s, rtol=1e-12)
    variance = ratio**2 * first.forward_variance + second.forward_variance
    assert torch.allclose(variance, both.forward_variance, rtol=1e-9)


@each_form(1000)
@pytest.mark.parametrize(("s", "t"), [(0.02, 0.04), (0.1, 0.9), (0.313, 0.314), (0.9, 1.0), (0.001, 1.0)])
def test_the_posterior_is_bayes_rule_between_any_two_times(schedule, steps, s, t):
    schedule = choose("schedule", schedule, num_steps=steps)
    step = schedule.transition(*(torch.tensor([u], dtype=torch.float64) for u in (s, t)))
    ratio = step.alpha_t / step.alpha_s
    kernel = step.sigma_t**2 - ratio**2 * step.sigma_s**2
    variance = 1 / (ratio**2 / kernel + 1 / step.sigma_s**2)
    assert torch.allclose(step.forward_variance, kernel, rtol=1e-9)
    assert torch.allclose(step.posterior_variance, variance, rtol=1e-9)
    assert torch.allclose(step.mean_of_xt, variance * ratio / kernel, rtol=1e-9)
    assert torch.allclose(step.mean_of_x0, variance * step.alpha_s / step.sigma_s**2, rtol=1e-9)


@each("schedule")
@STEPS
def test_a_step_is_what_ddpm_writes_in_its_own_letters(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    if not isinstance(schedule, VariancePreserving):
        pytest.skip("DDPM's letters are those of a process that preserves variance")
    step = one_steps(schedule)
    alpha_bar = schedule.alpha(schedule.grid()) ** 2
    before, after = alpha_bar[:-1], alpha_bar[1:]
    alpha = after / before
    beta = 1 - alpha
    x0, eps = normal(steps, seed=1), normal(steps, seed=2)
    x_t = after.sqrt() * x0 + (1 - after).sqrt() * eps
    by_x0 = alpha.sqrt() * (1 - before) / (1 - after) * x_t + before.sqrt() * beta / (1 - after) * x0
    by_eps = (x_t - beta * eps / (1 - after).sqrt()) / alpha.sqrt()
    mean = step.mean_of_xt * x_t + step.mean_of_x0 * x0
    assert torch.allclose(mean, by_x0, rtol=1e-8, atol=1e-10)
    assert torch.allclose(mean, by_eps, rtol=1e-8, atol=1e-10)
    assert torch.allclose(step.forward_variance, beta, rtol=1e-8)
    assert torch.allclose(step.posterior_variance, (1 - before) / (1 - after) * beta, rtol=1e-8)


@each("schedule")
def test_the_step_to_the_data_is_x0_itself(schedule):
    schedule = choose("schedule", schedule, num_steps=100)
    first = one_steps(schedule)
    assert (first.mean_of_xt[0], first.mean_of_x0[0], first.posterior_variance[0]) == (0, 1, 0)
    assert float(first.forward_variance[0]) == pytest.approx(float(schedule.sigma(schedule.grid()[[1]])) ** 2)


@each("schedule")
@pytest.mark.parametrize("steps", [30, 1000])
def test_training_times_are_the_grid_points_one_to_T_equally_often(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    u = (torch.arange(7 * steps, dtype=torch.float64) + 0.5) / (7 * steps)
    index = schedule.training_time(u) * steps
    assert torch.allclose(index, index.round(), rtol=0, atol=1e-9)
    assert index.round().long().bincount().tolist() == [0] + [7] * steps
    ends = schedule.training_time(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ends.tolist() == [1 / steps, 1]
    assert float(schedule.training_time(torch.tensor([1 - 2**-24]))) == 1


@each("schedule")
@pytest.mark.parametrize("steps", [30, 49, 1000, 4000])
def test_at_a_grid_time_a_table_has_the_slope_of_the_interval_that_ends_there(schedule, steps):
    """Also where i / T times T is a rounding off i."""
    if schedule == "vp":
        pytest.skip("in closed form, not read from a table")
    schedule = choose("schedule", schedule, num_steps=steps)
    fall = -(2 * torch.log(schedule.alpha(schedule.grid()))).diff()
    assert torch.allclose(schedule.g2(schedule.grid()[1:]), steps * fall, rtol=1e-6)
    assert torch.allclose(schedule.f(schedule.grid()[1:]), -steps * fall / 2, rtol=1e-6)


@each_continuous
def test_continuous_training_times_are_uniform_from_where_the_log_snr_is_133_to_one(schedule):
    schedule = choose("schedule", schedule, num_steps=None)
    first = schedule.t_min
    assert float(schedule.log_snr(torch.tensor([first], dtype=torch.float64))) == pytest.approx(13.3, abs=1e-9)
    u = torch.arange(1001, dtype=torch.float64) / 1001
    t = schedule.training_time(u)
    assert float(t[0]) == first
    assert torch.allclose((t - first) / (1 - first), u, rtol=0, atol=1e-12)
    assert schedule.training_time(torch.tensor([1 - 2**-53], dtype=torch.float64)) <= 1
    low, high = schedule.log_snr_range()
    assert low == float(schedule.log_snr(torch.ones(1, dtype=torch.float64)))
    assert high == pytest.approx(13.3, abs=1e-9)


@each_continuous
def test_a_continuous_process_has_no_grid(schedule):
    with pytest.raises(ValueError, match=r"continuous.*set schedule\.num_steps"):
        choose("schedule", schedule, num_steps=None).grid()


@each("schedule")
@STEPS
def test_the_least_training_time_of_a_grid_is_its_first_step(schedule, steps):
    assert choose("schedule", schedule, num_steps=steps).t_min == 1 / steps


@each("schedule")
def test_the_grid_has_T_steps_and_the_range_is_from_lambda_T_to_lambda_1(schedule):
    schedule = choose("schedule", schedule, num_steps=40)
    grid = schedule.grid()
    assert grid.tolist() == [i / 40 for i in range(41)]
    low, high = schedule.log_snr_range()
    assert (low, high) == (float(schedule.log_snr(grid[-1:])), float(schedule.log_snr(grid[1:2])))
    assert low < high


@each("schedule")
@pytest.mark.parametrize("steps", [0, -3])
def test_a_process_without_steps_is_refused(schedule, steps):
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        choose("schedule", schedule, num_steps=steps)


@each("schedule")
def test_the_table_is_not_a_weight_to_be_stored(schedule):
    assert not choose("schedule", schedule, num_steps=50).state_dict()


@pytest.mark.parametrize(("steps", "s"), [(10, 0.008), (1000, 0.008), (4000, 0.008), (100, 0.1)])
def test_cosine_is_equation_17_with_beta_clipped_and_multiplied_up_again(steps, s):
    t = np.arange(steps + 1) / steps
    alpha_bar = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    alpha_bar /= alpha_bar[0]
    beta = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    schedule = Cosine(steps, s)
    found = torch.cat([2 * torch.log(schedule.alpha(schedule.grid()[i : i + 1])) for i in range(1, steps + 1)])
    assert np.allclose(found.numpy(), np.log1p(-beta).cumsum(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [10, 1000])
def test_cosine_ends_at_a_thousandth_of_the_step_before_and_not_at_zero(steps):
    schedule = Cosine(steps)
    before, end = (schedule.alpha(schedule.grid()[-2:]) ** 2).tolist()
    assert end / before == pytest.approx(1e-3, rel=1e-9)
    without_clip = math.cos(math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert end > 1e10 * without_clip


def test_linear_runs_from_1e_4_to_002_in_equal_steps():
    beta = one_steps(Linear(1000)).forward_variance.numpy()
    assert beta[[0, -1]] == pytest.approx([1e-4, 0.02], rel=1e-9)
    assert np.allclose(np.diff(beta), 0.0199 / 999, rtol=1e-6)


@pytest.mark.parametrize("steps", [21, 100, 4000])
def test_linear_scales_both_ends_by_1000_over_T(steps):
    beta = one_steps(Linear(steps)).forward_variance.numpy()
    assert beta[[0, -1]] == pytest.approx([0.1 / steps, 20 / steps], rel=1e-9)


@pytest.mark.parametrize(("steps", "tolerance"), [(200, 0.05), (500, 0.02), (4000, 0.02)])
def test_linear_is_the_same_process_at_every_T(steps, tolerance):
    t = torch.tensor([0.1, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    reference, other = (torch.log(Linear(number).alpha(t)) for number in (1000, steps))
    assert torch.allclose(other, reference, rtol=tolerance)


@pytest.mark.parametrize("make", [Linear, ScaledLinear])
@pytest.mark.parametrize("steps", [1, 10, 20])
def test_linear_tables_refuse_so_few_steps_that_beta_reaches_one_and_point_to_cosine(steps, make):
    with pytest.raises(ValueError, match=f"num_steps={steps}.*cosine"):
        make(steps)
    make(21)
    Cosine(steps)


@pytest.mark.parametrize("steps", [21, 1000, 4000])
def test_scaled_linear_is_a_line_between_the_roots_of_linears_ends_squared(steps):
    found = one_steps(ScaledLinear(steps)).forward_variance.numpy()
    roots = np.array([math.sqrt(0.1 / steps), math.sqrt(20 / steps)])
    share = np.arange(steps) / (steps - 1)
    assert np.allclose(found, ((1 - share) * roots[0] + share * roots[1]) ** 2, rtol=1e-9)


def test_a_table_is_the_running_product_of_one_minus_its_betas():
    betas = np.random.default_rng(0).uniform(0.01, 0.9, 12)
    schedule = Table(torch.from_numpy(betas))
    assert schedule.num_steps == 12
    assert np.allclose(schedule.alpha(schedule.grid()).numpy() ** 2, np.cumprod([1, *(1 - betas)]), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_table_refuses_a_beta_that_adds_no_noise_or_leaves_no_signal(beta):
    with pytest.raises(ValueError, match=r"outside \(0, 1\) at num_steps=3"):
        Table(torch.tensor([0.1, beta, 0.2]))


def test_cosine_refuses_a_negative_offset():
    with pytest.raises(ValueError, match="s must be at least 0"):
        Cosine(100, s=-0.1)


@pytest.mark.parametrize("s", [0.008, 0.0, 0.1])
def test_continuous_cosine_runs_evenly_along_equation_17_from_log_snr_20_to_minus_20(s):
    schedule, t = Cosine(None, s), torch.linspace(0, 1, 401, dtype=torch.float64)
    ends = schedule.log_snr(t[[0, -1]]).tolist()
    assert ends == pytest.approx([20, -20], abs=1e-6)
    at_zero = math.cos(s / (1 + s) * math.pi / 2)
    place = np.arccos(schedule.alpha(t).numpy() * at_zero) * 2 / math.pi * (1 + s) - s
    assert np.allclose(np.diff(place), np.diff(place).mean(), rtol=0, atol=1e-6)
    assert place[[0, -1]] == pytest.approx([0, 1], abs=1e-3)
    uncut = np.cos((t.numpy() + s) / (1 + s) * np.pi / 2) / at_zero
    assert np.allclose(schedule.alpha(t).numpy(), uncut, rtol=0, atol=1e-4)


def jabri(t, start: float = -3.0, end: float = 3.0, tau: float = 1.0):
    """alpha_bar as the paper's code writes it."""
    first, last, now = (1 / (1 + np.exp(-np.asarray(x) / tau)) for x in (start, end, t * (end - start) + start))
    return np.clip((last - now) / (last - first), 1e-9, 1.0)


@pytest.mark.parametrize("shape", [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.5), (-1.0, 2.0, 1.3)])
@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_sigmoid_is_the_published_curve_on_the_grid_and_a_billionth_of_power_at_its_end(steps, shape):
    schedule = Sigmoid(steps, *shape)
    found = schedule.alpha(schedule.grid()).numpy() ** 2
    assert np.allclose(found, jabri(schedule.grid().numpy(), *shape), rtol=1e-7, atol=0)
    assert found[-1] == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("shape", [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.5), (-1.0, 2.0, 1.3)])
def test_continuous_sigmoid_is_the_published_curve_up_to_where_that_is_clipped(shape):
    schedule, t = Sigmoid(None, *shape), torch.linspace(0, 1, 401, dtype=torch.float64)
    found = schedule.alpha(t).numpy() ** 2
    assert np.allclose(found, jabri(t.numpy(), *shape), rtol=1e-6, atol=2e-9)
    assert found[-1] == pytest.approx(1e-9, rel=1e-6)
    assert (np.diff(found) < 0).all()


def test_the_sigmoid_of_the_yaml_is_the_papers():
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert np.allclose(choose("schedule", "sigmoid").alpha(t).numpy() ** 2, jabri(t.numpy()), rtol=1e-9)


@pytest.mark.parametrize("shape", [(3.0, -3.0, 1.0), (1.0, 1.0, 1.0), (-3.0, 3.0, 0.0)])
def test_a_sigmoid_that_does_not_fall_is_refused(shape):
    with pytest.raises(ValueError, match="start must be below end and tau above 0"):
        Sigmoid(100, *shape)


@pytest.mark.parametrize("steps", [None, 50])
@pytest.mark.parametrize(("low", "high"), [(0.1, 20.0), (1.0, 3.0)])
def test_vps_ln_alpha_bar_is_minus_the_area_under_a_straight_beta(low, high, steps):
    schedule, t = VP(steps, low, high), torch.linspace(0, 1, 101, dtype=torch.float64)
    beta = schedule.g2(t)
    assert torch.allclose(beta, low + (high - low) * t, rtol=1e-12)
    area = torch.cat([torch.zeros(1), (0.01 * (beta[1:] + beta[:-1]) / 2).cumsum(0)])
    assert torch.allclose(2 * torch.log(schedule.alpha(t)), -area, rtol=1e-12, atol=1e-14)


def test_vp_is_what_linear_tables_come_to_as_their_steps_grow():
    """The distance falls as 1/T."""
    t = torch.tensor([0.1, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    goal = torch.log(choose("schedule", "vp", num_steps=None).alpha(t))
    away = [(torch.log(Linear(steps).alpha(t)) - goal).abs() for steps in (1000, 10_000, 100_000)]
    assert (away[0] < 0.05).all()
    for coarse, fine in pairwise(away):
        assert torch.allclose(coarse / fine, torch.full_like(t, 10), rtol=0.1)


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (2.0, 1.0), (-1.0, 5.0)])
def test_a_vp_whose_beta_does_not_rise_from_above_zero_is_refused(low, high):
    with pytest.raises(ValueError, match="0 < beta_start < beta_end"):
        VP(None, low, high)


@pytest.mark.parametrize(
    "shape", [(-3.0, 3.0, 1.0), (-3.0, 3.0, 3.0), (-1.0, 1.0, 1.0), (-1.0, 3.0, 0.7), (0.3, 3.0, 1.1)]
)
def test_continuous_sigmoid_starts_at_the_data_whatever_its_shape(shape):
    schedule, start = Sigmoid(None, *shape), torch.zeros(1, dtype=torch.float64)
    assert float(schedule.log_snr(start)) == math.inf
    assert (float(schedule.alpha(start)), float(schedule.sigma(start))) == (1, 0)
