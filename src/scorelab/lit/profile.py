"""Averages of weights under a power of time: what each step counts for, and one average put together from others.

Numbers of equations are those of Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion
models", arXiv 2312.02696, as its authors' code names them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.errors import Refusal

LONGEST = 12**-0.5  # sigma_rel of gamma = 0: the plain mean of all steps
SHORTEST = 0.005  # that is looked at when it is told what can be put together


@dataclass(frozen=True)
class Profile:
    """What the weights theta_t of the past, t in (0, n], count for in an average after n steps (eq. 121):

        p(t) = (gamma + 1) t^gamma / n^(gamma + 1).

    It begins at 0, so the random start is forgotten, and has one shape however far training is. Its length is told as
    its standard deviation over n (eq. 123),

        sigma_rel = sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2),    at most 1/sqrt(12), where gamma = 0.

    Args:
        step: n.
        sigma_rel: the length as a share of n.

    Raises:
        Refusal: for a length outside (0, 1/sqrt(12)].
    """

    step: int
    sigma_rel: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma_rel <= LONGEST:
            raise Refusal(
                f"sigma_rel must lie in (0, {LONGEST:.4f}], the plain mean of all steps, got {self.sigma_rel}"
            )

    @property
    def gamma(self) -> float:
        """The exponent: with s = sigma_rel^-2, the largest root (eq. 126) of

        gamma^3 + 7 gamma^2 + (16 - s) gamma + (12 - s) = 0;

        for y = gamma + 7/3 it is y^3 + p y + q = 0 with three real roots, of which Viète's formula tells the largest.
        """
        s = self.sigma_rel**-2
        p, q = -(s + 1 / 3), 2 / 27 + 4 * s / 3
        angle = math.acos(max(-1.0, 1.5 * q / p * math.sqrt(-3 / p)))
        return max(0.0, 2 * math.sqrt(-p / 3) * math.cos(angle / 3) - 7 / 3)

    @property
    def decay(self) -> float:
        """(1 - 1/n)^(gamma + 1): beta of theta_avg <- beta theta_avg + (1 - beta) theta at step n (eq. 127)."""
        return float((1 - 1 / self.step) ** (self.gamma + 1))

    def weights(self) -> Tensor:
        """What the weights after steps 1 ... n count for, float64 (n,): the mass of p on (k - 1, k].

        (k/n)^(gamma + 1) - ((k - 1)/n)^(gamma + 1), which is what the decays of steps 1 ... n multiply to; their sum
        telescopes to 1.
        """
        return (torch.arange(self.step + 1, dtype=torch.float64) / self.step).pow(self.gamma + 1).diff()


def inner(some: Sequence[Profile], others: Sequence[Profile]) -> Tensor:
    """The integrals of p_a p_b over the past that both have, float64 (A, B) (eq. 151), m = min(n_a, n_b):

    (gamma_a + 1)(gamma_b + 1) / (gamma_a + gamma_b + 1) (m/n_a)^(gamma_a + 1) (m/n_b)^(gamma_b + 1) / m.
    """
    (n, a), (k, b) = (
        torch.tensor([(each.step, each.gamma + 1) for each in either], dtype=torch.float64).unbind(1)
        for either in (some, others)
    )
    n, a, least = n[:, None], a[:, None], torch.minimum(n[:, None], k)
    return a * b / (a + b - 1) * (least / n) ** a * (least / k) ** b / least


@dataclass(frozen=True)
class Fit:
    """A profile as a sum of others.

    Attributes:
        coefficients: of those, float64 (N,); they sum to 1.
        error: ||sum_i x_i p_i - p|| / ||p||: the part of the profile that is missed. Were the weights of each step
            independent about one mean, the average's deviation from it would be off by this part of its own.
    """

    coefficients: Tensor
    error: float


def fit(profiles: Sequence[Profile], wanted: Profile) -> Fit:
    """The sum of profiles nearest to another, by least squares in float64 (algorithm 3 of the paper):

        min_x || sum_i x_i p_i - p ||^2,    sum_i x_i = 1.

    The condition, which the authors' code sees to by dividing afterwards, is part of the problem here (one multiplier).
    Each profile is taken in units of its own norm.
    """
    count, pairs = len(profiles), inner([*profiles, wanted], [*profiles, wanted])
    norm = (pairs.diagonal()[:count] / pairs[-1, -1]).sqrt()  # against the wanted profile's own
    angles = pairs / pairs.diagonal().sqrt().outer(pairs.diagonal().sqrt())
    gram, told = angles[:count, :count], angles[:count, -1]
    system = torch.zeros(count + 1, count + 1, dtype=torch.float64)
    system[:count, :count] = gram
    system[:count, count] = system[count, :count] = 1 / norm
    scaled = torch.linalg.solve(system, torch.cat([told, torch.ones(1, dtype=torch.float64)]))[:count]
    missed = float(scaled @ gram @ scaled - 2 * scaled @ told + 1)
    return Fit(scaled / norm, math.sqrt(max(0.0, missed)))


def spanned(profiles: Sequence[Profile], step: int, most: float) -> list[tuple[float, float]]:
    """Between which lengths the profiles after n steps are missed by no more than ``most``, in thousandths."""
    lengths = [k / 1000 for k in range(round(1000 * SHORTEST), math.floor(1000 * LONGEST) + 1)]
    found: list[tuple[float, float]] = []
    for length in (each for each in lengths if fit(profiles, Profile(step, each)).error <= most):
        if found and length - found[-1][1] < 0.0015:
            found[-1] = (found[-1][0], length)
        else:
            found.append((length, length))
    return found
