"""The weight card: one curve over log-SNR that says what an objective is."""

import copy
import csv
import math
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from conftest import CONTINUOUS, STEPPED, choices, choose
from exact_cases import Exploding, GaussianOracle, Straight, digits_like, losses_of, normal, seeded, tiny_unet, truth_of
from torch import Tensor, nn

from scorelab.denoisers import (
    Denoiser,
    Estimate,
    FixedLarge,
    FixedSmall,
    Learned,
    NetworkDenoiser,
    Rates,
    V,
)
from scorelab.errors import Refusal
from scorelab.evaluation import EvaluationContext, EvaluationSettings, GradientNoise
from scorelab.evaluation.gradient import Gradients
from scorelab.losses import (
    DSM,
    Card,
    Example,
    Hybrid,
    Importance,
    Likelihood,
    LogSNRUniform,
    Loss,
    Simple,
    Stratified,
    Terms,
    Timesteps,
    TimestepSampler,
    Uniform,
    VariationalBound,
    weight_card,
)
from scorelab.report.card import curve, draw_cards, write_card
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Linear, Schedule
from scorelab.tensors import like, to_levels

SHAPE = (1, 2, 3)


def named(thing) -> str | None:
    """Its class."""
    return None if isinstance(thing, int | None) else type(thing).__name__


class Point(Denoiser):
    """Sure of one image, a parameter: ||eps - eps^||^2 = S ||x_0 - image||^2, without any scatter."""

    def __init__(self, schedule: Schedule, variance=None, image: Tensor | None = None) -> None:
        super().__init__(schedule, variance or FixedSmall(), levels=17)
        self.image = nn.Parameter(0.1 * normal(*SHAPE, seed=3) if image is None else image)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        alpha, sigma = like(self.schedule.alpha(t), x_t), like(self.schedule.sigma(t), x_t)
        said = Estimate.from_x0(x_t, alpha, sigma, self.image.expand_as(x_t))
        of_variance = [torch.zeros_like(x_t)] * (self.variance.outputs - 1)
        return self.variance.read(replace(said, rates=Rates(self.schedule, t)), *of_variance)


class EndsEarly(VP):
    """Else so much comes of the last thousandth of the times that few draws tell nothing."""

    log_snr_ends = (-20.0, 5.0)


class Late(TimestepSampler):
    """t with density 2 t as part of the objective."""

    divides_by_density = False

    def density(self, schedule: Schedule, t: Tensor) -> Tensor:
        return 2 * t.double()

    def draw(
        self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: torch.Generator
    ) -> Timesteps:
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        return Timesteps(schedule.training_time(u), 2 * schedule.training_time(u))


def card(schedule: Schedule, loss: Loss, times: TimestepSampler | None = None, variance=None) -> Card:
    return weight_card(Point(schedule, variance), loss, times or Uniform())


def objectives() -> list:
    """Every objective under every schedule of configs/, at 50 steps and continuous, that does not refuse it."""
    found = []
    for name in choices("loss"):
        for schedule in choices("schedule"):
            for steps in (50, None):
                if schedule not in (CONTINUOUS if steps is None else STEPPED):
                    continue
                process, loss = choose("schedule", schedule, num_steps=steps), choose("loss", name)
                for variance in (FixedSmall(), Learned()):
                    with suppress(Refusal):
                        loss.check(Point(process, variance))
                        found.append(pytest.param(process, loss, variance, id=f"{name}-{schedule}-{steps}"))
                        break
    return found


every = pytest.mark.parametrize(("schedule", "loss", "variance"), objectives())


# --- what it says of an objective


def test_most_objectives_go_with_most_schedules():
    """The list above is of what is compatible, not of what happens to work."""
    whole, continuous = len(choices("loss")) * len(choices("schedule")), len(choices("loss")) * len(CONTINUOUS)
    assert 0.6 * (whole + continuous) < len(objectives()) <= 2 * whole


