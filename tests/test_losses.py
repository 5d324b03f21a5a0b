"""Objectives, and the laws that draw their times."""

import math

import pytest
import torch
from conftest import choices, choose, each
from oracles import FiniteSetOracle, GaussianOracle, Says, normal, seeded, shaken
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from scorelab.denoisers import FixedSmall, NetworkDenoiser
from scorelab.likelihood import lattice_log_prob
from scorelab.losses import Simple, Stratified, Uniform, VariationalBound
from scorelab.networks import UNet
from scorelab.schedules import Cosine, Linear
from scorelab.tensors import from_levels


def tiny_unet(seed: int = 0) -> UNet:
    return shaken(UNet((1, 8, 8), channels=4, multipliers=[1, 2]), seed)


def digits_like(n: int, seed: int = 0) -> Tensor:
    return from_levels(torch.randint(0, 17, (n, 1, 8, 8), generator=seeded(seed)), 17)


def network(schedule: str, prediction: str, variance: str, steps: int = 1000) -> NetworkDenoiser:
    return NetworkDenoiser(
        choose("schedule", schedule, num_steps=steps),
        tiny_unet(),
        choose("prediction", prediction),
        choose("variance", variance),
        levels=17,
    )


# --- simple


@each("schedule")
@pytest.mark.parametrize("space", ["eps", "x0", "v"])
def test_the_simple_loss_of_an_exact_denoiser_of_one_point_is_zero_in_every_space(space, schedule):
    point = normal(1, 3)
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=100), FixedSmall(), point)
    t = denoiser.schedule.grid()[1:]
    loss = Simple(space)(denoiser, point.expand(100, -1), t, normal(100, 3, seed=1)).loss
    assert loss.shape == (100,)
    assert loss.abs().max() < 1e-12


@each("schedule")
def test_the_simple_loss_of_a_network_that_starts_at_zero_is_the_power_of_the_noise(schedule):
    unet = UNet((1, 8, 8), channels=4)
    denoiser = NetworkDenoiser(choose("schedule", schedule), unet, choose("prediction", "eps"), FixedSmall())
    eps, t = normal(64, 1, 8, 8).float(), torch.rand(64, generator=seeded(1)).clamp(min=1e-3)
    loss = Simple()(denoiser, digits_like(64), t, eps).loss
    assert torch.allclose(loss, eps.square().flatten(1).mean(1), rtol=1e-6)
    assert abs(float(loss.detach().mean()) - 1) < 5 * math.sqrt(2 / eps.numel())


@each("schedule")
@each("prediction")
def test_the_spaces_of_the_simple_loss_differ_by_the_snr_factors(prediction, schedule):
    """||d eps||^2 = S ||d x_0||^2 and ||d v||^2 = (a / sigma)^2 ||d x_0||^2."""
    schedule = choose("schedule", schedule, num_steps=1000)
    t = schedule.grid()[1:]
    denoiser = NetworkDenoiser(schedule, Says(normal(1000, 3)), choose("prediction", prediction), FixedSmall())
    x0, eps = normal(1000, 3, seed=1), normal(1000, 3, seed=2)
    on_eps, on_x0, on_v = (Simple(space)(denoiser, x0, t, eps).loss for space in ("eps", "x0", "v"))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert torch.allclose(on_eps, (alpha / sigma) ** 2 * on_x0, rtol=1e-5, atol=1e-12)
    assert torch.allclose(on_v, ((alpha**2 + sigma**2) / sigma) ** 2 * on_x0, rtol=1e-5, atol=1e-12)


