"""The score error taken apart, against fields whose parts are known in closed form."""

import math

import pytest
import torch
from exact_cases import normal, seeded
from test_score import case, exact
from torch import Tensor

from scorelab.data.module import DataModule
from scorelab.data.synthetic import Embedded, Gaussian, Ring
from scorelab.denoisers import Denoiser, Estimate, Exact, FixedSmall
from scorelab.evaluation import EvaluationSettings, GradientPart, ScoreError
from scorelab.evaluation.gradient_part import rates
from scorelab.evaluation.helmholtz import Lattice, split
from scorelab.laws import GaussianMixture
from scorelab.samplers import DDIM, draw_samples
from scorelab.schedules import VP, Linear

TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
SETTINGS = EvaluationSettings(chunk=4096)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)


def waves(x: Tensor) -> Tensor:
    """The gradient of sin(x + 2 y); its mean square under N(0, C) is 5 (1 + exp(-2 v)) / 2, v = (1, 2) C (1, 2)^T."""
    slope = torch.tensor([1.0, 2.0], dtype=torch.float64)
    return torch.cos(x @ slope)[:, None] * slope


def stirring(x: Tensor) -> Tensor:
    """The field h B s + B grad h with h = sin x and B antisymmetric: div(p r) = 0 of any p, s its score."""
    score = -x @ torch.linalg.inv(COVARIANCE)
    h, slope = torch.sin(x[:, :1]), torch.stack([torch.cos(x[:, 0]), 0 * x[:, 0]], 1)
    return h * (score @ TURN.mT) + slope @ TURN.mT


def parts(side: int, *fields) -> tuple[float, float]:
    lattice = Lattice(*torch.tensor([[-4.5, -3.6], [4.5, 3.6]], dtype=torch.float64), side)
    middles = [lattice.middles(axis) for axis in range(2)]
    inverse = torch.linalg.inv(COVARIANCE)
    log_prob = tuple(-0.5 * ((x @ inverse) * x).sum(1) + 700 for x in middles)
    found = split(lattice, log_prob, tuple(sum(f(x) for f in fields)[:, k] for k, x in enumerate(middles)))
    return found.gradient, found.whole - found.gradient


def test_the_parts_of_a_field_under_a_gaussian_are_those_it_was_made_of_up_to_the_square_of_an_edge() -> None:
    gradient = 2.5 * (1 + math.exp(-2 * (0.5 + 4 * 0.2 + 4 * 0.3)))
    x = normal(200_000, 2) @ torch.linalg.cholesky(COVARIANCE).mT
    each = stirring(x).square().sum(1)
    alone = parts(65, waves), parts(65, stirring)
    assert alone[0] == (pytest.approx(gradient, rel=1e-5), pytest.approx(0, abs=1e-5))
    assert alone[1][0] == pytest.approx(0, abs=1e-4)
    assert abs(alone[1][1] - float(each.mean())) < 5 * float(each.std()) / len(x) ** 0.5
    off = [parts(side, waves, stirring)[0] - gradient for side in (33, 65)]
    assert 0 < abs(off[1]) < 0.002 and off[0] / off[1] == pytest.approx(4, rel=0.1)


class Wrong(Denoiser):
    """An exact denoiser whose score is off by A (x - alpha m)."""

    def __init__(self, inner: Exact, slope: Tensor) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner, self.slope = inner, slope

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        said = self.inner(x_t.double(), t, label)
        away = x_t.double() - said.alpha * self.inner.law.moments().mean
        return Estimate.from_eps(x_t, said.alpha, said.sigma, said.eps - said.sigma * away @ self.slope.mT)


def round_law(dims: int) -> GaussianMixture:
    """N(m, 1/4 I)."""
    return GaussianMixture(0.3 * normal(1, dims, seed=4), 0.25 * torch.eye(dims, dtype=torch.float64)[None])


def test_of_a_linear_error_about_a_round_law_the_symmetric_half_is_the_gradient_part() -> None:
    """E||S x||^2 = c tr S^2 with C = c I; the turning half, of any size, leaves it where it is."""
    source = Gaussian(covariance=[[0.25, 0.0], [0.0, 0.25]])
    symmetric = torch.tensor([[0.2, 0.1], [0.1, -0.3]], dtype=torch.float64)
    log_snr = torch.linspace(-4.8 + 0.3, 6.6 - 0.3, 19, dtype=torch.float64)
    alpha2 = torch.sigmoid(log_snr)
    scale = float(((1 - alpha2) * (0.25 * alpha2 + 1 - alpha2)).mean()) / 2
    for turn in (0.0, 1.0):
        of = case(Wrong(exact(source), symmetric + turn * TURN), DataModule(source), held=200, settings=SETTINGS)
        found = GradientPart(side=36).run(of, None)
        assert found.metrics["gradient_part"] == pytest.approx(scale * float((symmetric**2).sum()), rel=0.01)
        assert found.metrics["gradient_rest"] == pytest.approx(scale * 2 * turn**2, rel=0.01, abs=1e-6)
    both = sum(found.metrics.values())
    score = ScoreError().run(of, None)
    assert abs(both - score.metrics["score_error"]) < 5 * score.records["held_out"]["score_error_se"]
    assert found.evaluations == GradientPart(side=36).cost(of) == 19 * 2 * 36 * 35


