"""Score losses against each other: one expectation up to constants of the law, one minimiser, one gradient."""

import math
from collections.abc import Callable
from itertools import pairwise, permutations

import pytest
import torch
from exact_cases import Exploding, FiniteSetOracle, GaussianOracle, Straight, losses_of, normal, seeded, shaken
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn import functional

from scorelab.denoisers import Eps, Exact, FixedSmall, Learned, NetworkDenoiser, V
from scorelab.laws import Boxes, FiniteSet, GaussianMixture
from scorelab.losses import DSM, ESM, ISM, SSM, Example, ScoreLoss, Simple
from scorelab.losses.exact_score import averaged_score
from scorelab.networks import MLP, Transformer, UNet
from scorelab.schedules import VP, Cosine, Schedule
from scorelab.tensors import divergence, slope_along

WEIGHTS = ["one", "sigma2", "g2"]
SCHEDULES = {"vp": VP, "cosine": lambda: Cosine(None), "table": lambda: Cosine(300), "exploding": Exploding}
PREDICTIONS = {"vp": V, "cosine": Eps, "table": Eps, "exploding": V}
each_schedule = pytest.mark.parametrize("named", SCHEDULES)
each_weight = pytest.mark.parametrize("weight", WEIGHTS)
# a weight is told by the schedule alone, so pairs that have every schedule and every weight will do
each_process = pytest.mark.parametrize(
    ("named", "weight"),
    [("vp", "one"), ("cosine", "sigma2"), ("table", "g2"), ("exploding", "one"), ("exploding", "g2")],
)
MEANS = torch.tensor([[0.8, -0.3], [-0.7, 0.6], [0.1, 0.9]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[0.20, 0.10], [0.10, 0.15]], [[0.05, 0.0], [0.0, 0.30]], [[0.1, -0.05], [-0.05, 0.06]]], dtype=torch.float64
)
LABELS = torch.tensor([0, 1, 0])


def mixture() -> GaussianMixture:
    return GaussianMixture(MEANS, COVARIANCES, torch.tensor([0.5, 0.2, 0.3]), LABELS)


def exact(schedule: Schedule, law=None, conditional: bool = False) -> Exact:
    return Exact(schedule, FixedSmall(), law or mixture(), None, conditional)


def some_network(schedule: Schedule, prediction=Eps) -> NetworkDenoiser:
    """A smooth function of (x_t, t) in float64 that knows nothing of any law."""
    network = always(lambda: MLP((2,), width=16, blocks=1))
    return NetworkDenoiser(schedule, network, prediction(), FixedSmall())


def always(make) -> nn.Module:
    """The same network whatever was drawn before, none of its layers zero, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return shaken(make()).double()


def set_up(named: str) -> tuple[NetworkDenoiser, Exact]:
    schedule = SCHEDULES[named]()
    return some_network(schedule, PREDICTIONS[named]), exact(schedule)


def times(schedule: Schedule, n: int, low: float = -5.0, high: float = 5.0) -> Tensor:
    """Times whose log-SNR is uniform, on the grid where there is one."""
    t = schedule.inverse(low + (high - low) * torch.rand(n, generator=seeded(8), dtype=torch.float64))
    return t if schedule.num_steps is None else (t * schedule.num_steps).round() / schedule.num_steps


def draws(law, schedule: Schedule, n: int, **span: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """x_0 of the law, times, noise, labels."""
    drawn = law.draw(n, seeded(1))
    return drawn.x0, times(schedule, n, **span), normal(*drawn.x0.shape, seed=2), drawn.label


def level(schedule: Schedule, log_snr: float, n: int) -> Tensor:
    return schedule.inverse(torch.full((n,), log_snr, dtype=torch.float64))


def factor(weight: str, schedule: Schedule, t: Tensor) -> Tensor:
    """What a weight is called, written out."""
    return {"one": torch.ones_like(t), "sigma2": schedule.sigma(t) ** 2, "g2": schedule.g2(t)}[weight]


def zero_mean(each: Tensor) -> bool:
    """Whether the mean over samples is 0 within 5 standard errors, and no sample decides it alone."""
    assert each.isfinite().all()
    return bool(abs(each.mean()) < 5 * each.std() / math.sqrt(len(each)))


# --- derivatives


class Curved(nn.Module):
    """A function of points whose Jacobian has no symmetry."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        return torch.stack([torch.sin(a * b) + c, a**2 * c, torch.exp(0.3 * c) * b + a], 1)


