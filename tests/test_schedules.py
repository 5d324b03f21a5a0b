"""Noise schedules: what must hold of every one, then what makes each the published one."""

import copy
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import CONTINUOUS, STEPPED, choose, each_continuous, each_form, each_grid
from exact_cases import Exploding, Straight, normal
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.schedules import (
    VP,
    Cosine,
    Linear,
    ScaledLinear,
    Schedule,
    Sigmoid,
    Table,
    VariancePreserving,
    check_contract,
    discretized,
)

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
def test_along_a_walk_each_time_is_known_by_itself_and_only_there(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    with schedule.along(torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64), 2) as stops:
        for t in stops:
            assert schedule.at(t) is schedule.at(t) is not schedule.at(t.clone())
            for name in ("alpha", "sigma", "log_snr", "f", "g2"):
                told, known = getattr(schedule, name)(t), getattr(schedule.at(t), name)
                assert known.shape == t.shape and torch.allclose(known, told, rtol=1e-12, atol=0), name
    assert schedule.at(t) is not schedule.at(t)


def test_staying_at_times_nothing_is_computed_twice_and_afterwards_a_schedule_is_copied_as_ever():
    schedule, t = Cosine(), torch.tensor([0.2, 0.7], dtype=torch.float64)
    with schedule.staying(t):
        assert schedule.at(t).alpha is schedule.at(t).alpha
        assert schedule.at(t.clone()).alpha is not schedule.at(t).alpha
    assert schedule.at(t) is not schedule.at(t)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(schedule)))
    assert torch.equal(copied.at(t).alpha, schedule.alpha(t))