@every
def test_every_objective_has_a_card_whose_levels_are_adjoining_intervals_of_log_snr(schedule, loss, variance):
    found = card(schedule, loss, Uniform(), variance)
    assert len(found.t) == (schedule.num_steps or 400)
    assert (found.t.diff() > 0).all()
    assert torch.equal(found.low[:-1], found.high[1:])
    low, high = schedule.log_snr_range()
    assert float(found.low[-1]) == pytest.approx(low)
    if schedule.num_steps is None:
        assert torch.allclose(schedule.log_snr(found.t), (found.low + found.high) / 2, atol=1e-9)
        assert float(found.high[0]) == pytest.approx(high)
        assert torch.equal(found.log_snr, (found.low + found.high) / 2)
    else:
        assert torch.equal(found.t, schedule.grid()[1:])
        assert torch.equal(found.low, schedule.log_snr(found.t))
        assert found.high[0] == math.inf
        assert torch.equal(found.log_snr, found.low)
    assert torch.allclose(found.mass, found.weight * found.probability, rtol=1e-12, equal_nan=True)
    inner = slice(1, None)
    assert torch.allclose((found.density * (found.high - found.low))[inner], found.mass[inner], rtol=1e-12)
    assert float(found.probability.sum()) == pytest.approx(1, rel=2e-3)
    if found.weight.isnan().all():
        pytest.skip("declares no weight")
    assert (found.weight[inner] >= 0).all()
    assert found.normalizer > 0


@every
def test_the_weight_is_by_how_much_the_squared_noise_error_moves_the_mean_prediction(schedule, loss, variance):
    """Where eps - eps^ = sqrt(S) (image - x_0), the loss's gradient in the image is 2 w S (image - x_0) / d.

    At every level: constants of the bound and what trains a variance alone are no part of it. On average over a noise
    and its opposite, for an objective without a target; and where the truth is that one x_0.
    """
    denoiser = Point(schedule, variance)
    found = weight_card(denoiser, loss, Uniform())
    if found.weight.isnan().all():
        pytest.skip("declares no weight")
    x0, eps = 0.1 * normal(1, *SHAPE, seed=5), normal(1, *SHAPE, seed=6)
    truth = truth_of(denoiser, x0)
    for i in range(0, len(found.t), 7 if schedule.num_steps else 40):
        t = found.t[i : i + 1]
        both = loss(
            denoiser,
            Example.of(denoiser, x0.expand(2, *SHAPE), t.expand(2), torch.cat([eps, -eps]), None, truth),
            seeded(),
        )
        (gradient,) = torch.autograd.grad(both.loss.mean(), denoiser.image)
        expected = 2 / 6 * found.weight[i] * torch.exp(schedule.log_snr(t)) * (denoiser.image - x0[0])
        if i > 0 or not found.weight[i].isnan():
            assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-12), i


@pytest.mark.parametrize("times", [Uniform(), Stratified(), LogSNRUniform(), Importance(4, bins=30), Late()], ids=named)
@pytest.mark.parametrize("steps", [40, None])
@pytest.mark.parametrize("loss", [Simple(), Simple("v"), DSM(), Likelihood()], ids=named)
def test_the_expected_loss_is_the_cards_sum_of_mass_times_error(loss, steps, times):
    """For an exact denoiser of a Gaussian, whose error is S std^2 / (S std^2 + 1): times are drawn as in training."""
    times = copy.deepcopy(times)
    std = torch.tensor([0.3, 0.6, 1.0]).expand(SHAPE).double()
    schedule = EndsEarly(steps)
    denoiser = GaussianOracle(schedule, FixedSmall(), torch.zeros(SHAPE), std)
    found = weight_card(denoiser, loss, times)
    snr = torch.exp(found.log_snr)[:, None] * std.flatten() ** 2
    expected = float((found.mass * (snr / (1 + snr)).mean(1)).sum())
    draws, means = seeded(7), []
    for step in range(25):
        x0, eps = denoiser.draw(1500, draws), torch.randn((1500, *SHAPE), generator=draws, dtype=torch.float64)
        drawn = times.draw(denoiser.schedule, 1500, step, 0, 1, draws)
        losses = losses_of(loss, denoiser, x0, drawn.t, eps)
        means.append(float((drawn.weight * losses).mean()))
        times.update(drawn.t, losses)
    means = torch.tensor(means)
    se = float(means.std()) / 5
    assert se < 0.1 * expected
    assert abs(float(means.mean()) - expected) < 4.5 * se + 1e-3 * expected


