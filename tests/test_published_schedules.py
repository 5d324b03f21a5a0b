"""What makes each further schedule the published one, and a log-SNR shift of any of them."""

import math

import numpy as np
import pytest
import torch
from conftest import CONTINUOUS, STEPPED, choices, choose, each, each_form

from scorelab.app.expected import noise_levels
from scorelab.denoisers import Rates
from scorelab.errors import Refusal
from scorelab.losses import Simple
from scorelab.schedules import (
    EDM,
    JSD,
    VE,
    VP,
    Flow,
    LinearZeroSNR,
    Schedule,
    SubVP,
    VarianceExploding,
    VariancePreserving,
    Warmup,
)

SILENT = [JSD, LinearZeroSNR]
T = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


def betas(schedule: Schedule) -> np.ndarray:
    grid = schedule.grid()
    return (1 - (schedule.alpha(grid[1:]) / schedule.alpha(grid[:-1])) ** 2).numpy()


def test_the_choices_that_have_both_forms_and_those_that_end_without_signal():
    assert {"ve", "edm", "subvp"} <= set(CONTINUOUS) & set(STEPPED)
    assert {"constant", "warmup10", "warmup50"} <= set(STEPPED) - set(CONTINUOUS)
    assert "flow" in set(CONTINUOUS) - set(STEPPED)
    assert {"jsd", "linear_zero_snr"} <= set(choices("schedule")) - set(STEPPED) - set(CONTINUOUS)


@pytest.mark.parametrize("steps", [30, 1000])
@pytest.mark.parametrize(("name", "share"), [("warmup10", 0.1), ("warmup50", 0.5), ("constant", 0.0)])
def test_beta_rises_over_a_share_of_the_steps_and_then_stays(name, share, steps):
    scale = 1000 / steps
    expected = np.full(steps, 0.02 * scale)
    expected[: int(steps * share)] = np.linspace(1e-4 * scale, 0.02 * scale, int(steps * share))
    assert np.allclose(betas(choose("schedule", name, num_steps=steps)), expected, rtol=1e-9)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_warm_up_of_more_than_all_steps_is_refused(share):
    with pytest.raises(Refusal, match="share of the steps"):
        Warmup(100, share)


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_jsds_signal_falls_evenly_to_none(steps):
    schedule = JSD(steps)
    assert betas(schedule) == pytest.approx(1 / np.arange(steps, 0, -1), rel=1e-9)
    assert (schedule.alpha(schedule.grid()) ** 2).numpy() == pytest.approx(1 - np.arange(steps + 1) / steps, abs=1e-12)


@pytest.mark.parametrize("steps", [21, 1000])
def test_zero_terminal_snr_is_algorithm_1_on_the_linear_table(steps):
    root = np.sqrt(np.cumprod(1 - np.linspace(0.1 / steps, 20 / steps, steps)))
    expected = root.copy()
    expected -= root[-1]
    expected *= root[0] / (root[0] - root[-1])
    found = LinearZeroSNR(steps).alpha(LinearZeroSNR(steps).grid()[1:]).numpy()
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[0] == pytest.approx(root[0], rel=1e-12)
    assert found[-1] == 0


@pytest.mark.parametrize("make", SILENT)
def test_a_table_that_ends_without_signal_falls_and_inverts_between_its_last_points(make):
    schedule = make(40)
    t = torch.cat([torch.linspace(0.9, 1, 81, dtype=torch.float64)])
    log_snr = schedule.log_snr(t)
    assert log_snr[-1] == -math.inf
    assert (log_snr.diff() < 0).all()
    assert log_snr[:-1].isfinite().all()
    assert torch.allclose(schedule.inverse(log_snr), t, rtol=0, atol=1e-9)
    inner = t[t > 0.975][:-1]
    expected = VariancePreserving.slope(schedule, schedule.log_alpha_bar, inner)
    assert torch.allclose(-schedule.beta(inner), expected, rtol=1e-9)


@pytest.mark.parametrize("make", SILENT)
def test_where_no_signal_is_left_the_noise_is_neither_predicted_nor_trained_on(make):
    schedule = make(40)
    with pytest.raises(Refusal, match="prediction=v or x0"):
        choose("prediction", "eps").check(schedule)
    choose("prediction", "v").check(schedule)
    assert Simple("v").space == "v"


def test_sub_vps_variance_is_the_square_of_vps():
    """G^2 = beta (1 - e^{-2 beta_0 t - (beta_1 - beta_0) t^2}), and the drift is VP's."""
    vp, schedule = VP(), SubVP()
    assert torch.allclose(schedule.alpha(T), vp.alpha(T), rtol=1e-12)
    assert torch.allclose(schedule.sigma(T), vp.sigma(T) ** 2, rtol=1e-12)
    assert torch.allclose(schedule.f(T), -vp.beta(T) / 2, rtol=1e-12)
    expected = vp.beta(T) * (1 - torch.exp(-2 * 0.1 * T - 19.9 * T**2))
    assert torch.allclose(schedule.g2(T), expected, rtol=1e-12)


