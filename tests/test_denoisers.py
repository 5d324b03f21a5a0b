"""What a denoiser says: conversions, the score, variances, and networks read by a prediction."""

from dataclasses import replace

import pytest
import torch
from conftest import CONTINUOUS, choices, choose, each, each_form, each_grid, each_preserving_grid
from exact_cases import Exploding, FiniteSetOracle, GaussianOracle, Says, Straight, answer, normal, says
from torch import nn

from scorelab.denoisers import (
    Eps,
    Estimate,
    Exact,
    FixedLarge,
    FixedSmall,
    Learned,
    LearnedFree,
    NetworkDenoiser,
    NetworkInput,
    Parameterization,
    Preconditioned,
    Rescheduled,
)
from scorelab.errors import Refusal
from scorelab.laws import GaussianMixture
from scorelab.networks import UNet
from scorelab.schedules import EDM, VP, Cosine, Flow
from scorelab.schedules import Linear as Betas

MEAN, STD = [0.4, -0.2, 1.5], [0.7, 1.3, 0.2]
PAIR = ("x0", "eps")
EVENLY = torch.linspace(0, 1, 1000, dtype=torch.float64)  # as quantiles: from the least training time to 1


def gaussian(schedule: str, steps: int | None = 1000, variance=None) -> GaussianOracle:
    return GaussianOracle(choose("schedule", schedule, num_steps=steps), variance or FixedSmall(), MEAN, STD)


def speaking(schedule, prediction: str, answer: torch.Tensor) -> NetworkDenoiser:
    return NetworkDenoiser(schedule, Says(answer), choose("prediction", prediction), FixedSmall())


@each_form(1000)
@each("prediction")
def test_a_network_that_answers_the_truth_is_read_as_the_truth_at_every_time(prediction, schedule, steps):
    """Also at t = 1, where alpha is near 3e-5, and at the least time, where sigma is near 0.001."""
    schedule = choose("schedule", schedule, num_steps=steps)
    t = torch.cat([schedule.training_time(EVENLY), torch.tensor([0.0123, 0.98765], dtype=torch.float64)])
    x0, eps = normal(len(t), 3, seed=1), normal(len(t), 3, seed=2)
    truth = speaking(schedule, "eps", eps).noised(x0, t, eps)
    if prediction == "mu" and steps is None:
        pytest.skip("there is no step before")
    estimate = speaking(schedule, prediction, answer(prediction, truth))(truth.x_t, t)
    lost = 1e-5 if prediction == "mu" else 1e-10  # x_0 is a small part of the mean of a step in much noise
    for name in ("x0", "eps", "v", "score", "velocity"):
        assert torch.allclose(getattr(estimate, name), getattr(truth, name), rtol=1e-9, atol=lost), name


@each_form(1000)
@each("prediction")
def test_what_is_predicted_survives_float32_at_every_time_and_all_else_stays_finite(prediction, schedule, steps):
    """Estimates are affine, a x_t + b output: each keeps float32's digits of |a x_t| + |b output|, and none is lost."""
    schedule = choose("schedule", schedule, num_steps=steps)
    if prediction == "mu" and steps is None:
        pytest.skip("there is no step before")
    t = schedule.training_time(EVENLY)
    output, x_t = normal(len(t), 3, seed=3).float(), normal(len(t), 3, seed=4).float()
    nothing, estimate = torch.zeros_like(x_t), speaking(schedule, prediction, output)(x_t, t)
    of_x, of_output = (
        speaking(schedule, prediction, said.double())(shown.double(), t)
        for shown, said in ((x_t, nothing), (nothing, output))
    )
    for name in PAIR:
        first, second = getattr(of_x, name), getattr(of_output, name)
        lost = (getattr(estimate, name).double() - first - second).abs()
        assert (lost <= 2e-6 * (first.abs() + second.abs())).all(), name
    for name in ("x0", "eps", "v", "score"):
        assert getattr(estimate, name).isfinite().all(), name
        assert getattr(estimate, name).dtype == torch.float32, name