@pytest.mark.parametrize("loss", [Simple(), DSM("sigma2")], ids=named)
@pytest.mark.parametrize("schedule", [Linear(100), Cosine(100), Cosine(None), VP(), Exploding()], ids=named)
def test_simple_weighs_every_training_time_alike_and_its_mass_is_one(schedule, loss):
    found = card(schedule, loss)
    assert torch.allclose(found.weight, torch.ones_like(found.weight), rtol=1e-12)
    assert float(found.mass.sum()) == pytest.approx(1, rel=2e-3)
    assert found.normalizer == pytest.approx(1)
    assert found.notes == ()
    if schedule.num_steps is None:
        share = -schedule.inverse(torch.stack([found.high, found.low])).diff(dim=0)[0] / schedule.duration
        assert torch.allclose(found.mass, -share, rtol=2e-2)


@pytest.mark.parametrize("steps", [100, None])
@pytest.mark.parametrize("schedule", [VP, Cosine, Exploding])
def test_an_error_on_data_v_or_score_weighs_as_it_follows_from_that_on_the_noise(schedule, steps):
    """1/S on x_0; on v (a / alpha)^2, which is 1 + 1/S where a = 1; on the score 1 / sigma^2."""
    process = schedule(steps)
    found = {space: card(process, Simple(space)) for space in ("eps", "x0", "v")}
    score = card(process, DSM("one"))
    snr = torch.exp(found["eps"].log_snr)
    a = 1.0 if schedule is not Exploding else 1 + 1 / snr
    alpha2 = snr / (1 + snr) if schedule is not Exploding else torch.ones_like(snr)
    assert torch.allclose(found["x0"].weight, 1 / snr, rtol=1e-6)
    assert torch.allclose(found["v"].weight, a**2 / alpha2, rtol=1e-6)
    assert torch.allclose(score.weight, snr / alpha2, rtol=1e-6)


@pytest.mark.parametrize("schedule", [VP(), Cosine(None), Exploding()], ids=named)
def test_likelihood_is_the_bound_of_endless_steps_and_both_weigh_log_snr_evenly_under_any_schedule(schedule):
    """1/2 int E||eps - eps^||^2 dlambda in bits: 1 / (2 ln 2) per unit of log-SNR, so the cards meet where both are."""
    for loss in (Likelihood(), VariationalBound()):
        density = card(schedule, loss).density
        assert torch.allclose(density, torch.full_like(density, 0.5 / math.log(2)), rtol=1e-9)
    twice = card(schedule, DSM("g2")).mass * schedule.duration / (2 * math.log(2))
    assert torch.allclose(twice, card(schedule, Likelihood()).mass, rtol=1e-12)
    assert not torch.allclose(card(schedule, Simple()).density, card(schedule, Likelihood()).density, rtol=0.5)


@pytest.mark.parametrize("schedule", [VP(4000), Cosine(4000), Linear(4000)], ids=named)
def test_the_bound_of_many_steps_has_nearly_the_card_of_endless_ones(schedule):
    """expm1(Delta) in place of Delta: exact to half the fall of log-SNR in a step."""
    found = card(schedule, VariationalBound())
    fall = found.high - found.low
    short = fall < 0.2
    assert short.sum() > 3900
    assert torch.allclose(found.density[short] * 2 * math.log(2), (torch.expm1(fall) / fall)[short], rtol=1e-6)
    middle = (found.log_snr > -4.8) & (found.log_snr < 4)
    even = 0.5 / math.log(2)
    assert torch.allclose(found.density[middle], torch.full_like(found.density[middle], even), rtol=0.02)