def test_ve_is_geometric_and_edm_the_power_of_a_line():
    ve, edm, t = VE(), EDM(), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert ve.sigma(t).tolist() == pytest.approx([0.01, math.sqrt(0.5), 50], rel=1e-12)
    middle = ((0.002 ** (1 / 7) + 80 ** (1 / 7)) / 2) ** 7
    assert edm.sigma(t).tolist() == pytest.approx([0.002, middle, 80], rel=1e-12)
    assert (ve.prior_std, edm.prior_std) == (50, 80)
    published = [80.0, 57.586, 40.786, 28.375]  # of 18 steps, eq. 5
    place = 1 - torch.arange(4, dtype=torch.float64) / 17
    assert edm.sigma(place).tolist() == pytest.approx(published, rel=1e-4)


@pytest.mark.parametrize("make", [VE, EDM])
def test_a_grid_begins_at_the_data_though_the_noise_after_it_is_not_small(make):
    grid = make(10).grid()
    assert make(10).sigma(grid)[0] == 0
    assert torch.equal(make(10).sigma(grid)[1:], make(None).sigma(grid)[1:])
    first = make(10).transition(grid[:1], grid[1:2])
    assert float(first.forward_variance) == pytest.approx(float(make().sigma(grid[1:2])) ** 2, rel=1e-12)
    assert float(make(None).sigma(grid[:1])) > 0


def test_flow_goes_straight_from_the_data_to_the_noise():
    rates, schedule = Rates(Flow(), T), Flow()
    assert torch.allclose(schedule.alpha(T), 1 - T) and torch.allclose(schedule.sigma(T), T)
    assert torch.allclose(rates.alpha, -torch.ones_like(T), rtol=1e-9)
    assert torch.allclose(rates.sigma, torch.ones_like(T), rtol=1e-9)
    low, high = schedule.log_snr_range()
    assert (low, high) == (pytest.approx(-20), pytest.approx(13.3))


@each("schedule")
@pytest.mark.parametrize("shift", [-2.77, 1.0])
def test_a_shift_adds_to_the_log_snr_and_leaves_the_family_what_it_is(schedule, shift):
    plain, moved = choose("schedule", schedule), choose("schedule", schedule, log_snr_shift=shift)
    t = T if plain.num_steps is None else plain.grid()[1:-1]
    assert torch.allclose(moved.log_snr(t), plain.log_snr(t) + shift, rtol=0, atol=1e-9)
    assert torch.allclose(moved.inverse(moved.log_snr(t)), t, rtol=0, atol=1e-9)
    alpha, sigma = moved.alpha(t), moved.sigma(t)
    if isinstance(moved, VariancePreserving):
        assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-12)
    elif isinstance(moved, VarianceExploding):
        assert (alpha == 1).all()
        assert moved.prior_std == pytest.approx(plain.prior_std * math.exp(-shift / 2))
    else:
        power = 2 if schedule == "subvp" else 1
        assert torch.allclose(alpha**power + sigma, torch.ones_like(t), rtol=1e-12)
    between = t - 0.3 / (plain.num_steps or 100)
    for name in ("f", "g2"):
        expected, found = getattr(Schedule, name)(moved, between), getattr(moved, name)(between)
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-12), name


@each_form(100)
def test_a_shift_of_nothing_changes_no_bit(schedule, steps):
    plain = choose("schedule", schedule, num_steps=steps)
    same = choose("schedule", schedule, num_steps=steps, log_snr_shift=0.0)
    for name in ("alpha", "sigma", "log_snr", "f", "g2"):
        assert torch.equal(getattr(plain, name)(T), getattr(same, name)(T))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: VE(None, 1.0, 0.5), "0 < sigma_min < sigma_max"),
        (lambda: EDM(None, 0.0, 80.0), "0 < sigma_min < sigma_max"),
        (lambda: EDM(None, rho=0.0), "rho must be above 0"),
        (lambda: SubVP(None, 2.0, 1.0), "0 < beta_start < beta_end"),
        (lambda: Flow(None, math.inf), "log_snr_shift must be finite"),
        (lambda: JSD(0), "num_steps must be at least 1"),
        (lambda: LinearZeroSNR(20), "beta reaches 1"),
    ],
)
def test_what_makes_no_schedule_is_refused(make, told):
    with pytest.raises(Refusal, match=told):
        make()


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (choose("schedule", "linear"), "log-SNR from 9.2 to -10.1"),
        (choose("schedule", "vp"), "log-SNR from 13.3 to -10.0"),
        (choose("schedule", "cosine"), "; the last of 1,000 steps is a jump: it falls by 6.9 there"),
        (choose("schedule", "jsd"), "to -inf; the last of 1,000 steps is a jump: it falls to no signal at all there"),
    ],
)
def test_a_run_says_between_which_noise_levels_it_trains_and_where_a_step_is_a_jump(schedule, told):
    assert told in noise_levels(schedule)
