"""The weights of the literature: which are the same objective under another name, and what each is at its ends."""

import math

import pytest
import torch
from conftest import choose, each_form
from exact_cases import Says, losses_of, normal, says, seeded, tiny_unet

from scorelab.denoisers import FixedSmall, NetworkDenoiser, Preconditioned, Velocity
from scorelab.errors import Refusal
from scorelab.losses import (
    FlowMatching,
    LogitNormal,
    LogNormal,
    Simple,
    SplitLogNormal,
    Uncertainty,
    Uniform,
    VariationalBound,
    weight_card,
)
from scorelab.losses.weightings import P2, EDMWeight, MinSNR, SigmoidWeight, SoftMinSNR
from scorelab.schedules import EDM, VP, Cosine, Flow, Schedule

EQUAL = {
    "min-SNR with gamma beyond every S is simple": (MinSNR(1e30), Simple(), Cosine()),
    "soft min-SNR with gamma beyond every S is simple": (SoftMinSNR(1e30), Simple(), Cosine()),
    "soft min-SNR with a small gamma is the error of x_0": (SoftMinSNR(1e-30), Simple("x0"), Cosine()),
    "P2 with gamma 0 is simple": (P2(0.0), Simple(), Cosine()),
    "P2 with gamma 1 and k 1 is the error of x_0 seen through sigma": (P2(), SoftMinSNR(1.0), Cosine()),
    "the sigmoid with a bias beyond every log-SNR is the bound": (SigmoidWeight(60.0), VariationalBound(), VP()),
    "EDM's weight with unit data is the error of v, where the variance is preserved": (
        EDMWeight(1.0),
        Simple("v"),
        Cosine(None),
    ),
    "the flow's velocity is v over its length": (FlowMatching(), Simple("velocity"), Flow()),
    "an uncertainty not yet learned is EDM's weight": (Uncertainty(), EDMWeight(), EDM()),
}


@pytest.mark.parametrize("pair", EQUAL)
def test_equal_objectives_have_one_card_up_to_a_factor(pair):
    first, second, schedule = EQUAL[pair]
    denoiser = NetworkDenoiser(schedule, tiny_unet(), Velocity(), FixedSmall(), 17)
    found, expected = (weight_card(denoiser, loss, Uniform()).mass for loss in (first, second))
    ratio = found / expected
    assert torch.allclose(ratio, ratio[0], rtol=1e-6), pair


