"""The laws that draw training timesteps."""

import io
import math
from collections import defaultdict, deque

import pytest
import torch
from conftest import choose, each, each_continuous, each_form, each_grid
from exact_cases import Exploding, seeded
from torch import Tensor

from scorelab.losses import Importance, LogSNRUniform, Stratified, Uniform
from scorelab.schedules import VP, Cosine, Schedule


def shared(timesteps, schedule, n: int, step: int, world: int, seed: int) -> list:
    return [timesteps.draw(schedule, n, step, rank, world, seeded(seed)) for rank in range(world)]


def uniform_quantiles(schedule: Schedule) -> Tensor:
    """Every training time of a grid; of a continuous process a fine comb of them."""
    n = schedule.num_steps or 100_000
    return schedule.training_time((torch.arange(n, dtype=torch.float64) + 0.5) / n)


@each("timesteps")
@each_form(50)
def test_a_law_that_divides_by_its_density_leaves_the_objective_what_it_was(timesteps, schedule, steps):
    """The weighted mean of any g(t) over many batches is its mean over uniform training timesteps."""
    timesteps, schedule = choose("timesteps", timesteps), choose("schedule", schedule, num_steps=steps)
    if not timesteps.divides_by_density:
        pytest.skip("this law is part of the objective")
    everywhere = uniform_quantiles(schedule)
    batches = [shared(timesteps, schedule, 31, step, 2, seed=step) for step in range(150)]
    first = schedule.t_min + 1e-6 if steps else 0.05
    for g in (torch.square, lambda t: (t <= first).double(), lambda t: (t > (0.999 if steps else 0.95)).double()):
        means = torch.stack([torch.cat([draw.weight * g(draw.t) for draw in batch]).mean() for batch in batches])
        assert means.std() > 0
        assert abs(means.mean() - g(everywhere).mean()) < 5 * means.std() / math.sqrt(len(means))