def test_the_divergence_is_the_trace_of_each_samples_jacobian_and_the_slope_its_quadratic_form():
    x, v = normal(6, 3).requires_grad_(True), normal(6, 3, seed=1)
    each = torch.stack([jacobian(lambda one: Curved()(one[None])[0], row) for row in x.detach()])
    assert torch.allclose(divergence(Curved()(x), x), torch.einsum("bii->b", each), rtol=1e-12)
    assert torch.allclose(slope_along(Curved()(x), x, v), torch.einsum("bi,bij,bj->b", v, each, v), rtol=1e-12)


def test_images_have_a_divergence_too():
    x = normal(3, 2, 2, 2).requires_grad_(True)
    assert torch.allclose(divergence(x**3, x), (3 * x**2).flatten(1).sum(1), rtol=1e-12)


def test_a_divergence_can_be_differentiated_by_parameters_and_by_x():
    x, scale = normal(5, 3).requires_grad_(True), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    by_scale, by_x = torch.autograd.grad(divergence(torch.sin(scale * x), x).sum(), (scale, x))
    assert torch.allclose(by_scale, (torch.cos(scale * x) - scale * x * torch.sin(scale * x)).sum(), rtol=1e-12)
    assert torch.allclose(by_x, -(scale**2) * torch.sin(scale * x), rtol=1e-12)


@pytest.mark.parametrize("of", [lambda x: normal(4, 3), lambda x: torch.ones(3, requires_grad=True).expand(4, 3) * 2])
def test_what_does_not_depend_on_x_has_no_slope(of):
    x = normal(4, 3).requires_grad_(True)
    assert torch.equal(divergence(of(x), x).double(), torch.zeros(4).double())
    assert torch.equal(slope_along(of(x), x, torch.ones_like(x)).double(), torch.zeros(4).double())


# --- denoising and exact score matching


@each_process
def test_denoising_score_matching_is_exact_score_matching_plus_the_variance_of_its_target(named, weight):
    """E dsm = E esm + E w tr Var(s(x_t|x_0) | x_t) / d, Var(s(x_t|x_0) | x_t) = alpha^2/sigma^4 Cov(x_0 | x_t)."""
    denoiser, oracle = set_up(named)
    schedule = denoiser.schedule
    x0, t, eps, _ = draws(oracle.law, schedule, 20_000)
    with torch.no_grad():
        dsm, esm = (losses_of(loss, denoiser, x0, t, eps, None, oracle) for loss in (DSM(weight), ESM(weight)))
        trace = oracle.posterior(denoiser.noised(x0, t, eps).x_t, t).trace
    variance = factor(weight, schedule, t) * schedule.alpha(t) ** 2 / schedule.sigma(t) ** 4 * trace / 2
    assert zero_mean(dsm - esm - variance)
    assert variance.mean() > 20 * (dsm - esm - variance).std() / math.sqrt(len(t)), "the term is seen"


@each_process
def test_exact_score_matching_is_the_weighted_squared_distance_to_the_gradient_of_the_log_density(named, weight):
    denoiser, oracle = set_up(named)
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 50)
    x_t = denoiser.noised(x0, t, eps).x_t.requires_grad_(True)
    (score,) = torch.autograd.grad(oracle.posterior(x_t, t).log_prob.sum(), x_t)
    away = (denoiser(x_t, t).score - score).square().sum(1) / 2
    found = losses_of(ESM(weight), denoiser, x0, t, eps, None, oracle)
    assert torch.allclose(found, factor(weight, denoiser.schedule, t) * away, rtol=1e-7)


@each_schedule
def test_the_oracle_itself_attains_0(named):
    oracle = exact(SCHEDULES[named]())
    x0, t, eps, _ = draws(oracle.law, oracle.schedule, 200)
    assert torch.equal(losses_of(ESM(), oracle, x0, t, eps, None, oracle), torch.zeros(200).double())
    assert losses_of(DSM("sigma2"), oracle, x0, t, eps).mean() > 0.1


def test_a_label_is_told_to_the_truth_that_takes_it_and_to_the_network():
    oracle, blind = exact(VP(), conditional=True), exact(VP())
    x0, t, eps, label = draws(oracle.law, oracle.schedule, 200)
    assert torch.equal(losses_of(ESM(), oracle, x0, t, eps, label, oracle), torch.zeros(200).double())
    assert losses_of(ESM(), blind, x0, t, eps, label, oracle).mean() > 1e-3
    assert torch.equal(losses_of(ESM(), blind, x0, t, eps, label, blind), torch.zeros(200).double())