def test_an_error_that_stirs_takes_every_sample_elsewhere_and_leaves_their_law() -> None:
    """About a round law a turning error turns the whole law, onto itself."""
    source = Gaussian(covariance=[[0.25, 0.0], [0.0, 0.25]])
    labels = torch.zeros(64, dtype=torch.long)
    right, wrong = (
        draw_samples(Wrong(exact(source), c * TURN), DDIM(100), (2,), labels, 1, 64).double() - source.mean
        for c in (0.0, 0.1)
    )
    assert torch.allclose(wrong.norm(dim=1), right.norm(dim=1), rtol=0.03)
    assert ((wrong - right).norm(dim=1) > 0.5 * right.norm(dim=1)).all()


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_the_kl_of_the_reverse_sde_is_below_what_its_gradient_part_allows(turn: float) -> None:
    """From lambda = -4.8 to 6.6, dx = (x/2 + s + e) sigma^2 dlambda + sigma dw: a Gaussian of covariance Q."""
    source = Gaussian(covariance=[[0.25, 0.0], [0.0, 0.25]])
    for symmetric in (torch.zeros(2, 2), torch.tensor([[0.2, 0.1], [0.1, -0.3]])):
        slope = symmetric.double() + turn * TURN
        of = case(Wrong(exact(source), slope), DataModule(source), held=2, settings=SETTINGS)
        found = GradientPart(side=36).run(of, None).metrics
        allowed = 0.5 * (6.6 + 4.8) * 2 * found["gradient_part"]
        steps, unit = 2000, torch.eye(2, dtype=torch.float64)
        places = torch.linspace(-4.8, 6.6, steps + 1, dtype=torch.float64)
        power = 0.25 * torch.sigmoid(places) + torch.sigmoid(-places)
        q = power[0] * unit
        for at in range(steps):
            drift = (0.5 - 1 / power[at]) * unit + slope
            q = q + torch.sigmoid(-places[at]) * (11.4 / steps) * (drift @ q + q @ drift.mT + unit)
        kl = 0.5 * float((torch.linalg.inv(q) * power[-1]).trace() - 2 + torch.logdet(q) - 2 * torch.log(power[-1]))
        assert kl < allowed * 1.01 + 1e-6, "the Euler steps leave 4e-7"
        assert not symmetric.any() or kl > 0.02 * allowed > 0.001
        assert turn == 0 or found["gradient_rest"] > 0.03


@pytest.mark.parametrize("conditional", [False, True])
def test_the_exact_denoiser_has_neither_part_whatever_the_label(conditional: bool) -> None:
    source = Ring()
    of = case(
        exact(source, conditional=conditional), DataModule(source), held=60, conditional=conditional, settings=SETTINGS
    )
    found = GradientPart(side=8).run(of, None).metrics
    assert found["gradient_part"] == pytest.approx(0, abs=1e-9)
    assert found["gradient_rest"] == pytest.approx(0, abs=1e-9)


def test_by_random_signs_the_rate_sees_the_symmetric_half_alone_and_the_curl_the_other() -> None:
    """E (div e + e.s)^2 = 2 tr S^2 and ||J - J^T||^2 / 2 = 2 ||B||^2 for e = (S + B) x, p = N(0, c I)."""
    dims, n = 5, 40_000
    law = Exact(VP(), FixedSmall(), round_law(dims))
    slope = 0.3 * normal(dims, dims, seed=2)
    halves = (slope + slope.mT) / 2, (slope - slope.mT) / 2
    t = torch.full((n,), 0.4, dtype=torch.float64)
    x_t = law.noised(law.law.draw(n, seeded(1)).x0, t, normal(n, dims, seed=3)).x_t
    signs = [torch.randint(2, x_t.shape, generator=seeded(5 + k)).double() * 2 - 1 for k in range(2)]
    fourth = float(law.schedule.sigma(t[:1])) ** 4 / dims
    wanted = [2 * fourth * float((half**2).sum()) for half in halves]
    for half, expected in ((halves[0], (wanted[0], 0)), (halves[1], (0, wanted[1])), (slope, wanted)):
        with torch.no_grad():
            found = rates(Wrong(law, half), law, x_t, t, None, *signs)
        for each, mean in zip(found, expected, strict=True):
            assert abs(float(each.mean()) - mean) < 5 * float(each.std()) / n**0.5 + 1e-12


def test_above_the_plane_both_rates_are_told_with_their_errors_and_below_the_range_there_is_none() -> None:
    data = DataModule(Gaussian())
    law = exact(Embedded("checkerboard", 3))
    x0 = law.law.draw(64, seeded()).x0.float()
    of = case(Wrong(law, normal(3, 3)), data, exact_held_out=law, train=x0, held_out=x0, labels=torch.zeros(64).long())
    found = GradientPart(items=32).run(of, None)
    assert found.metrics.keys() == {"gradient_rate", "score_curl"} and min(found.metrics.values()) > 0
    assert found.records["n"] == 32 and found.records["score_curl_se"] > 0
    assert found.evaluations == 5 * 32 * 19
    short = case(exact(Gaussian(), Linear(30)), data, held=20)
    none = GradientPart(side=16).run(short, None)
    assert set(none.metrics.values()) == {None} and "does not contain" in none.records["missing"]
    assert "not known" in GradientPart().inapplicable(case(law, data, exact_held_out=None))
