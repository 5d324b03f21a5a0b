"""The uniform law over boxes, and the pieces of the normal law it is made of, by quadrature and long arithmetic."""

import math

import mpmath
import numpy as np
import pytest
import torch
from exact_cases import Exploding, normal, seeded
from torch import Tensor
from torch.autograd.functional import jacobian

from scorelab.denoisers import Exact, FixedSmall
from scorelab.laws import Boxes, FiniteSet
from scorelab.laws.boxes import legendre, truncated
from scorelab.schedules import VP, Cosine
from scorelab.tensors import log_interval

LOW = torch.tensor([[-1.0, -0.8], [-0.2, 0.1], [0.3, -0.9]], dtype=torch.float64)
HIGH = torch.tensor([[-0.4, 0.1], [0.9, 0.8], [0.8, 0.3]], dtype=torch.float64)  # the last two overlap
SCALES = [1e-3, 1e-2, 0.1, 0.5, 2.0, 30.0, 1e3, 1e5]


def one(number: float) -> Tensor:
    return torch.tensor([number], dtype=torch.float64)


def of_the_normal_law(low: float, high: float) -> tuple[float, float, float]:
    """Log mass, mean and variance of N(0, 1) kept to [low, high], with 150 digits."""
    with mpmath.workdps(150):
        a, b = sorted((abs(mpmath.mpf(low)), abs(mpmath.mpf(high)))) if low * high > 0 else (low, high)
        a, b = mpmath.mpf(a), mpmath.mpf(b)
        mass = (mpmath.erfc(a / mpmath.sqrt(2)) - mpmath.erfc(b / mpmath.sqrt(2))) / 2
        at_a, at_b = (mpmath.exp(-u * u / 2) / mpmath.sqrt(2 * mpmath.pi) / mass for u in (a, b))
        mean = at_a - at_b
        variance = 1 + a * at_a - b * at_b - mean**2
        return float(mpmath.log(mass)), float(-mean if high < 0 else mean), float(variance)


INTERVALS = [
    (centre - width / 2, centre + width / 2)
    for centre in (0.0, 0.3, -1.0, 3.0, -8.0, 30.0)
    for width in (1e-6, 1e-3, 0.06, 0.5, 0.66, 1.9, 2.1, 10.0, 1e3, 1e5)
]
FAR = [(300.0, 301.0), (-301.0, -300.0), (1e3, 1.1e3), (-2e4, -1e4), (1e5, 1e5 + 1), (1e5, 1e5 + 1e-3), (-1e5, 1e5)]


# --- an interval of the normal law


@pytest.mark.parametrize(("low", "high"), INTERVALS + FAR)
def test_the_log_mass_of_an_interval_is_right_at_any_distance(low, high):
    """As well as its ends are known: to a rounding of each, times the slope of log Phi there."""
    found = float(log_interval(one(low), one(high)))
    expected, *_ = of_the_normal_law(low, high)
    rounding = 2.0**-52 * (4 + max(abs(low), abs(high), 1) / (high - low) + 4 * abs(expected))
    assert found == pytest.approx(expected, abs=4 * rounding)


def test_an_interval_and_its_mirror_image_have_the_same_mass():
    low = torch.tensor([a for a, _ in INTERVALS + FAR], dtype=torch.float64)
    high = torch.tensor([b for _, b in INTERVALS + FAR], dtype=torch.float64)
    assert torch.equal(log_interval(low, high), log_interval(-high, -low))
    assert (log_interval(low, high) <= 0).all()


@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_the_moments_of_a_truncated_normal_variable_are_right_from_points_to_the_whole_line(low, high):
    """Of intervals whose moments the quadrature rule and the closed form tell, and at the seam between them."""
    found = truncated(one(low), one(high))
    log_mass, mean, variance = of_the_normal_law(low, high)
    assert float(found.log_mass) == pytest.approx(log_mass, rel=1e-12, abs=1e-12)
    assert float(found.mean) == pytest.approx(mean, abs=1e-8 * math.sqrt(variance))
    assert float(found.variance) == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(300.0, 301.0), (-1e3, -990.0), (300.0, 310.0)])
def test_far_out_a_truncated_variable_sits_at_the_near_end(low, high):
    found = truncated(one(low), one(high))
    _, mean, variance = of_the_normal_law(low, high)
    assert float(found.mean) == pytest.approx(mean, abs=1e-3 * math.sqrt(variance))
    assert 0 <= float(found.variance) < 1e-4


def test_the_quadrature_rule_is_exact_for_polynomials_of_degree_2n_minus_1():
    nodes, weights = legendre(7)
    expected, expected_weights = np.polynomial.legendre.leggauss(7)
    assert nodes.tolist() == pytest.approx(expected.tolist(), abs=1e-14)
    assert weights.tolist() == pytest.approx(expected_weights.tolist(), abs=1e-14)
    for degree in range(14):
        assert float(weights @ nodes**degree) == pytest.approx((degree % 2 == 0) * 2 / (degree + 1), abs=1e-14)


