"""The least that the error of the noise can be on average, where the law of the data is known."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scorelab.denoisers import Exact
from scorelab.log_snr import BINS, LOWEST, WIDTH
from scorelab.tensors import generator

FOLD = 16  # draws of times that are kept before they are counted: together that takes no longer than for one
CHUNK = 64  # draws that the law is asked about together


class LeastError:
    """E||eps - E[eps | x_t]||^2 / d = S tr Var(x_0 | x_t) / d of a law by log-SNR, S the SNR.

    No denoiser's error is less on average. Measured once, on fresh draws of the law in 40 cells of log-SNR that cover
    what the schedule reaches of [-12, 12]: in a cell it is the mean, beyond the last one that of the last one.

    Args:
        exact: the law's denoiser.
        draws: in each cell.
    """

    @torch.no_grad()
    def __init__(self, exact: Exact, draws: int = 64) -> None:
        self.exact = exact
        noise, device = generator("floor"), exact.device
        low, high = exact.log_snr_range()
        low, high = max(low, LOWEST), min(high, LOWEST + BINS * WIDTH)
        self.edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64, device=device)
        place = torch.rand(draws, BINS, generator=noise, dtype=torch.float64).to(device)
        log_snr = self.edges[:-1] + place * self.edges.diff()
        t, drawn = exact.schedule.inverse(log_snr.flatten()), exact.law.draw(log_snr.numel(), noise)
        eps = torch.randn(drawn.x0.shape, generator=noise).to(device)
        x_t, label = exact.noised(drawn.x0.float().to(device), t, eps).x_t, drawn.label
        rows = torch.arange(len(t), device=device).split(CHUNK)
        said = [exact.posterior(x_t[some], t[some], None if label is None else label[some]) for some in rows]
        trace = torch.cat([posterior.trace for posterior in said])
        self.by_cell = (log_snr.exp() * trace.reshape(log_snr.shape)).mean(0) / eps[0].numel()

    def at(self, log_snr: Tensor) -> Tensor:
        """The mean (n,) of the cells that these log-SNRs (n,) fall into."""
        return self.by_cell[(torch.bucketize(log_snr.to(self.edges), self.edges) - 1).clamp(0, BINS - 1)]

    def cells(self, t: Tensor) -> Tensor:
        """Which cell each of these times (n,) falls into."""
        log_snr = self.exact.schedule.log_snr(t.to(self.edges.device))
        return (torch.bucketize(log_snr, self.edges) - 1).clamp(0, BINS - 1)


class LeastOfDrawn:
    """The mean of the least error over the times that were drawn: their number by cell, which says all of it.

    So it is the same whenever a run was interrupted. Nothing of it waits for the device before ``take``.
    """

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []
        self.counts = torch.zeros(BINS, dtype=torch.long)

    def add(self, t: Tensor, least: LeastError) -> None:
        """Times (n,) that were drawn."""
        self.waiting.append(t)
        if len(self.waiting) >= FOLD:
            self._count(least)

    @torch.no_grad()
    def _count(self, least: LeastError) -> None:
        found = least.cells(torch.cat(self.waiting))
        self.counts = self.counts.to(found.device) + torch.bincount(found, minlength=BINS)
        self.waiting = []

    def take(self, least: LeastError) -> float | None:
        """The mean; begins anew. None where no times were drawn."""
        if self.waiting:
            self._count(least)
        counts, self.counts = self.counts.double(), torch.zeros_like(self.counts)
        return float(counts @ least.by_cell / counts.sum()) if bool(counts.any()) else None

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"waiting": self.waiting, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.waiting, self.counts = list(state["waiting"]), state["counts"]

    def to(self, device: torch.device) -> None:
        """What a checkpoint brought is the CPU's."""
        self.waiting, self.counts = [t.to(device) for t in self.waiting], self.counts.to(device)
