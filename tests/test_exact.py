"""Exact denoisers against float64 references written out, from sigma = 0.002 to 80."""

import math

import pytest
import torch
from conftest import each
from exact_cases import normal, seeded
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scorelab.denoisers import Exact, FixedSmall
from scorelab.laws import FiniteSet, GaussianMixture, LowRankMixture, finite_set
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Schedule
from scorelab.tensors import from_levels, to_levels

SIGMAS = [0.002, 0.01, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 80.0]


class Sigma(Schedule):
    """alpha = 1 and sigma = t, for t from 0 to 80."""

    prior_std = 80.0

    def __init__(self) -> None:
        super().__init__(None)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.log(t.double())

    def inverse(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr / 2)


def finite(schedule, points, labels=None, chunk=8192, levels=None) -> Exact:
    return Exact(schedule, FixedSmall(), FiniteSet(points, labels, chunk), levels, labels is not None)


def clustered(n: int, d: int) -> Tensor:
    """Images of 256 levels about 20 centres, two of them the same."""
    centres = 0.4 * normal(20, d)
    points = centres[torch.randint(20, (n,), generator=seeded(1))] + 0.15 * normal(n, d, seed=2)
    points = from_levels(((points.clamp(-1, 1) + 1) * 127.5).round(), 256)
    points[1] = points[0]
    return points


def reference(points: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, mask: Tensor | None = None):
    """Mean, trace and log-density by the definitions, query by query, in float64."""
    found = []
    for i in range(len(x)):
        y = points.double() if mask is None else points.double()[mask[i]]
        logits = -(x[i].double() - alpha[i] * y).square().sum(1) / (2 * sigma[i] ** 2)
        weights = torch.softmax(logits, 0)
        mean = weights @ y
        trace = (weights * (y - mean).square().sum(1)).sum()
        norm = math.log(len(y)) + 0.5 * x.shape[1] * math.log(2 * math.pi * float(sigma[i]) ** 2)
        found.append((mean, trace, torch.logsumexp(logits, 0) - norm))
    return [torch.stack(column) for column in zip(*found, strict=True)]


