"""A continuous process that is trained to an end of its own, before t = 1: nothing may go on to 1 by itself."""

import math

import pytest
import torch
from conftest import choose, each
from exact_cases import GaussianOracle, Straight, Watched, losses_of, normal, seeded
from torch import Tensor

from scorelab.denoisers import Denoiser, Eps, Estimate, FixedSmall, Rescheduled
from scorelab.errors import Refusal
from scorelab.losses import Importance, Likelihood, Simple, Uniform, VariationalBound, weight_card
from scorelab.schedules import VP, Schedule


class Early(Schedule):
    """alpha = 1 - t and sigma = t, trained where lambda lies in [-3, 8]: to t = 0.8176 and from 0.0180 on."""

    log_snr_ends = (-3.0, 8.0)
    prior_std = 0.9

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.double()

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()


FIRST, LAST = (1 / (1 + math.exp(end / 2)) for end in (8.0, -3.0))
LENGTH = 8.0 + 3.0


class Off(Denoiser):
    """Says the noise that there is in x_t of one point at 0, and 1 more."""

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        sigma = self.schedule.sigma(t)[:, None].to(x_t)
        return Estimate.from_eps(x_t, self.schedule.alpha(t)[:, None].to(x_t), sigma, x_t / sigma + 1)


def evenly(n: int = 200_000) -> Tensor:
    return Early().training_time((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def test_training_times_end_where_the_log_snr_does() -> None:
    schedule = Early()
    assert (schedule.t_min, schedule.t_max) == pytest.approx((FIRST, LAST), rel=1e-12)
    assert schedule.log_snr_range() == pytest.approx((-3, 8), abs=1e-12)
    ends = schedule.training_time(torch.tensor([0.0, 1.0 - 1e-15], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([FIRST, LAST], rel=1e-12)
    assert schedule.duration == pytest.approx(LAST - FIRST)


@each("timesteps")
def test_every_law_of_times_keeps_to_them_and_leaves_the_objective_what_it_was(timesteps: str) -> None:
    law, schedule, n = choose("timesteps", timesteps), Early(), 40_000
    if not law.divides_by_density:
        pytest.skip("this law is part of the objective")
    draw = law.draw(schedule, n, 0, 0, 1, seeded())
    assert float(draw.t.min()) >= FIRST and float(draw.t.max()) <= LAST
    for g in (torch.square, lambda t: (t > 0.95 * LAST).double()):
        value = draw.weight * g(draw.t)
        assert abs(value.mean() - g(evenly()).mean()) < 5 * value.std() / math.sqrt(n)


def test_importance_learns_where_a_loss_was_seen() -> None:
    law, schedule = Importance(history=1, uniform=0.001, bins=20), Early()
    law.draw(schedule, 1, 0, 0, 1, seeded())
    middles = schedule.training_time((torch.arange(20, dtype=torch.float64) + 0.5) / 20)
    law.update(middles, torch.arange(20, dtype=torch.float64) + 1)
    assert (law.probabilities().diff() > 0).all()
    assert float(law.probabilities()[-1] / law.probabilities()[0]) == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("loss", [VariationalBound(), Likelihood()], ids=lambda loss: type(loss).__name__)
def test_the_mean_of_the_bounds_integrand_is_half_the_noise_error_times_the_whole_fall_of_log_snr(loss) -> None:
    """In bits: for an error of 1 everywhere, (8 + 3) / (2 ln 2), by the loss and by its weight."""
    denoiser, t = Off(Early(), FixedSmall()), evenly()
    expected = LENGTH / (2 * math.log(2))
    assert float(loss.noise_weight(denoiser, t).mean()) == pytest.approx(expected, rel=1e-4)
    x0, eps = torch.zeros(len(t), 1, dtype=torch.float64), normal(len(t), 1)
    assert float(losses_of(loss, denoiser, x0, t, eps).double().mean()) == pytest.approx(expected, rel=1e-4)


def test_its_card_holds_all_that_is_trained_and_no_more() -> None:
    card = weight_card(Off(Early(), FixedSmall()), Simple(), Uniform())
    assert (float(card.low[-1]), float(card.high[0])) == pytest.approx((-3, 8))
    assert float(card.probability.sum()) == pytest.approx(1, rel=1e-4)


@each("sampler")
def test_a_walk_begins_at_its_end_and_asks_about_nothing_beyond(sampler: str) -> None:
    watched = Watched(GaussianOracle(Early(), FixedSmall(), [0.1, -0.2], 0.5))
    assert watched.time_range() == pytest.approx((FIRST, LAST))
    walk = choose("sampler", sampler)
    walk = walk if walk.adaptive else walk.with_steps(9)
    assert walk(watched, (4, 2), None, seeded()).isfinite().all()
    asked = torch.cat(watched.times)
    assert float(asked.max()) == pytest.approx(LAST) and float(asked.min()) >= FIRST * (1 - 1e-9)


def test_the_noise_may_be_predicted_where_signal_is_left_at_the_end_though_none_is_at_1() -> None:
    Eps().check(Early())
    Simple().check(Off(Early(), FixedSmall()))
    with pytest.raises(Refusal, match="alpha = 0"):
        Eps().check(Straight(None))


def test_a_rescheduled_denoiser_that_knows_more_begins_with_the_power_that_its_own_end_has_here() -> None:
    """prior_std is that of Early's end, and this walk begins beyond it: where lambda is VP's least."""
    inner = GaussianOracle(VP(), FixedSmall(), [0.1, -0.2], 0.5)
    shown = Rescheduled(inner, Early())
    latest = torch.tensor([shown.time_range()[1]], dtype=torch.float64)
    assert float(latest) > LAST
    power = Early().alpha(latest) ** 2 + Early().sigma(latest) ** 2
    assert shown.prior_std == pytest.approx(float(power.sqrt()), rel=1e-6)
