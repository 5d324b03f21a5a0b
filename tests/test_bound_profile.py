"""Where along the log-SNR the bound's diffusion part lies, against closed forms."""

import math

import pytest
import torch
from exact_cases import GaussianOracle, Watched, normal

from scorelab.denoisers import FixedSmall
from scorelab.likelihood import exact_bound, sampled_bound
from scorelab.log_snr import BINS, LOWEST, WIDTH
from scorelab.schedules import VP, Cosine, Linear

STD = 0.5


def edges() -> torch.Tensor:
    """Of the 42 bins, the outer two open."""
    inner = LOWEST + WIDTH * torch.arange(BINS + 1, dtype=torch.float64)
    return torch.cat([torch.tensor([-math.inf]).double(), inner, torch.tensor([math.inf]).double()])


def test_without_steps_each_bin_has_the_information_between_its_edges():
    """1/2 ln(1 + S std^2) at one edge less that at the other, in bits, cut at the ends of the integral."""
    oracle = GaussianOracle(VP(), FixedSmall(), torch.zeros(16), STD)
    bound = sampled_bound(oracle, STD * normal(400, 16), None, 0.02)
    ends = edges().clamp(*oracle.log_snr_range())
    expected = (0.5 * torch.log2(1 + STD**2 * torch.exp(ends))).diff()
    found = torch.tensor(bound.by_log_snr, dtype=torch.float64)
    assert len(found) == BINS + 2 and float(found.sum()) == pytest.approx(bound.diffusion, rel=1e-9)
    assert (found - expected).abs().max() < 0.05 and found[:5].sum() < 0.01 and expected.max() > 0.4


@pytest.mark.parametrize("schedule", [Cosine(50), Linear(60)])
@pytest.mark.parametrize("summed", [True, False])
def test_the_steps_of_a_grid_count_where_they_begin(summed, schedule):
    """A network that is asked once about each image at one step has what it says in the bin of that step's log-SNR."""
    oracle = GaussianOracle(schedule, FixedSmall(), torch.zeros(4), STD)
    x0 = STD * normal(100, 4)
    watched = Watched(oracle)
    bound = exact_bound(watched, x0, None) if summed else sampled_bound(watched, x0, None, 1e9)
    found = torch.tensor(bound.by_log_snr, dtype=torch.float64)
    assert float(found.sum()) == pytest.approx(bound.diffusion, rel=1e-9)
    asked = schedule.log_snr(torch.cat(watched.times)[torch.cat(watched.times) > 1.5 / schedule.num_steps])
    places = torch.bucketize(asked, edges()[1:-1])
    assert set(torch.nonzero(found).flatten().tolist()) == set(places.tolist())
    if summed:
        by_step = torch.tensor(bound.by_step[1:], dtype=torch.float64)
        at = torch.bucketize(schedule.log_snr(schedule.grid()[2:]), edges()[1:-1])
        expected = torch.zeros(BINS + 2, dtype=torch.float64).index_add_(0, at, by_step)
        assert torch.allclose(found, expected, rtol=1e-9)