def test_the_bound_under_fixed_small_weighs_as_in_ddpms_letters():
    """T / ln 2 times beta_t^2 / (2 beta~_t alpha_t (1 - alpha_bar_t)), per dimension (Ho et al. 2020, eq. 12)."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = (1 - beta).cumprod(0)
    tilde = beta[1:] * (1 - bar[:-1]) / (1 - bar[1:])
    small, large = (
        1000 / math.log(2) * beta[1:] ** 2 / (2 * s2 * (1 - beta[1:]) * (1 - bar[1:])) for s2 in (tilde, beta[1:])
    )
    found = card(Linear(1000), VariationalBound())
    assert torch.allclose(found.weight[1:], small, rtol=1e-6)
    assert torch.allclose(small, 1000 / (2 * math.log(2)) * torch.expm1(found.high - found.low)[1:], rtol=1e-6)
    assert torch.allclose(card(Linear(1000), VariationalBound(), variance=FixedLarge()).weight[1:], large, rtol=1e-6)
    half = card(Linear(1000), VariationalBound(), variance=Learned()).weight[1:]
    assert torch.allclose(half, torch.sqrt(small * large), rtol=1e-6)


def test_the_decoder_has_no_weight_and_a_learned_variance_is_not_covered():
    found = card(Cosine(100), VariationalBound())
    assert found.weight.isnan().tolist() == [True, *[False] * 99]
    assert found.density[0].isnan()
    assert "the decoder at i = 1" in found.notes[0]
    assert "decoder" in found.notes[0]
    learned = card(Cosine(100), Hybrid(), variance=Learned())
    assert torch.equal(learned.weight, torch.ones(100, dtype=torch.float64))
    assert len(learned.notes) == 1
    assert "learned" in learned.notes[0]
    assert len(card(Cosine(100), VariationalBound(), variance=Learned()).notes) == 3
    assert card(VP(), VariationalBound()).notes == ()


class Ratio(Loss):
    """An objective that is no weighted square."""

    def forward(self, denoiser, example, generator=None):
        return Terms(denoiser(example.x_t, example.t).score.flatten(1).norm(dim=1))


def test_an_objective_that_is_no_weighted_square_says_so_and_has_nothing_to_normalise_by():
    found = card(Cosine(10), Ratio())
    assert found.weight.isnan().all()
    assert "declares no weight" in found.notes[0]
    with pytest.raises(ValueError, match=r"set loss\.normalize=false"):
        _ = found.normalizer


@pytest.mark.parametrize("schedule", [Linear(100), VP()], ids=named)
@pytest.mark.parametrize("loss", [Simple(), Simple("v"), Likelihood(), VariationalBound()], ids=named)
def test_laws_that_divide_by_their_density_leave_the_card_what_it_is_and_others_do_not(loss, schedule):
    plain = card(schedule, loss)
    for times in (Stratified(), LogSNRUniform(), Importance()):
        assert times.divides_by_density
        assert card(schedule, loss, times).rows()[1:] == plain.rows()[1:]
    late = card(schedule, loss, Late())
    assert torch.allclose(late.mass[1:], 2 * plain.t[1:] * plain.mass[1:])
    assert torch.equal(late.weight[1:], plain.weight[1:])


# --- what a training loss is divided by


@pytest.mark.parametrize("times", [Uniform(), Late()], ids=named)
def test_the_normalizer_is_the_mean_weight_over_the_drawn_times_with_log_snr_in_the_yardsticks_range(times):
    """The 19 bins of ``simple``; the noisiest and the cleanest times, where weights run away, have no say."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = (1 - beta).cumprod(0)
    log_snr = torch.log(bar / (1 - bar))
    law = torch.arange(1, 1001).double() / 1000 if isinstance(times, Late) else torch.ones(1000).double()
    inside = (log_snr >= -4.8) & (log_snr <= 6.6)
    for loss, weight in (
        (DSM("one"), 1 / (1 - bar)),
        (Simple("x0"), (1 - bar) / bar),
        (Simple("v"), 1 / bar),
        (Simple(), torch.ones(1000)),
    ):
        expected = float((law * weight)[inside].sum() / law[inside].sum())
        assert card(Linear(1000), loss, times).normalizer == pytest.approx(expected, rel=1e-9)
        assert (expected == pytest.approx(1)) is (loss.__class__ is Simple and loss.space == "eps")


