"""Objectives: L_simple, and what holds of every objective."""

import math
from contextlib import suppress
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from conftest import choices, choose, each, each_form, each_grid, each_kind, head_for
from exact_cases import (
    Exploding,
    FiniteSetOracle,
    GaussianOracle,
    Says,
    Straight,
    answer,
    digits_like,
    losses_of,
    network,
    normal,
    says,
    seeded,
    truth_of,
)
from torch import Tensor, nn

from scorelab.denoisers import Denoiser, FixedSmall, NetworkDenoiser
from scorelab.errors import Refusal
from scorelab.losses import DSM, ESM, ISM, SSM, Example, Likelihood, Loss, Simple, VariationalBound, WeightedError
from scorelab.networks import UNet
from scorelab.schedules import Cosine, Linear

EVENLY = torch.linspace(0, 1, 60, dtype=torch.float64)  # as quantiles: from the least training time to 1


@cache
def variance_for(loss: str) -> str:
    """A variance this objective trains with: the default one where it goes."""
    for variance in ("fixed_small", *choices("variance")):
        with suppress(Refusal):
            choose("loss", loss).check(says(Cosine(), torch.zeros(1), variance))
            return variance
    raise AssertionError(f"loss={loss} refuses the default process under every variance")


def side_for(loss: str) -> int:
    """Of the images it is tried on: what takes a pass through the network for each dimension gets fewer of them."""
    return 8 if choose("loss", loss).cost(64) < 64 else 2


def refusal_of(loss: Loss, denoiser: Denoiser) -> str | None:
    """What it says against a denoiser; None where it takes it."""
    try:
        loss.check(denoiser)
    except Refusal as refusal:
        return str(refusal)
    return None


class Affine(nn.Module):
    """A network of two parameters for each channel it answers: what it says depends on x, and has a slope in it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.6, 0.3, outputs).reshape(-1, 1, 1))
        self.shift = nn.Parameter(torch.full((outputs, 1, 1), 0.2))

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.tanh(self.gain * x) + self.shift


# --- simple


@each_form(100)
@pytest.mark.parametrize("space", ["eps", "x0", "v"])
def test_the_simple_loss_of_an_exact_denoiser_of_one_point_is_zero_in_every_space(space, schedule, steps):
    point = normal(1, 3)
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=steps), FixedSmall(), point)
    t = denoiser.schedule.training_time(EVENLY)
    loss = losses_of(Simple(space), denoiser, point.expand(60, -1), t, normal(60, 3, seed=1))
    assert loss.shape == (60,)
    assert loss.abs().max() < 1e-12


@each_grid
def test_the_simple_loss_of_a_network_that_starts_at_zero_is_the_power_of_the_noise(schedule):
    unet = UNet((1, 8, 8), channels=4)
    denoiser = NetworkDenoiser(choose("schedule", schedule), unet, choose("prediction", "eps"), FixedSmall())
    eps, t = normal(64, 1, 8, 8).float(), torch.rand(64, generator=seeded(1)).clamp(min=1e-3)
    loss = losses_of(Simple(), denoiser, digits_like(64), t, eps)
    assert torch.allclose(loss, eps.square().flatten(1).mean(1), rtol=1e-6)
    assert abs(float(loss.detach().mean()) - 1) < 5 * math.sqrt(2 / eps.numel())


@each_form(1000)
@each("prediction")
def test_the_spaces_of_the_simple_loss_differ_by_the_snr_factors(prediction, schedule, steps):
    """||d eps||^2 = S ||d x_0||^2 and ||d v||^2 = (a / sigma)^2 ||d x_0||^2."""
    schedule = choose("schedule", schedule, num_steps=steps)
    t = schedule.training_time(EVENLY)
    denoiser = NetworkDenoiser(schedule, Says(normal(60, 3)), head_for(schedule, prediction), FixedSmall())
    x0, eps = normal(60, 3, seed=1), normal(60, 3, seed=2)
    on_eps, on_x0, on_v = (losses_of(Simple(space), denoiser, x0, t, eps) for space in ("eps", "x0", "v"))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert torch.allclose(on_eps, (alpha / sigma) ** 2 * on_x0, rtol=1e-5, atol=1e-12)
    assert torch.allclose(on_v, ((alpha**2 + sigma**2) / sigma) ** 2 * on_x0, rtol=1e-5, atol=1e-12)


def test_the_simple_loss_is_a_mean_over_dimensions_of_the_squared_error():
    denoiser = NetworkDenoiser(Cosine(), Says(normal(4, 2, 3, 5)), choose("prediction", "eps"), FixedSmall())
    eps = normal(4, 2, 3, 5, seed=1)
    loss = losses_of(Simple(), denoiser, normal(4, 2, 3, 5, seed=2), torch.full((4,), 0.5), eps)
    expected = [float((eps[b] - denoiser.network.answer[b].detach()).square().sum()) / 30 for b in range(4)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_simple_loss_is_least_for_the_posterior_mean():
    """Its minimiser is E[eps | x_t]: any shift or stretch of the oracle's answer does worse, on the same draws."""
    oracle = GaussianOracle(Linear(), FixedSmall(), [0.4, -0.2], [0.7, 1.3])
    n = 20000
    x0, eps, t = oracle.draw(n, seeded(1)), normal(n, 2, seed=2), torch.full((n,), 0.4, dtype=torch.float64)
    best = losses_of(Simple(), oracle, x0, t, eps)
    answer = oracle(oracle.noised(x0, t, eps).x_t, t).eps
    for worse in (answer + 0.1, 0.9 * answer, 1.1 * answer):
        other = losses_of(
            Simple(),
            NetworkDenoiser(oracle.schedule, Says(worse), choose("prediction", "eps"), FixedSmall()),
            x0,
            t,
            eps,
        )
        more = other - best
        assert more.mean() > 3 * more.std() / math.sqrt(n)