# --- boxes


def queries(law: Boxes, alpha: float, sigma: float, n: int = 12) -> Tensor:
    """x_t of the law itself; the first three at the corners of the boxes."""
    x0 = law.draw(n, seeded(1)).x0
    x0[:3] = law.high[:3] if len(law.high) >= 3 else x0[:3]
    return alpha * x0 + sigma * normal(*x0.shape, seed=2)


def by_quadrature(law: Boxes, x: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, trace and log density at one x (2,), by Gauss-Legendre rules over the plane, box after box."""
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(160))
    points, masses = [], []
    for low, high in zip(law.low, law.high, strict=True):
        near = torch.maximum(low, torch.minimum(high, x / alpha))
        begin, end = torch.maximum(low, near - 14 * sigma / alpha), torch.minimum(high, near + 14 * sigma / alpha)
        sides = [(a + b) / 2 + (b - a) / 2 * nodes for a, b in zip(begin, end, strict=True)]
        share = (end - begin).prod() / 4 / (high - low).prod() / len(law.low)
        points.append(torch.cartesian_prod(*sides))
        masses.append(share * torch.outer(weights, weights).flatten())
    y, mass = torch.cat(points), torch.cat(masses)
    log_joint = torch.log(mass) - (x - alpha * y).square().sum(1) / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)
    share = torch.softmax(log_joint, 0)
    mean = share @ y
    return mean, share @ (y - mean).square().sum(1), torch.logsumexp(log_joint, 0)


@pytest.mark.parametrize(("scale", "alpha"), zip(SCALES, [1.0, 0.6] * 4, strict=True))
def test_the_posterior_is_what_quadrature_says_from_hardly_any_noise_to_hardly_any_signal(scale, alpha):
    law, sigma = Boxes(LOW, HIGH), scale * alpha
    x = queries(law, alpha, sigma)
    found = law.posterior(x, one(alpha).expand(12), one(sigma).expand(12))
    for i in range(12):
        mean, trace, log_prob = by_quadrature(law, x[i], alpha, sigma)
        assert torch.allclose(found.mean[i], mean, rtol=0, atol=1e-8 * min(1.0, scale))
        assert float(found.trace[i]) == pytest.approx(float(trace), rel=1e-7)
        assert float(found.log_prob[i]) == pytest.approx(float(log_prob), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("schedule", [VP(), Cosine(500), Exploding()], ids=["vp", "cosine", "exploding"])
def test_the_score_is_the_gradient_of_the_log_density(schedule):
    oracle = Exact(schedule, FixedSmall(), Boxes(LOW, HIGH))
    t = schedule.training_time(torch.linspace(0, 0.999, 15, dtype=torch.float64))
    x0 = oracle.law.draw(15, seeded(1)).x0
    x = oracle.noised(x0, t, normal(15, 2)).x_t.requires_grad_(True)
    (score,) = torch.autograd.grad(oracle.posterior(x, t).log_prob.sum(), x)
    found = oracle(x.detach(), t).score
    assert torch.allclose(found, score, rtol=1e-6, atol=1e-8 * float(score.abs().max()))
    for away, i in ((1e-4, 3), (1e-4, 10)):  # the same without autograd
        step = away * schedule.sigma(t[i : i + 1])
        ends = [oracle.posterior(x.detach()[i : i + 1] + s * step * torch.eye(2)[0], t[i : i + 1]) for s in (1, -1)]
        slope = (ends[0].log_prob - ends[1].log_prob) / (2 * step)
        assert float(slope) == pytest.approx(float(found[i, 0]), rel=1e-5, abs=1e-5 / float(schedule.sigma(t[i])))


@pytest.mark.parametrize("scale", [1e-5, 1e-4, *SCALES])
def test_gradients_are_finite_and_right_from_hardly_any_noise_to_hardly_any_signal(scale):
    """Of the log density: the score; of the mean: the covariance, whose trace is told too."""
    law, n = Boxes(LOW, HIGH), 12
    x, alpha, sigma = queries(law, 1.0, scale), torch.ones(n).double(), torch.full((n,), scale).double()
    found = law.posterior(x.requires_grad_(True), alpha, sigma)
    (score,) = torch.autograd.grad(found.log_prob.sum(), x, retain_graph=True)
    assert torch.allclose(score, (found.mean - x) / scale**2, rtol=1e-6, atol=1e-8 * float(score.abs().max()) + 1e-12)
    slope = sum(torch.autograd.grad(found.mean[:, k].sum(), x, retain_graph=True)[0][:, k] for k in range(2))
    rounding = 1e-15 * scale**2  # of 1 - E[...], which the slope is
    assert slope.isfinite().all() and torch.allclose(scale**2 * slope, found.trace, rtol=1e-6, atol=rounding)


def test_the_posterior_covariance_is_the_slope_of_the_mean():
    """Cov(x_0 | x_t) = sigma^2/alpha dE[x_0 | x_t]/dx_t."""
    oracle = Exact(VP(), FixedSmall(), Boxes(LOW, HIGH))
    t = torch.tensor([0.001, 0.01, 0.05, 0.2, 0.5, 1.0], dtype=torch.float64)
    x = oracle.noised(oracle.law.draw(6, seeded(1)).x0, t, normal(6, 2)).x_t
    slope = jacobian(lambda y: oracle.posterior(y, t).mean.sum(0), x)
    trace = torch.einsum("dbd->b", slope) * oracle.schedule.sigma(t) ** 2 / oracle.schedule.alpha(t)
    assert torch.allclose(oracle.posterior(x, t).trace, trace, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.05), (0.5, 0.3), (0.2, 1.0), (1.0, 3.0)])
def test_the_noised_density_integrates_to_one(alpha, sigma):
    law = Boxes(LOW, HIGH)
    side = torch.linspace(-alpha - 8 * sigma, alpha + 8 * sigma, 141, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    log_prob = law.posterior(x, one(alpha).expand(len(x)), one(sigma).expand(len(x))).log_prob
    assert float(log_prob.exp().sum()) * float(side[1] - side[0]) ** 2 == pytest.approx(1, abs=1e-6)


def test_the_density_of_x0_is_the_mean_over_boxes_and_integrates_to_one():
    law = Boxes(LOW, HIGH)
    side = (torch.arange(40, dtype=torch.float64) + 0.5) / 20 - 1  # in cells of 0.05, which the sides divide
    x0 = torch.cartesian_prod(side, side)
    density = law.log_prob(x0).exp()
    assert float(density.sum()) * 0.05**2 == pytest.approx(1, rel=1e-9)
    volume = (HIGH - LOW).prod(1)
    at = torch.tensor([[-0.7, -0.3], [0.5, 0.2], [0.5, -0.5], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.stack([1 / volume[0], 1 / volume[1] + 1 / volume[2], 1 / volume[2], 0 * volume[0]]) / 3
    assert torch.allclose(law.log_prob(at).exp(), expected, rtol=1e-12)
    assert law.has_density and law.labels is None
    assert float(law.log_prob(law.low).exp().min()) > 0, "the edge is inside"


def test_where_noise_is_small_the_density_is_that_of_x0():
    law, n = Boxes(LOW[:1], HIGH[:1]), 50
    x0 = torch.lerp(LOW[:1] + 0.05, HIGH[:1] - 0.05, torch.rand(n, 2, generator=seeded(3)).double())
    for alpha in (1.0, 0.3):
        found = law.posterior(alpha * x0, one(alpha).expand(n), one(1e-3 * alpha).expand(n))
        assert torch.allclose(found.log_prob, law.log_prob(x0) - 2 * math.log(alpha), rtol=1e-9)
        assert torch.allclose(found.mean, x0, rtol=0, atol=1e-12)
        assert torch.allclose(found.trace, torch.full((n,), 2e-6).double(), rtol=1e-9)


def test_boxes_too_small_to_see_are_points():
    corner = normal(4, 2, seed=4)
    boxes, of_points = Boxes(corner - 1e-7, corner + 1e-7), FiniteSet(corner)
    t = torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64)
    x = normal(3, 2, seed=5)
    box, point = (Exact(VP(), FixedSmall(), law).posterior(x, t) for law in (boxes, of_points))
    for name in ("mean", "trace", "log_prob"):
        assert torch.allclose(getattr(box, name), getattr(point, name), rtol=1e-5, atol=1e-6), name


def test_draws_lie_in_their_boxes_each_box_as_often_and_evenly():
    law, n = Boxes(LOW[[0, 2]], HIGH[[0, 2]]), 20_000
    drawn = law.draw(n, seeded(1))
    x0 = drawn.x0
    inside = ((x0[:, None] >= law.low) & (x0[:, None] <= law.high)).all(2)
    assert drawn.label is None and x0.dtype == torch.float64
    assert (inside.sum(1) == 1).all()
    assert abs(int(inside[:, 0].sum()) - n / 2) < 5 * math.sqrt(n / 4)
    for k in range(2):
        place = (x0[inside[:, k]] - law.low[k]) / (law.high[k] - law.low[k])
        for power in (1, 2, 3):
            each = place**power
            assert ((each.mean(0) - 1 / (power + 1)).abs() < 5 * each.std(0) / math.sqrt(len(each))).all()
        product = (place[:, 0] - 0.5) * (place[:, 1] - 0.5)
        assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(len(place))
    assert torch.equal(x0, law.draw(n, seeded(1)).x0) and not torch.equal(x0, law.draw(n, seeded(2)).x0)


@pytest.mark.parametrize(("low", "high"), [(LOW, LOW), (HIGH, LOW), (LOW, HIGH[:2]), (LOW[:, :1], HIGH)])
def test_a_box_without_room_is_refused(low, high):
    with pytest.raises(ValueError, match="every side of a box needs low < high"):
        Boxes(low, high)