def test_the_simple_loss_is_a_mean_over_dimensions_of_the_squared_error():
    denoiser = NetworkDenoiser(Cosine(), Says(normal(4, 2, 3, 5)), choose("prediction", "eps"), FixedSmall())
    eps = normal(4, 2, 3, 5, seed=1)
    loss = Simple()(denoiser, normal(4, 2, 3, 5, seed=2), torch.full((4,), 0.5), eps).loss
    expected = [float((eps[b] - denoiser.network.answer[b].detach()).square().sum()) / 30 for b in range(4)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_simple_loss_is_least_for_the_posterior_mean():
    """Its minimiser is E[eps | x_t]: any shift or stretch of the oracle's answer does worse, on the same draws."""
    oracle = GaussianOracle(Linear(), FixedSmall(), [0.4, -0.2], [0.7, 1.3])
    n = 20000
    x0, eps, t = oracle.draw(n, seeded(1)), normal(n, 2, seed=2), torch.full((n,), 0.4, dtype=torch.float64)
    best = Simple()(oracle, x0, t, eps).loss
    answer = oracle(oracle.noised(x0, t, eps).x_t, t).eps
    for worse in (answer + 0.1, 0.9 * answer, 1.1 * answer):
        other = Simple()(
            NetworkDenoiser(oracle.schedule, Says(worse), choose("prediction", "eps"), FixedSmall()), x0, t, eps
        ).loss
        more = other - best
        assert more.mean() > 3 * more.std() / math.sqrt(n)


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


@each("schedule")
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_vlb_loss_over_all_times_is_the_bound_without_its_prior_in_bits_per_dim(variance, schedule):
    steps, x0 = 25, digits_like(3).double()
    denoiser = network(schedule, "eps", variance, steps).double()
    noises = [normal(3, 1, 8, 8, seed=i) for i in range(steps)]
    with torch.no_grad():
        expected = [by_hand(denoiser, x0, i + 1, noises[i], variance == "fixed_large") for i in range(steps)]
        t = denoiser.schedule.grid()[1:].repeat_interleave(3)
        found = VariationalBound()(denoiser, x0.repeat(steps, 1, 1, 1), t, torch.cat(noises)).loss
    assert torch.allclose(found, steps * torch.cat(expected), rtol=1e-6, atol=1e-9)
    assert float(found.mean()) == pytest.approx(float(torch.stack(expected).sum(0).mean()), rel=1e-6)


@each("schedule")
@each("prediction")
@each("variance")
def test_the_vlb_loss_and_its_gradients_are_finite_at_every_time(variance, prediction, schedule):
    denoiser = network(schedule, prediction, variance)
    answers: list[Tensor] = []

    def keep(module, inputs, output):
        output.retain_grad()
        answers.append(output)

    denoiser.network.register_forward_hook(keep)
    n, t = 1000, denoiser.schedule.grid()[1:]
    loss = VariationalBound()(denoiser, digits_like(n), t, normal(n, 1, 8, 8).float()).loss
    loss.sum().backward()
    assert loss.isfinite().all()
    each_time = answers[0].grad.flatten(1)
    assert each_time.isfinite().all()
    assert (each_time.abs().sum(1) > 0).all()
    for name, parameter in denoiser.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_vlb_loss_refuses_a_process_of_one_step_before_training():
    denoiser = NetworkDenoiser(Cosine(1), tiny_unet(), choose("prediction", "eps"), FixedSmall(), levels=17)
    with pytest.raises(ValueError, match="num_steps to 2 or more"):
        VariationalBound().check(denoiser)
    for loss in choices("loss"):
        choose("loss", loss).check(network("cosine", "eps", "fixed_small"))


# --- every loss


@each("schedule")
@each("prediction")
@each("variance")
@each("loss")
def test_every_loss_is_finite_and_trains_every_head_under_every_schedule(loss, variance, prediction, schedule):
    denoiser = network(schedule, prediction, variance)
    t = denoiser.schedule.grid()[torch.tensor([1, 2, 3, 250, 500, 998, 999, 1000])]
    terms = choose("loss", loss)(denoiser, digits_like(8), t, normal(8, 1, 8, 8).float())
    assert terms.loss.shape == (8,)
    assert terms.loss.dtype == torch.float32
    terms.loss.mean().backward()
    assert terms.loss.isfinite().all()
    gradients = [parameter.grad for parameter in denoiser.network.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@each("schedule")
@each("loss")
def test_no_loss_clips_the_predicted_data(loss, schedule):
    """Where x^_0 already lies outside [-1, 1], moving it further out still changes every sample's loss."""
    schedule = choose("schedule", schedule)
    t = schedule.grid()[torch.tensor([1, 2, 100, 500, 900])]
    x0, eps = torch.full((5, 1, 2, 2), 0.5), normal(5, 1, 2, 2).float()

    def at(answer: float) -> tuple[Tensor, Tensor]:
        says = Says(torch.full((5, 1, 2, 2), answer))
        denoiser = NetworkDenoiser(schedule, says, choose("prediction", "x0"), FixedSmall(), levels=17)
        value = choose("loss", loss)(denoiser, x0, t, eps).loss
        value.sum().backward()
        return value.detach(), says.answer.grad

    (near, pull), (far, _) = at(1.5), at(2.0)
    assert (far > near).all()
    assert (pull > 0).all()


@each("loss")
def test_a_loss_is_deterministic_given_data_times_noise_and_generator(loss):
    denoiser = network("cosine", "eps", "fixed_small")
    x0, t, eps = digits_like(4), denoiser.schedule.grid()[[1, 30, 500, 1000]], normal(4, 1, 8, 8).float()
    state = torch.random.get_rng_state()
    once, again = (choose("loss", loss)(denoiser, x0, t, eps, generator=seeded()).loss for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(torch.random.get_rng_state(), state)


@each("loss")
def test_a_samples_loss_does_not_depend_on_the_rest_of_its_batch(loss):
    denoiser = network("cosine", "eps", "fixed_small").double()
    x0, eps = digits_like(4).double(), normal(4, 1, 8, 8)
    t = denoiser.schedule.grid()[[1, 30, 500, 1000]]
    together = choose("loss", loss)(denoiser, x0, t, eps).loss
    alone = [choose("loss", loss)(denoiser, x0[b : b + 1], t[b : b + 1], eps[b : b + 1]).loss for b in range(4)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-9)


# --- drawing times


def shared(times, schedule, n: int, step: int, world: int, seed: int) -> list:
    return [times.draw(schedule, n, step, rank, world, seeded(seed)) for rank in range(world)]


@each("times")
@each("schedule")
@pytest.mark.parametrize("world", [1, 3])
def test_a_law_that_divides_by_its_density_leaves_the_objective_what_it_was(times, schedule, world):
    """The weighted mean of any g(t) over many batches is its mean over the grid."""
    times, schedule = choose("times", times), choose("schedule", schedule, num_steps=50)
    if not times.divides_by_density:
        pytest.skip("this law is part of the objective")
    grid = schedule.grid()[1:]
    batches = [shared(times, schedule, 7, step, world, seed=step) for step in range(1500)]
    for g in (torch.square, lambda t: (t <= 1 / 50 + 1e-9).double(), lambda t: (t > 0.999).double()):
        means = torch.stack([torch.cat([draw.weight * g(draw.t) for draw in batch]).mean() for batch in batches])
        assert means.std() > 0
        assert abs(means.mean() - g(grid).mean()) < 5 * means.std() / math.sqrt(len(means))


@each("times")
@each("schedule")
def test_times_are_grid_times_in_float64_one_for_each_sample(times, schedule):
    schedule = choose("schedule", schedule, num_steps=37)
    draw = choose("times", times).draw(schedule, 500, 0, 0, 1, seeded())
    assert draw.t.dtype == torch.float64
    assert draw.t.shape == draw.weight.shape == (500,)
    assert set(draw.t.tolist()) <= set(schedule.grid()[1:].tolist())


@each("times")
@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_share_one_batch_of_times_among_them_without_overlap(times, world):
    times, schedule = choose("times", times), Cosine(100_000)
    ranks = [draw.t for draw in shared(times, schedule, 12 // world, 0, world, seed=5)]
    alone = times.draw(schedule, 12, 0, 0, 1, seeded(5)).t
    assert [len(t) for t in ranks] == [12 // world] * world
    assert len(set(torch.cat(ranks).tolist())) == 12
    assert sorted(torch.cat(ranks).tolist()) == sorted(alone.tolist())


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 4, 5])
def test_stratified_times_fall_one_into_each_of_the_batchs_equal_parts_over_all_ranks(n, world):
    batch = n * world
    schedule = Cosine(10 * batch)
    for seed in range(40):
        t = torch.cat([draw.t for draw in shared(Stratified(), schedule, n, seed, world, seed)])
        parts = ((t * 10 * batch).round().long() - 1) // 10
        assert sorted(parts.tolist()) == list(range(batch))


def test_stratified_means_scatter_less_than_uniform_ones():
    schedule = Cosine(1000)
    scatter = [
        torch.stack([times.draw(schedule, 16, 0, 0, 1, seeded(s)).t.mean() for s in range(300)]).std()
        for times in (Uniform(), Stratified())
    ]
    assert float(scatter[0]) == pytest.approx(math.sqrt(1 / 12 / 16), rel=5 / math.sqrt(600))
    assert float(scatter[1]) == pytest.approx(math.sqrt(1 / 12) / 16, rel=5 / math.sqrt(600))


def test_uniform_times_are_independent_and_every_grid_point_is_as_likely():
    schedule, n = Cosine(20), 40_000
    t = Uniform().draw(schedule, n, 0, 0, 1, seeded()).t
    counts = (t * 20).round().long().bincount(minlength=21)[1:].double()
    chi2 = float(((counts - n / 20) ** 2 / (n / 20)).sum())
    assert abs(chi2 - 19) < 5 * math.sqrt(2 * 19)
    pairs = torch.corrcoef(torch.stack([t[:-1], t[1:]]))[0, 1]
    assert abs(float(pairs)) < 5 / math.sqrt(n)


@each("times")
def test_times_follow_the_generator_alone(times):
    times, schedule = choose("times", times), Cosine(1000)
    state = torch.random.get_rng_state()
    first, second, other = (times.draw(schedule, 8, 3, 0, 1, seeded(seed)).t for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