# --- every loss


@each_kind(1000)
@each("prediction")
@each("loss")
def test_every_loss_is_finite_and_trains_every_head_under_every_schedule_it_accepts(loss, prediction, schedule, steps):
    objective, tried = choose("loss", loss), 0
    for variance in choices("variance"):
        law = choose("variance", variance)
        process = choose("schedule", schedule, num_steps=steps)
        head = head_for(process, prediction)
        denoiser = NetworkDenoiser(process, Affine(law.outputs), head, law, levels=17)
        if refusal_of(objective, denoiser) is not None:
            continue
        t = process.training_time(torch.tensor([0.0, 0.001, 0.002, 0.25, 0.5, 0.997, 0.998, 0.9999]).double())
        x0, eps = digits_like(8, side=4), normal(8, 1, 4, 4).float()
        terms = objective(denoiser, Example.of(denoiser, x0, t, eps, None, truth_of(denoiser, x0)), seeded())
        assert terms.loss.shape == (8,)
        assert terms.loss.dtype == torch.float32
        assert terms.loss.isfinite().all()
        terms.loss.mean().backward()
        gradients = [parameter.grad for parameter in denoiser.network.parameters()]
        assert all(gradient.isfinite().all() and (gradient != 0).all() for gradient in gradients), variance
        tried += 1
    if tried == 0:
        pytest.skip("refused under every variance")


