"""The bound as an objective, alone and beside L_simple."""

import math

import pytest
import torch
from conftest import STEPPED, choose, each, each_continuous, each_grid, each_preserving_grid
from exact_cases import GaussianOracle, Says, digits_like, losses_of, network, normal, says
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from scorelab.denoisers import FixedSmall, NetworkDenoiser
from scorelab.likelihood import bits_per_dim, bound_term, lattice_log_prob
from scorelab.losses import Example, Hybrid, Simple, VariationalBound
from scorelab.schedules import VP

# --- the bound


def by_hand(denoiser: NetworkDenoiser, x0: Tensor, i: int, eps: Tensor, large: bool) -> Tensor:
    """L_i in bits/dim from DDPM's letters, alpha_bar alone and torch's own Gaussians."""
    alpha_bar = denoiser.schedule.alpha(denoiser.schedule.grid()) ** 2
    now, before = alpha_bar[i], alpha_bar[i - 1]
    beta = 1 - now / before
    x_t = now.sqrt() * x0 + (1 - now).sqrt() * eps
    answer = denoiser(x_t, denoiser.schedule.grid()[[i]].expand(len(x0))).x0
    if i == 1:
        variance = (1 - alpha_bar[2] / now) * (1 - now) / (1 - alpha_bar[2])
        nats = -lattice_log_prob(x0, answer, torch.log(variance), denoiser.levels)
    else:
        posterior = beta * (1 - before) / (1 - now)
        from_x_t = (1 - beta).sqrt() * (1 - before) / (1 - now) * x_t
        q = Normal(from_x_t + before.sqrt() * beta / (1 - now) * x0, posterior.sqrt())
        p = Normal(from_x_t + before.sqrt() * beta / (1 - now) * answer, (beta if large else posterior).sqrt())
        nats = kl_divergence(q, p)
    return nats.flatten(1).sum(1) / (x0[0].numel() * math.log(2))


@each_preserving_grid
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_vlb_loss_over_all_times_is_the_bound_without_its_prior_in_bits_per_dim(variance, schedule):
    steps, x0 = 25, digits_like(3).double()
    denoiser = network(schedule, "eps", variance, steps).double()
    noises = [normal(3, 1, 8, 8, seed=i) for i in range(steps)]
    with torch.no_grad():
        expected = [by_hand(denoiser, x0, i + 1, noises[i], variance == "fixed_large") for i in range(steps)]
        t = denoiser.schedule.grid()[1:].repeat_interleave(3)
        found = losses_of(VariationalBound(), denoiser, x0.repeat(steps, 1, 1, 1), t, torch.cat(noises))
    assert torch.allclose(found, steps * torch.cat(expected), rtol=1e-6, atol=1e-9)
    assert float(found.mean()) == pytest.approx(float(torch.stack(expected).sum(0).mean()), rel=1e-6)


@each_grid
@each("prediction")
@each("variance")
def test_the_vlb_loss_and_its_gradients_are_finite_at_every_time(variance, prediction, schedule):
    law, n = choose("variance", variance), 1000
    answering = Says(0.5 * normal(n, law.outputs, 4, 4, seed=1).float())
    process, head = choose("schedule", schedule, num_steps=n), choose("prediction", prediction)
    denoiser = NetworkDenoiser(process, answering, head, law, levels=17)
    eps = normal(n, 1, 4, 4).float()
    loss = losses_of(VariationalBound(), denoiser, digits_like(n, side=4), process.grid()[1:], eps)
    loss.sum().backward()
    assert loss.isfinite().all()
    each_time = answering.answer.grad.flatten(1)
    assert each_time.isfinite().all()
    assert (each_time.abs().sum(1) > 0)[process.sigma(process.grid()[1:]) > 0.02].all(), (
        "below, the decoder may be certain"
    )


@each_continuous
def test_the_continuous_vlb_loss_is_the_rate_of_the_bound_times_the_length_of_time(schedule):
    """Against the slope of the log-SNR by differences, in bits/dim."""
    denoiser = network(schedule, steps=None).double()
    schedule, x0, eps = denoiser.schedule, digits_like(40).double(), normal(40, 1, 8, 8)
    t, h = schedule.training_time(torch.linspace(0.01, 0.99, 40, dtype=torch.float64)), 1e-7
    fall = (schedule.log_snr(t - h) - schedule.log_snr(t + h)) / (2 * h)
    with torch.no_grad():
        found = losses_of(VariationalBound(), denoiser, x0, t, eps)
        error = (denoiser(denoiser.noised(x0, t, eps).x_t, t).eps - eps).square().flatten(1).sum(1)
    expected = schedule.duration * 0.5 * fall * error / (64 * math.log(2))
    assert torch.allclose(found, expected, rtol=1e-5)