def test_the_target_carries_no_gradient_and_the_truth_none_either():
    denoiser, oracle = set_up("vp")
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 20)
    losses_of(ESM(), denoiser, x0.requires_grad_(True), t, eps, None, oracle).sum().backward()
    made = denoiser.noised(x0.detach(), t, eps).x_t.requires_grad_(True)
    score = oracle(made.detach(), t).score
    loss = denoiser.schedule.sigma(t) ** 2 * (denoiser(made, t).score - score).square().mean(1)
    (through,) = torch.autograd.grad(loss.sum(), made)
    assert torch.allclose(x0.grad, denoiser.schedule.alpha(t)[:, None] * through, rtol=1e-9)


@pytest.mark.parametrize("log_snr", [-3.0, 3.0])
def test_both_have_one_mean_gradient_and_the_exact_score_the_calmer_one(log_snr):
    """g_dsm = g_esm + 2 w (s_t - s(x_t|x_0)) ds/dtheta / d, whose mean given x_t is 0: Var g_dsm >= Var g_esm."""
    denoiser, oracle = set_up("vp")
    parameters, batches, size = list(denoiser.parameters()), 100, 24
    t = level(denoiser.schedule, log_snr, size)
    directions = normal(sum(p.numel() for p in parameters), 12, seed=3)
    gradients: dict[str, list[Tensor]] = {"dsm": [], "esm": []}
    for number in range(batches):
        x0, eps = oracle.law.draw(size, seeded(number)).x0, normal(size, 2, seed=1000 + number)
        for name, loss in (("dsm", DSM()), ("esm", ESM("one"))):
            mean = losses_of(loss, denoiser, x0, t, eps, None, oracle).mean()
            gradients[name].append(torch.cat([g.flatten() for g in torch.autograd.grad(mean, parameters)]))
    dsm, esm = (torch.stack(gradients[name]) for name in ("dsm", "esm"))
    along, difference = esm @ directions, (dsm - esm) @ directions
    assert (difference.mean(0).abs() < 5 * difference.std(0) / math.sqrt(batches)).all()
    assert (along.mean(0).abs() > 5 * along.std(0) / math.sqrt(batches)).any(), "there is a gradient to agree on"
    more = (dsm - dsm.mean(0)).square().sum(1) - (esm - esm.mean(0)).square().sum(1)
    assert more.mean() > 3 * more.std() / math.sqrt(batches)


# --- implicit and sliced score matching

SLICED = [SSM(slices=law, reduced=reduced) for law in ("rademacher", "gaussian") for reduced in (False, True)]


def named_ssm(loss: SSM) -> str:
    return f"{loss.slices}-{'reduced' if loss.reduced else 'plain'}"


@each_process
def test_implicit_score_matching_is_exact_score_matching_less_the_power_of_the_score(named, weight):
    """E ism = E esm - E w ||s_t||^2 / d."""
    denoiser, oracle = set_up(named)
    schedule = denoiser.schedule
    x0, t, eps, _ = draws(oracle.law, schedule, 20_000)
    with torch.no_grad():
        ism, esm = (losses_of(loss, denoiser, x0, t, eps, None, oracle) for loss in (ISM(weight), ESM(weight)))
        score = oracle(denoiser.noised(x0, t, eps).x_t, t).score
    power = factor(weight, schedule, t) * score.square().mean(1)
    assert zero_mean(ism - esm + power)
    assert power.mean() > 20 * (ism - esm + power).std() / math.sqrt(len(t)), "the term is seen"


@pytest.mark.parametrize(("named", "loss"), zip(SCHEDULES, SLICED, strict=True))
def test_sliced_score_matching_has_the_mean_of_implicit_score_matching(named, loss):
    denoiser, oracle = set_up(named)
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 20_000)
    with torch.no_grad():
        ism = losses_of(ISM(), denoiser, x0, t, eps)
        ssm = losses_of(loss, denoiser, x0, t, eps, generator=seeded(5))
    assert zero_mean(ssm - ism)
    assert (ssm - ism).std() > 0.01, "it is sliced"
    assert ism.square().mean() > (20 * (ssm - ism).std() / math.sqrt(len(t))) ** 2, "and close enough to tell"


def straight(schedule: Schedule) -> GaussianOracle:
    """Whose score is -(x_t - alpha m)/(alpha^2 std^2 + sigma^2) in each dimension: a Jacobian without off-diagonal."""
    return GaussianOracle(schedule, FixedSmall(), [0.4, -0.2, 0.1], [0.7, 1.3, 0.2])