@each_grid
@each("loss")
def test_no_loss_clips_the_predicted_data(loss, schedule):
    """Where x^_0 already lies outside [-1, 1], moving it further out still changes every sample's loss.

    The noise pulls to the other side, so that the score is too far out as well, and has to be less.
    """
    schedule, variance = choose("schedule", schedule, num_steps=1000), choose("variance", variance_for(loss))
    t = schedule.grid()[torch.tensor([1, 2, 100, 500, 900])]
    x0, eps = torch.full((5, 1, 2, 2), 0.5), -normal(5, 1, 2, 2).float().abs()

    def at(answer: float) -> tuple[Tensor, Tensor]:
        halves = torch.cat([torch.full((5, 1, 2, 2), answer), torch.zeros(5, variance.outputs - 1, 2, 2)], 1)
        answering = Says(halves)
        denoiser = NetworkDenoiser(schedule, answering, choose("prediction", "x0"), variance, levels=17)
        value = losses_of(choose("loss", loss), denoiser, x0, t, eps, None, truth_of(denoiser, x0), generator=seeded())
        value.sum().backward()
        return value.detach(), answering.answer.grad[:, :1]

    (near, pull), (far, _) = at(1.5), at(2.0)
    assert (far > near).all()
    assert (pull > 0).all()


@each("loss")
def test_a_loss_is_deterministic_given_data_times_noise_and_generator(loss):
    side = side_for(loss)
    denoiser = network("cosine", "eps", variance_for(loss), side=side)
    x0, eps = digits_like(4, side=side), normal(4, 1, side, side).float()
    t, truth = denoiser.schedule.grid()[[1, 30, 500, 1000]], truth_of(denoiser, digits_like(10, side=side))
    state = torch.random.get_rng_state()
    once, again = (
        losses_of(choose("loss", loss), denoiser, x0, t, eps, None, truth, generator=seeded()) for _ in range(2)
    )
    assert torch.equal(once, again)
    assert torch.equal(torch.random.get_rng_state(), state)


@each("loss")
def test_a_samples_loss_does_not_depend_on_the_rest_of_its_batch(loss):
    """What a loss draws itself, it draws for one sample after the other."""
    side = side_for(loss)
    denoiser = network("cosine", "eps", variance_for(loss), side=side).double()
    x0, eps = digits_like(4, side=side).double(), normal(4, 1, side, side)
    t, truth = denoiser.schedule.grid()[[1, 30, 500, 1000]], truth_of(denoiser, digits_like(10, side=side))
    loss, draws = choose("loss", loss), seeded()
    together = losses_of(loss, denoiser, x0, t, eps, None, truth, generator=seeded())
    one_by_one = zip(*(part.split(1) for part in (x0, t, eps)), strict=True)
    alone = [losses_of(loss, denoiser, *one, None, truth, draws) for one in one_by_one]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-9)


# --- the weight a loss says it has


