"""A denoiser that is led further towards a label than the data are."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from scorelab.denoisers.base import Denoiser
from scorelab.denoisers.estimate import Estimate
from scorelab.errors import Refusal
from scorelab.tensors import like

NO_LABEL = -1


class Guided(Denoiser):
    """eps^ = eps^(no label) + scale (eps^(label) - eps^(no label)), and x^_0 alike (Ho & Salimans 2022, eq. 6).

    ``scale`` 1 is the conditional denoiser itself, 0 the one without labels; their w is scale - 1. Where the log-SNR is
    outside of [low, high] it is 1 (Kynkaanniemi et al. 2024, "Applying guidance in a limited interval"). Both come from
    one network that was trained with and without labels, or from the exact denoiser of a law with labels. The result
    is no posterior mean: samplers take it, errors and likelihoods do not.

    Raises:
        Refusal: for a scale that is no number, or an empty interval.
    """

    def __init__(self, inner: Denoiser, scale: float, low: float = -math.inf, high: float = math.inf) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        if not abs(scale) < math.inf:
            raise Refusal(f"guidance must be finite, got {scale}")
        if not low < high:
            raise Refusal(f"guidance is between log-SNR {low} and {high}, which is nowhere")
        self.inner, self.scale, self.low, self.high = inner, scale, low, high

    @property
    def evaluations(self) -> int:
        """Twice the inner one's: with the label, and without."""
        return 2 * self.inner.evaluations

    @property
    def guided(self) -> bool:
        """It is."""
        return True

    def time_range(self) -> tuple[float, float]:
        """The inner one's."""
        return self.inner.time_range()

    def log_snr_range(self) -> tuple[float, float]:
        """The inner one's."""
        return self.inner.log_snr_range()

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The mixture at times t (B,).

        Raises:
            Refusal: without labels.
        """
        if label is None:
            raise Refusal("guidance leads towards a label: give labels")
        told = self.inner(x_t, t, label)
        scale: float | Tensor = self.scale
        if (self.low, self.high) != (-math.inf, math.inf):  # or else a GPU need not be waited for
            log_snr = self.schedule.at(t).log_snr
            inside = (log_snr >= self.low) & (log_snr <= self.high)
            if not bool(inside.any()):
                return told
            scale = like(torch.where(inside, self.scale, 1.0), x_t)
        free = self.inner(x_t, t, torch.full_like(label, NO_LABEL))
        return replace(told, x0=free.x0 + scale * (told.x0 - free.x0), eps=free.eps + scale * (told.eps - free.eps))
