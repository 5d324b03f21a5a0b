"""What a network, or an exact law, says of the data and of the noise in x_t."""

from scorelab.denoisers.base import Denoiser, Rescheduled
from scorelab.denoisers.estimate import Estimate, Rates
from scorelab.denoisers.exact import Exact
from scorelab.denoisers.parameterization import (
    X0,
    Eps,
    NetworkDenoiser,
    NetworkInput,
    Parameterization,
    V,
    ends_without_signal,
)
from scorelab.denoisers.variance import FixedLarge, FixedSmall, Learned, Variance

__all__ = [
    "X0",
    "Denoiser",
    "Eps",
    "Estimate",
    "Exact",
    "FixedLarge",
    "FixedSmall",
    "Learned",
    "NetworkDenoiser",
    "NetworkInput",
    "Parameterization",
    "Rates",
    "Rescheduled",
    "V",
    "Variance",
    "ends_without_signal",
]
