"""Training times by how much the noise there decides of the data."""

from typing import Any

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.losses.noise_laws import NoiseLaw
from scorelab.schedules import Schedule

EDGES = torch.linspace(-20, 14, 69, dtype=torch.float64)  # of cells of half a unit of log-SNR
FEWEST = 10  # errors in a cell before its mean is believed
KEPT = 0.99  # of what a cell knows, at each step that sees it again


class Entropy(NoiseLaw):
    """p(lambda) in proportion to 1/2 E||eps - E[eps | x_t]||^2, the rate at which x_t tells of x_0, and a uniform part.

    The rate is known where the law of the data is (``least``, by cells of log-SNR). Else the mean noise error of what
    was trained on stands for it, which lies above, forgetting a hundredth at each step; until a cell has seen ten
    errors it counts as the mean of the others. It is part of the objective unless told to ``divide`` (after arXiv
    2602.18647, which estimates the rate from the losses).

    Args:
        uniform: the share that is uniform over log-SNR from -20 to 14, as far as it is trained.
        divide: see ``NoiseLaw``.
        least: E||eps - E[eps | x_t]||^2 / d in the cells between ``EDGES``, (68,); None where it has to be learned.

    Raises:
        Refusal: for a share outside (0, 1].
    """

    def __init__(self, uniform: float = 0.1, divide: bool = False, least: Tensor | None = None) -> None:
        super().__init__(divide)
        if not 0 < uniform <= 1:
            raise Refusal(f"uniform must lie in (0, 1], got {uniform}")
        self.uniform, self.least = uniform, least
        self.sums, self.counts = torch.zeros(len(EDGES) - 1).double(), torch.zeros(len(EDGES) - 1).double()

    def get_extra_state(self) -> dict[str, Any]:
        """What was seen, for the checkpoint."""
        return {"sums": self.sums, "counts": self.counts}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.sums, self.counts = state["sums"].cpu(), state["counts"].cpu()

    def see(self, schedule: Schedule, t: Tensor, errors: Tensor | None) -> None:
        """Remember the errors (n,) seen at t (n,); those that are no numbers aside."""
        if self.least is not None or errors is None:
            return
        t, errors = t.detach().cpu().double(), errors.detach().cpu().double()
        t, errors = t[errors.isfinite()], errors[errors.isfinite()]
        cell = _cell(schedule.log_snr(t))
        seen = cell.bincount(minlength=len(self.counts)).double()
        kept = torch.where(seen > 0, KEPT, 1.0)
        self.sums = kept * self.sums + torch.zeros_like(self.sums).index_add_(0, cell, errors)
        self.counts = kept * self.counts + seen

    @property
    def density_by_cell(self) -> Tensor:
        """Per unit of log-SNR, (68,)."""
        known = self.least.double() if self.least is not None else self._learned()
        length = float(EDGES[1] - EDGES[0])
        flat = torch.full_like(known, 1 / (len(known) * length))
        return (1 - self.uniform) * known / (known.sum() * length) + self.uniform * flat

    def _learned(self) -> Tensor:
        sure = self.counts >= FEWEST
        if not bool(sure.any()):
            return torch.ones_like(self.sums)
        mean = self.sums / self.counts.clamp(min=1)
        return torch.where(sure, mean, mean[sure].mean()).clamp(min=1e-12)

    def pdf(self, place: Tensor) -> Tensor:
        """That of the cell."""
        inside = (place >= EDGES[0]) & (place <= EDGES[-1])
        return torch.where(inside, self.density_by_cell[_cell(place)], 0.0)

    def _mass(self) -> Tensor:
        """Below each edge."""
        length = float(EDGES[1] - EDGES[0])
        return torch.cat([torch.zeros(1).double(), (self.density_by_cell * length).cumsum(0)])

    def cdf(self, place: Tensor) -> Tensor:
        """Linear in each cell."""
        place = place.clamp(float(EDGES[0]), float(EDGES[-1]))
        cell = _cell(place)
        return self._mass()[cell] + (place - EDGES[cell]) * self.density_by_cell[cell]

    def quantile(self, mass: Tensor) -> Tensor:
        """Linear in each cell."""
        edges = self._mass()
        cell = (torch.searchsorted(edges, mass.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)
        return EDGES[cell] + (mass - edges[cell]) / self.density_by_cell[cell]


def _cell(place: Tensor) -> Tensor:
    """Which cell each log-SNR falls into; beyond the ends, the last there."""
    return (torch.bucketize(place, EDGES, right=True) - 1).clamp(0, len(EDGES) - 2)