@each("timesteps")
@each_form(37)
def test_what_a_law_makes_of_the_objective_is_the_density_it_names(timesteps, schedule, steps):
    """E[weight g(t)] = E_uniform[density g(t)], which is 1 wherever a law divides by its density."""
    timesteps, schedule = choose("timesteps", timesteps), choose("schedule", schedule, num_steps=steps)
    n, comb = 20_000, (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    draw = timesteps.draw(schedule, n, 0, 0, 1, seeded())
    value = draw.weight * (draw.t - 0.3) ** 2
    if steps:
        everywhere, share = uniform_quantiles(schedule), torch.ones(steps, dtype=torch.float64)
    else:  # finer at both ends, where laws of the log-SNR are dense in time
        low, high = comb**6, (1 - comb) ** 6
        everywhere = schedule.training_time(low / (low + high))
        share = 6 * (comb * (1 - comb)) ** 5 / (low + high) ** 2
    expected = (share * timesteps.density(schedule, everywhere) * (everywhere - 0.3) ** 2).mean()
    assert abs(value.mean() - expected) < 5 * value.std() / math.sqrt(n)
    if timesteps.divides_by_density:
        assert (timesteps.density(schedule, everywhere) == 1).all()


@each("timesteps")
@each_grid
def test_times_of_a_grid_are_its_times_in_float64_one_for_each_sample(timesteps, schedule):
    schedule = choose("schedule", schedule, num_steps=37)
    draw = choose("timesteps", timesteps).draw(schedule, 500, 0, 0, 1, seeded())
    assert draw.t.dtype == torch.float64
    assert draw.t.shape == draw.weight.shape == (500,)
    assert set(draw.t.tolist()) <= set(schedule.grid()[1:].tolist())


@each("timesteps")
@each_continuous
def test_times_of_a_continuous_process_are_training_times_in_float64_and_hardly_ever_the_same(timesteps, schedule):
    schedule = choose("schedule", schedule, num_steps=None)
    draw = choose("timesteps", timesteps).draw(schedule, 500, 0, 0, 1, seeded())
    assert draw.t.dtype == torch.float64
    assert draw.t.shape == draw.weight.shape == (500,)
    assert (draw.t >= schedule.t_min * (1 - 1e-9)).all()
    assert (draw.t <= 1).all()
    assert len(set(draw.t.tolist())) > 495


@each("timesteps")
@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_share_one_batch_of_times_among_them_without_overlap(timesteps, world):
    timesteps, schedule = choose("timesteps", timesteps), VP(None)
    ranks = [draw.t for draw in shared(timesteps, schedule, 12 // world, 0, world, seed=5)]
    alone = timesteps.draw(schedule, 12, 0, 0, 1, seeded(5)).t
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
        torch.stack([timesteps.draw(schedule, 16, 0, 0, 1, seeded(s)).t.mean() for s in range(300)]).std()
        for timesteps in (Uniform(), Stratified())
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


@each("timesteps")
def test_times_follow_the_generator_alone(timesteps):
    timesteps, schedule = choose("timesteps", timesteps), Cosine(1000)
    state = torch.random.get_rng_state()
    first, second, other = (timesteps.draw(schedule, 8, 3, 0, 1, seeded(seed)).t for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- likelihood


@each_continuous
def test_the_likelihoods_law_draws_the_log_snr_uniformly_over_its_range(schedule):
    """By Kolmogorov's distance, whose 99.9 % point is 1.95 / sqrt(n)."""
    schedule, n = choose("schedule", schedule, num_steps=None), 40_000
    draw = LogSNRUniform().draw(schedule, n, 0, 0, 1, seeded())
    low, high = schedule.log_snr_range()
    place = ((schedule.log_snr(draw.t) - low) / (high - low)).sort().values
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    assert max((place - steps[:-1]).max(), (steps[1:] - place).max()) < 1.95 / math.sqrt(n)
    h = 1e-7
    inside = (draw.t > schedule.t_min + 1e-4) & (draw.t < 1 - 1e-4)
    t = draw.t[inside]
    fall = (schedule.log_snr(t - h) - schedule.log_snr(t + h)) / (2 * h)
    assert torch.allclose(draw.weight[inside] * schedule.duration * fall, fall.new_tensor(high - low), rtol=1e-4)


@each_grid
@pytest.mark.parametrize("steps", [30, 1000])
def test_on_a_grid_the_likelihoods_law_goes_with_the_fall_of_the_log_snr_and_i_1_is_as_likely_as_i_2(schedule, steps):
    schedule, n = choose("schedule", schedule, num_steps=steps), 100_000
    draw = LogSNRUniform().draw(schedule, n, 0, 0, 1, seeded())
    grid = schedule.grid()[1:]
    log_snr = 2 * torch.log(schedule.alpha(grid) / schedule.sigma(grid))
    fall = log_snr[:-1] - log_snr[1:]
    p = torch.cat([fall[:1], fall])
    p = p / p.sum()
    index = (draw.t * steps).round().long() - 1
    assert torch.allclose(draw.weight, 1 / (steps * p[index]), rtol=1e-9)
    counts = index.bincount(minlength=steps).double()
    assert ((counts - n * p).abs() < 5 * torch.sqrt(n * p) + 5).all()
    chi2 = float(((counts - n * p) ** 2 / (n * p)).sum())
    assert abs(chi2 - (steps - 1)) < 5 * math.sqrt(2 * steps)


def test_the_likelihoods_law_has_one_time_where_there_is_one():
    draw = LogSNRUniform().draw(Cosine(1), 5, 0, 0, 1, seeded())
    assert (draw.t.tolist(), draw.weight.tolist()) == ([1.0] * 5, [1.0] * 5)


# --- importance


def peaked(t: Tensor) -> Tensor:
    return 0.05 + torch.exp(-(((t - 0.2) / 0.03) ** 2))


def taught(schedule: Schedule, rounds: int = 3, loss=peaked, **more) -> Importance:
    """One that has seen a loss at the middle of every bin, several timesteps."""
    timesteps = Importance(**more)
    timesteps.draw(schedule, 1, 0, 0, 1, seeded())
    bins = len(timesteps.probabilities())
    for _ in range(rounds):
        t = schedule.training_time((torch.arange(bins, dtype=torch.float64) + 0.5) / bins)
        timesteps.update(t, loss(t))
    return timesteps


@each_form(40)
def test_importance_is_uniform_until_every_bin_has_its_history(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    timesteps = taught(schedule, rounds=2, history=3, bins=40)
    every = schedule.training_time((torch.arange(40, dtype=torch.float64) + 0.5) / 40)
    timesteps.update(every[:-1], peaked(every[:-1]))
    assert timesteps.probabilities().tolist() == [1 / 40] * 40
    draw = timesteps.draw(schedule, 100, 0, 0, 1, seeded())
    assert torch.allclose(draw.weight.double(), torch.ones(100, dtype=torch.float64))
    timesteps.update(every[-1:], peaked(every[-1:]))
    assert timesteps.probabilities().max() > 2 / 40


@each_form(25)
@pytest.mark.parametrize(("history", "uniform"), [(1, 0.001), (4, 0.3), (10, 1.0)])
def test_importance_draws_by_the_root_mean_square_of_the_newest_losses(history, uniform, schedule, steps):
    """P = (1 - u) sqrt(mean L^2) / sum + u / T, the losses kept in a queue of each bin by hand."""
    schedule, bins = choose("schedule", schedule, num_steps=steps), 25
    timesteps = Importance(history, uniform, bins)
    timesteps.draw(schedule, 1, 0, 0, 1, seeded())
    kept: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=history))
    for batch in range(60):
        bin = torch.randint(0, bins, (29,), generator=seeded(batch))
        if batch % 7 == 0:
            bin[:20] = batch % bins  # more than a history of one bin at once
        place = torch.rand(29, generator=seeded(batch + 1000), dtype=torch.float64).clamp(0.01, 0.99)
        t = (bin + 1) / bins if steps else schedule.t_min + (bin + place) / bins * schedule.duration
        losses = torch.rand(29, generator=seeded(batch + 2000), dtype=torch.float64) * (1 + bin)
        timesteps.update(t, losses)
        for b, value in zip(bin.tolist(), losses.tolist(), strict=True):
            kept[b].append(value)
    assert min(len(kept[b]) for b in range(bins)) == history
    size = torch.tensor([math.sqrt(sum(x**2 for x in kept[b]) / history) for b in range(bins)], dtype=torch.float64)
    p = (1 - uniform) * size / size.sum() + uniform / bins
    assert torch.allclose(timesteps.probabilities(), p, rtol=1e-9)
    n = 50_000
    draw = timesteps.draw(schedule, n, 0, 0, 1, seeded(1))
    share = draw.t if steps else (draw.t - schedule.t_min) / schedule.duration
    index = (torch.ceil(share.double() * bins - 1e-6) - 1).long()
    assert torch.allclose(draw.weight.double(), 1 / (bins * p[index]), rtol=1e-6)
    counts = index.bincount(minlength=bins)
    assert ((counts - n * p).abs() < 5 * torch.sqrt(n * p)).all()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_importance_forgets_a_loss_that_is_no_number(bad):
    timesteps, schedule = taught(Cosine(10), history=3), Cosine(10)
    before, t = timesteps.probabilities(), schedule.grid()[[1, 2, 2, 3]]
    timesteps.update(t, torch.tensor([bad, bad, bad, bad]))
    assert torch.equal(timesteps.probabilities(), before)
    timesteps.update(t, torch.tensor([bad, 9.0, bad, bad]))
    other = taught(Cosine(10), history=3)
    other.update(t[1:2], torch.tensor([9.0]))
    assert torch.equal(timesteps.probabilities(), other.probabilities())
    assert not torch.equal(timesteps.probabilities(), before)


@each_form(30)
def test_what_importance_has_seen_survives_a_checkpoint_of_plain_values(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    timesteps, file = taught(schedule, history=3, bins=30), io.BytesIO()
    torch.save(timesteps.state_dict(), file)
    file.seek(0)
    again = Importance(history=3, bins=30)
    again.load_state_dict(torch.load(file, weights_only=True))
    for step in range(3):
        one, other = (law.draw(schedule, 64, step, 0, 1, seeded(step)) for law in (timesteps, again))
        assert torch.equal(one.t, other.t)
        assert torch.equal(one.weight, other.weight)
        losses = torch.rand(64, generator=seeded(step + 5))
        timesteps.update(one.t, losses)
        again.update(other.t, losses)
        assert torch.equal(timesteps.probabilities(), again.probabilities())
    assert timesteps.probabilities().std() > 0


@each_form(100)
def test_after_learning_importance_still_means_the_same_and_scatters_less(schedule, steps):
    """Of a loss with a peak: the weighted mean is unbiased, and its variance well below that of uniform timesteps."""
    schedule, n = choose("schedule", schedule, num_steps=steps), 20_000
    learned = taught(schedule, rounds=10, bins=100).draw(schedule, n, 0, 0, 1, seeded(2))
    uniform = Uniform().draw(schedule, n, 0, 0, 1, seeded(3))
    value, plain = learned.weight * peaked(learned.t), uniform.weight * peaked(uniform.t)
    expected = peaked(uniform_quantiles(schedule)).mean()
    assert abs(value.mean() - expected) < 5 * value.std() / math.sqrt(n) + 1e-6
    assert abs(plain.mean() - expected) < 5 * plain.std() / math.sqrt(n)
    assert value.var() < 0.1 * plain.var()


@each_continuous
def test_within_a_bin_importance_is_uniform_in_time(schedule):
    schedule, n, bins = choose("schedule", schedule, num_steps=None), 40_000, 10
    draw = taught(schedule, rounds=10, bins=bins).draw(schedule, n, 0, 0, 1, seeded(4))
    place = (draw.t - schedule.t_min) / schedule.duration * bins
    place = (place - place.floor()).sort().values
    even = torch.arange(n + 1, dtype=torch.float64) / n
    assert max((place - even[:-1]).max(), (even[1:] - place).max()) < 1.95 / math.sqrt(n)


def test_importances_bins_share_out_the_training_times_and_not_all_of_time():
    """Where training starts at t = 0.024, a loss seen at the end of the second of 50 bins is the second's."""
    schedule, timesteps = Exploding(None), taught(Exploding(None), rounds=1, history=1, bins=50, loss=torch.ones_like)
    assert schedule.t_min > 0.02
    timesteps.update(schedule.training_time(torch.tensor([1.99 / 50])), torch.tensor([9.0]))
    assert int(timesteps.probabilities().argmax()) == 1


@each_grid
def test_only_importance_learns_from_the_losses(schedule):
    schedule = choose("schedule", schedule, num_steps=30)
    for timesteps in (Uniform(), Stratified(), LogSNRUniform()):
        before = timesteps.draw(schedule, 50, 0, 0, 1, seeded()).t
        timesteps.update(before, peaked(before))
        assert torch.equal(timesteps.draw(schedule, 50, 0, 0, 1, seeded()).t, before)
        assert not timesteps.state_dict()


@pytest.mark.parametrize("more", [{"history": 0}, {"bins": 0}, {"uniform": 0.0}, {"uniform": 1.1}])
def test_importance_refuses_numbers_that_cannot_be(more):
    with pytest.raises(ValueError, match="history and bins must be at least 1"):
        Importance(**more)