@each_form(1000)
def test_near_pure_noise_an_error_in_v_is_an_equal_error_in_x0(schedule, steps):
    """x_0 from v must not pass through eps, which would divide by alpha."""
    schedule = choose("schedule", schedule, num_steps=steps)
    t = torch.ones(200, dtype=torch.float64)
    x0, eps = normal(200, 1, seed=5).float(), normal(200, 1, seed=6).float()
    truth = speaking(schedule, "v", eps).noised(x0, t, eps)
    estimate = speaking(schedule, "v", truth.v)(truth.x_t, t)
    assert torch.allclose(estimate.x0, x0, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (1.0, 3.0), (0.3, 0.7), (0.0, 1.0)])
def test_v_is_read_right_off_the_circle_and_where_no_signal_is_left(alpha, sigma):
    """There a = alpha^2 + sigma^2 is not 1, or alpha is 0."""
    alpha, sigma = (torch.full((4, 1), value, dtype=torch.float64) for value in (alpha, sigma))
    x0, eps = normal(4, 2, seed=1), normal(4, 2, seed=2)
    estimate = Estimate.from_v(alpha * x0 + sigma * eps, alpha, sigma, alpha * eps - sigma * x0)
    assert torch.allclose(estimate.x0, x0, rtol=0, atol=1e-12)
    assert torch.allclose(estimate.eps, eps, rtol=0, atol=1e-12)
    assert torch.allclose(estimate.v, alpha * eps - sigma * x0, rtol=0, atol=1e-12)


@each_form(1000)
def test_noising_keeps_x0_and_eps_and_makes_x_t_of_them(schedule, steps):
    denoiser, t = gaussian(schedule, steps), torch.tensor([0.001, 0.4, 1.0])
    x0, eps = normal(3, 3, seed=1), normal(3, 3, seed=2)
    truth = denoiser.noised(x0, t, eps)
    alpha, sigma = (c[:, None] for c in (denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)))
    assert torch.equal(truth.x_t, alpha * x0 + sigma * eps)
    assert torch.equal(truth.x0, x0)
    assert torch.equal(truth.eps, eps)
    assert torch.allclose(truth.v, alpha * eps - sigma * x0)


@each_form(1000)
def test_a_clipped_estimate_lies_in_the_box_and_still_makes_up_x_t(schedule, steps):
    schedule = choose("schedule", schedule, num_steps=steps)
    t = schedule.training_time(EVENLY)
    x_t, eps = normal(len(t), 4, seed=1), normal(len(t), 4, seed=2)
    estimate = speaking(schedule, "eps", eps)(x_t, t)
    clipped = estimate.clipped()
    assert estimate.x0.abs().max() > 1
    assert clipped.x0.abs().max() <= 1
    assert torch.allclose(clipped.alpha * clipped.x0 + clipped.sigma * clipped.eps, x_t, rtol=0, atol=1e-12)
    inside = estimate.x0.abs() <= 1
    assert inside.any()
    assert torch.equal(clipped.x0[inside], estimate.x0[inside])
    assert torch.allclose(clipped.eps[inside], estimate.eps[inside], rtol=0, atol=1e-10)


@each_form(1000)
def test_the_score_is_the_gradient_of_the_log_density(schedule, steps):
    denoiser = gaussian(schedule, steps)
    t = torch.tensor([0.001, 0.01, 0.2, 0.55, 0.9, 1.0], dtype=torch.float64)
    x_t = normal(len(t), 3, seed=7).requires_grad_()
    log_density = denoiser.marginal(t).log_prob(x_t).sum()
    (expected,) = torch.autograd.grad(log_density, x_t)
    assert torch.allclose(denoiser(x_t, t).score, expected, rtol=1e-9, atol=1e-12)


@each_form(1000)
def test_the_score_of_a_finite_set_is_the_gradient_of_its_log_density(schedule, steps):
    points = normal(5, 2, seed=8)
    denoiser = FiniteSetOracle(choose("schedule", schedule, num_steps=steps), FixedSmall(), points)
    t = torch.tensor([0.05, 0.2, 0.55, 0.9, 1.0], dtype=torch.float64)
    x_t = normal(len(t), 2, seed=9).requires_grad_()
    alpha, sigma = denoiser.schedule.alpha(t)[:, None, None], denoiser.schedule.sigma(t)[:, None, None]
    each_point = torch.distributions.Normal(alpha * points, sigma).log_prob(x_t[:, None]).sum(2)
    (expected,) = torch.autograd.grad(each_point.logsumexp(1).sum(), x_t)
    assert torch.allclose(denoiser(x_t, t).score, expected, rtol=1e-8, atol=1e-10)