def asked(points: Tensor, sigma: float, n: int) -> Tensor:
    """Half the queries by the law of x_t, half between two points."""
    first, second = points[torch.randint(len(points), (2, n), generator=seeded(3))].double()
    second[n // 2 :] = first[n // 2 :]
    return (first + second) / 2 + sigma * normal(n, points.shape[1], seed=4)


@pytest.mark.parametrize(
    ("n", "d", "sigma"),
    [*((500, 64, sigma) for sigma in SIGMAS), *((600, 3072, sigma) for sigma in (0.002, 0.05, 1.0, 80.0))],
)
def test_a_finite_set_is_its_softmax_at_every_noise_level(n, d, sigma):
    points = clustered(n, d)
    x, t = asked(points, sigma, 12), torch.full((12,), sigma, dtype=torch.float64)
    found = finite(Sigma(), points, chunk=400).posterior(x, t)
    mean, trace, log_prob = reference(points, x, torch.ones(12), t)
    assert ((found.mean - mean).norm(dim=1) <= 1e-4 * mean.norm(dim=1)).all()
    assert ((found.mean - mean).norm(dim=1) <= 1e-4 * (mean - x).norm(dim=1)).all()  # the score's error
    assert ((found.log_prob - log_prob).abs() <= 1e-3 * d).all()
    assert ((found.trace - trace).abs() <= 1e-4 * points.double().var(0).sum()).all()
    assert found.mean.dtype == found.trace.dtype == found.log_prob.dtype == torch.float64


@pytest.mark.parametrize("sigma", [0.002, 0.05, 1.0, 3.0, 80.0])
@pytest.mark.parametrize("kept", [True, False], ids=["kept centred", "made anew"])
def test_a_set_of_levels_is_the_set_of_their_data(sigma, kept, monkeypatch):
    """Kept centred, to the bit; made from bytes a chunk at a time, as near to its softmax as any."""
    levels = to_levels(clustered(600, 768).clamp(-1, 1), 256)
    points = from_levels(levels, 256)
    if not kept:
        monkeypatch.setattr(finite_set, "SMALL", 0)
    x, t = asked(points, sigma, 12), torch.full((12,), sigma, dtype=torch.float64)
    law = FiniteSet(levels.reshape(600, 3, 16, 16), chunk=400, levels=256)
    assert (law.centred is not None) is kept
    found = law.posterior(x, torch.ones_like(t), t)
    if kept:
        whole = FiniteSet(points, chunk=400).posterior(x, torch.ones_like(t), t)
        for one, other in zip((found.mean, found.trace, found.log_prob), vars(whole).values(), strict=True):
            assert torch.equal(one, other)
    mean, trace, log_prob = reference(points, x, torch.ones(12), t)
    assert ((found.mean - mean).norm(dim=1) <= 1e-4 * (mean - x).norm(dim=1)).all()
    assert ((found.log_prob - log_prob).abs() <= 1e-3 * 768).all()
    assert ((found.trace - trace).abs() <= 1e-4 * points.double().var(0).sum()).all()


@pytest.mark.parametrize("kept", [True, False], ids=["kept centred", "made anew"])
@pytest.mark.parametrize("chunk", [400, 100_000])
@pytest.mark.parametrize("of_levels", [True, False], ids=["levels", "floats"])
def test_a_mirrored_set_is_the_set_behind_its_mirror_image_to_the_bit(of_levels, chunk, kept, monkeypatch):
    """Chunks of 400 go over the middle, the 600th; sigma from where few points are near to where all are."""
    values = to_levels(clustered(600, 3 * 8 * 8).clamp(-1, 1), 256).reshape(600, 3, 8, 8)
    levels, labels = (256 if of_levels else None), torch.arange(600) % 7
    values = values if of_levels else from_levels(values, 256)
    if not kept:
        monkeypatch.setattr(finite_set, "SMALL", 0)
    law = FiniteSet(values, labels, chunk, levels, mirrored=True)
    both = FiniteSet(torch.cat([values, values.flip(3)]), labels.repeat(2), chunk, levels)
    assert law.points.shape[0] == 600 and law.size == both.size == 1200 and (law.centred is not None) is kept
    assert torch.equal(law.centre, both.centre) and torch.equal(law.squares, both.squares)
    mirrored = from_levels(values, 256).flip(3) if of_levels else values.flip(3)
    for sigma in (0.002, 0.3, 3.0, 80.0):
        x = asked(mirrored.flatten(1), sigma, 9).reshape(9, 3, 8, 8)
        one, t = torch.ones(9, dtype=torch.float64), torch.full((9,), sigma, dtype=torch.float64)
        for label in (None, torch.arange(9) % 7):
            found, expected = (each.posterior(x, one, t, label) for each in (law, both))
            for name in ("mean", "trace", "log_prob"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), (sigma, name)
    for draw in ("draw", "references"):
        found, expected = (getattr(each, draw)(2000, seeded(5)) for each in (law, both))
        assert torch.equal(found.x0, expected.x0) and torch.equal(found.label, expected.label)


def test_a_large_sets_crowded_queries_have_logits_of_float64_and_means_as_good(monkeypatch):
    """Weights are rounded to float32 after the logits have been: the mean is off by no more than that."""
    levels = to_levels(clustered(600, 768).clamp(-1, 1), 256)
    points = from_levels(levels, 256)
    monkeypatch.setattr(finite_set, "SMALL", 0)
    monkeypatch.setattr(finite_set, "FINE", 0.0)
    law, x, t = FiniteSet(levels, chunk=400, levels=256), asked(points, 3.0, 12), torch.full((12,), 3.0).double()
    called = []
    monkeypatch.setattr(
        FiniteSet, "_all", lambda self, of, dtype, all=FiniteSet._all: called.append(len(of.x)) or all(self, of, dtype)
    )
    found = law.posterior(x, torch.ones_like(t), t)
    assert called == [0, 12], "all by products in float64"
    mean, trace, log_prob = reference(points, x, torch.ones(12), t)
    assert ((found.mean - mean).norm(dim=1) <= 1e-6 * points.double().std(0).norm()).all()
    assert ((found.log_prob - log_prob).abs() <= 1e-8 * 768).all()
    assert ((found.trace - trace).abs() <= 1e-6 * points.double().var(0).sum()).all()


def test_one_call_serves_all_noise_levels_and_chunks_do_not_show():
    points = clustered(300, 64)
    t = torch.tensor(SIGMAS, dtype=torch.float64)
    x = torch.cat([asked(points, sigma, 2)[:1] for sigma in SIGMAS])
    whole, parts = (finite(Sigma(), points, chunk=size).posterior(x, t) for size in (1000, 7))
    mean, trace, log_prob = reference(points, x, torch.ones(len(t)), t)
    for found in (whole, parts):
        assert torch.allclose(found.mean, mean, rtol=1e-5, atol=1e-6)
        assert torch.allclose(found.trace, trace, rtol=1e-4, atol=1e-4)
        assert torch.allclose(found.log_prob, log_prob, rtol=0, atol=1e-3)


def test_where_products_cannot_tell_two_points_apart_differences_do():
    """Far from the origin and close together at small noise, a float32 product is off by many nats."""
    far = torch.full((2, 1000), 0.9)
    far[1, 0] += 1e-3
    points = torch.cat([far, -far])
    x = (0.75 * far[:1] + 0.25 * far[1:]).double()
    t = torch.full((1,), 0.002, dtype=torch.float64)
    mean, _, _ = reference(points, x, torch.ones(1), t)
    found = finite(Sigma(), points).posterior(x, t)
    assert abs(float(found.mean[0, 0] - mean[0, 0])) < 1e-9
    assert 0.9 < float(mean[0, 0]) < 0.901


def test_a_label_leaves_only_its_own_points():
    points, labels = clustered(200, 16), torch.arange(200) % 3
    oracle = finite(VP(), points, labels, chunk=64)
    t = torch.tensor([0.02, 0.1, 0.3, 0.6, 0.9], dtype=torch.float64)
    alpha, sigma = oracle.schedule.alpha(t), oracle.schedule.sigma(t)
    x, label = alpha[:, None] * points[:5].double() + sigma[:, None] * normal(5, 16), torch.tensor([0, 1, 2, 0, 1])
    found = oracle.posterior(x, t, label)
    mean, trace, log_prob = reference(points, x, alpha, sigma, labels[None] == label[:, None])
    assert torch.allclose(found.mean, mean, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.trace, trace, rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.log_prob, log_prob, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="no point and no component has"):
        oracle.posterior(x, t, torch.full((5,), 3))
    unlabelled = finite(VP(), points)
    assert torch.equal(unlabelled.posterior(x, t, label).mean, unlabelled.posterior(x, t).mean)


def test_the_estimate_of_a_finite_set_is_its_score_and_has_the_images_shape():
    points = clustered(50, 48).reshape(50, 3, 4, 4)
    oracle = finite(VP(), points, levels=256)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x = normal(3, 3, 4, 4).requires_grad_(True)
    log_prob = torch.stack(
        [
            torch.logsumexp(-(x[i] - a * points.double()).square().flatten(1).sum(1) / (2 * s**2), 0)
            for i, (a, s) in enumerate(zip(oracle.schedule.alpha(t), oracle.schedule.sigma(t), strict=True))
        ]
    )
    (score,) = torch.autograd.grad(log_prob.sum(), x)
    estimate = oracle(x.detach(), t)
    assert torch.allclose(estimate.score, score, rtol=1e-4, atol=1e-5)
    assert oracle(x.detach().float(), t).x0.dtype == torch.float32
    assert not oracle.state_dict()


@pytest.mark.parametrize("law", ["finite", "mixture"])
def test_mixed_precision_around_it_changes_nothing(law):
    points = clustered(60, 64)
    oracle = finite(VP(), points) if law == "finite" else low_rank(VP())
    x = points[:4].double() if law == "finite" else normal(4, D)
    t = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    plain = oracle.posterior(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = oracle.posterior(x, t)
    for name in ("mean", "trace", "log_prob"):
        assert torch.equal(getattr(mixed, name), getattr(plain, name)), name


def test_samples_of_a_finite_set_are_its_points():
    points = clustered(40, 64)
    drawn = DDIM(60, clip=False)(finite(Cosine(), points), (30, 64), None, seeded(5))
    nearest = torch.cdist(drawn.double(), points.double()).min(1)
    assert nearest.values.max() < 1e-3
    assert len(nearest.indices.unique()) > 10


@pytest.mark.parametrize(("points", "labels"), [(torch.zeros(0, 3), None), (torch.zeros(4, 3), torch.zeros(3))])
def test_a_set_without_points_or_with_other_labels_is_refused(points, labels):
    with pytest.raises(ValueError, match=r"at least one point|4 points, but 3 labels"):
        finite(VP(), points, labels)


# --- mixtures

K, D, R = 3, 5, 2
MEANS, FACTORS, DIAGONALS = normal(K, D), normal(K, D, R, seed=1), 0.1 + normal(K, D, seed=2).abs()
COVARIANCES = FACTORS @ FACTORS.mT + torch.diag_embed(DIAGONALS)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def full(schedule, labels=None):
    law = GaussianMixture(MEANS, COVARIANCES, WEIGHTS, labels)
    return Exact(schedule, FixedSmall(), law, conditional=labels is not None)


def low_rank(schedule, labels=None):
    law = LowRankMixture(MEANS, FACTORS, DIAGONALS, WEIGHTS, labels)
    return Exact(schedule, FixedSmall(), law, conditional=labels is not None)


def gaussians(schedule, *given):
    return Exact(schedule, FixedSmall(), GaussianMixture(*given))


def marginal(alpha: float, sigma: float) -> MixtureSameFamily:
    parts = MultivariateNormal(alpha * MEANS, alpha**2 * COVARIANCES + sigma**2 * torch.eye(D).double())
    return MixtureSameFamily(Categorical(WEIGHTS), parts)


def at_all_noise_levels():
    t = torch.tensor(SIGMAS, dtype=torch.float64)
    x = MEANS[torch.arange(len(t)) % K] + t[:, None] * normal(len(t), D, seed=3)
    return x, t


@pytest.mark.parametrize("make", [full, low_rank])
def test_the_density_of_a_noised_mixture_is_the_mixture_of_noised_components(make):
    x, t = at_all_noise_levels()
    found = make(Sigma()).posterior(x, t).log_prob
    expected = torch.stack([marginal(1.0, float(s)).log_prob(y) for s, y in zip(t, x, strict=True)])
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [full, low_rank])
@each("schedule")
def test_the_score_of_a_mixture_is_the_gradient_of_its_log_density(make, schedule):
    from conftest import choose

    oracle = make(choose("schedule", schedule))
    t = torch.tensor([0.001, 0.01, 0.1, 0.4, 0.8, 1.0], dtype=torch.float64)
    x = normal(6, D, seed=4).requires_grad_(True)
    (score,) = torch.autograd.grad(oracle.posterior(x, t).log_prob.sum(), x)
    assert torch.allclose(oracle(x.detach(), t).score, score, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [full, low_rank])
def test_the_posterior_covariance_of_a_mixture_is_the_slope_of_its_mean(make):
    """Cov(x_0 | x_t) = sigma^2/alpha dE[x_0 | x_t]/dx_t."""
    oracle = make(VP())
    t = torch.tensor([0.001, 0.01, 0.1, 0.4, 0.8, 1.0], dtype=torch.float64)
    x = normal(6, D, seed=4)
    slope = torch.autograd.functional.jacobian(lambda y: oracle.posterior(y, t).mean.sum(0), x)
    trace = torch.einsum("dbd->b", slope) * oracle.schedule.sigma(t) ** 2 / oracle.schedule.alpha(t)
    assert torch.allclose(oracle.posterior(x, t).trace, trace, rtol=1e-7)


def test_a_mixture_of_points_is_the_finite_set():
    points = clustered(20, 8)
    t = torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64)
    x = normal(3, 8, seed=5)
    mixture = gaussians(VP(), points, torch.zeros(20, 8, 8)).posterior(x, t)
    of_points = finite(VP(), points).posterior(x, t)
    for name in ("mean", "trace", "log_prob"):
        assert torch.allclose(getattr(mixture, name), getattr(of_points, name), rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("make", [full, low_rank])
def test_draws_of_a_mixture_have_its_moments(make):
    n = 40_000
    drawn = make(VP()).law.draw(n, seeded(6)).x0
    mean = WEIGHTS @ MEANS
    covariance = torch.einsum("k,kde->de", WEIGHTS, COVARIANCES + torch.einsum("kd,ke->kde", MEANS, MEANS))
    covariance = covariance - torch.outer(mean, mean)
    assert ((drawn.mean(0) - mean).abs() < 5 * covariance.diagonal().sqrt() / math.sqrt(n)).all()
    centred = drawn - drawn.mean(0)
    products = torch.einsum("nd,ne->nde", centred, centred)
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / math.sqrt(n)).all()
    assert abs(float(make(VP()).posterior(drawn[:2000], torch.full((2000,), 1e-9)).log_prob.mean()) + entropy()) < 0.2


