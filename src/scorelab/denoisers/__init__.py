"""What a network, or an exact law, says of the data and of the noise in x_t."""

from scorelab.denoisers.base import Denoiser, Rescheduled
from scorelab.denoisers.boxes import Boxes
from scorelab.denoisers.estimate import Estimate
from scorelab.denoisers.exact import Drawn, Exact, Law, Posterior
from scorelab.denoisers.finite_set import FiniteSet
from scorelab.denoisers.learned import X0, Eps, NetworkDenoiser, Prediction, V, ends_without_signal
from scorelab.denoisers.mixture import GaussianMixture, LowRankMixture
from scorelab.denoisers.variance import FixedLarge, FixedSmall, Learned, Variance

__all__ = [
    "X0",
    "Boxes",
    "Denoiser",
    "Drawn",
    "Eps",
    "Estimate",
    "Exact",
    "FiniteSet",
    "FixedLarge",
    "FixedSmall",
    "GaussianMixture",
    "Law",
    "Learned",
    "LowRankMixture",
    "NetworkDenoiser",
    "Posterior",
    "Prediction",
    "Rescheduled",
    "V",
    "Variance",
    "ends_without_signal",
]
