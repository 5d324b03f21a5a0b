"""Moments of every law, and the best denoiser that is affine in x_t."""

import pytest
import torch
from exact_cases import normal, seeded

from scorelab.data.synthetic import Checkerboard, DigitsGaussians, Embedded, Moons
from scorelab.denoisers import BestLinear, Exact, FixedSmall
from scorelab.laws import Boxes, FiniteSet, GaussianMixture, Law, LowRankMixture
from scorelab.schedules import VP, Flow
from scorelab.tensors import from_levels


def low_rank() -> LowRankMixture:
    return LowRankMixture(normal(2, 5, seed=1), 0.5 * normal(2, 5, 2, seed=2), normal(2, 5, seed=3).abs())


@pytest.mark.parametrize(
    "make",
    [lambda: Moons().law(), lambda: Checkerboard().law(), lambda: Embedded("swiss_roll", 5).law(), low_rank],
    ids=["moons", "checkerboard", "embedded", "low-rank"],
)
def test_moments_are_those_of_draws(make) -> None:
    law: Law = make()
    n, moments = 60_000, law.moments()
    drawn = law.draw(n, seeded()).x0.double()
    away = drawn - moments.mean
    assert (away.mean(0).abs() < 5 * away.std(0) / n**0.5 + 1e-12).all()
    products = away[:, :, None] * away[:, None, :]
    assert ((products.mean(0) - moments.covariance).abs() < 5 * products.std(0) / n**0.5 + 1e-12).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_moments_of_a_finite_set_are_its_points_in_levels_and_mirrored_too(mirrored: bool) -> None:
    points = torch.randint(0, 17, (40, 1, 3, 3), generator=seeded()).to(torch.uint8)
    data = from_levels(points, 17).double()
    data = torch.cat([data, data.flip(-1)]) if mirrored else data
    moments = FiniteSet(points, levels=17, mirrored=mirrored).moments()
    assert torch.allclose(moments.mean, data.flatten(1).mean(0), atol=1e-6)
    assert torch.allclose(moments.covariance, torch.cov(data.flatten(1).T, correction=0), atol=1e-6)


def test_of_a_gaussian_it_is_the_exact_denoiser() -> None:
    root = normal(3, 3)
    law = GaussianMixture(normal(1, 3, seed=1), (root @ root.mT)[None])
    x_t, t = normal(6, 3, seed=2), torch.linspace(0.1, 0.9, 6).double()
    for schedule in (VP(), Flow()):
        found, exact = (make(schedule, FixedSmall(), law)(x_t, t) for make in (BestLinear, Exact))
        assert torch.allclose(found.x0, exact.x0, rtol=1e-9)


def test_no_affine_function_of_x_t_denoises_better() -> None:
    """Its error is that of least squares on the same draws, to their own noise; the exact one is below both."""
    law, t, n = DigitsGaussians().law(), 0.4, 6_000
    x0, eps = law.draw(n, seeded()).x0.flatten(1), normal(n, 64, seed=7)
    times = torch.full((n,), t).double()
    truth = BestLinear(VP(), FixedSmall(), law).noised(x0.reshape(n, 1, 8, 8), times, eps.reshape(n, 1, 8, 8))
    errors = [
        float((make(VP(), FixedSmall(), law)(truth.x_t, times).x0 - truth.x0).square().sum(dim=(1, 2, 3)).mean())
        for make in (BestLinear, Exact)
    ]
    design = torch.cat([truth.x_t.flatten(1), torch.ones(n, 1).double()], 1)
    fit = torch.linalg.lstsq(design, x0).solution
    fitted = float((design @ fit - x0).square().sum(1).mean())
    assert errors[1] < 0.95 * errors[0]
    assert fitted < errors[0] < fitted * 1.03


def test_boxes_of_one_side_have_a_twelfth_of_its_square() -> None:
    moments = Boxes(torch.zeros(1, 1), torch.ones(1, 1)).moments()
    assert (float(moments.mean), float(moments.covariance)) == (0.5, pytest.approx(1 / 12))
