"""The likelihood of a probability flow, on laws whose likelihood is known."""

import math

import pytest
import torch
from conftest import choose, each_form
from exact_cases import Exploding, Straight, digits_like, normal, seeded
from torch import Tensor

from scorelab.data.synthetic import Gaussian, Moons, Synthetic
from scorelab.denoisers import Exact, FixedSmall, Rescheduled
from scorelab.errors import OverBudget
from scorelab.evaluation import EvaluationContext, EvaluationSettings, FlowLikelihood
from scorelab.laws import FiniteSet, GaussianMixture
from scorelab.likelihood import flow_log_prob, level_decoder_nll
from scorelab.losses import Simple, Uniform
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Schedule
from scorelab.tensors import generator, to_levels


def exact(source: Synthetic, schedule: Schedule) -> Exact:
    return Exact(schedule, FixedSmall(), source.law())


def least_noised(denoiser: Exact, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Noised data at the least time, in float64, and that time."""
    t = torch.full((len(x0),), denoiser.time_range()[0], dtype=torch.float64)
    return denoiser.noised(x0.double(), t, normal(*x0.shape, seed=1)).x_t, t


@each_form(1000)
def test_the_flow_of_an_exact_score_has_the_exact_likelihood_under_every_schedule(schedule, steps):
    """Up to the mismatch of prior and marginal at the end, a few 1e-3 nats for linear schedules, 0.02 at -5."""
    denoiser = exact(Moons(), choose("schedule", schedule, num_steps=steps))
    x, t = least_noised(denoiser, Moons().drawn(24, "flow").values)
    found = flow_log_prob(denoiser, x)
    assert (found.log_prob - denoiser.posterior(x, t).log_prob).abs().max() < (0.05 if schedule == "learned" else 0.02)
    assert found.log_prob.dtype == torch.float64
    assert 20 < found.evaluations < 400


@pytest.mark.parametrize("schedule", [Exploding(None), Straight(None)])
def test_it_needs_no_process_that_preserves_power(schedule):
    denoiser = exact(Gaussian(), schedule)
    if isinstance(schedule, Straight):  # ends without signal, where the log-SNR is minus infinity
        denoiser = Rescheduled(exact(Gaussian(), VP()), schedule)
    low_noise = denoiser.time_range()[0]
    t = torch.full((24,), low_noise, dtype=torch.float64)
    x = denoiser.noised(Gaussian().drawn(24, "flow").values.double(), t, normal(24, 2, seed=1)).x_t
    alpha, sigma = (float(each) for each in (schedule.alpha(t)[0], schedule.sigma(t)[0]))
    source = Gaussian()
    covariance = alpha**2 * source.covariance + sigma**2 * torch.eye(2).double()
    law = torch.distributions.MultivariateNormal(alpha * source.mean, covariance)
    assert (flow_log_prob(denoiser, x).log_prob - law.log_prob(x)).abs().max() < 0.03


def test_a_wrong_score_has_another_likelihood():
    """That of a narrower law's flow, at the same points, is that law's."""
    wide, narrow = (GaussianMixture(torch.zeros(1, 2), std**2 * torch.eye(2)[None]) for std in (0.5, 0.3))
    denoiser = Exact(VP(), FixedSmall(), narrow)
    x, t = least_noised(denoiser, wide.draw(24, seeded()).x0)
    found = flow_log_prob(denoiser, x).log_prob
    assert torch.allclose(found, denoiser.posterior(x, t).log_prob, atol=0.02)
    assert (found - Exact(VP(), FixedSmall(), wide).posterior(x, t).log_prob).abs().min() > 0.02


def test_along_one_direction_it_is_right_on_average():
    denoiser = exact(Moons(), Cosine())
    x = least_noised(denoiser, Moons().drawn(1, "flow").values)[0].expand(100, -1)
    truth = flow_log_prob(denoiser, x[:1]).log_prob
    found = flow_log_prob(denoiser, x, generator=seeded(), exact_dims=1).log_prob
    assert found.std() > 1e-3
    assert abs(float(found.mean() - truth)) < 5 * float(found.std()) / math.sqrt(100) + 1e-3


@pytest.mark.parametrize("std", [0.1, 0.3, 1.0])
def test_however_coarse_its_tolerance_the_solver_leaps_over_nothing(std):
    """Where all is data or all is noise the flow stands nearly still; one long step from there would miss the rest."""
    denoiser = Exact(VP(), FixedSmall(), GaussianMixture(torch.zeros(1, 2), std**2 * torch.eye(2)[None]))
    x, t = least_noised(denoiser, denoiser.law.draw(8, seeded()).x0)
    found = flow_log_prob(denoiser, x, tolerance=1e-1)
    assert (found.log_prob - denoiser.posterior(x, t).log_prob).abs().max() < 0.02
    assert found.evaluations < 100


LAWS = {
    "gaussian": GaussianMixture(torch.tensor([[0.4, -0.2, 0.9]]), torch.diag(torch.tensor([0.5, 1.2, 0.1]) ** 2)[None]),
    "mixture": GaussianMixture(
        torch.tensor([[0.8, 0.1, -0.5], [-0.6, 0.5, 0.4]]),
        torch.stack([torch.diag(torch.tensor(std) ** 2) for std in ([0.1, 0.4, 0.2], [0.3, 0.2, 0.5])]),
    ),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("exact_dims", [3, 2])
def test_by_either_divergence_the_flow_has_the_density_at_its_beginning(law, exact_dims):
    """Of a Gaussian along the axes v^T J v = tr J whatever the signs v, so one direction is exact too.

    Of a mixture it is right on average. At log-SNR -20 what the prior forgets is below 1e-4 nats.
    """
    denoiser = Exact(Cosine(None), FixedSmall(), LAWS[law])
    n = 4 if law == "gaussian" or exact_dims == 3 else 100
    x, t = least_noised(denoiser, LAWS[law].draw(4, seeded()).x0)
    x, t = x.repeat(n // 4, 1), t.repeat(n // 4)
    found = flow_log_prob(denoiser, x, generator=seeded(), tolerance=1e-6, exact_dims=exact_dims).log_prob
    away = found - denoiser.posterior(x, t).log_prob
    if n == 4:
        assert away.abs().max() < 1e-3
    else:
        each = away.reshape(-1, 4)
        assert (each.std(0) > 0.01).any()
        assert (each.mean(0).abs() < 5 * each.std(0) / math.sqrt(n // 4) + 1e-3).all()


def test_a_finer_tolerance_comes_nearer_and_costs_more():
    denoiser = exact(Moons(), Cosine())
    x, t = least_noised(denoiser, Moons().drawn(24, "flow").values)
    truth = denoiser.posterior(x, t).log_prob
    coarse, fine = (flow_log_prob(denoiser, x, tolerance=tolerance) for tolerance in (1e-2, 1e-6))
    assert coarse.evaluations < fine.evaluations
    assert (fine.log_prob - truth).abs().max() < 0.1 * (coarse.log_prob - truth).abs().max()


def case(denoiser: Exact, held_out: Tensor, law: Exact | None) -> EvaluationContext:
    label = torch.zeros(len(held_out)).long()
    split = (held_out, label, held_out, label)
    return EvaluationContext(
        denoiser,
        DDIM(2),
        EvaluationSettings(chunk=20),
        *split,
        None,
        Simple(),
        Uniform(),
        exact_train=law,
        exact_held_out=law,
    )


def test_the_yardstick_tells_it_beside_the_laws_own_in_bits_and_counts_what_it_cost():
    denoiser, held_out = exact(Moons(), Cosine()), Moons().drawn(20, "held out").values
    found = FlowLikelihood(items=20).run(case(denoiser, held_out, denoiser), None)
    assert found.metrics["ode_nll"] == pytest.approx(found.metrics["ode_nll_exact"], abs=0.01)
    entropy = -float(denoiser.law.log_prob(held_out).mean()) / (2 * math.log(2))
    assert found.metrics["ode_nll_exact"] == pytest.approx(entropy, abs=0.1)  # the least noise is little
    assert found.evaluations > FlowLikelihood.least_calls * 20
    unknown = FlowLikelihood(items=5).run(case(denoiser, held_out, None), None)
    assert set(unknown.metrics) == {"ode_nll"}
    with pytest.raises(OverBudget):
        FlowLikelihood(items=20).run(case(denoiser, held_out, denoiser), 10)


@pytest.mark.parametrize("schedule", [Cosine(), VP()])
def test_over_levels_the_bound_of_a_finite_set_is_the_log_of_its_size_and_the_decoder(schedule):
    """Where noise does not mix the points up, p(x) = q(x | x_0) / N."""
    points = digits_like(7, side=4)
    denoiser = Exact(schedule, FixedSmall(), FiniteSet(points), 17)
    found = FlowLikelihood(items=7).run(case(denoiser, to_levels(points, 17), None), None)
    assert found.records["log_snr"] == pytest.approx(2 * math.log(4 / 0.125))  # sigma = spacing / 4
    at = torch.full((7,), found.records["log_snr"]).double()
    eps = torch.randn(points.shape, generator=generator("flow", 0, 0))
    decoder = level_decoder_nll(at, points, eps, 17).mean()
    expected = (math.log(7) + float(decoder)) / (16 * math.log(2))
    assert found.metrics["ode_nll"] == pytest.approx(expected, abs=0.005)
    assert "of levels, at most" in found.records["of"]


def test_the_flow_starts_no_later_than_the_denoiser_knows():
    few = Exact(Cosine(), FixedSmall(), FiniteSet(digits_like(4)), 4096)
    assert FlowLikelihood().start(few) == few.log_snr_range()[1]
    with pytest.raises(ValueError, match="has no flow from"):
        flow_log_prob(few, digits_like(4), log_snr=30.0)