@each_process
def test_implicit_score_matching_of_a_straight_score_is_known_sample_by_sample(named, weight):
    denoiser = straight(SCHEDULES[named]())
    schedule = denoiser.schedule
    x0, t, eps = denoiser.draw(30, seeded(1)), times(schedule, 30), normal(30, 3, seed=2)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    variance = alpha**2 * denoiser.std**2 + sigma**2
    score = -(alpha * x0 + sigma * eps - alpha * denoiser.mean) / variance
    expected = factor(weight, schedule, t) * (score**2 - 2 / variance).sum(1) / 3
    assert torch.allclose(losses_of(ISM(weight), denoiser, x0, t, eps), expected, rtol=1e-9)
    reduced = losses_of(SSM(weight, "rademacher"), denoiser, x0, t, eps, generator=seeded(5))
    assert torch.allclose(reduced, expected, rtol=1e-9), "signs do not matter on a diagonal"


@pytest.mark.parametrize("loss", SLICED, ids=named_ssm)
def test_a_slice_is_the_quadratic_form_of_its_own_v(loss):
    denoiser = straight(VP())
    n = 30
    x0, t, eps = denoiser.draw(n, seeded(1)), times(denoiser.schedule, n), normal(n, 3, seed=2)
    v = torch.randn(n, 3, generator=seeded(5)).double()
    v = torch.where(v < 0, -1.0, 1.0).double() if loss.slices == "rademacher" else v
    alpha, sigma = denoiser.schedule.alpha(t)[:, None], denoiser.schedule.sigma(t)[:, None]
    variance = alpha**2 * denoiser.std**2 + sigma**2
    score = -(alpha * x0 + sigma * eps - alpha * denoiser.mean) / variance
    square = score.square().sum(1) if loss.reduced else (v * score).sum(1) ** 2
    expected = sigma[:, 0] ** 2 * (square - 2 * (v**2 / variance).sum(1)) / 3
    assert torch.allclose(losses_of(loss, denoiser, x0, t, eps, generator=seeded(5)), expected, rtol=1e-9)


def test_a_random_slice_is_drawn_for_each_sample_and_by_the_generator_alone():
    denoiser, _ = set_up("vp")
    x0, t, eps = (each.expand(9, *each.shape[1:]) for each in draws(mixture(), VP(), 1)[:3])
    one, same, other = (losses_of(SSM(slices="gaussian"), denoiser, x0, t, eps, generator=seeded(k)) for k in (5, 5, 6))
    assert torch.equal(one, same) and not torch.isclose(one, other).any()
    assert len(one.unique()) == 9


ATTENTIVE = {  # networks for 4 x 4 images, one with attention on its 2 x 2 maps, one on 4 patches
    "unet": lambda: UNet((1, 4, 4), channels=4, multipliers=[1, 2], attention=[2]),
    "transformer": lambda: Transformer((1, 4, 4), channels=8, blocks=1, patch=2),
}
each_attentive = pytest.mark.parametrize("made", ATTENTIVE.values(), ids=ATTENTIVE)


def pictures(made: Callable[[], nn.Module]) -> tuple[NetworkDenoiser, Exact]:
    """A network with attention, and a law of images for it."""
    means, factors = 0.5 * normal(2, 1, 4, 4), 0.3 * normal(2, 16, 16, seed=1)
    law = GaussianMixture(means, factors @ factors.mT + 0.05 * torch.eye(16).double())
    schedule = VP()
    return NetworkDenoiser(schedule, always(made), V(), FixedSmall()), exact(schedule, law)


@each_attentive
def test_implicit_and_sliced_score_matching_through_attention_have_the_mean_of_the_exact_one(made):
    denoiser, oracle = pictures(made)
    assert any("qkv" in name for name, _ in denoiser.named_parameters())
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 400, low=-3.0, high=2.0)
    with torch.no_grad():
        ism, ssm, esm = (
            losses_of(loss, denoiser, x0, t, eps, None, oracle, generator=seeded(5))
            for loss in (ISM(), SSM(), ESM("sigma2"))
        )
        power = denoiser.schedule.sigma(t) ** 2 * oracle(denoiser.noised(x0, t, eps).x_t, t).score.square().mean(
            (1, 2, 3)
        )
    assert zero_mean(ism - esm + power) and zero_mean(ssm - ism)
    assert power.mean() > 10 * (ism - esm + power).std() / math.sqrt(len(t))


@pytest.mark.parametrize("loss", [ISM(), *SLICED], ids=["ism", *map(named_ssm, SLICED)])
@each_attentive
def test_training_and_evaluation_agree_and_every_parameter_of_a_network_with_attention_gets_a_gradient(made, loss):
    denoiser, oracle = pictures(made)
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 6, low=-2.0, high=2.0)
    trained = losses_of(loss, denoiser, x0, t, eps, generator=seeded(5))
    with torch.no_grad():
        evaluated = losses_of(loss, denoiser, x0, t, eps, generator=seeded(5))
    assert torch.allclose(trained, evaluated, rtol=1e-12)
    trained.mean().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