@each_preserving_grid
@pytest.mark.parametrize("steps", [50, 1000])
def test_the_small_and_the_large_variance_are_beta_tilde_and_the_forward_variance(schedule, steps):
    denoiser = gaussian(schedule, steps)
    grid = denoiser.schedule.grid()
    s, t = grid[1:-1], grid[2:]
    step = denoiser.schedule.transition(s, t)
    estimate = denoiser(normal(len(t), 3), t)
    alpha_bar_s, alpha_bar_t = denoiser.schedule.alpha(s) ** 2, denoiser.schedule.alpha(t) ** 2
    beta = 1 - alpha_bar_t / alpha_bar_s
    small = (FixedSmall().log_variance(step, estimate)).exp().flatten()
    large = (FixedLarge().log_variance(step, estimate)).exp().flatten()
    assert torch.allclose(small, beta * (1 - alpha_bar_s) / (1 - alpha_bar_t), rtol=1e-8)
    assert torch.allclose(large, beta, rtol=1e-8)


@each_preserving_grid
@pytest.mark.parametrize("make", [FixedSmall, FixedLarge])
def test_the_last_step_has_beta_tilde_of_step_two_for_pixels_and_beta_one_for_points(make, schedule):
    denoiser = gaussian(schedule)
    grid = denoiser.schedule.grid().unsqueeze(1)
    first, second = (denoiser.schedule.transition(grid[i - 1], grid[i]) for i in (1, 2))
    estimate = denoiser(normal(1, 3), grid[1])
    one, two = (float(denoiser.schedule.alpha(grid[i])) ** 2 for i in (1, 2))
    pixels = make().log_decoder_variance(first, second, True, estimate).exp()
    points = make().log_decoder_variance(first, second, False, estimate).exp()
    assert float(pixels) == pytest.approx((1 - two / one) * (1 - one) / (1 - two), rel=1e-8)
    assert float(points) == pytest.approx(1 - one, rel=1e-8)


# --- a learned variance


def steps_but_the_last(denoiser: GaussianOracle):
    """All steps but the last of a denoiser's grid, and what it says at their times."""
    grid = denoiser.schedule.grid()
    t = grid[2:]
    return denoiser.schedule.transition(grid[1:-1], t), denoiser(normal(len(t), 3), t)


@each_grid
@pytest.mark.parametrize("steps", [50, 1000])
def test_a_learned_variance_is_small_at_fraction_zero_large_at_one_and_their_power_mean_between(schedule, steps):
    """Log s^2 is a line in f: s^2 = large^f small^(1-f)."""
    denoiser = gaussian(schedule, steps, Learned())
    step, estimate = steps_but_the_last(denoiser)
    small, large = step.posterior_variance[:, None], step.forward_variance[:, None]
    for fraction in (0.0, 0.25, 0.5, 1.0, 1.2):
        said = replace(estimate, variance_fraction=torch.full_like(estimate.x_t, fraction))
        found = Learned().log_variance(step, said)
        assert found.shape == estimate.x_t.shape
        assert torch.allclose(found.exp(), (large**fraction * small ** (1 - fraction)).expand(-1, 3), rtol=1e-9)


