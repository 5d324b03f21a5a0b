"""A log-SNR shift of a variance-preserving process, written in ln(alpha_bar): lambda becomes lambda + shift."""

import math

import torch
from torch import Tensor


def shifted(log_alpha_bar: Tensor, shift: float) -> Tensor:
    """ln(alpha_bar) where the log-SNR is larger by ``shift``; -shift undoes it.

    alpha_bar e^shift / (1 - alpha_bar + alpha_bar e^shift), which keeps its digits at either end.
    """
    return log_alpha_bar - torch.log1p(-torch.expm1(log_alpha_bar) * math.expm1(-shift))


def shift_rate(log_alpha_bar: Tensor, shift: float) -> Tensor:
    """The derivative of ``shifted`` in ln(alpha_bar): 1 / (1 - alpha_bar + alpha_bar e^shift)."""
    return 1 / (1 + torch.exp(log_alpha_bar) * math.expm1(shift))
