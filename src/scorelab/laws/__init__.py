"""Laws of x_0 whose posterior given x_t is known in closed form."""

from scorelab.laws.base import Drawn, Law, Moments, Posterior
from scorelab.laws.boxes import Boxes
from scorelab.laws.embedded import Embedding
from scorelab.laws.finite_set import FiniteSet
from scorelab.laws.mixture import GaussianMixture, LowRankMixture

__all__ = [
    "Boxes",
    "Drawn",
    "Embedding",
    "FiniteSet",
    "GaussianMixture",
    "Law",
    "LowRankMixture",
    "Moments",
    "Posterior",
]
