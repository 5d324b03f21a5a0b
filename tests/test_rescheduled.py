"""A denoiser trained under one schedule and asked under another."""

import math

import pytest
import torch
from conftest import CONTINUOUS, STEPPED, choose
from exact_cases import Exploding, GaussianOracle, Straight, Watched, normal, seeded
from torch import Tensor

from scorelab.denoisers import FixedSmall, Learned, Rescheduled
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Linear, Schedule, Sigmoid

MEAN, STD = [0.4, -0.2, 1.5], [0.7, 1.3, 0.2]
FORMS = [*STEPPED, *(f"{name} continuous" for name in CONTINUOUS), "exploding", "straight"]
PAIRS = [(FORMS[i], FORMS[(i + k) % len(FORMS)]) for i in range(len(FORMS)) for k in (0, 1, 4)]


def form(name: str) -> Schedule:
    if name in ("exploding", "straight"):
        return {"exploding": Exploding, "straight": Straight}[name](None)
    name, *continuous = name.split()
    return choose("schedule", name, num_steps=None if continuous else 1000)


def gaussian(schedule: Schedule, variance=None) -> GaussianOracle:
    return GaussianOracle(schedule, variance or FixedSmall(), MEAN, STD)


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("trained", "asked"), PAIRS)
def test_the_oracle_of_one_schedule_shown_at_another_is_the_oracle_of_that_other(trained, asked):
    """Between processes of different power too: x_t / sqrt(alpha^2 + sigma^2) has one law at one log-SNR."""
    inner, schedule = gaussian(form(trained)), form(asked)
    shown, own = Rescheduled(inner, schedule), gaussian(schedule)
    earliest, latest = shown.time_range()
    t = torch.lerp(times(earliest), times(latest), torch.linspace(0.001, 0.99, 40, dtype=torch.float64))
    x0, eps = normal(40, 3, seed=1), normal(40, 3, seed=2)
    x_t = own.noised(x0, t, eps).x_t
    said, expected = shown(x_t, t), own(x_t, t)
    for name in ("x_t", "alpha", "sigma"):
        assert torch.equal(getattr(said, name), getattr(expected, name)), name
    for name in ("x0", "eps"):
        assert torch.allclose(getattr(said, name), getattr(expected, name), rtol=1e-7, atol=1e-8), name
    assert torch.allclose(shown.noised(x0, t, eps).x_t, x_t)


@pytest.mark.parametrize(("trained", "asked"), PAIRS)
def test_the_range_of_times_is_where_the_other_schedule_has_the_log_snrs_that_both_reach(trained, asked):
    inner, schedule = gaussian(form(trained)), form(asked)
    shown = Rescheduled(inner, schedule)
    (low, high), (earliest, latest) = shown.log_snr_range(), shown.time_range()
    end, start = schedule.log_snr(times(1, 1e-300)).tolist()
    trained_low, trained_high = inner.log_snr_range()
    assert (low, high) == (max(trained_low, end), min(trained_high, start))
    assert 0 <= earliest < latest <= 1
    assert float(schedule.log_snr(times(max(earliest, 1e-300)))) == pytest.approx(high, abs=1e-6)
    assert float(schedule.log_snr(times(latest))) == pytest.approx(low, abs=1e-6) or (low == end and latest == 1)


def test_under_its_own_schedule_a_denoiser_is_what_it_was():
    inner = gaussian(Cosine(50))
    shown, (earliest, latest) = Rescheduled(inner, inner.schedule), inner.time_range()
    assert shown.time_range() == pytest.approx((earliest, latest), abs=1e-12)
    assert shown.prior_std == pytest.approx(inner.prior_std)
    t, x_t = inner.schedule.grid()[1:], normal(50, 3)
    assert torch.allclose(shown(x_t, t).x0, inner(x_t, t).x0, rtol=1e-8)


@pytest.mark.parametrize("beyond", [-0.01, 0.01])
def test_a_log_snr_at_which_it_was_not_trained_is_refused(beyond):
    """Linear runs from -10.1 to 9.2, and cosine goes beyond it on both sides."""
    inner, schedule = gaussian(Linear(1000)), Cosine(None)
    shown, (low, high) = Rescheduled(inner, schedule), inner.log_snr_range()
    edge = low if beyond < 0 else high
    inside, outside = (schedule.inverse(times(edge + sign * beyond)) for sign in (-1, 1))
    assert shown(normal(1, 3), inside).x0.isfinite().all()
    with pytest.raises(ValueError, match=r"log-SNR \[-10\.\d+, 9\.\d+\] was asked about one outside"):
        shown(normal(2, 3), torch.cat([inside, outside]))


