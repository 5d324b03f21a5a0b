"""Where a walk stops on its way from noise to data."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal

NEAR = 1e-9  # a time just after 0, for processes that have noise left there
RHO = 7.0  # Karras et al. 2022, eq. 5


def trailing(denoiser: Denoiser, steps: int, earliest: float, latest: float) -> Tensor:
    """K / n for k = n ... 1, those within reach: t_T, t_{T - T/n}, ... of a grid; from the most noise there is."""
    walk = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    inside = walk[(walk >= earliest * (1 - NEAR)) & (walk < latest * (1 - NEAR))]
    return torch.cat([torch.tensor([latest], dtype=torch.float64), inside])


def leading(denoiser: Denoiser, steps: int, earliest: float, latest: float) -> Tensor:
    """t_1, t_{1 + r}, t_{1 + 2 r} ... with r = floor(T / n), backwards: it starts short of the most noise.

    As diffusers does by default; of a continuous process, n equal parts of the training times, from the start of each.
    """
    whole = denoiser.schedule.num_steps
    k = torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    if whole is None:
        return max(earliest, NEAR) + k * (latest - earliest) / steps
    if steps > whole:
        raise Refusal(f"sampler.spacing=leading has at most the schedule's own {whole} steps, got {steps}")
    return (1 + k * (whole // steps)) / whole


def uniform(denoiser: Denoiser, steps: int, earliest: float, latest: float) -> Tensor:
    """Evenly from the most noise to the least, both included."""
    return _between(latest, max(earliest, NEAR), steps)


def quadratic(denoiser: Denoiser, steps: int, earliest: float, latest: float) -> Tensor:
    """Evenly in sqrt(t): finer towards the data (Song et al. 2021, DDIM, appendix D.2)."""
    return _between(latest**0.5, max(earliest, NEAR) ** 0.5, steps) ** 2


def log_snr(denoiser: Denoiser, steps: int, earliest: float, latest: float) -> Tensor:
    """Evenly in the log-SNR (Lu et al. 2022, DPM-Solver, section 3.4)."""
    low, high = _reached(denoiser, earliest, latest)
    return _at(denoiser, _between(low, high, steps), earliest, latest)


def karras(denoiser: Denoiser, steps: int, earliest: float, latest: float) -> Tensor:
    """Evenly in (sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5)."""
    low, high = _reached(denoiser, earliest, latest)
    first, last = (math.exp(-0.5 * end / RHO) for end in (low, high))
    root = _between(first, last, steps)
    return _at(denoiser, -2 * RHO * torch.log(root), earliest, latest)


Spacing = Callable[[Denoiser, int, float, float], Tensor]
SPACINGS: dict[str, Spacing] = {
    each.__name__: each for each in (trailing, leading, uniform, quadratic, log_snr, karras)
}


def _between(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(first, last, steps, dtype=torch.float64)


def _reached(denoiser: Denoiser, earliest: float, latest: float) -> tuple[float, float]:
    """The least and greatest log-SNR of a walk, both finite.

    Raises:
        Refusal: where no signal is left at the end, so that there is no least one.
    """
    ends = torch.tensor([latest, max(earliest, NEAR)], dtype=torch.float64)
    low, high = denoiser.schedule.log_snr(ends).tolist()
    if low == -float("inf"):
        raise Refusal("this schedule ends without signal, at no log-SNR: set sampler.spacing=trailing")
    return low, high


def _at(denoiser: Denoiser, values: Tensor, earliest: float, latest: float) -> Tensor:
    """The times of these log-SNRs, the two ends exactly."""
    t = denoiser.schedule.inverse(values).clamp(max(earliest, NEAR), latest)
    t[0] = latest
    return t