def test_the_normalizer_of_the_bound_is_its_share_of_log_snr():
    """Even in log-SNR: 11.4 / (2 ln 2) over the probability of a time in the range."""
    for schedule in (VP(), Cosine(None), Exploding()):
        ends = schedule.inverse(torch.tensor([-4.8, 6.6], dtype=torch.float64))
        probability = float(ends[0] - ends[1]) / schedule.duration
        expected = 11.4 / (2 * math.log(2)) / probability
        assert card(schedule, VariationalBound()).normalizer == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("schedule", "loss"), [(Cosine(1), Simple()), (Cosine(2), VariationalBound())], ids=named)
def test_a_process_without_a_level_in_that_range_has_no_normalizer(schedule, loss):
    assert not ((schedule.log_snr(schedule.grid()[2:]) > -4.8).any())
    with pytest.raises(ValueError, match=r"\[-4\.8, 6\.6\].*set loss\.normalize=false"):
        _ = card(schedule, loss).normalizer


# --- what it means


class Pure(Denoiser):
    """A small network that is shown x_t / sqrt(a) and the log-SNR, and nothing else."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule, FixedSmall())
        generator = seeded(1)
        self.inner = nn.Sequential(nn.Linear(7, 12), nn.Tanh(), nn.Linear(12, 6)).double()
        for parameter in self.inner.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        alpha, sigma = like(self.schedule.alpha(t), x_t), like(self.schedule.sigma(t), x_t)
        shown = x_t / torch.sqrt(alpha**2 + sigma**2)
        said = self.inner(torch.cat([shown.flatten(1), self.schedule.log_snr(t)[:, None] / 8], 1))
        return Estimate.from_eps(x_t, alpha, sigma, said.reshape(x_t.shape))


def expected_gradient(schedule: Schedule, loss: Loss) -> Tensor:
    """Of the mean loss over uniform times with log-SNR in [-7, 12], by quadrature over equal steps of log-SNR."""
    denoiser = Pure(schedule)
    edges = torch.linspace(-7, 12, 96, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    share = -schedule.inverse(edges).diff() / schedule.duration
    x0, eps = torch.tanh(normal(95, 20, *SHAPE, seed=8)), normal(95, 20, *SHAPE, seed=9)
    t = schedule.inverse(middle).repeat_interleave(20)
    losses = losses_of(loss, denoiser, x0.flatten(0, 1), t, eps.flatten(0, 1)).reshape(95, 20).mean(1)
    gradient = torch.autograd.grad((share * losses).sum(), list(denoiser.parameters()))
    return torch.cat([part.flatten() for part in gradient])


def test_objectives_whose_cards_agree_up_to_a_factor_have_proportional_gradients():
    """Whatever their names and schedules, for a denoiser of (x_t / sqrt(a), lambda); and others do not."""
    bound = expected_gradient(Cosine(None), VariationalBound())
    for schedule, loss, factor in (
        (VP(), Likelihood(), 1.0),
        (Exploding(), Likelihood(), 1.0),
        (Exploding(), VariationalBound(), 1.0),
        (VP(), DSM("g2"), 2 * math.log(2) / VP().duration),
    ):
        found = expected_gradient(schedule, loss)
        assert float(torch.cosine_similarity(bound, found, 0)) > 1 - 1e-4
        assert float(found.norm() / bound.norm()) == pytest.approx(factor, rel=5e-3)
        assert torch.allclose(
            card(schedule, loss).density, factor * card(Cosine(None), VariationalBound()).density, rtol=1e-9
        )
    assert torch.allclose(expected_gradient(VP(), DSM("sigma2")), expected_gradient(VP(), Simple()), rtol=1e-9)
    for schedule, loss in ((Cosine(None), Simple()), (VP(), Simple()), (VP(), DSM("one")), (VP(), Simple("x0"))):
        other = card(schedule, loss)
        inside = (other.log_snr > -7) & (other.log_snr < 12)
        assert other.density[inside].max() > 3 * other.density[inside].min()
        assert float(torch.cosine_similarity(bound, expected_gradient(schedule, loss), 0)) < 0.97


# --- as a table and a picture


def read(path) -> tuple[list[str], list[dict[str, float]]]:
    lines = path.read_text().splitlines()
    notes = [line.removeprefix("# ") for line in lines if line.startswith("#")]
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return notes, [{key: float(value) for key, value in row.items()} for row in rows]


def test_the_rows_are_the_cards_columns_from_data_to_noise():
    found = card(Cosine(7), VariationalBound())
    rows = found.rows()
    assert list(rows[0]) == ["t", "log_snr_low", "log_snr_high", "weight", "probability", "mass", "density"]
    columns = (found.t, found.low, found.high, found.weight, found.probability, found.mass, found.density)
    for name, column in zip(rows[0], columns, strict=True):
        assert torch.allclose(torch.tensor([row[name] for row in rows]), column.float(), rtol=1e-7, equal_nan=True)


@pytest.mark.parametrize("notes", [(), ("one thing", "another, with a comma")])
def test_a_written_card_reads_back_with_its_notes(tmp_path, notes):
    for schedule in (Cosine(7), VP()):
        rows = card(schedule, VariationalBound()).rows()
        write_card(tmp_path / "card.csv", rows, notes)
        write_card(tmp_path / "card.csv", rows, notes)
        told, back = read(tmp_path / "card.csv")
        assert told == list(notes)
        assert [list(row) for row in back] == [list(row) for row in rows]
        for row, again in zip(rows, back, strict=True):
            assert again == pytest.approx(row, rel=1e-8, nan_ok=True)
    assert [path.name for path in tmp_path.iterdir()] == ["card.csv"]


def test_a_curve_is_the_density_relative_to_its_mean_in_the_yardsticks_range():
    found = card(Linear(1000), VariationalBound())
    edges, density = curve(found.rows())
    assert len(edges) == len(density) + 1 == 1000, "i = 1, whose interval is endless, is left out"
    assert edges == sorted(edges)
    assert edges[0] == pytest.approx(float(found.low[-1]))
    assert edges[-1] == pytest.approx(float(found.high[1]))
    widths = torch.tensor(edges).double().diff()
    inside = (torch.tensor(edges)[:-1] >= -4.8) & (torch.tensor(edges)[1:] <= 6.6)
    said = torch.tensor(density).double()
    assert float((said * widths)[inside].sum() / widths[inside].sum()) == pytest.approx(1, rel=1e-5)
    assert torch.allclose(said / said[500], found.density.flip(0)[:-1] / found.density.flip(0)[500], rtol=1e-5)
    doubled = [row | {"mass": 2 * row["mass"], "density": 2 * row["density"]} for row in found.rows()]
    assert curve(doubled)[1] == pytest.approx(density)
    edges, density = curve(card(VP(), Likelihood()).rows())
    assert len(density) == 400
    assert density == pytest.approx([1.0] * 400)


def test_a_card_without_any_weight_has_an_empty_curve():
    edges, density = curve(card(Cosine(10), Ratio()).rows())
    assert len(edges) == len(density) + 1
    assert all(math.isnan(value) for value in density)


def ink(path) -> Tensor:
    """The picture's darkness (height, width)."""
    from matplotlib.image import imread

    return 1 - torch.tensor(imread(path)[..., :3]).double().mean(2)


