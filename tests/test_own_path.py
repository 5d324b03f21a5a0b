"""Errors along the sampler's own path."""

import pytest
import torch
from exact_cases import Offset
from test_configs import built

from scorelab.denoisers import Denoiser, Estimate
from scorelab.evaluation import OwnPath


def context(*words: str):
    experiment = built("data=mixture", "metrics=[own_path]", "++sampler.steps=12", *words)
    found = experiment.context(experiment.module.denoiser)
    found.denoiser = found.exact_held_out
    return found


class Drifting(Denoiser):
    """The exact noise, less a tenth of how far x_t lies beyond 1.2: right about the data, wrong beyond them."""

    def __init__(self, inner: Denoiser, pull: float = 0.3) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner, self.pull = inner, pull

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> Estimate:
        said = self.inner(x_t, t, label)
        return Estimate.from_eps(said.x_t, said.alpha, said.sigma, said.eps - self.pull * said.x_t)


def test_the_exact_denoiser_errs_nowhere() -> None:
    found = OwnPath().run(context(), None)
    assert found.metrics["own_path"] == pytest.approx(0, abs=1e-8)
    assert found.metrics["own_path_data"] == pytest.approx(0, abs=1e-8)


def test_an_error_that_is_the_same_everywhere_is_the_same_on_either_path() -> None:
    of = context()
    of.denoiser = Offset(of.denoiser, 0.2)
    found = OwnPath().run(of, None)
    assert found.metrics["own_path"] == pytest.approx(0.04, rel=1e-3)
    assert found.metrics["own_path_data"] == pytest.approx(0.04, rel=1e-3)
    assert found.evaluations <= OwnPath().cost(of)


def test_an_error_that_leads_further_away_is_greater_on_its_own_path() -> None:
    of = context()
    of.denoiser = Drifting(of.denoiser)
    found = OwnPath().run(of, None)
    assert found.metrics["own_path"] > 1.2 * found.metrics["own_path_data"] > 0
    assert len(found.records["own"]) == len(found.records["visited_log_snr"]) > 3


def test_without_a_law_there_is_nothing_to_tell() -> None:
    of = context()
    of.exact_held_out = None
    assert OwnPath().inapplicable(of) == "the law of these data is not known"