class Attends(nn.Module):
    """Attention over the dimensions of points, laid out so that fused kernels take it where they may."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(1, 24), nn.Linear(8, 1)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        q, k, v = (each.contiguous() for each in self.qkv(x[:, None, :, None]).chunk(3, -1))
        return self.out(functional.scaled_dot_product_attention(q, k, v))[:, 0, :, 0]


@pytest.mark.parametrize("loss", [ISM(), *SLICED], ids=["ism", *map(named_ssm, SLICED)])
def test_attention_that_would_be_fused_has_its_second_derivative(loss):
    denoiser = NetworkDenoiser(VP(), always(Attends), Eps(), FixedSmall())
    x0, t, eps, _ = draws(mixture(), VP(), 5, low=-2.0, high=2.0)
    losses_of(loss, denoiser, x0, t, eps, generator=seeded(5)).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in denoiser.parameters())


@pytest.mark.parametrize("loss", [ISM(), *SLICED], ids=["ism", *map(named_ssm, SLICED)])
def test_the_gradient_of_an_implicit_loss_is_its_slope_in_the_parameters(loss):
    denoiser, oracle = pictures(next(iter(ATTENTIVE.values())))
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 4, low=-2.0, high=2.0)
    losses_of(loss, denoiser, x0, t, eps, generator=seeded(5)).sum().backward()
    along = [normal(*p.shape, seed=k) for k, p in enumerate(denoiser.parameters())]
    expected = sum(float((p.grad * v).sum()) for p, v in zip(denoiser.parameters(), along, strict=True))
    moved = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            for p, v in zip(denoiser.parameters(), along, strict=True):
                p.add_(step * v)
            moved.append(float(losses_of(loss, denoiser, x0, t, eps, generator=seeded(5)).sum()))
            for p, v in zip(denoiser.parameters(), along, strict=True):
                p.sub_(step * v)
    assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


def test_single_precision_stays_so_and_agrees():
    denoiser, oracle = set_up("vp")
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 100, low=-4.0, high=4.0)
    for loss in (DSM("g2"), ESM("g2"), ISM("g2"), SSM("g2")):
        fine = losses_of(loss, denoiser.double(), x0, t, eps, None, oracle, generator=seeded(5))
        rough = losses_of(loss, denoiser.float(), x0.float(), t, eps.float(), None, oracle, generator=seeded(5))
        assert rough.dtype == torch.float32
        small = 1e-3 * float(fine.detach().abs().mean())
        assert torch.allclose(rough.double(), fine, rtol=1e-3, atol=small), type(loss)


@pytest.mark.parametrize("law", ["mixture", "boxes", "finite"])
def test_the_exact_denoiser_can_be_asked_for_its_divergence_too(law):
    """So a run of model=exact has a full row of objectives: E ism + 1 = the floor of the noise error."""
    schedule = VP()
    boxes = Boxes(torch.tensor([[-1.0, -1.0], [0.2, 0.1]]), torch.tensor([[-0.4, 0.0], [1.0, 0.9]]))
    oracle = exact(schedule, {"mixture": mixture(), "boxes": boxes, "finite": FiniteSet(normal(30, 2, seed=4))}[law])
    x0, t, eps, _ = draws(oracle.law, schedule, 5000)
    ism = losses_of(ISM(), oracle, x0, t, eps)
    floor = torch.exp(schedule.log_snr(t)) * oracle.posterior(oracle.noised(x0, t, eps).x_t, t).trace / 2
    assert zero_mean(ism + 1 - floor)
    assert floor.mean() > 10 * (ism + 1 - floor).std() / math.sqrt(len(t))


# --- what they share


@each_process
def test_the_weight_turns_each_into_a_noise_error_short_of_its_own_constant(named, weight):
    """E[loss / weight] + shortfall(floor) = E||eps - eps^||^2 / d."""
    denoiser, oracle = set_up(named)
    schedule = denoiser.schedule
    x0, t, eps, _ = draws(oracle.law, schedule, 20_000)
    with torch.no_grad():
        made = denoiser.noised(x0, t, eps)
        noise_error = (denoiser(made.x_t, t).eps - eps).square().mean(1)
        floor = torch.exp(schedule.log_snr(t)) * oracle.posterior(made.x_t, t).trace / 2
        for loss in (DSM(weight), ESM(weight), ISM(weight), SSM(weight), ESM(weight, references=1)):
            assert torch.allclose(loss.noise_weight(denoiser, t), factor(weight, schedule, t) / schedule.sigma(t) ** 2)
            found = losses_of(loss, denoiser, x0, t, eps, None, oracle, generator=seeded(5)) / loss.noise_weight(
                denoiser, t
            )
            difference = found + loss.shortfall(floor) - noise_error
            assert bool((difference.abs() < 1e-9).all()) or zero_mean(difference), type(loss)
    assert ESM(references=7).shortfall(floor).isnan().all()
    assert torch.equal(Simple().shortfall(floor), torch.zeros_like(floor))


def test_an_offset_of_the_noise_adds_its_square():
    """For ||eps^ + c - eps*||^2 / d = c^2 at the oracle, by any weight once it is divided out."""
    for weight in WEIGHTS:
        oracle = exact(Exploding())
        x0, t, eps, _ = draws(oracle.law, oracle.schedule, 20)
        answer = oracle(oracle.noised(x0, t, eps).x_t, t).eps + 0.3
        shifted = NetworkDenoiser(oracle.schedule, Fixed(answer), Eps(), FixedSmall())
        loss = ESM(weight)
        found = losses_of(loss, shifted, x0, t, eps, None, oracle) / loss.noise_weight(shifted, t)
        assert torch.allclose(found, torch.full_like(found, 0.09), rtol=1e-6)


class Fixed(nn.Module):
    """A network that has its answer ready."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return self.answer