def test_a_picture_shows_each_card_as_a_curve_of_its_own(tmp_path):
    even, tilted = (card(VP(), loss).rows() for loss in (Likelihood(), Simple("x0")))
    twice = [row | {"mass": 2 * row["mass"], "density": 2 * row["density"]} for row in even]

    def drawn(*cards) -> Tensor:
        draw_cards(tmp_path / "card.png", {"vp": {"one": cards[0], "other": cards[1]}})
        assert [path.name for path in tmp_path.iterdir()] == ["card.png"]
        return ink(tmp_path / "card.png")

    same, scaled, two = drawn(even, even), drawn(even, twice), drawn(even, tilted)
    assert torch.equal(same, scaled), "relative to the mean in the grey range"
    differ = (same - two).abs() > 0.2
    columns = differ.any(0).double()
    assert differ.sum() > 300
    assert float(columns.mean()) > 0.3, "the curves part over much of the log-SNR"
    rows = torch.nonzero(differ.any(1)).flatten()
    assert rows[-1] - rows[0] > 0.4 * len(differ), "by many powers of ten"


def test_a_picture_has_a_panel_for_each_title_and_its_notes_below(tmp_path):
    rows = card(Cosine(50), Simple()).rows()
    draw_cards(tmp_path / "one.png", {"a": {"": rows}})
    draw_cards(tmp_path / "two.png", {"a": {"": rows}, "b": {"": rows}})
    draw_cards(tmp_path / "told.png", {"a": {"": rows}}, ["the variance is learned"])
    one, two, told = (ink(tmp_path / f"{name}.png") for name in ("one", "two", "told"))
    assert two.shape[1] > 1.6 * one.shape[1]
    assert one.shape == told.shape
    assert ((one - told).abs() > 0.2).sum() > 100