def test_twice_rescheduled_is_rescheduled_once_where_all_three_reach():
    inner, last = gaussian(Linear(1000)), Sigmoid(None)
    middle = Rescheduled(inner, Cosine(200))
    once, twice = Rescheduled(inner, last), Rescheduled(middle, last)
    assert twice.log_snr_range() == pytest.approx(middle.log_snr_range(), abs=1e-9)
    t = torch.linspace(*twice.time_range(), 30, dtype=torch.float64)
    assert torch.allclose(last.log_snr(t[[-1, 0]]), times(*middle.log_snr_range()), rtol=0, atol=1e-6)
    assert torch.allclose(twice(normal(30, 3), t).x0, once(normal(30, 3), t).x0, rtol=1e-7)


def test_back_under_its_own_schedule_it_is_the_denoiser_it_was():
    inner = gaussian(VP(None))
    there_and_back = Rescheduled(Rescheduled(inner, Exploding(None, 1e-4, 1e4)), VP(None))
    assert there_and_back.time_range() == pytest.approx(inner.time_range(), abs=1e-9)
    t = torch.linspace(*inner.time_range(), 30, dtype=torch.float64)
    assert torch.allclose(there_and_back(normal(30, 3), t).x0, inner(normal(30, 3), t).x0, rtol=1e-7)


def test_what_a_denoiser_says_of_the_variance_and_its_levels_come_along():
    inner = GaussianOracle(Linear(1000), Learned(), MEAN, STD, levels=17, fraction=0.3)
    shown = Rescheduled(inner, Cosine(1000))
    assert (shown.variance, shown.levels) == (inner.variance, 17)
    assert (shown(normal(2, 3), times(0.4, 0.5)).variance_fraction == 0.3).all()


# --- sampling


def test_a_walk_is_cut_to_the_times_it_may_ask_about_and_starts_at_the_last_of_them():
    watched = Watched(gaussian(Linear(1000)))
    shown = Rescheduled(watched, Cosine(400))
    sampler, (earliest, latest) = DDIM(400), shown.time_range()
    walk = sampler.times(shown)
    assert 0 < earliest < latest < 1
    assert float(walk[0]) == latest
    assert float(walk[-1]) == 0
    grid = [i / 400 for i in range(400, 0, -1)]
    assert walk[1:-1].tolist() == pytest.approx([t for t in grid if earliest <= t < latest], abs=1e-12)
    assert sampler.evaluations(shown) == len(walk) - 1 < 400
    samples = sampler(shown, (2, 3), None, seeded())
    assert samples.isfinite().all()
    asked = torch.stack(watched.times)[:, 0]
    assert len(asked) == sampler.evaluations(shown)
    assert torch.allclose(
        watched.schedule.log_snr(asked), shown.schedule.log_snr(walk[:-1]).clamp(*watched.log_snr_range()), atol=1e-6
    )


@pytest.mark.parametrize(
    ("trained", "asked", "expected"),
    [
        (Linear(1000), Cosine(1000), 1.0),
        (Cosine(1000), Linear(1000), 1.0),
        (VP(None), Exploding(None, 0.01, 1000.0), math.sqrt(1 + math.exp(10.05))),
        (Cosine(None), Exploding(None, 0.01, 50.0), 50.0),
        (Exploding(None, 0.01, 50.0), Cosine(None), math.sqrt(2500 / 2501)),
        (Exploding(None, 0.01, 50.0), Straight(None), 50 / 51),
    ],
)
def test_a_walk_starts_from_the_law_that_the_denoiser_knows_as_its_noisiest(trained, asked, expected):
    """Where the other schedule goes on beyond it: the trained prior in the units of the other; else the other's own."""
    shown = Rescheduled(gaussian(trained), asked)
    assert shown.prior_std == pytest.approx(expected, rel=1e-4)


def test_the_walk_through_another_schedule_carries_the_start_to_the_data_law():
    """DDIM is exact in the limit; a wrong start or a wrong factor on x_t would leave another spread."""
    shown = Rescheduled(gaussian(VP(None)), Exploding(None, 0.001, 1000.0))
    n = 5_000
    samples = DDIM(400)(shown, (n, 3), None, seeded(3)).double()
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    assert ((samples.mean(0) - mean).abs() < 5 * std / math.sqrt(n) + 0.01).all()
    assert ((samples.std(0) / std - 1).abs() < 5 / math.sqrt(2 * n) + 0.02).all()


def test_the_first_draw_has_the_standard_deviation_of_the_start():
    shown = Rescheduled(gaussian(VP(None)), Exploding(None, 0.001, 1000.0))
    t = times(shown.time_range()[1]).expand(16)
    x = shown.prior_std * torch.randn((16, 3), generator=seeded(4))
    by_hand = shown(x, t).x0
    only_step = DDIM(1)(shown, (16, 3), None, seeded(4))
    assert torch.equal(only_step, by_hand)


def test_the_start_of_a_twice_rescheduled_walk_is_in_the_last_schedules_units():
    middle = Rescheduled(gaussian(VP(None)), Exploding(None, 0.001, 1000.0))
    assert Rescheduled(middle, VP(None)).prior_std == pytest.approx(1, rel=1e-6)
    assert Rescheduled(middle, Exploding(None, 1e-4, 3000.0)).prior_std == pytest.approx(middle.prior_std, rel=1e-6)