def test_what_is_not_said_is_sigma_squared_and_the_exact_score_and_rademacher_slices_reduced():
    for loss in (ESM(), ISM(), SSM()):
        assert loss.named == "sigma2"
    assert ESM().references is None
    assert (SSM().slices, SSM().reduced) == ("rademacher", True)


def test_costs_are_told_in_evaluations():
    assert (ISM().cost(64), SSM().cost(64), ESM().cost(64), DSM().cost(64)) == (129, 3, 1, 1)


@pytest.mark.parametrize("loss", [ESM, ISM, SSM])
def test_a_learned_variance_silence_and_an_unknown_weight_are_refused(loss):
    network = MLP((2,), width=8, blocks=1, outputs=2)
    with pytest.raises(ValueError, match="this loss gives a learned variance no gradient"):
        loss().check(NetworkDenoiser(VP(), network, Eps(), Learned()))
    with pytest.raises(ValueError, match="this loss is silent where alpha = 0"):
        loss().check(NetworkDenoiser(Straight(None), network, Eps(), FixedSmall()))
    with pytest.raises(ValueError, match="weight must be one of one, sigma2, g2, got sigma"):
        loss("sigma")
    loss().check(some_network(VP()))


# --- references

N = 12


def points(labelled: bool = False) -> FiniteSet:
    """Twelve points in the plane, two of them the same."""
    rows = normal(N, 2, seed=4)
    rows[7] = rows[3]
    return FiniteSet(rows, torch.arange(N) % 3 if labelled else None)


def made_of(law: FiniteSet, n: int, schedule: Schedule, **span: float):
    """Items of a finite set, times, noise, labels, and the truth they make."""
    x0, t, eps, label = draws(law, schedule, n, **span)
    return x0, t, eps, label, exact(schedule, law).noised(x0, t, eps)