@each_continuous
def test_the_mean_of_the_continuous_vlb_loss_over_its_times_is_the_information_between_the_ends(schedule):
    """1/2 sum ln(1 + S std^2), at 13.3 or t = 0 less that at -20 or t = 1, in bits/dim: a Gaussian's own denoiser."""
    schedule = choose("schedule", schedule, num_steps=None)
    denoiser = GaussianOracle(schedule, FixedSmall(), [0.4, -0.2, 1.5], [0.7, 1.3, 0.2])
    n = 40_000
    place = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    t, found = schedule.training_time(place**4), 0.0  # finer where the log-SNR falls fast
    for sign in (-1.0, 1.0):
        for other in (-1.0, 1.0):  # the loss is quadratic in data and noise, so its mean is that over +-1
            x0 = (denoiser.mean + sign * denoiser.std).expand(n, -1)
            loss = losses_of(VariationalBound(), denoiser, x0, t, torch.full_like(x0, other))
            found += float((loss * 4 * place**3).mean()) / 4
    first, last = schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    ends = torch.tensor([max(-20.0, last), min(13.3, first)], dtype=torch.float64)
    information = 0.5 * torch.log1p(torch.exp(ends)[:, None] * denoiser.std**2).sum(1).diff()
    assert found == pytest.approx(float(information) / (3 * math.log(2)), rel=1e-4)