@FORMS
def test_the_log_snr_falls_strictly_and_is_finite_between_its_ends_and_where_it_is_trained(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    log_snr = schedule.log_snr(torch.cat([torch.zeros(1, dtype=torch.float64), between(steps)]))
    assert log_snr[1:-1].isfinite().all()
    assert all(math.isfinite(end) for end in schedule.log_snr_range())
    assert (log_snr.diff() < 0).all()


@each_form(50, 1000, 4000)
def test_the_log_snr_is_infinite_at_the_data_where_no_noise_is_left_there(schedule, steps):
    left = {"cosine": 20, "learned": 13.3}.get(schedule) if steps is None else None
    schedule, start = choose("schedule", schedule, num_steps=steps), torch.zeros(1, dtype=torch.float64)
    sigma, log_snr = float(schedule.sigma(start)), float(schedule.log_snr(start))
    assert log_snr == (math.inf if sigma == 0 else pytest.approx(2 * math.log(float(schedule.alpha(start)) / sigma)))
    if isinstance(schedule, VariancePreserving):
        assert log_snr == (pytest.approx(left, abs=1e-6) if left else math.inf)
        assert float(schedule.alpha(start)) == (pytest.approx(1, abs=1e-6) if left else 1)


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


def all_forms() -> list:
    """Every schedule at 50 steps and continuous, and two that do not preserve variance."""
    forms = [*((name, 50) for name in STEPPED), *((name, None) for name in CONTINUOUS)]
    made = [pytest.param(choose("schedule", name, num_steps=steps), id=f"{name}-{steps}") for name, steps in forms]
    return [*made, *(pytest.param(make(50), id=make.__name__) for make in (Exploding, Straight))]


@pytest.mark.parametrize("schedule", all_forms())
def test_a_closed_form_is_what_follows_from_alpha_and_sigma(schedule):
    t = between(50)[:-1]
    log_snr = schedule.log_snr(t)
    assert torch.allclose(Schedule.log_snr(schedule, t), log_snr, rtol=0, atol=1e-9)
    assert torch.allclose(Schedule.inverse(schedule, log_snr), schedule.inverse(log_snr), rtol=0, atol=1e-12)
    assert torch.allclose(Schedule.log_alpha_bar(schedule, t), schedule.log_alpha_bar(t), rtol=1e-9)
    for name in ("f", "g2"):
        found, expected = getattr(Schedule, name)(schedule, t), getattr(schedule, name)(t)
        assert torch.allclose(found, expected, rtol=1e-7, atol=1e-12), name
    if isinstance(schedule, VariancePreserving):
        value = schedule.log_alpha_bar(t)
        assert torch.allclose(VariancePreserving.beta(schedule, t), schedule.beta(t), rtol=1e-9)
        assert torch.allclose(VariancePreserving.at_log_alpha_bar(schedule, value), t, rtol=0, atol=1e-12)


class Line(Schedule):
    """alpha = 1 - t, sigma = t, and nothing else said."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.double()

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()


class Bend(Schedule):
    """Of one parameter: alpha = 1, sigma = e^(rate (t - 1/2))."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(6.0, dtype=torch.float64))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.exp(self.rate * (t.double() - 0.5))


def test_what_follows_from_alpha_and_sigma_keeps_its_digits_near_the_data():
    """T = 1e-13 at log-SNR 60, where a bisection of 52 steps would have three digits."""
    log_snr = torch.linspace(-20, 60, 81, dtype=torch.float64)
    assert torch.allclose(Line().inverse(log_snr), torch.sigmoid(-log_snr / 2), rtol=1e-6, atol=0)
    t = torch.logspace(-13, -1, 20, dtype=torch.float64)
    assert torch.allclose(Line().g2(t), 2 * t / (1 - t), rtol=1e-12)
    assert torch.allclose(Line().f(t), -1 / (1 - t), rtol=1e-12)


def test_beyond_the_ends_the_nearer_is_the_inverse_in_any_shape():
    found = Bend().inverse(torch.tensor([[math.inf, 6.1, 6.0], [-math.inf, -6.1, -6.0], [0.0, 3.0, math.nan]]))
    assert found.dtype == torch.float64
    assert found[:2].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert found[2, :2].tolist() == pytest.approx([0.5, 0.25], abs=1e-12)
    assert found[2, 2].isnan()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_derivatives_follow_whether_or_not_gradients_are_kept_and_carry_none_of_the_time(mode):
    with mode():
        t = torch.tensor([0.2, 0.7])
        for schedule in (Line(), Line(30)):
            assert torch.allclose(schedule.f(t), -1 / (1 - t.double()), rtol=1e-9)
            assert torch.allclose(schedule.g2(t), 2 * t.double() / (1 - t.double()), rtol=1e-9)
            assert not schedule.f(t).requires_grad and not schedule.g2(t).requires_grad
        assert torch.equal(Bend().f(t), torch.zeros(2, dtype=torch.float64)), "alpha does not depend on time"


def test_a_schedules_own_parameters_are_trained_through_its_derivatives():
    """G^2 = 2 r e^(r (2 t - 1)), its slope in r 2 (1 + r (2 t - 1)) e^(r (2 t - 1))."""
    schedule, t = Bend(), torch.tensor([0.3], dtype=torch.float64)
    (slope,) = torch.autograd.grad(schedule.g2(t).sum(), schedule.rate)
    assert float(slope) == pytest.approx(2 * (1 - 2.4) * math.exp(-2.4), rel=1e-9)


@pytest.mark.parametrize(
    ("ends", "low", "high"),
    [((-20.0, 13.3), -6, 6), ((-4.0, 13.3), -4, 6), ((-20.0, 5.0), -6, 5), ((-4.0, 5.0), -4, 5)],
)
def test_a_continuous_process_is_trained_between_its_log_snr_ends_as_far_as_it_reaches_them(ends, low, high):
    class Own(Bend):
        log_snr_ends = ends

    schedule = Own()
    assert schedule.log_snr_range() == (pytest.approx(low), pytest.approx(high))
    assert (schedule.t_min, schedule.t_max) == (pytest.approx((6 - high) / 12), pytest.approx((6 - low) / 12))
    steps = Line(40)
    assert (steps.t_min, steps.t_max, steps.duration) == (1 / 40, 1, 1)


def test_training_times_follow_a_schedules_parameters_and_those_of_its_copy_stand_apart():
    """The log-SNR 2 r (1/2 - t) is 13.3 at t = 1/2 - 13.3 / 2r, and -20 at 1/2 + 20 / 2r."""
    schedule = Bend()
    assert (schedule.t_min, schedule.t_max, schedule.duration) == (0, 1, 1)
    copied = copy.deepcopy(schedule)
    with torch.no_grad():
        copied.rate.fill_(40.0)
    assert (copied.t_min, copied.t_max) == (pytest.approx(0.5 - 13.3 / 80), pytest.approx(0.75))
    assert float(copied.training_time(torch.zeros(1))) == copied.t_min
    assert (schedule.t_min, schedule.t_max) == (0, 1)
    schedule.load_state_dict(copied.state_dict())
    assert (schedule.t_min, schedule.t_max) == (copied.t_min, copied.t_max)


def test_without_parameters_training_times_are_sought_once(monkeypatch):
    schedule = Cosine(None)
    found = schedule.t_min, schedule.t_max
    monkeypatch.setattr(Cosine, "log_snr", None)
    assert (schedule.t_min, schedule.t_max) == found == (copy.deepcopy(schedule).t_min, copy.deepcopy(schedule).t_max)


@pytest.mark.parametrize("curve", [VP(), Bend(), Cosine(None)])
def test_a_table_of_any_curve_has_its_log_snr_at_every_grid_time_and_its_slope_between(curve):
    """In x / sqrt(alpha^2 + sigma^2), and but for the noise that a curve starts with."""
    table = discretized(curve.log_alpha_bar, 40)
    grid = table.grid()
    value = curve.log_alpha_bar(grid).detach()
    assert torch.allclose(table.log_alpha_bar(grid), value - value[0], rtol=1e-9, atol=1e-14)
    assert torch.allclose(table.log_alpha_bar(grid[1:] - 0.0125), (value[1:] + value[:-1]) / 2 - value[0], rtol=1e-9)


def test_a_table_of_a_curve_that_ends_without_signal_does_so_too_unless_it_is_cut():
    table, grid = discretized(Line().log_alpha_bar, 30), torch.arange(31, dtype=torch.float64) / 30
    assert torch.allclose(table.log_snr(grid)[1:-1], Line().log_snr(grid)[1:-1], rtol=1e-9)
    assert (float(table.alpha(grid[-1:])), float(table.log_snr(grid[-1:]))) == (0, -math.inf)
    table = discretized(Line().log_alpha_bar, 30, beta_max=0.9)
    assert torch.allclose(table.log_snr(table.grid())[1:-1], Line().log_snr(table.grid())[1:-1], rtol=1e-9)
    end = table.alpha(table.grid()[-2:]) ** 2
    assert float(end[1] / end[0]) == pytest.approx(0.1)


# --- the contract


@pytest.mark.parametrize("schedule", [*all_forms(), Line(), Line(7), Bend(), Exploding(), Linear(1000), Cosine(2)])
def test_every_schedule_keeps_the_contract(schedule):
    check_contract(schedule)


def test_neither_alpha_nor_sigma_can_be_left_out():
    class Half(Schedule):
        def alpha(self, t: Tensor) -> Tensor:
            return 1 - t.double()

    with pytest.raises(TypeError, match=r"Half.*sigma"):
        Half()


BROKEN = {
    "must fall, and does not after: .* at t = 0.1": {"sigma": lambda t: t.double() + 0.2 * torch.sin(12 * t.double())},
    "alpha must answer one number a time": {"alpha": lambda t: 1 - t.double().mean(0, keepdim=True)},
    "sigma must answer one number a time": {"sigma": lambda t: t.double()[:, None]},
    "sigma must answer a tensor, got float": {"sigma": lambda t: 0.5},
    "alpha must compute in float64": {"alpha": lambda t: 1 - t},
    "alpha must be finite and at least 0": {"alpha": lambda t: 0.5 - t.double()},
    "sigma must be finite and at least 0": {"sigma": lambda t: 1 / (1 - t.double())},
    "must not both be 0: 0 at t = 1": {"sigma": lambda t: t.double() * (1 - t.double())},
    "alpha must be above 0 inside": {"alpha": lambda t: (0.5 - t.double()).clamp(min=0)},
    "log_snr must be 2 ln": {"log_snr": lambda t: torch.log((1 - t.double()) / t.double())},
    "f, the derivative": {"f": lambda t: torch.full_like(t, math.nan, dtype=torch.float64)},
    "g2 must be finite and above 0": {"g2": lambda t: -t.double()},
    "prior_std must be above 0": {"prior_std": 0.0},
    "must call super": {"__init__": lambda self: nn.Module.__init__(self)},
    "never between its log_snr_ends 5 and 4": {"log_snr_ends": (5.0, 4.0)},
}


@pytest.mark.parametrize("told", BROKEN)
def test_what_breaks_the_contract_is_named(told):
    own = {
        name: staticmethod(value) if callable(value) and name != "__init__" else value
        for name, value in BROKEN[told].items()
    }
    with pytest.raises(Refusal, match=told):
        check_contract(type("Broken", (Line,), own)())


@each_grid
@STEPS
def test_all_one_step_kernels_compose_to_the_marginal(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    composes(schedule)


def composes(schedule):
    step, grid = one_steps(schedule), schedule.grid()
    factor, variance, found = float(schedule.alpha(grid[:1])), float(schedule.sigma(grid[:1])) ** 2, []
    for ratio, more in zip((step.alpha_t / step.alpha_s).tolist(), step.forward_variance.tolist(), strict=True):
        factor, variance = ratio * factor, ratio**2 * variance + more
        found.append((factor, variance))
    factors, variances = torch.tensor(found, dtype=torch.float64).T
    assert torch.allclose(factors, schedule.alpha(grid[1:]), rtol=1e-10, atol=1e-300)
    assert torch.allclose(variances, schedule.sigma(grid[1:]) ** 2, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("make", [Exploding, Straight])
def test_so_do_those_of_a_process_that_does_not_preserve_variance_and_of_one_that_ends_without_signal(make):
    composes(make(50))


@each_form(1000)
@pytest.mark.parametrize("times", [(0.001, 0.4, 1.0), (0.02, 0.0312, 0.04), (0.9, 0.95, 1.0), (0.5, 0.50001, 0.6)])
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


@each_grid
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


@each_grid
def test_the_step_to_the_data_is_x0_itself(schedule):
    schedule = choose("schedule", schedule, num_steps=100)
    first = one_steps(schedule)
    assert (first.mean_of_xt[0], first.mean_of_x0[0], first.posterior_variance[0]) == (0, 1, 0)
    assert float(first.forward_variance[0]) == pytest.approx(float(schedule.sigma(schedule.grid()[[1]])) ** 2)


@each_grid
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


@each_grid
@pytest.mark.parametrize("steps", [30, 49, 1000, 4000])
def test_at_a_grid_time_a_table_has_the_slope_of_the_interval_that_ends_there(schedule, steps):
    """Also where i / T times T is a rounding off i."""
    schedule = choose("schedule", schedule, num_steps=steps)
    if not isinstance(getattr(schedule, "path", schedule), Table):
        pytest.skip("in closed form, not read from a table")
    fall = -(2 * torch.log(schedule.alpha(schedule.grid()))).diff()
    assert torch.allclose(schedule.g2(schedule.grid()[1:]), steps * fall, rtol=1e-6)
    assert torch.allclose(schedule.f(schedule.grid()[1:]), -steps * fall / 2, rtol=1e-6)


@each_continuous
def test_continuous_training_times_are_uniform_between_those_of_its_log_snr_ends(schedule):
    schedule = choose("schedule", schedule, num_steps=None)
    first, last = schedule.t_min, schedule.t_max
    u = torch.arange(1001, dtype=torch.float64) / 1001
    t = schedule.training_time(u)
    assert float(t[0]) == first
    assert torch.allclose((t - first) / (last - first), u, rtol=0, atol=1e-12)
    assert schedule.training_time(torch.tensor([1 - 2**-53], dtype=torch.float64)) <= last
    assert schedule.duration == last - first
    ends = schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    low, high = schedule.log_snr_ends
    expected = (max(low, ends[1]), min(high, ends[0]))
    assert schedule.log_snr_range() == (pytest.approx(expected[0], abs=1e-9), pytest.approx(expected[1], abs=1e-9))


@pytest.mark.parametrize("schedule", ["cosine", "sigmoid", "vp"])
def test_those_of_the_curves_that_preserve_variance_are_133_and_their_own_end(schedule):
    schedule = choose("schedule", schedule, num_steps=None)
    assert schedule.t_max == 1
    assert float(schedule.log_snr(torch.tensor([schedule.t_min]))) == pytest.approx(13.3, abs=1e-4)


@each_continuous
def test_a_continuous_process_has_no_grid(schedule):
    with pytest.raises(ValueError, match=r"continuous.*set schedule\.num_steps"):
        choose("schedule", schedule, num_steps=None).grid()


@each_grid
@STEPS
def test_the_least_training_time_of_a_grid_is_its_first_step(schedule, steps):
    assert choose("schedule", schedule, num_steps=steps).t_min == 1 / steps


@each_grid
def test_the_grid_has_T_steps_and_the_range_is_from_lambda_T_to_lambda_1(schedule):
    schedule = choose("schedule", schedule, num_steps=40)
    grid = schedule.grid()
    assert grid.tolist() == [i / 40 for i in range(41)]
    low, high = schedule.log_snr_range()
    assert (low, high) == (float(schedule.log_snr(grid[-1:])), float(schedule.log_snr(grid[1:2])))
    assert low < high


@each_grid
@pytest.mark.parametrize("steps", [0, -3])
def test_a_process_without_steps_is_refused(schedule, steps):
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        choose("schedule", schedule, num_steps=steps)


@each_grid
def test_the_table_is_not_a_weight_to_be_stored(schedule):
    schedule = choose("schedule", schedule, num_steps=50)
    assert set(schedule.state_dict()) == {name for name, _ in schedule.named_parameters()}


@pytest.mark.parametrize(("steps", "s"), [(10, 0.008), (1000, 0.008), (4000, 0.008), (100, 0.1)])
def test_cosine_is_equation_17_with_beta_clipped_and_multiplied_up_again(steps, s):
    t = np.arange(steps + 1) / steps
    alpha_bar = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    alpha_bar /= alpha_bar[0]
    beta = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    schedule = Cosine(steps, s)
    found = 2 * torch.log(schedule.alpha(schedule.grid()[1:]))
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


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (2.0, 1.0), (2.0, 2.0), (-1.0, 5.0)])
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
