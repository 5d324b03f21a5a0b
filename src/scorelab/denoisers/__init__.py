"""What a network, or an exact law, says of the data and of the noise in x_t."""

from scorelab.denoisers.base import Denoiser, Rescheduled
from scorelab.denoisers.estimate import Estimate, Rates
from scorelab.denoisers.exact import BestLinear, Exact, gaussian
from scorelab.denoisers.guided import NO_LABEL, Guided
from scorelab.denoisers.parameterization import NetworkDenoiser, NetworkInput, Parameterization
from scorelab.denoisers.predictions import (
    X0,
    Eps,
    Mu,
    Preconditioned,
    Score,
    V,
    Velocity,
    ends_without_signal,
    has_velocity,
)
from scorelab.denoisers.variance import FixedLarge, FixedSmall, Learned, LearnedFree, Variance

__all__ = [
    "NO_LABEL",
    "X0",
    "BestLinear",
    "Denoiser",
    "Eps",
    "Estimate",
    "Exact",
    "FixedLarge",
    "FixedSmall",
    "Guided",
    "Learned",
    "LearnedFree",
    "Mu",
    "NetworkDenoiser",
    "NetworkInput",
    "Parameterization",
    "Preconditioned",
    "Rates",
    "Rescheduled",
    "Score",
    "V",
    "Variance",
    "Velocity",
    "ends_without_signal",
    "gaussian",
    "has_velocity",
]