def test_a_card_says_when_one_step_outweighs_all_others():
    """The cosine's last step falls by 7 in log-SNR: 1/2 expm1 of that is most of the bound's weight."""
    found = card(Cosine(1000), VariationalBound())
    share = float(found.mass[-1] / found.mass.nansum())
    assert share > 0.97
    assert found.notes[-1].startswith(f"{share:.1%} of the weight lies on the last step, log-SNR [-19.8, -12.9]")
    assert not any("last step" in note for note in card(Linear(1000), VariationalBound()).notes)


# --- ends without signal


class Endless(VP):
    """Trained as far as its curve falls."""

    log_snr_ends = (-math.inf, 13.3)


@pytest.mark.parametrize("times", [Uniform(), LogSNRUniform()], ids=named)
@pytest.mark.parametrize("loss", [Simple("v"), Simple("x0"), VariationalBound()], ids=named)
@pytest.mark.parametrize("schedule", [Straight(None), Endless(beta_end=1e6), Endless(beta_end=300.0)], ids=named)
def test_a_continuous_process_that_ends_without_signal_has_a_law_of_levels_and_a_normalizer(schedule, loss, times):
    """All below log-SNR -30 is one level, however far it reaches."""
    found = card(schedule, loss, times)
    assert len(found.t) == 401 and (found.t.diff() > 0).all() and float(found.t[-1]) <= 1
    assert float(found.high[-1]) == pytest.approx(-30) and float(found.low[-1]) == schedule.log_snr_range()[0]
    assert (found.probability >= 0).all() and float(found.probability.sum()) == pytest.approx(1, rel=5e-3)
    rest = 1 - float(schedule.inverse(torch.tensor([-30.0]).double()))
    assert float(found.probability[-1]) == pytest.approx(rest / schedule.duration)
    assert 1 - float(found.t[-1]) == pytest.approx(rest / 2), "the middle of its time"
    assert 0 < found.normalizer < math.inf
    edges, densities = curve(found.rows())
    assert all(map(math.isfinite, edges)) and len(edges) == len(densities) + 1


def test_gradient_noise_is_told_of_a_process_that_ends_without_signal():
    """At times anywhere in the last level, which belongs to the noisiest bin."""
    evaluated = NetworkDenoiser(Straight(None), tiny_unet(), V(), FixedSmall(), 17)
    values, labels = to_levels(digits_like(12), 17), torch.zeros(12, dtype=torch.long)
    told = EvaluationContext(
        evaluated,
        DDIM(2),
        EvaluationSettings(),
        values,
        labels,
        values,
        labels,
        None,
        Simple("v", normalize=False),
        Uniform(),
    )
    found = GradientNoise(2, 3).run(told, None)
    assert all(value is None or math.isfinite(value) for value in found.metrics.values())
    gradients = Gradients(told)
    last = gradients.times(torch.tensor([400]), 500, seeded())
    start = float(evaluated.schedule.inverse(gradients.card.high[-1:]))
    assert start <= float(last.min()) < float(last.max()) <= 1
    assert gradients.span(torch.tensor([399, 400]))[1] == 1


def test_an_infinite_weight_is_named_with_its_place_and_not_taken_for_none():
    with pytest.raises(Refusal, match=r"infinite weight at t = 1 \(log-SNR -inf\) and cannot be normalised by it"):
        _ = card(Straight(2), VariationalBound()).normalizer
    with pytest.raises(Refusal, match="declares no weight"):
        _ = card(Straight(2), Ratio()).normalizer


def test_a_card_notes_where_its_weight_is_infinite():
    assert "the weight is infinite at t = 1 (log-SNR -inf)" in card(Straight(20), Simple("v")).notes