def entropy() -> float:
    x = marginal(1.0, 0.0).sample((100_000,))
    return -float(marginal(1.0, 0.0).log_prob(x).mean())


@pytest.mark.parametrize("make", [full, low_rank])
def test_a_label_leaves_only_its_own_components(make):
    oracle = make(VP(), labels=torch.tensor([0, 1, 0]))
    t, x = torch.tensor([0.2, 0.6], dtype=torch.float64), normal(2, D, seed=7)
    found = oracle.posterior(x, t, torch.tensor([1, 0]))
    alone = gaussians(VP(), MEANS[1:2], COVARIANCES[1:2]).posterior(x[:1], t[:1])
    both = gaussians(VP(), MEANS[::2], COVARIANCES[::2], WEIGHTS[::2]).posterior(x[1:], t[1:])
    for name in ("mean", "trace", "log_prob"):
        expected = torch.cat([getattr(alone, name), getattr(both, name)])
        assert torch.allclose(getattr(found, name), expected, rtol=1e-9), name
    with pytest.raises(ValueError, match="no point and no component has"):
        oracle.posterior(x, t, torch.tensor([2, 2]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"weights": torch.tensor([1.0, 0.0, 1.0])}, "above 0"),
        ({"weights": torch.ones(2)}, "3 components, but 2 weights"),
        ({"labels": torch.ones(4)}, "3 components, but 4 labels"),
        ({"covariances": -COVARIANCES}, "below 0"),
        ({"covariances": COVARIANCES.tril()}, "not symmetric"),
        ({"covariances": COVARIANCES[:, :3, :3]}, "do not fit"),
    ],
)
def test_an_impossible_mixture_is_refused(words, told):
    given = {"covariances": COVARIANCES} | words
    with pytest.raises(ValueError, match=told):
        GaussianMixture(MEANS, **given)


