"""The rate at which noised data tell of the data, by log-SNR."""

import math

import pytest
import torch
from conftest import choose
from test_configs import built

from scorelab.denoisers import Exact, FixedSmall
from scorelab.evaluation import NoiseProfile
from scorelab.evaluation.noise_profile import suggested
from scorelab.laws import FiniteSet, GaussianMixture
from scorelab.log_snr import BINS, LOWEST, WIDTH
from scorelab.schedules import VP

CENTRES = LOWEST + WIDTH * (torch.arange(BINS, dtype=torch.float64) + 0.5)


class Of:
    """As much of a context as the profile looks at."""

    def __init__(self, law, schedule=None) -> None:
        self.denoiser = Exact(schedule or choose("schedule", "flow"), FixedSmall(), law)
        self.exact_train = self.denoiser
        self.settings = type("Settings", (), {"chunk": 256})()


def profile(law, schedule=None):
    return NoiseProfile().run(Of(law, schedule), None)


def test_of_a_gaussian_it_is_half_of_s_over_one_plus_s_in_every_direction() -> None:
    variance = torch.tensor([0.04, 1.0, 9.0]).double()
    found = profile(GaussianMixture(torch.zeros(1, 3), torch.diag(variance)[None])).records["rate"]
    snr = torch.exp(CENTRES)[:, None]
    expected = 0.5 * (snr * variance / (1 + snr * variance)).sum(1)
    assert torch.allclose(torch.tensor(found).double(), expected, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("n", [2, 5])
def test_of_points_far_apart_its_integral_is_the_logarithm_of_how_many_they_are(n: int) -> None:
    """All of the entropy of the list, in nats."""
    points = torch.linspace(-1, 1, n)[:, None].expand(-1, 4)
    found = torch.tensor(profile(FiniteSet(points)).records["rate"]).double()
    assert float(found.sum()) * WIDTH == pytest.approx(math.log(n), rel=0.05)


def test_what_it_suggests_is_the_normal_that_it_is() -> None:
    rate = torch.exp(-0.5 * ((CENTRES - 2.4) / 2.4) ** 2)
    found = suggested(rate, mean_log_snr=1.0)
    assert found["p_mean"] == pytest.approx(-1.2, abs=0.01)
    assert found["p_std"] == pytest.approx(1.2, rel=0.01)
    assert found["log_snr_shift"] == pytest.approx(1.4, abs=0.01)
    assert found["log_snr_low"] == pytest.approx(2.4 - 2.576 * 2.4, abs=0.1)
    assert found["log_snr_high"] == pytest.approx(2.4 + 2.576 * 2.4, abs=0.1)


def test_bins_that_the_schedule_does_not_reach_are_left_out() -> None:
    found = profile(FiniteSet(torch.tensor([[-1.0], [1.0]])), VP())
    assert found.records["rate"][0] is None
    assert all(math.isfinite(value) for value in found.metrics.values())


def test_where_no_law_is_known_the_networks_own_error_stands_for_it() -> None:
    experiment = built("metrics=[noise_profile]", "++model.channels=8", "++evaluation.held_out=8")
    context = experiment.context(experiment.module.denoiser)
    context.exact_train = None
    found = NoiseProfile().run(context, None)
    assert found.records["of"] == "the network, from above" and found.records["n"] == 8
    assert found.evaluations == NoiseProfile().cost(context) > 0
