"""What a network, or an exact law, says of the data and of the noise in x_t."""

from scorelab.denoisers.base import Denoiser
from scorelab.denoisers.estimate import Estimate
from scorelab.denoisers.learned import X0, Eps, NetworkDenoiser, Prediction, V
from scorelab.denoisers.variance import FixedLarge, FixedSmall, Variance

__all__ = [
    "X0",
    "Denoiser",
    "Eps",
    "Estimate",
    "FixedLarge",
    "FixedSmall",
    "NetworkDenoiser",
    "Prediction",
    "V",
    "Variance",
]
