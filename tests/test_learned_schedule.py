"""A schedule that is learned: its ends stay, and it goes where the bound, or the variance of its estimate, is less."""

import copy

import pytest
import torch
from conftest import choose
from torch import nn

from scorelab.denoisers import NetworkDenoiser
from scorelab.losses import Example
from scorelab.losses.variational import steady
from scorelab.schedules import LearnedSchedule, check_contract
from scorelab.tensors import generator

T = torch.linspace(0.02, 0.97, 12, dtype=torch.float64)


def bent(num_steps=None, **more):
    """One whose parameters are nothing in particular."""
    schedule, chance = LearnedSchedule(num_steps, **more), generator("bent")
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter += torch.randn(parameter.shape, generator=chance)
    return schedule


class Small(nn.Module):
    """A network of two numbers in and one weight."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x, condition, label=None):
        return self.net(torch.cat([x, condition[:, None] / 1000], 1))


def denoiser_of(schedule):
    torch.manual_seed(0)
    return NetworkDenoiser(schedule, Small().double(), choose("prediction", "eps"), choose("variance", "fixed_small"))


def example_of(denoiser, t):
    chance = generator("example")
    x0, eps = (torch.randn(len(t), 2, generator=chance, dtype=torch.float64) for _ in range(2))
    return Example.of(denoiser, x0, t, eps)


@pytest.mark.parametrize("steps", [None, 50])
def test_whatever_was_learned_the_ends_stay_and_the_contract_holds(steps):
    schedule = bent(steps, log_snr_min=-4, log_snr_max=11, log_snr_shift=1)
    check_contract(schedule)
    ends = LearnedSchedule(None, log_snr_min=-4, log_snr_max=11, log_snr_shift=1)
    ends.load_state_dict(schedule.state_dict())
    assert ends.log_snr_range() == (pytest.approx(-3, abs=1e-12), pytest.approx(12, abs=1e-12))


def test_the_density_of_log_snr_is_the_inverse_of_its_slope_and_integrates_to_1():
    schedule = bent()
    t = torch.rand(4000, generator=generator("u"), dtype=torch.float64)
    assert torch.allclose(schedule.log_density(T), (schedule.sigma(T) ** 2 / schedule.g2(T)).log(), rtol=1e-12)
    assert float(torch.exp(-schedule.log_density(t)).mean()) == pytest.approx(18.3, rel=0.1), "int dlambda = int dt / p"


def test_the_gradient_of_the_density_is_that_at_a_fixed_log_snr():
    schedule, log_snr = bent(), torch.tensor([3.0, -1.0, 9.0], dtype=torch.float64)
    schedule.double()
    said = torch.autograd.grad(schedule.log_density(schedule.inverse(log_snr)).sum(), list(schedule.parameters()))
    for parameter, gradient in zip(schedule.parameters(), said, strict=True):
        for place in (0, 20):
            ends = []
            for by in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[place] += by
                    ends.append(float(schedule.log_density(schedule.inverse(log_snr)).sum()))
                    parameter[place] -= by
            assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_a_continuous_one_learns_the_density_that_is_in_proportion_to_the_root_mean_square_of_the_error():
    """Int m^2 / p is least at p ~ m: the law of importance sampling, here m known in closed form."""

    def rms(log_snr):
        return 0.2 + torch.exp(-((log_snr - 4) ** 2) / 8)

    schedule, chance = LearnedSchedule(), generator("learning")
    optimizer = torch.optim.Adam(schedule.parameters(), lr=0.03)
    for _ in range(400):
        t = torch.rand(256, generator=chance, dtype=torch.float64)
        with torch.no_grad():
            noise = 1 + 0.5 * torch.randn(256, generator=chance, dtype=torch.float64)
            loss = noise * rms(schedule.log_snr(t)) / schedule.log_density(t).exp()
        optimizer.zero_grad()
        steady(schedule, t, loss).mean().backward()
        optimizer.step()
    log_snr = torch.linspace(-5, 13.3, 2001, dtype=torch.float64)
    wanted, found = rms(log_snr), schedule.log_density(schedule.inverse(log_snr)).detach().exp()
    width = float(log_snr[1] - log_snr[0])
    least = float(wanted.sum() * width) ** 2
    assert float((wanted**2 / found).sum() * width) < 1.02 * least
    assert float((wanted**2).sum() * width) * 18.3 > 1.5 * least, "the straight line was far from it"


def test_in_a_continuous_process_the_loss_is_the_bound_and_moves_the_network_as_with_a_fixed_schedule():
    loss, t = choose("loss", "vlb"), T
    denoiser = denoiser_of(bent())
    fixed = copy.deepcopy(denoiser)
    fixed.schedule.requires_grad_(False)
    both = [loss(each, example_of(each, t)).loss for each in (denoiser, fixed)]
    assert torch.equal(*both)
    gradients = [
        torch.autograd.grad(value.mean(), list(each.network.parameters()), retain_graph=True)
        for value, each in zip(both, (denoiser, fixed), strict=True)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    moved = torch.autograd.grad(both[0].mean(), list(denoiser.schedule.parameters()))
    assert all(float(gradient.abs().max()) > 0 for gradient in moved)


def test_on_a_grid_its_gradient_is_that_of_the_bound():
    loss, denoiser = choose("loss", "vlb"), denoiser_of(bent(12).double())
    t = denoiser.schedule.grid()[1:]
    bound = loss(denoiser, example_of(denoiser, t)).loss.mean()
    parameters = list(denoiser.schedule.parameters())
    said, ends = torch.autograd.grad(bound, parameters), []
    way = [torch.randn(each.shape, generator=generator("way"), dtype=torch.float64) for each in parameters]
    for by in (1e-6, -1e-6):
        moved = copy.deepcopy(denoiser)
        with torch.no_grad():
            for each, step in zip(moved.schedule.parameters(), way, strict=True):
                each += by * step
            ends.append(float(loss(moved, example_of(moved, t)).loss.mean()))
    along = sum(float((gradient * step).sum()) for gradient, step in zip(said, way, strict=True))
    assert along == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("name", ["simple", "likelihood", "flow", "dsm", "esm"])
def test_an_objective_that_would_make_the_noise_easy_refuses_it(name):
    with pytest.raises(ValueError, match="learn the noise that is easy: set loss=vlb"):
        choose("loss", name).check(denoiser_of(LearnedSchedule()))


@pytest.mark.parametrize("name", ["importance", "log_snr_uniform", "lognormal", "entropy"])
def test_a_law_of_its_own_over_noise_levels_refuses_it(name):
    with pytest.raises(ValueError, match="set timesteps=uniform or stratified"):
        choose("timesteps", name).check(LearnedSchedule())
    choose("timesteps", name).check(choose("schedule", "vp"))


@pytest.mark.parametrize("wrong", [{"log_snr_min": 14.0}, {"log_snr_max": float("inf")}, {"width": 0}])
def test_ends_out_of_order_and_no_width_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        LearnedSchedule(**wrong)
