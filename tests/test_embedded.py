"""A law turned into more dimensions: all that is known of it stays known."""

import pytest
import torch
from exact_cases import normal, seeded

from scorelab.data.synthetic import IN_THE_PLANE, Embedded, Gaussian
from scorelab.errors import Refusal
from scorelab.laws import Embedding, GaussianMixture


def basis(dims: int, inner: int = 2) -> torch.Tensor:
    return torch.linalg.qr(normal(dims, inner, seed=3)).Q


def test_of_a_gaussian_it_is_the_gaussian_in_many_dimensions() -> None:
    plane, q = Gaussian(), basis(6)
    turned = Embedding(plane.law(), q)
    known = GaussianMixture((q @ plane.mean)[None], (q @ plane.covariance @ q.mT)[None])
    x, alpha, sigma = normal(20, 6), torch.linspace(0.1, 1, 20).double(), torch.linspace(1, 0.05, 20).double()
    found, expected = turned.posterior(x, alpha, sigma), known.posterior(x, alpha, sigma)
    for name in ("mean", "trace", "log_prob"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), rtol=1e-9), name


@pytest.mark.parametrize("law", IN_THE_PLANE)
@pytest.mark.parametrize("dims", [2, 16, 512])
def test_its_score_is_the_gradient_of_its_log_density(law: str, dims: int) -> None:
    turned = Embedded(law, dims).law()
    x = (0.3 * normal(5, dims, seed=1)).requires_grad_()
    alpha, sigma = torch.full((5,), 0.8).double(), torch.full((5,), 0.5).double()
    found = turned.posterior(x, alpha, sigma)
    (score,) = torch.autograd.grad(found.log_prob.sum(), x)
    assert torch.allclose((0.8 * found.mean - x) / 0.25, score, rtol=1e-6, atol=1e-9)


def test_draws_lie_in_the_plane_as_the_inner_laws_do_and_are_the_same_every_time() -> None:
    source = Embedded("mixture", 64)
    law, split = source.law(), source.splits()["train"]
    inner = split.values.double() @ law.basis
    assert torch.allclose(inner @ law.basis.mT, split.values.double(), atol=1e-6)
    assert torch.allclose(inner.norm(dim=1).mean(), torch.tensor(0.75).double(), atol=0.03)
    assert torch.equal(split.values, Embedded("mixture", 64).splits()["train"].values)
    assert split.labels.unique().tolist() == list(range(8)) and source.classes == 8


def test_beside_the_plane_there_is_no_density_and_in_it_there_is() -> None:
    assert not Embedded("moons", 3).law().has_density and Embedded("moons", 2).law().has_density
    drawn = Embedded("moons", 2).law().draw(4, seeded()).x0
    assert Embedded("moons", 2).law().log_prob(drawn).isfinite().all()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Embedded("sun"), "law must be one of gaussian, mixture, moons"),
        (lambda: Embedded(dims=1), "dims must be at least 2"),
        (lambda: Embedding(Gaussian().law(), 2 * basis(4)), "orthonormal"),
        (lambda: Embedding(Gaussian().law(), basis(4, 3)), "does not fit"),
    ],
)
def test_what_is_no_embedding_is_refused(make, told) -> None:
    with pytest.raises(Refusal, match=told):
        make()
