"""Our samplers beside diffusers' schedulers: the same table, network, start and noise end in the same samples."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact_cases import normal, seeded
from torch import Tensor, nn

from scorelab.denoisers import Eps, FixedLarge, FixedSmall, NetworkDenoiser
from scorelab.samplers import DDIM, DDPM, Ask, DPMpp2M, Euler, Heun, Sampler
from scorelab.schedules import Cosine, Linear, Schedule, Table

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install scorelab[parity]")

T, STEPS = 1000, 20
LINEAR = {"num_train_timesteps": T, "beta_schedule": "linear"}


def predicted(x: Tensor, i: Tensor | float) -> Tensor:
    """What the network says of x_t at i = t + 1: smooth, of about unit size, no denoiser of anything."""
    return torch.tanh(1.5 * x + torch.sin(torch.as_tensor(i, dtype=x.dtype) / 150).reshape(-1, 1)) * 0.9


class Network(nn.Module):
    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None = None) -> Tensor:
        return predicted(x, condition)


def theirs(scheduler) -> Table:
    """Our table of their alphas_cumprod, in float64."""
    alpha_bar = torch.cat([torch.ones(1).double(), scheduler.alphas_cumprod.double()])
    return Table(1 - alpha_bar[1:] / alpha_bar[:-1])


def denoiser(schedule: Schedule, clip: bool, variance=None) -> NetworkDenoiser:
    return NetworkDenoiser(schedule, Network(), Eps(), variance or FixedSmall(), levels=256 if clip else None)


def times(scheduler) -> Tensor:
    """Those of a scheduler's list, each once, and 0."""
    steps = dict.fromkeys(float(t) for t in scheduler.timesteps)
    return torch.tensor([*((t + 1) / T for t in steps), 0.0], dtype=torch.float64)


def ours(sampler: Sampler, of: NetworkDenoiser, walk: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        return sampler.walk(Ask(of, clip=sampler.clip), x, walk, seeded(9))


def in_x(scheduler, x: Tensor, step: Callable) -> Tensor:
    """A scheduler's walk in x_t itself."""
    for t in scheduler.timesteps:
        x = step(predicted(x, float(t) + 1), t, x).prev_sample
    return x


def in_sigma(scheduler, x: Tensor, alpha: float) -> Tensor:
    """A scheduler's walk in x / alpha, which it scales itself before the network is asked."""
    x = x / alpha
    for t in scheduler.timesteps:
        x = scheduler.step(predicted(scheduler.scale_model_input(x, t), float(t) + 1), t, x).prev_sample
    return x


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("variance", "large", "spacing"),
    [("fixed_small", False, "trailing"), ("fixed_small", False, "leading"), ("fixed_large", True, "leading")],
)
def test_ddpm(variance: str, large: bool, spacing: str, clip: bool) -> None:
    """Not the large variance on a trailing list: there theirs adds noise at the last step, as ours never does."""
    scheduler = diffusers.DDPMScheduler(**LINEAR, variance_type=variance, clip_sample=clip, timestep_spacing=spacing)
    scheduler.set_timesteps(STEPS)
    of = denoiser(theirs(scheduler), clip, FixedLarge() if large else FixedSmall())
    sampler, x, draws = DDPM(STEPS, clip=clip, spacing=spacing), normal(6, 5), seeded(9)
    assert torch.allclose(sampler.times(of), times(scheduler), atol=1e-12)
    found = in_x(scheduler, x, lambda out, t, now: scheduler.step(out, t, now, generator=draws))
    assert torch.allclose(ours(sampler, of, times(scheduler), x), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim(eta: float, spacing: str, clip: bool) -> None:
    """Theirs recomputes the noise after clipping where it is told to, as ours always does."""
    scheduler = diffusers.DDIMScheduler(**LINEAR, clip_sample=clip, timestep_spacing=spacing)
    scheduler.set_timesteps(STEPS)
    of = denoiser(theirs(scheduler), clip)
    sampler, x, draws = DDIM(STEPS, eta, clip=clip, spacing=spacing), normal(6, 5), seeded(9)
    assert torch.allclose(sampler.times(of), times(scheduler), atol=1e-12)

    def step(out: Tensor, t: Tensor, now: Tensor):
        return scheduler.step(out, t, now, eta=eta, use_clipped_model_output=True, generator=draws)

    # at the last step theirs would add noise of no variance, and draws none of it
    assert torch.allclose(ours(sampler, of, times(scheduler), x), in_x(scheduler, x, step), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_dpm_solver_plus_plus_2m(spacing: str) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(**LINEAR, timestep_spacing=spacing)
    scheduler.set_timesteps(STEPS)
    of, x = denoiser(theirs(scheduler), False), normal(6, 5)
    if spacing == "trailing":
        assert torch.allclose(DPMpp2M(STEPS).times(of), times(scheduler), atol=1e-12)
    found = in_x(scheduler, x, scheduler.step)
    assert torch.allclose(ours(DPMpp2M(STEPS), of, times(scheduler), x), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize(
    ("make", "name"), [(Euler, "EulerDiscreteScheduler"), (Heun, "HeunDiscreteScheduler")], ids=["euler", "heun"]
)
def test_euler_and_heun(make: Callable[..., Sampler], name: str, spacing: str) -> None:
    scheduler = getattr(diffusers, name)(**LINEAR, timestep_spacing=spacing)
    scheduler.set_timesteps(STEPS)
    table, x = theirs(scheduler), normal(6, 5)
    walk = times(scheduler)
    alpha = float(table.alpha(walk[:1]))
    sampler = make(STEPS, spacing=spacing)
    assert torch.allclose(sampler.times(denoiser(table, False)), walk, atol=1e-9)
    found = in_sigma(scheduler, x, alpha)
    assert torch.allclose(ours(sampler, denoiser(table, False), walk, x), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "name", "least"),
    [
        (Linear(T), "linear", 0),
        (Cosine(T), "squaredcos_cap_v2", 0),
    ],
)
def test_tables(made: Schedule, name: str, least: int) -> None:
    """Theirs is in float32, so ours is only held to that."""
    told = diffusers.DDPMScheduler(num_train_timesteps=T, beta_schedule=name).alphas_cumprod.double()
    found = made.alpha(made.grid()[1:]) ** 2
    # where alpha_bar is next to nothing, cumulated rounding of float32 is all there is
    here = told > 1e-3
    assert np.allclose(found[here], told[here], rtol=1e-5)


def test_zero_terminal_snr_is_theirs() -> None:
    from scorelab.schedules import LinearZeroSNR

    told = diffusers.DDPMScheduler(**LINEAR, rescale_betas_zero_snr=True).alphas_cumprod.double()
    found = LinearZeroSNR(T).alpha(LinearZeroSNR(T).grid()[1:]) ** 2
    here = told > 1e-3
    assert np.allclose(found[here], told[here], rtol=1e-4)
    assert float(found[-1]) == 0
