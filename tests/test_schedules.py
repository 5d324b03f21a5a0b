"""Noise schedules: what must hold of every one, then what makes each the published one."""

import math

import numpy as np
import pytest
import torch
from conftest import choose, each
from oracles import normal

from scorelab.schedules import Cosine, Linear, Table

STEPS = pytest.mark.parametrize("steps", [50, 1000])


def between(steps: int, per_step: int = 4) -> torch.Tensor:
    """Times at and between the grid points, without 0."""
    return torch.arange(1, per_step * steps + 1, dtype=torch.float64) / (per_step * steps)


def one_steps(schedule):
    grid = schedule.grid()
    return schedule.transition(grid[:-1], grid[1:])


@each("schedule")
@STEPS
def test_the_log_snr_is_infinite_at_the_data_and_falls_strictly_from_there(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    log_snr = schedule.log_snr(torch.cat([torch.zeros(1, dtype=torch.float64), between(steps)]))
    assert log_snr[0] == math.inf
    assert log_snr[1:].isfinite().all()
    assert (log_snr.diff() < 0).all()


@each("schedule")
@STEPS
def test_the_log_snr_is_that_of_alpha_and_sigma(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), between(steps)
    expected = 2 * torch.log(schedule.alpha(t) / schedule.sigma(t))
    assert torch.allclose(schedule.log_snr(t), expected, rtol=0, atol=1e-9)


@each("schedule")
@pytest.mark.parametrize("steps", [50, 1000, 4000])
def test_the_log_snr_inverts_at_grid_points_and_between(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), between(steps)
    assert torch.allclose(schedule.inverse(schedule.log_snr(t)), t, rtol=0, atol=1e-9)


@each("schedule")
def test_answers_are_float64_whatever_precision_asks(schedule):
    schedule, t = choose("schedule", schedule, num_steps=100), torch.tensor([0.25, 0.5])
    for name in ("alpha", "sigma", "log_snr", "f", "g2", "inverse"):
        assert getattr(schedule, name)(t).dtype == torch.float64
    assert torch.equal(schedule.alpha(t), schedule.alpha(t.double()))


@each("schedule")
@STEPS
def test_a_table_preserves_variance(schedule, steps):
    schedule, t = choose("schedule", schedule, num_steps=steps), between(steps)
    if not isinstance(schedule, Table):
        pytest.skip("not a table")
    assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14)
    assert (schedule.alpha(torch.zeros(1)), schedule.sigma(torch.zeros(1))) == (1, 0)


@each("schedule")
@STEPS
def test_drift_and_diffusion_are_the_derivatives_of_ln_alpha_and_of_the_log_snr(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
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


@each("schedule")
@pytest.mark.parametrize(("s", "t"), [(0.02, 0.04), (0.1, 0.9), (0.313, 0.314), (0.9, 1.0), (0.001, 1.0)])
def test_the_posterior_is_bayes_rule_between_any_two_times(schedule, s, t):
    schedule = choose("schedule", schedule, num_steps=1000)
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
    if not isinstance(schedule, Table):
        pytest.skip("DDPM's letters are those of a table")
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


@pytest.mark.parametrize("steps", [1, 10, 20])
def test_linear_refuses_so_few_steps_that_beta_reaches_one_and_points_to_cosine(steps):
    with pytest.raises(ValueError, match=f"num_steps={steps}.*cosine"):
        Linear(steps)
    Cosine(steps)


def test_cosine_refuses_a_negative_offset():
    with pytest.raises(ValueError, match="s must be at least 0"):
        Cosine(100, s=-0.1)
