"""Denoising score matching, under any weight and under the likelihood's."""

import math

import pytest
import torch
from conftest import choose, each_continuous, each_form
from exact_cases import Exploding, GaussianOracle, digits_like, losses_of, network, normal, says, seeded
from torch import Tensor

from scorelab.denoisers import FixedSmall
from scorelab.losses import DSM, Likelihood, Simple, VariationalBound
from scorelab.schedules import Schedule

EVENLY = torch.linspace(0, 1, 50, dtype=torch.float64)  # as quantiles: from the least training time to 1


def set_up(schedule: Schedule) -> tuple:
    """A denoiser that says some noise, data, training times and noise."""
    t = schedule.training_time(EVENLY)
    return says(schedule, normal(50, 4, seed=3)), normal(50, 4, seed=1), t, normal(50, 4, seed=2)


def score_error(denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Against the gradient of ln q(x_t | x_0) by autograd, mean over dimensions."""
    schedule = denoiser.schedule
    x_t = denoiser.noised(x0, t, eps).x_t.detach().requires_grad_()
    law = torch.distributions.Normal(schedule.alpha(t)[:, None] * x0, schedule.sigma(t)[:, None])
    (score,) = torch.autograd.grad(law.log_prob(x_t).sum(), x_t)
    return (denoiser(x_t, t).score - score).square().mean(1).detach()


@each_form(100)
@pytest.mark.parametrize("weight", ["one", "sigma2", "g2"])
def test_dsm_is_the_weighted_squared_distance_to_the_conditional_score(weight, schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    denoiser, x0, t, eps = set_up(schedule)
    factor = {"one": torch.ones_like(t), "sigma2": schedule.sigma(t) ** 2, "g2": schedule.g2(t)}[weight]
    found = losses_of(DSM(weight), denoiser, x0, t, eps)
    assert torch.allclose(found, factor * score_error(denoiser, x0, t, eps), rtol=1e-6)


@each_form(1000)
def test_dsm_weighed_by_sigma_squared_is_the_simple_loss(schedule, steps):
    denoiser, x0 = network(schedule, steps=steps), digits_like(50)
    t, eps = denoiser.schedule.training_time(EVENLY), normal(50, 1, 8, 8).float()
    with torch.no_grad():
        dsm, simple = (losses_of(loss, denoiser, x0, t, eps) for loss in (DSM("sigma2"), Simple()))
    assert dsm.dtype == torch.float32
    assert torch.allclose(dsm, simple, rtol=1e-5)


def test_dsm_is_not_weighed_where_nothing_is_said():
    assert choose("loss", "dsm").named == "one"


@each_form(200)
def test_the_likelihoods_loss_is_half_of_g2_weighed_dsm_in_bits_per_dim(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    denoiser, x0, t, eps = set_up(schedule)
    length = 1.0 if steps else schedule.t_max - schedule.t_min
    expected = length * 0.5 * losses_of(DSM("g2"), denoiser, x0, t, eps) / math.log(2)
    assert torch.allclose(losses_of(Likelihood(), denoiser, x0, t, eps), expected, rtol=1e-9)


@pytest.mark.parametrize("form", ["cosine", "sigmoid", "vp", "exploding"])
def test_without_steps_the_likelihoods_loss_is_the_variational_bounds(form):
    schedule = Exploding(None) if form == "exploding" else choose("schedule", form, num_steps=None)
    found, bound = (losses_of(loss, *set_up(schedule)) for loss in (Likelihood(), VariationalBound()))
    assert torch.allclose(found, bound, rtol=1e-9)


@each_continuous
def test_with_more_steps_the_likelihoods_loss_comes_to_the_continuous_one_at_the_same_time(schedule):
    """Whose time the continuous cosine and sigmoid stretch by less than a thousandth; a table's slope is off by 1/T."""
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    answer, x0, eps = normal(3, 2, seed=3), normal(3, 2, seed=1), normal(3, 2, seed=2)

    def at(steps: int | None) -> Tensor:
        form = choose("schedule", schedule, num_steps=steps)
        return losses_of(Likelihood(), says(form, answer), x0, t, eps) / form.duration

    for steps in (1000, 10_000):
        assert torch.allclose(at(steps), at(None), rtol=5 / steps + 1e-6)


def test_dsm_is_least_for_the_score_of_the_marginal():
    """Vincent's identity: regression onto conditional scores finds the marginal one; any shift or stretch is worse."""
    oracle = GaussianOracle(choose("schedule", "vp", num_steps=None), FixedSmall(), [0.4, -0.2], [0.7, 1.3])
    n = 20_000
    x0, eps, t = oracle.draw(n, seeded(1)), normal(n, 2, seed=2), torch.full((n,), 0.4, dtype=torch.float64)
    best = losses_of(DSM(), oracle, x0, t, eps)
    answer = oracle(oracle.noised(x0, t, eps).x_t, t).eps
    for worse in (answer + 0.1, 0.9 * answer, 1.1 * answer):
        more = losses_of(DSM(), says(oracle.schedule, worse), x0, t, eps) - best
        assert more.mean() > 3 * more.std() / math.sqrt(n)


def test_the_least_of_dsm_is_the_variance_of_the_conditional_score():
    """E ||s_t - s(x_t|x_0)||^2 / d = mean over dimensions of 1/sigma^2 - 1/(alpha^2 std^2 + sigma^2)."""
    oracle = GaussianOracle(choose("schedule", "vp", num_steps=None), FixedSmall(), [0.4, -0.2], [0.7, 1.3])
    n = 40_000
    x0, eps, t = oracle.draw(n, seeded(1)), normal(n, 2, seed=2), torch.full((n,), 0.3, dtype=torch.float64)
    loss = losses_of(DSM(), oracle, x0, t, eps)
    alpha, sigma = oracle.schedule.alpha(t[:1]), oracle.schedule.sigma(t[:1])
    expected = (1 / sigma**2 - 1 / (alpha**2 * oracle.std**2 + sigma**2)).mean()
    assert abs(loss.mean() - expected) < 5 * loss.std() / math.sqrt(n)