@each_form(100)
def test_the_error_of_the_velocity_is_that_of_the_data_times_half_alpha_lambda_dot_squared(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    t = schedule.training_time(torch.linspace(0.01, 0.99, 60, dtype=torch.float64))
    denoiser = says(schedule, normal(60, 3))
    x0, eps = normal(60, 3, seed=1), normal(60, 3, seed=2)
    found, on_x0 = (losses_of(loss, denoiser, x0, t, eps) for loss in (FlowMatching(), Simple("x0")))
    rate = schedule.g2(t) / schedule.sigma(t) ** 2
    assert torch.allclose(found, (schedule.alpha(t) * rate / 2) ** 2 * on_x0, rtol=1e-6)


def test_on_straight_paths_it_is_the_error_of_the_data_over_t_squared():
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    denoiser = says(Flow(), normal(3, 4))
    found, on_x0 = (
        losses_of(loss, denoiser, normal(3, 4, seed=1), t, normal(3, 4, seed=2))
        for loss in (FlowMatching(), Simple("x0"))
    )
    assert torch.allclose(found, on_x0 / t**2, rtol=1e-9)


def test_edms_weight_is_one_on_what_its_network_says():
    t = EDM().training_time(torch.linspace(0, 0.99, 40, dtype=torch.float64))
    says_f = NetworkDenoiser(EDM(), Says(normal(40, 3)), Preconditioned(0.5), FixedSmall())
    truth = says_f.noised(normal(40, 3, seed=1), t, normal(40, 3, seed=2))
    spread = torch.sqrt(truth.sigma**2 + 0.25)
    f = (truth.x0 - 0.25 / spread**2 * truth.x_t) * spread / (truth.sigma * 0.5)
    found = losses_of(EDMWeight(), says_f, truth.x0, t, truth.eps)
    assert torch.allclose(found, (f - says_f.network.answer).square().mean(1), rtol=1e-7)


def test_an_uncertainty_learns_the_logarithm_of_the_weighted_error_at_every_noise_level():
    """Of which the weighted errors at two levels differ 200-fold."""
    loss, schedule = Uncertainty(), EDM()
    t = schedule.inverse(torch.tensor([6.0, -4.0], dtype=torch.float64))
    denoiser = says(schedule, torch.zeros(2, 4))
    weight = loss.base.weight(denoiser, t)
    x0, eps = normal(2, 4), torch.ones(2, 4, dtype=torch.float64)
    optimizer = torch.optim.Adam(loss.parameters(), 0.02)
    for _ in range(400):
        optimizer.zero_grad()
        losses_of(loss, denoiser, x0, t, eps).sum().backward()
        optimizer.step()
    error = (denoiser(denoiser.noised(x0, t, eps).x_t, t).x0 - x0).square().mean(1)
    expected = torch.log(weight * error)
    assert expected.diff().abs() > 4
    assert torch.allclose(loss.log_spread(denoiser, t).double(), expected, atol=0.05)


def of(law, schedule: Schedule, n: int = 40_000) -> torch.Tensor:
    return law.draw(schedule, n, 0, 0, 1, seeded()).t


def test_lognormal_draws_edms_noise_levels():
    """Mean and spread of ln(sigma), of which the range 0.002 to 80 cuts next to nothing."""
    log_sigma = torch.log(EDM().sigma(of(LogNormal(), EDM())))
    assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=5 * 1.2 / 200)
    assert float(log_sigma.std()) == pytest.approx(1.2, rel=0.02)


def test_the_two_sides_of_split_lognormal_have_their_own_spread_and_meet_at_the_centre():
    schedule, law = EDM(None, 1e-6, 1e6), SplitLogNormal(0.5, 0.4, 1.6)
    log_sigma = torch.log(schedule.sigma(of(law, schedule)))
    below, above = log_sigma[log_sigma < 0.5], log_sigma[log_sigma >= 0.5]
    assert len(below) / len(log_sigma) == pytest.approx(0.2, abs=0.01)
    assert float((below - 0.5).square().mean().sqrt()) == pytest.approx(0.4, rel=0.03)
    assert float((above - 0.5).square().mean().sqrt()) == pytest.approx(1.6, rel=0.03)
    around = law.pdf(torch.tensor([-1.0 - 1e-9, -1.0 + 1e-9], dtype=torch.float64))
    assert float(around[0]) == pytest.approx(float(around[1]))


def test_logitnormal_is_a_law_of_time_under_any_schedule():
    for schedule in (Flow(), Cosine(None)):
        logit = torch.logit(of(LogitNormal(0.5, 0.8), schedule))
        assert float(logit.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(logit.std()) == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize(("name", "inside", "share"), [("laplace", 0.5, 1 - math.exp(-1)), ("cauchy", 1.0, 0.5)])
def test_the_heavy_tailed_laws_have_their_mass_about_log_snr_0(name, inside, share):
    schedule = Flow()
    log_snr = schedule.log_snr(of(choose("timesteps", name), schedule))
    within = float((log_snr.abs() < inside).double().mean())
    cut = 1 if name == "laplace" else sum(math.atan(end) for end in (20, 13.3)) / math.pi
    assert within == pytest.approx(share / cut, abs=0.0125)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogNormal(std=0.0),
        lambda: SplitLogNormal(std_below=-1.0),
        lambda: SoftMinSNR(0.0),
        lambda: P2(k=0.0),
        lambda: EDMWeight(0.0),
    ],
)
def test_a_spread_that_is_not_above_zero_is_refused(make):
    with pytest.raises(Refusal, match="must be above 0"):
        make()


def test_a_law_beside_all_training_times_is_refused():
    with pytest.raises(Refusal, match="no mass to the training times"):
        LogNormal(500.0, 0.1).draw(Cosine(), 4, 0, 0, 1, seeded())