def test_the_vlb_loss_of_many_steps_comes_to_the_continuous_one_at_the_same_time():
    """The distance falls as 1/T; at T = 10,000 it is a thousandth or less away from the data."""
    t = torch.tensor([0.2, 0.35, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64)
    x0, eps, answer = normal(6, 3, seed=1), normal(6, 3, seed=2), normal(6, 3, seed=3)
    continuous = losses_of(VariationalBound(), says(VP(None), answer), x0, t, eps) / VP(None).duration
    away = [
        (losses_of(VariationalBound(), says(VP(T), answer), x0, t, eps) / continuous - 1).abs() for T in (1000, 10_000)
    ]
    assert (away[1] < 1.5e-3).all()
    assert torch.allclose(away[0] / away[1], torch.full_like(t, 10), rtol=0.1)


@each_grid
def test_the_vlb_trains_a_learned_variance_towards_the_exact_one(schedule):
    """Its gradient in f vanishes where s^2 is the mean squared distance of x_s from the step's mean."""
    schedule = choose("schedule", schedule, num_steps=50)
    oracle = GaussianOracle(schedule, choose("variance", "learned"), [0.0], [0.5])
    n, t = 20_000, torch.full((20_000,), 0.5, dtype=torch.float64)
    x0, eps = 0.5 * normal(n, 1, seed=1), normal(n, 1, seed=2)
    s = t - 1 / 50
    step = schedule.transition(s[:1], t[:1])
    posterior = 0.25 * step.sigma_t**2 / (0.25 * step.alpha_t**2 + step.sigma_t**2)
    exact = torch.log(step.posterior_variance + step.mean_of_x0**2 * posterior)
    low, high = torch.log(step.posterior_variance), torch.log(step.forward_variance)
    best = float((exact - low) / (high - low))
    assert 0 < best < 1
    means = []
    for fraction in (best - 0.2, best, best + 0.2):
        oracle.variance_fraction = fraction
        means.append(losses_of(VariationalBound(), oracle, x0, t, eps))
    for worse in (means[0], means[2]):
        more = worse - means[1]
        assert more.mean() > 3 * more.std() / math.sqrt(n)


def halved(schedule, levels: int | None = 17) -> tuple[NetworkDenoiser, Tensor, Tensor, Tensor]:
    """A denoiser that says a mean and a variance, data, every time of the grid, and noise."""
    n = schedule.num_steps
    v = 2 * torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 1
    denoiser = says(schedule, torch.cat([0.3 * normal(n, 1, 8, 8, seed=4), v], 1), "learned", levels)
    return denoiser, digits_like(n).double(), schedule.grid()[1:], normal(n, 1, 8, 8, seed=5)


def gradient(loss, denoiser, x0, t, eps) -> tuple[Tensor, Tensor]:
    """That of the summed loss in both halves of the network's answer."""
    denoiser.network.answer.grad = None
    losses_of(loss, denoiser, x0, t, eps).sum().backward()
    return denoiser.network.answer.grad.chunk(2, 1)


# --- the hybrid


@each_grid
@pytest.mark.parametrize("bound", [0.001, 0.5])
@pytest.mark.parametrize("levels", [17, None])
def test_the_hybrid_loss_is_simple_plus_a_thousandth_of_T_times_the_bounds_term_in_bits_per_dim(
    levels, bound, schedule
):
    denoiser, x0, t, eps = halved(choose("schedule", schedule, num_steps=40), levels)
    loss = choose("loss", "hybrid") if bound == 0.001 else Hybrid(bound)
    with torch.no_grad():
        estimate = denoiser(denoiser.noised(x0, t, eps).x_t, t)
        simple = (eps - estimate.eps).square().mean((1, 2, 3))
        term = bits_per_dim(bound_term(denoiser, estimate, x0, t), 64)
        terms = loss(denoiser, Example.of(denoiser, x0, t, eps))
    assert torch.allclose(terms.loss, simple + bound * 40 * term, rtol=1e-9)
    assert torch.allclose(terms.parts["simple"], simple, rtol=1e-12)
    assert torch.allclose(terms.parts["vlb"], 40 * term, rtol=1e-9)
    assert torch.allclose(terms.parts["vlb"], losses_of(VariationalBound(), denoiser, x0, t, eps), rtol=1e-9)


@pytest.mark.parametrize("schedule", [name for name in STEPPED if name != "learned"])
def test_the_hybrid_loss_moves_the_mean_like_simple_and_the_variance_like_a_thousandth_of_the_bound(schedule):
    denoiser, x0, t, eps = halved(choose("schedule", schedule, num_steps=40))
    of_mean, of_variance = gradient(Hybrid(), denoiser, x0, t, eps)
    like_simple, none = gradient(Simple(), denoiser, x0, t, eps)
    _, like_bound = gradient(VariationalBound(), denoiser, x0, t, eps)
    assert torch.allclose(of_mean, like_simple, rtol=1e-9)
    assert torch.allclose(of_variance, 0.001 * like_bound, rtol=1e-9)
    assert (of_variance.flatten(1).abs().sum(1) > 0).all()
    assert (none == 0).all()


@each_grid
@pytest.mark.parametrize("make", [VariationalBound, Hybrid])
def test_the_gradient_in_the_learned_variance_is_that_of_differences(make, schedule):
    denoiser, x0, t, eps = halved(choose("schedule", schedule, num_steps=25))
    _, of_variance = gradient(make(), denoiser, x0, t, eps)
    direction = torch.cat([torch.zeros(25, 1, 8, 8), torch.ones(25, 1, 8, 8)], 1).double()
    moved = []
    with torch.no_grad():
        for sign in (-1, 1):
            other = says(denoiser.schedule, denoiser.network.answer + sign * 1e-5 * direction, "learned", 17)
            moved.append(losses_of(make(), other, x0, t, eps))
    difference = (moved[1] - moved[0]) / 2e-5
    assert torch.allclose(of_variance.flatten(1).sum(1), difference, rtol=1e-4, atol=1e-6)


# --- what cannot be


def test_the_vlb_loss_refuses_a_process_of_one_step_before_training():
    with pytest.raises(ValueError, match="num_steps to 2 or more"):
        VariationalBound().check(network("cosine", steps=1))
    VariationalBound().check(network("cosine", steps=2))
    VariationalBound().check(network("cosine", variance="learned"))


@each_continuous
def test_the_continuous_vlb_refuses_a_learned_variance(schedule):
    with pytest.raises(ValueError, match=r"no steps whose variance could be learned: set schedule\.num_steps, or"):
        VariationalBound().check(network(schedule, variance="learned", steps=None))
    VariationalBound().check(network(schedule, steps=None))


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_hybrid_refuses_a_fixed_variance(variance):
    with pytest.raises(
        ValueError, match=r"^with a fixed variance this loss is loss=simple plus a constant: set variance=learned"
    ):
        Hybrid().check(network("cosine", variance=variance))
    Hybrid().check(network("cosine", variance="learned"))


@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("variance", ["learned", "fixed_small"])
def test_the_hybrid_refuses_a_process_without_steps(variance, steps):
    with pytest.raises(ValueError, match=r"learns the variance of steps: set schedule\.num_steps to 2 or more"):
        Hybrid().check(network("cosine", variance=variance, steps=steps))


def test_the_hybrid_refuses_a_bound_that_counts_against_itself():
    with pytest.raises(ValueError, match="bound must be at least 0"):
        Hybrid(bound=-0.1)