def by_hand(x_t: Tensor, own: Tensor, others: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The score of one x_t under the uniform law over its own x_0 and others."""
    listed = torch.cat([own[None], others])
    share = torch.softmax(-(x_t - alpha * listed).square().sum(1) / (2 * sigma**2), 0)
    return (alpha * (share[:, None] * listed).sum(0) - x_t) / sigma**2


@each_weight
def test_one_reference_is_denoising_score_matching_and_needs_no_truth(weight):
    denoiser, oracle = set_up("vp")
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 50)
    alone = ESM(weight, references=1)
    assert torch.equal(losses_of(alone, denoiser, x0, t, eps), losses_of(DSM(weight), denoiser, x0, t, eps))
    assert not alone.needs_exact


@pytest.mark.parametrize("references", [None, 2, N])
def test_more_than_the_own_point_needs_the_truth(references):
    denoiser, oracle = set_up("vp")
    x0, t, eps, _ = draws(oracle.law, denoiser.schedule, 5)
    loss = ESM(references=references)
    assert loss.needs_exact
    with pytest.raises(ValueError, match="the exact score needs the exact denoiser of the training data"):
        loss(denoiser, Example.of(denoiser, x0, t, eps))
    loss(denoiser, Example.of(denoiser, x0, t, eps, None, oracle), seeded())


def test_fewer_than_one_reference_is_refused():
    with pytest.raises(ValueError, match="references must be at least 1, or null for the exact score, got 0"):
        ESM(references=0)


@each_schedule
@pytest.mark.parametrize("references", [N, N + 5])
def test_all_points_of_a_finite_set_give_its_exact_score_duplicates_among_them(named, references):
    schedule = SCHEDULES[named]()
    law = points()
    x0, t, eps, _, made = made_of(law, 300, schedule, low=-5.0, high=9.0)
    assert (x0[:, None] == law.points[3]).all(2).any(), "the double is among them"
    reference = FiniteSetOracle(schedule, FixedSmall(), law.points)
    found = ESM(references=references).target(Example(made, t, None, exact(schedule, law)), seeded(6))
    expected = reference(made.x_t, t).score
    assert ((found - expected).norm(dim=1) < 1e-9 * expected.norm(dim=1) + 1e-9 / schedule.sigma(t)).all()
    denoiser = some_network(schedule)
    losses = (
        losses_of(ESM(references=references), denoiser, x0, t, eps, None, exact(schedule, law), generator=seeded(6)),
        losses_of(ESM(), denoiser, x0, t, eps, None, reference),
    )
    assert torch.allclose(*losses, rtol=1e-7, atol=1e-9)


def test_the_own_point_takes_the_place_of_the_last_reference_unless_it_is_one_of_them():
    law, schedule = points(), Exploding()
    x0, t, _, _, made = made_of(law, 40, schedule, low=-3.0, high=1.0)
    others = law.points[[0, 3, 5, 8]]
    found = averaged_score(made, others)
    inside = (x0[:, None] == others).all(2).any(1)
    assert 5 < int(inside.sum()) < 35
    for i in range(40):
        kept = others[(others != x0[i]).any(1)] if inside[i] else others[:-1]
        expected = by_hand(made.x_t[i], x0[i], kept, schedule.alpha(t[i]), schedule.sigma(t[i]))
        assert torch.allclose(found[i], expected, rtol=1e-9, atol=1e-9)


def test_a_single_stranger_gives_way_to_the_own_point():
    law = points()
    *_, made = made_of(law, 20, VP())
    assert torch.allclose(averaged_score(made, 5 + law.points[:1]), made.score, rtol=1e-9)


def test_a_label_is_averaged_over_its_own_references_alone():
    law, schedule = points(labelled=True), VP()
    _, t, _, label, made = made_of(law, 40, schedule, low=-3.0, high=1.0)
    for conditional, mine in ((True, lambda k: law.labels == k), (False, lambda k: law.labels >= 0)):
        truth = exact(schedule, law, conditional)
        found = ESM(references=N).target(Example(made, t, label, truth), seeded(6))
        for i in range(40):
            listed = law.points[mine(label[i])]
            share = torch.softmax(
                -(made.x_t[i] - schedule.alpha(t[i]) * listed).square().sum(1) / (2 * schedule.sigma(t[i]) ** 2), 0
            )
            mean = (share[:, None] * listed).sum(0)
            expected = (schedule.alpha(t[i]) * mean - made.x_t[i]) / schedule.sigma(t[i]) ** 2
            assert torch.allclose(found[i], expected, rtol=1e-9, atol=1e-9)


def test_where_no_reference_has_its_label_a_sample_has_its_own_point():
    law, schedule = points(labelled=True), VP()
    *_, made = made_of(law, 20, schedule)
    strangers = torch.ones(20, 4, dtype=torch.bool)
    assert torch.allclose(averaged_score(made, 3 + law.points[:4], strangers), made.score, rtol=1e-9)


def test_the_own_point_counts_even_where_its_double_carries_another_label():
    rows = normal(4, 2, seed=4)
    rows[1] = rows[0]
    truth = exact(VP(), FiniteSet(rows, torch.tensor([0, 1, 1, 1])), conditional=True)
    x0, label, t = rows[:1], torch.zeros(1, dtype=torch.long), torch.full((1,), 0.5, dtype=torch.float64)
    made = truth.noised(x0, t, normal(1, 2))
    for seed in range(10):
        found = ESM(references=2).target(Example(made, t, label, truth), seeded(seed))
        assert torch.allclose(found, made.score, rtol=1e-9), "no other point has its label"


def test_references_of_a_known_law_are_fresh_draws_and_those_of_a_set_distinct_points():
    law = mixture()
    assert torch.equal(law.references(9, seeded(3)).x0, law.draw(9, seeded(3)).x0)
    assert not torch.equal(law.references(9, seeded(3)).x0, law.references(9, seeded(4)).x0)
    rows = FiniteSet(torch.arange(20.0)[:, None], torch.arange(20))
    for n in (1, 7, 20, 30):
        drawn = rows.references(n, seeded(3))
        assert len(drawn.x0.unique()) == len(drawn.x0) == min(n, 20)
        assert torch.equal(drawn.x0.flatten().long(), drawn.label)
    assert not torch.equal(rows.references(7, seeded(3)).x0, rows.references(7, seeded(4)).x0)
    assert len(rows.draw(200, seeded(3)).x0) == 200, "draws are with replacement"


def test_references_of_a_known_law_come_to_the_exact_score_with_their_number():
    schedule = VP()
    oracle = exact(schedule)
    n = 200
    x0, eps = oracle.law.draw(n, seeded(1)).x0, normal(n, 2, seed=2)
    t = level(schedule, -1.0, n)
    made = oracle.noised(x0, t, eps)
    score = oracle(made.x_t, t).score
    away = [
        (ESM(references=m).target(Example(made, t, None, oracle), seeded(6)) - score).square().mean()
        for m in (1, 20, 400, 8000)
    ]
    for more, less in zip(away[1:], away[:-1], strict=True):
        assert more < 0.3 * less


def all_of(rows: Tensor, x_t: Tensor, t: Tensor, schedule: Schedule, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every target (K, 2) over m references that one x_t may meet, its probability given x_t, and the exact score."""
    truth = exact(schedule, FiniteSet(rows))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    share = torch.softmax(-(x_t - alpha * rows).square().sum(1) / (2 * sigma**2), 0)
    orders = list(permutations(range(len(rows)), m))
    made = truth.noised(rows, t.expand(len(rows)), (x_t - alpha * rows) / sigma)
    found = torch.cat([averaged_score(made, rows[list(order)]) for order in orders])
    score = (alpha * share @ rows - x_t) / sigma**2
    return found, share.repeat(len(orders)) / len(orders), score


def test_given_x_t_the_mean_target_is_the_exact_score_for_any_number_of_references_and_calmer_for_more():
    """The own point is one of M alike, and averaging is over which of them it was (Rao & Blackwell): no bias."""
    rows, schedule = 0.7 * normal(5, 2, seed=4), VP()
    for log_snr in (-2.0, 0.0, 2.0):
        t = level(schedule, log_snr, 1)
        x_t = schedule.alpha(t) * rows[1] + schedule.sigma(t) * normal(1, 2, seed=5)[0]
        spread = []
        for m in range(1, 6):
            found, probability, score = all_of(rows, x_t, t, schedule, m)
            assert torch.allclose(probability @ found, score, rtol=1e-10)
            spread.append(float(probability @ (found - score).square().sum(1)))
        assert spread[4] < 1e-20
        for more, fewer in pairwise(spread):
            assert fewer < 0.9 * more


def test_references_drawn_by_their_generator_leave_the_mean_of_the_target_and_its_variance_falls_with_their_number():
    """The same by drawing, from a law without end: x_0 anew from its law given x_t, references from the law."""
    schedule, law = VP(), GaussianMixture(0.3 * MEANS[:1], COVARIANCES[:1])
    truth = exact(schedule, law)
    n, rounds = 40, 400
    t = level(schedule, 1.0, n)
    alpha, sigma = schedule.alpha(t[:1]), schedule.sigma(t[:1])
    x_t = (alpha * law.draw(1, seeded(3)).x0 + sigma * normal(1, 2, seed=5)).expand(n, -1)
    posterior = truth.posterior(x_t, t)
    slope = alpha * COVARIANCES[0] @ torch.linalg.inv(alpha**2 * COVARIANCES[0] + sigma**2 * torch.eye(2).double())
    root = torch.linalg.cholesky(COVARIANCES[0] - alpha * slope @ COVARIANCES[0])
    score, spread = truth(x_t, t).score, []
    for m in (1, 3, 12):
        found = []
        for k in range(rounds):
            x0 = posterior.mean + normal(n, 2, seed=k) @ root.mT
            made = truth.noised(x0, t, (x_t - alpha * x0) / sigma)
            found.append(ESM(references=m).target(Example(made, t, None, truth), seeded(5000 + k)) - score)
        away = torch.stack(found).mean(1)  # rounds are independent, what shares references is not
        assert (away.mean(0).abs() < 5 * away.std(0) / math.sqrt(rounds)).all(), m
        spread.append(float(torch.stack(found).square().sum(2).mean()))
    assert spread[2] < 0.5 * spread[1] and spread[1] < 0.8 * spread[0]


def test_every_score_loss_is_of_one_family():
    assert all(issubclass(loss, ScoreLoss) for loss in (DSM, ESM, ISM, SSM))