def noise_error(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    return (denoiser(denoiser.noised(x0, t, eps).x_t, t).eps - eps).square().flatten(1).mean(1)


def falls_short(loss: Loss) -> bool:
    """Whether it is less than its weight times the noise error, by a constant and on average over the noise alone.

    Of these a single sample says nothing; that the gradient of their mean has the weight is tested with its card.
    """
    floor = torch.full((1,), 0.5, dtype=torch.float64)
    return not torch.equal(loss.shortfall(floor), torch.zeros_like(floor))


def variants(name: str) -> list[Loss]:
    """A choice as it is, and with every other word that one of its arguments may be."""
    found = [choose("loss", name)]
    for key, hint in get_type_hints(type(found[0]).__init__).items():
        words = get_args(hint) if get_origin(hint) is Literal else ()
        found += [choose("loss", name, **{key: word}) for word in words if word != getattr(found[0], key, None)]
    return found


# every objective of which each sample has the weight that it declares; the others are looked at by their mean gradient
LOSSES = [
    pytest.param(loss, id=f"{name}-{number}")
    for name in choices("loss")
    for number, loss in enumerate(variants(name))
    if not falls_short(loss) and variance_for(name) == "fixed_small"
] + [pytest.param(ESM(weight, references=1), id=f"esm-1-{weight}") for weight in ("one", "sigma2", "g2")]


@each_kind(200)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_loss_is_its_weight_times_the_noise_error_up_to_what_no_mean_can_change(variance, loss, schedule, steps):
    """So the difference of two networks is the weight times that of their errors; alone with beta~, where r = 1."""
    schedule = choose("schedule", schedule, num_steps=steps)
    t = schedule.training_time(EVENLY)
    x0, eps = normal(60, 3, seed=1), normal(60, 3, seed=2)
    one, other = (says(schedule, normal(60, 3, seed=seed), variance) for seed in (3, 4))
    if (refusal := refusal_of(loss, one)) is not None:
        pytest.skip(refusal)
    weight = loss.noise_weight(one, t)
    if weight.isnan().all():
        pytest.skip("declares no weight")
    finite = weight.isfinite()
    assert weight.dtype == torch.float64
    at_decoder = (t < schedule.t_min + 1e-9) & bool(steps and isinstance(loss, VariationalBound))
    assert torch.equal(finite, ~at_decoder)
    (first, first_error), (second, second_error) = (
        (losses_of(loss, each_one, x0, t, eps).detach(), noise_error(each_one, x0, t, eps)) for each_one in (one, other)
    )
    expected = weight * (first_error - second_error)
    scale = weight * (first_error + second_error)
    assert ((first - second - expected).abs()[finite] < 1e-6 * scale[finite]).all()
    if isinstance(loss, WeightedError) or (variance == "fixed_small" and isinstance(loss, VariationalBound)):
        assert torch.allclose(first[finite], (weight * first_error)[finite], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("steps", [None, 100])
def test_the_weight_is_right_where_power_is_not_preserved(steps, loss):
    schedule, x0, eps = Exploding(steps), normal(60, 3, seed=1), normal(60, 3, seed=2)
    t, denoiser = schedule.training_time(0.02 + 0.98 * EVENLY), says(schedule, normal(60, 3, seed=3))
    if (refusal := refusal_of(loss, denoiser)) is not None:
        pytest.skip(refusal)
    if loss.noise_weight(denoiser, t).isnan().all():
        pytest.skip("declares no weight")
    found = losses_of(loss, denoiser, x0, t, eps)
    assert torch.allclose(found, loss.noise_weight(denoiser, t) * noise_error(denoiser, x0, t, eps), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@each("prediction")
def test_an_error_is_as_good_in_single_precision_as_in_double_at_every_time_whatever_is_predicted(prediction, loss):
    """Of a network that is nearly right: its error is a difference of like numbers, where noise is all or nothing."""
    if not isinstance(loss, WeightedError):
        pytest.skip("has a form of its own, and its own tests")
    schedule, x0, eps = Cosine(), normal(60, 30, seed=1).float().double(), normal(60, 30, seed=2).float().double()
    t = schedule.training_time(EVENLY)
    head = choose("prediction", prediction)
    noised = says(schedule, eps).noised(x0, t, eps)
    near = answer(prediction, noised) + 0.1 * normal(60, 30, seed=3)
    fine, rough = (
        losses_of(
            loss, NetworkDenoiser(schedule, Says(near.to(dtype)), head, FixedSmall()), x0.to(dtype), t, eps.to(dtype)
        )
        for dtype in (torch.float64, torch.float32)
    )
    assert rough.dtype == torch.float32
    assert torch.allclose(rough.double(), fine, rtol=2e-3, atol=1e-8)


@each_grid
@pytest.mark.parametrize("loss", [loss for loss in choices("loss") if choose("loss", loss).trains_variance])
def test_with_a_learned_variance_at_one_half_the_gradient_of_the_mean_has_the_weight(loss, schedule):
    """The networks start there. d/d eps^ of w ||eps - eps^||^2 / d is 2 w (eps^ - eps) / d."""
    schedule, loss = choose("schedule", schedule, num_steps=200), choose("loss", loss)
    t = schedule.grid()[2:]
    halves = torch.cat([normal(199, 1, 2, 2), torch.zeros(199, 1, 2, 2)], 1)
    denoiser, eps = says(schedule, halves, "learned", levels=17), normal(199, 1, 2, 2, seed=2)
    losses_of(loss, denoiser, normal(199, 1, 2, 2, seed=1), t, eps).sum().backward()
    found = denoiser.network.answer.grad[:, :1]
    expected = loss.noise_weight(denoiser, t)[:, None, None, None] * 2 * (halves[:, :1] - eps) / 4
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9)


@each_form(1000)
@each("prediction")
def test_min_snr_is_the_error_of_the_data_times_the_ratio_or_gamma_whatever_is_predicted(prediction, schedule, steps):
    """And that of v times min(S, gamma) sigma^2 / a^2, a = alpha^2 + sigma^2: the weight is the loss's own."""
    schedule = choose("schedule", schedule, num_steps=steps)
    t = schedule.training_time(EVENLY)
    denoiser = NetworkDenoiser(schedule, Says(normal(60, 3)), head_for(schedule, prediction), FixedSmall())
    x0, eps = normal(60, 3, seed=1), normal(60, 3, seed=2)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    snr = (alpha / sigma) ** 2
    on_x0, on_v = (losses_of(Simple(space), denoiser, x0, t, eps) for space in ("x0", "v"))
    found = losses_of(choose("loss", "min_snr"), denoiser, x0, t, eps)
    assert torch.allclose(found, snr.clamp(max=5) * on_x0, rtol=1e-5, atol=1e-12)
    assert torch.allclose(found, snr.clamp(max=5) * (sigma / (alpha**2 + sigma**2)) ** 2 * on_v, rtol=1e-5, atol=1e-12)
    assert (snr > 5).any() and (snr < 5).any(), "both are seen"


def test_min_snr_has_a_finite_weight_where_there_is_no_signal():
    silent = says(Straight(None), torch.zeros(1))
    assert choose("loss", "min_snr").weight(silent, torch.tensor([1.0, 0.2]).double()).tolist() == pytest.approx(
        [1, 5 / 16]
    )
    with pytest.raises(Refusal, match="gamma must be above 0"):
        choose("loss", "min_snr", gamma=0.0)


# --- what cannot be


@pytest.mark.parametrize("loss", [loss for loss in choices("loss") if not choose("loss", loss).trains_variance])
@pytest.mark.parametrize(("schedule", "steps"), [("cosine", 100), ("cosine", None)])
def test_a_regression_onto_the_noise_refuses_a_learned_variance_and_says_what_trains_it(loss, schedule, steps):
    other = ", or loss=hybrid" if steps else ""
    with pytest.raises(ValueError, match=rf"^this loss gives a .* no gradient: set variance=fixed_small{other}$"):
        choose("loss", loss).check(network(schedule, "eps", "learned", steps))
    choose("loss", loss).check(network(schedule, "eps", "fixed_large", steps))


@pytest.mark.parametrize("loss", [Simple(), Simple("eps"), DSM(), DSM("sigma2"), Likelihood(), ESM(), ISM(), SSM()])
def test_an_error_of_noise_or_score_refuses_a_process_that_ends_without_signal(loss):
    with pytest.raises(
        ValueError, match=r"^[^.]+ is silent where alpha = 0: set [a-z0-9=., ]*loss\.space=v[a-z0-9 ]*$"
    ):
        loss.check(says(Straight(None), torch.zeros(1)))
    loss.check(says(Exploding(None), torch.zeros(1)))


@pytest.mark.parametrize("space", ["x0", "v"])
def test_an_error_of_data_or_v_accepts_it(space):
    Simple(space).check(says(Straight(None), torch.zeros(1)))


@each("loss")
def test_every_loss_accepts_the_default_process_with_a_variance_it_trains(loss: str):
    assert refusal_of(choose("loss", loss), network("cosine", "eps", variance_for(loss))) is None


@each("loss")
@pytest.mark.parametrize("normalize", [True, False])
def test_whether_a_loss_is_normalised_is_its_own_to_say(loss, normalize):
    assert choose("loss", loss, normalize=normalize).normalize is normalize
    assert choose("loss", loss).normalize