@each_grid
def test_a_learned_variance_is_read_in_each_dimension_by_itself(schedule):
    step, estimate = steps_but_the_last(gaussian(schedule, 50, Learned()))
    fraction = torch.rand(estimate.x_t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = Learned().log_variance(step, replace(estimate, variance_fraction=fraction))
    low, high = step.posterior_variance.log()[:, None], step.forward_variance.log()[:, None]
    assert torch.allclose(found, low + fraction * (high - low), rtol=0, atol=1e-9)


@each_preserving_grid
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_a_learned_last_step_lies_between_the_fixed_entry_and_the_forward_variance(fraction, schedule):
    """beta~ is 0 there; for pixels its entry of step two stands in, for points both ends are sigma^2_{1|0}."""
    denoiser = gaussian(schedule, variance=Learned())
    grid = denoiser.schedule.grid().unsqueeze(1)
    first, second = (denoiser.schedule.transition(grid[i - 1], grid[i]) for i in (1, 2))
    estimate = replace(
        denoiser(normal(1, 3), grid[1]), variance_fraction=torch.full((1, 3), fraction, dtype=torch.float64)
    )
    one, two = (float(denoiser.schedule.alpha(grid[i])) ** 2 for i in (1, 2))
    stand_in, large = (1 - two / one) * (1 - one) / (1 - two), 1 - one
    pixels, points = (
        Learned().log_decoder_variance(first, second, lattice, estimate).exp() for lattice in (True, False)
    )
    assert pixels[0].tolist() == pytest.approx([large**fraction * stand_in ** (1 - fraction)] * 3, rel=1e-8)
    assert points[0].tolist() == pytest.approx([large] * 3, rel=1e-8)


@each_grid
@each("prediction")
def test_the_second_half_of_the_networks_output_is_v_from_minus_one_to_one(prediction, schedule):
    schedule, t = choose("schedule", schedule, num_steps=1000), torch.tensor([0.001, 0.3, 1.0])
    answer, v, x_t = normal(3, 2, 4, 4), 2 * torch.rand(3, 2, 4, 4, dtype=torch.float64) - 1, normal(3, 2, 4, 4, seed=1)
    v[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    denoiser = NetworkDenoiser(schedule, Says(torch.cat([answer, v], 1)), choose("prediction", prediction), Learned())
    estimate, alone = denoiser(x_t, t), speaking(schedule, prediction, answer)(x_t, t)
    assert estimate.variance_fraction[0, 0, 0, :2].tolist() == [0, 1]
    assert torch.allclose(2 * estimate.variance_fraction - 1, v, rtol=0, atol=1e-12)
    assert torch.equal(estimate.x0, alone.x0)
    assert torch.equal(estimate.eps, alone.eps)
    assert alone.variance_fraction is None


def test_a_clipped_estimate_keeps_what_is_said_of_the_variance():
    estimate = gaussian("cosine", variance=Learned())(9 * normal(4, 3), torch.full((4,), 0.5))
    assert torch.equal(estimate.clipped().variance_fraction, estimate.variance_fraction)


@pytest.mark.parametrize(
    ("channels", "variance"), [(1, "learned"), (3, "learned"), (2, "fixed_small"), (3, "fixed_large")]
)
def test_a_network_of_another_number_of_channels_than_its_variance_takes_is_refused(channels, variance):
    denoiser = says(choose("schedule", "cosine"), torch.zeros(2, channels, 8, 8), variance)
    with pytest.raises(ValueError, match=f"says {channels} channels where {denoiser.variance.outputs} are needed"):
        denoiser(torch.zeros(2, 1, 8, 8), torch.ones(2))


def test_a_learned_variance_that_nobody_says_is_refused():
    step, estimate = steps_but_the_last(gaussian("cosine"))
    with pytest.raises(ValueError, match="needs a denoiser that says one"):
        Learned().log_variance(step, estimate)


# --- what cannot be


@each("prediction")
@each_grid
def test_every_head_works_under_every_schedule_that_keeps_some_signal(schedule, prediction):
    made = choose("schedule", schedule)
    denoiser = speaking(made, prediction, torch.zeros(1))
    if prediction == "mu" and made.num_steps is None:
        with pytest.raises(Refusal, match=r"no step before: set schedule\.num_steps, or prediction=v"):
            denoiser.check()
        return
    denoiser.check()


def test_a_head_that_says_the_noise_refuses_a_process_that_ends_in_noise_alone_and_the_others_do_not():
    with pytest.raises(ValueError, match=r"^the noise says nothing .*: set prediction=v or x0$"):
        speaking(Straight(None), "eps", torch.zeros(1)).check()
    for other in ("v", "x0"):
        speaking(Straight(None), other, torch.zeros(1)).check()


@each_grid
@each("variance")
def test_a_variance_is_finite_and_its_shape_and_precision_fit_the_image(variance, schedule):
    variance = choose("variance", variance)
    schedule = choose("schedule", schedule, num_steps=100)
    grid = schedule.grid()
    x = normal(99, 1, 4, 4).float()
    estimate = GaussianOracle(schedule, variance, torch.zeros(1, 4, 4), 0.5)(x, grid[2:])
    log_variance = variance.log_variance(schedule.transition(grid[1:-1], grid[2:]), estimate)
    assert log_variance.dtype == torch.float32
    assert torch.broadcast_shapes(log_variance.shape, x.shape) == x.shape
    assert log_variance.isfinite().all()


# --- what a network is fed


@each("prediction")
def test_unless_its_prediction_says_otherwise_a_network_sees_x_t_and_a_thousand_times_t_as_a_real_number(prediction):
    head = choose("prediction", prediction)
    if type(head).inputs is not Parameterization.inputs:
        pytest.skip("this one says otherwise")
    denoiser = speaking(choose("schedule", "cosine", num_steps=50), prediction, torch.zeros(4, 2))
    t, x_t = torch.tensor([0.02, 0.333, 0.50017, 1.0], dtype=torch.float64), normal(4, 2).float()
    denoiser(x_t, t)
    assert denoiser.network.time.tolist() == pytest.approx([20, 333, 500.17, 1000], rel=1e-6)
    assert torch.equal(head.inputs(x_t, *coefficients(denoiser.schedule, t), t).x, x_t)


def coefficients(schedule, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return schedule.alpha(t)[:, None].float(), schedule.sigma(t)[:, None].float()


@each_form(1000)
@each("prediction")
def test_what_a_network_is_told_of_the_noise_level_is_a_finite_number_that_goes_one_way_with_time(
    prediction, schedule, steps
):
    schedule = choose("schedule", schedule, num_steps=steps)
    t = schedule.training_time(EVENLY[::10])
    x_t = normal(len(t), 3).float()
    given = choose("prediction", prediction).inputs(x_t, *coefficients(schedule, t), t)
    assert given.x.shape == x_t.shape and given.condition.shape == t.shape
    assert given.x.dtype == given.condition.dtype == torch.float32
    assert given.x.isfinite().all() and given.condition.isfinite().all()
    assert (given.condition.diff().sign() == given.condition.diff().sign()[0]).all()


class Scaled(Parameterization):
    """Fed x_t / 3 and told -t; its output, times 2, is the noise."""

    def inputs(self, x_t, alpha, sigma, t):
        return NetworkInput(x_t / 3, -t.to(x_t))

    def estimate(self, output, x_t, alpha, sigma, rates):
        return Estimate.from_eps(x_t, alpha, sigma, 2 * output)


class Repeats(nn.Module):
    """A network that answers what it is fed, times what it is told."""

    def forward(self, x, time, label):
        return x * time[:, None]


def test_a_network_is_fed_what_its_prediction_says_and_read_at_x_t_itself():
    denoiser = NetworkDenoiser(choose("schedule", "vp"), Repeats(), Scaled(), FixedSmall())
    x_t, t = normal(3, 2), torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    estimate = denoiser(x_t, t)
    assert torch.allclose(estimate.eps, -2 / 3 * x_t * t[:, None])
    assert torch.equal(estimate.x_t, x_t)
    assert torch.allclose(estimate.alpha * estimate.x0 + estimate.sigma * estimate.eps, x_t)


# --- velocity


class Velocity(Parameterization):
    """The network says alpha' x_0 + sigma' eps."""

    def estimate(self, output, x_t, alpha, sigma, rates):
        of_alpha, of_sigma = (rate[:, None].to(x_t) for rate in (rates.alpha, rates.sigma))
        turn = alpha * of_sigma - sigma * of_alpha
        return Estimate(
            x_t, alpha, sigma, (of_sigma * x_t - sigma * output) / turn, (alpha * output - of_alpha * x_t) / turn
        )


@pytest.mark.parametrize(
    "form",
    [*((name, 1000) for name in choices("schedule")), *((n, None) for n in CONTINUOUS), Straight, Exploding],
    ids=str,
)
def test_velocity_is_the_change_of_x_t_along_the_path_of_its_x0_and_eps(form):
    schedule = choose("schedule", form[0], num_steps=form[1]) if isinstance(form, tuple) else form(None)
    t, h = torch.tensor([0.1005, 0.4005, 0.7005, 0.9005], dtype=torch.float64), 1e-5
    x0, eps = normal(4, 3, seed=1), normal(4, 3, seed=2)
    denoiser = NetworkDenoiser(schedule, Says(torch.zeros(4, 3)), Velocity(), FixedSmall())
    truth, later, sooner = (denoiser.noised(x0, u, eps) for u in (t, t + h, t - h))
    change = (later.x_t - sooner.x_t) / (2 * h)
    assert torch.allclose(truth.velocity, change, rtol=1e-6, atol=1e-6 * float(change.abs().max()))
    if form is Straight:
        assert torch.allclose(truth.velocity, eps - x0, rtol=1e-12, atol=1e-12)
    denoiser.network.answer.data = truth.velocity
    estimate = denoiser(truth.x_t, t)
    assert torch.allclose(estimate.x0, x0, rtol=1e-8) and torch.allclose(estimate.eps, eps, rtol=1e-8)


def test_the_velocity_of_an_exact_estimate_is_the_drift_of_the_probability_flow_and_follows_another_schedule():
    inner = Exact(choose("schedule", "vp"), FixedSmall(), GaussianMixture(torch.zeros(1, 3), torch.eye(3)[None]))
    t, x = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), normal(3, 3)
    for denoiser in (inner, Rescheduled(inner, Exploding(None, 0.1, 10.0))):
        estimate, of = denoiser(x, t), denoiser.schedule
        drift = of.f(t)[:, None] * x - 0.5 * of.g2(t)[:, None] * estimate.score
        assert torch.allclose(estimate.velocity, drift, rtol=1e-9, atol=1e-12)


def test_an_estimate_that_knows_no_schedule_has_no_velocity_and_says_why():
    with pytest.raises(ValueError, match="no velocity without the rates"):
        _ = Estimate(*(torch.ones(1, 1) for _ in range(5))).velocity


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)
        self.dtype = torch.float64

    def forward(self, x, time, label):
        out = self.map(x)
        self.dtype = out.dtype
        return out


@each_grid
@each("prediction")
def test_under_autocast_the_network_computes_in_bfloat16_and_the_estimate_in_float32(prediction, schedule):
    schedule = choose("schedule", schedule, num_steps=1000)
    denoiser = NetworkDenoiser(schedule, Linear(), choose("prediction", prediction), FixedSmall())
    x_t, t = normal(8, 3).float(), torch.linspace(0.001, 1, 8)
    with torch.autocast("cpu", torch.bfloat16):
        estimate = denoiser(x_t, t)
        recombined = estimate.alpha * estimate.x0 + estimate.sigma * estimate.eps
    assert denoiser.network.dtype == torch.bfloat16
    for name in ("x0", "eps", "v", "score", "alpha", "sigma"):
        assert getattr(estimate, name).dtype == torch.float32, name
    parts = (estimate.alpha * estimate.x0).abs() + (estimate.sigma * estimate.eps).abs()
    lost = 1e-4 if prediction == "mu" else 1e-5  # which subtracts two large parts that are nearly equal
    assert ((recombined - x_t).abs() <= lost + 1e-6 * parts).all()


def test_a_denoiser_of_images_without_two_levels_is_refused():
    with pytest.raises(ValueError, match="at least 2 levels"):
        GaussianOracle(choose("schedule", "cosine"), FixedSmall(), 0.0, 1.0, levels=1)


def test_a_denoiser_is_where_its_network_is():
    network = UNet((1, 8, 8), channels=4)
    denoiser = NetworkDenoiser(choose("schedule", "cosine"), network, choose("prediction", "eps"), FixedSmall())
    assert denoiser.to("meta").device.type == "meta"


class Logarithm(Parameterization):
    """Tells the network ln(sigma/alpha), which is no number where alpha = 0; with ``shaped`` as alpha has it."""

    def __init__(self, shaped: bool = False) -> None:
        self.shaped = shaped

    def inputs(self, x_t, alpha, sigma, t):
        told = torch.log(sigma / alpha)
        return NetworkInput(x_t, told if self.shaped else told.flatten())

    def estimate(self, output, x_t, alpha, sigma, rates):
        return Estimate.from_x0(x_t, alpha, sigma, output)


def test_a_prediction_that_is_no_number_at_an_end_of_training_is_refused_by_method_and_time():
    def with_(prediction, schedule):
        return NetworkDenoiser(schedule, Says(torch.zeros(1)), prediction, FixedSmall())

    with_(Logarithm(), Cosine()).check()
    with pytest.raises(Refusal, match=r"^Logarithm\.inputs: condition is not finite at t = 1, alpha = 0, sigma = 1: "):
        with_(Logarithm(), Straight(50)).check()
    with pytest.raises(Refusal, match=r"^Logarithm\.inputs must answer a condition \(B,\), got \(2, 1, 1, 1\)"):
        with_(Logarithm(shaped=True), Cosine()).check()


# --- what makes each head the published one


def truth_at(schedule, *times: float) -> Estimate:
    t = torch.tensor(times, dtype=torch.float64)
    return speaking(schedule, "eps", torch.zeros(1)).noised(normal(len(t), 3, seed=1), t, normal(len(t), 3, seed=2))


def test_the_velocity_of_flow_is_the_noise_less_the_data():
    truth = truth_at(Flow(), 0.01, 0.5, 0.99)
    assert torch.allclose(answer("velocity", truth), truth.eps - truth.x0, rtol=1e-9)


@pytest.mark.parametrize("schedule", [EDM(None), VP(), Flow()])
def test_the_preconditioning_is_that_of_table_1_in_x_over_alpha(schedule):
    head, truth = Preconditioned(0.5), truth_at(schedule, 0.05, 0.5, 0.9)
    t = truth.rates.t
    sigma = truth.sigma / truth.alpha
    root = torch.sqrt(sigma**2 + 0.25)
    given = head.inputs(truth.x_t, truth.alpha, truth.sigma, t)
    assert torch.allclose(given.x, truth.x_t / truth.alpha / root, rtol=1e-9)
    assert torch.allclose(given.condition, torch.log(sigma).flatten() / 4, rtol=1e-9)
    output = normal(3, 3, seed=4)
    said = head.estimate(output, truth.x_t, truth.alpha, truth.sigma, truth.rates)
    expected = 0.25 / root**2 * truth.x_t / truth.alpha + sigma * 0.5 / root * output
    assert torch.allclose(said.x0, expected, rtol=1e-9)
    assert torch.allclose(said.alpha * said.x0 + said.sigma * said.eps, truth.x_t, rtol=1e-9)


def test_of_unit_variance_the_preconditioned_output_is_minus_v():
    truth = truth_at(Cosine(), 0.05, 0.5, 0.9)
    head = Preconditioned(1.0)
    said = head.estimate(-truth.v, truth.x_t, truth.alpha, truth.sigma, truth.rates)
    assert torch.allclose(said.x0, truth.x0, rtol=1e-9) and torch.allclose(said.eps, truth.eps, rtol=1e-9)


def test_the_mean_of_a_step_is_that_of_ddpm_and_at_the_first_step_the_data():
    schedule = Betas(100)
    truth = truth_at(schedule, 0.01, 0.5)
    assert torch.allclose(answer("mu", truth)[0], truth.x0[0], rtol=1e-9)
    alpha_bar, before = (float(schedule.alpha(torch.tensor([t]))) ** 2 for t in (0.5, 0.49))
    beta = 1 - alpha_bar / before
    expected = (truth.x_t[1] - beta / (1 - alpha_bar) ** 0.5 * truth.eps[1]) / (1 - beta) ** 0.5
    assert torch.allclose(answer("mu", truth)[1], expected, rtol=1e-7)


def test_a_free_variance_is_what_the_network_says_also_at_the_last_step():
    denoiser = NetworkDenoiser(
        Cosine(50), Says(torch.cat([normal(2, 1, 4, 4), -3 * torch.ones(2, 1, 4, 4)], 1)), Eps(), LearnedFree()
    )
    estimate = denoiser(normal(2, 1, 4, 4), torch.tensor([0.5, 0.02], dtype=torch.float64))
    first, second = (denoiser.schedule.transition(*torch.tensor([[s], [t]])) for s, t in ((0.0, 0.02), (0.02, 0.04)))
    assert (LearnedFree().log_variance(second, estimate) == -3).all()
    assert (LearnedFree().log_decoder_variance(first, second, True, estimate) == -3).all()


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("inf")])
def test_data_without_a_spread_are_refused(sigma_data):
    with pytest.raises(Refusal, match="sigma_data must be above 0"):
        Preconditioned(sigma_data)
