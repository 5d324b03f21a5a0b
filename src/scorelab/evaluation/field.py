"""The score field of a denoiser of points in the plane, beside the exact one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Exact
from scorelab.evaluation.curves import bins_in_range

LOG_SNRS = (-3.0, 0.0, 3.0, 6.0)
REACH, SIDE = 1.5, 21  # of the plane x_t / alpha that is looked at: [-REACH, REACH]^2, SIDE points a side


@dataclass(frozen=True)
class Field:
    """At one log-SNR, over the plane x_t / alpha: sigma times the score of both, and the exact density.

    ``places``, ``said`` and ``exact`` are lists of (x, y), row by row from below; ``log_prob`` of log p_t in nats.
    """

    log_snr: float
    places: list[list[float]]
    said: list[list[float]]
    exact: list[list[float]]
    log_prob: list[float]


@torch.no_grad()
def score_fields(denoiser: Denoiser, law: Exact) -> list[Field]:
    """The fields at log-SNR -3, 0, 3 and 6, as far as the schedule reaches them; none where it reaches no bin.

    Of a conditional run, those of the first label.
    """
    low, high = denoiser.log_snr_range()
    reached = [value for value in LOG_SNRS if low <= value <= high] if bins_in_range(denoiser) else []
    return [_field(denoiser, law, value) for value in reached]


def _field(denoiser: Denoiser, law: Exact, log_snr: float) -> Field:
    axis = torch.linspace(-REACH, REACH, SIDE, dtype=torch.float64)
    places = torch.cartesian_prod(axis, axis).flip(1).to(denoiser.device)
    t = denoiser.schedule.inverse(torch.full((len(places),), log_snr, dtype=torch.float64, device=places.device))
    x_t: Tensor = (denoiser.schedule.alpha(t)[:, None] * places).float()
    label = torch.zeros(len(x_t), dtype=torch.long, device=x_t.device)  # told to those that ask for it
    said, exact = denoiser(x_t, t, label).eps, law(x_t, t, label).eps
    log_prob = law.posterior(x_t, t, label).log_prob
    return Field(log_snr, places.tolist(), (-said).tolist(), (-exact).tolist(), log_prob.tolist())