@pytest.mark.parametrize("sigma", [0.003, 0.3, 3.0])
def test_a_label_that_the_first_points_lack_is_found_all_the_same(sigma):
    """Points sorted by label, in chunks that hold one label each."""
    points, labels = normal(6, 2).float(), torch.tensor([0, 0, 0, 1, 1, 1])
    x, t = points[:1].double() + 0.001, torch.full((1,), sigma, dtype=torch.float64)
    for label in (0, 1):
        mask = (labels == label)[None]
        mean, trace, log_prob = reference(points, x, torch.ones(1), t, mask)
        for chunk in (2, 3, 100):
            found = finite(Sigma(), points, labels, chunk).posterior(x, t, torch.tensor([label]))
            assert torch.allclose(found.mean, mean, rtol=1e-5, atol=1e-6), (label, chunk)
            assert torch.allclose(found.log_prob, log_prob, rtol=1e-5, atol=1e-5)
            assert torch.allclose(found.trace, trace, rtol=1e-3, atol=1e-5)


def test_a_query_that_many_points_may_count_for_is_served_by_products_in_float64():
    """At intermediate noise no list is short, and float32 would be off by more than it may."""
    points = clustered(3000, 1024)
    for sigma in (1.0, 2.0):
        x, t = asked(points, sigma, 4), torch.full((4,), sigma, dtype=torch.float64)
        oracle = finite(Sigma(), points, chunk=700)
        found = oracle.posterior(x, t)
        mean, trace, log_prob = reference(points, x, torch.ones(4), t)
        assert torch.allclose(found.mean, mean, rtol=0, atol=1e-9)
        assert torch.allclose(found.log_prob, log_prob, rtol=0, atol=1e-9)
        assert torch.allclose(found.trace, trace, rtol=1e-3)
