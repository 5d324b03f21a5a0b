"""Whether one of two settings is better: paired over seeds, corrected for how many are compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEWEST = 3  # seeds: with fewer nothing is called better
LEVEL = 0.95
ROUNDING = 1e-14  # of a value: equal ones have a mean that is off by this


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, its standard error (None of one), and of how many it is."""

    value: float
    se: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean | None":
        """Sd / sqrt(n) with n - 1 in the variance; None of nothing."""
        n = len(values)
        if not n:
            return None
        mean = math.fsum(values) / n
        if n == 1:
            return cls(mean, None, 1)
        se = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
        return cls(mean, se if se > ROUNDING * max(map(abs, values)) else 0.0, n)


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences over ``n`` common seeds, its 95 % interval, Student's two-sided p.

    Interval and p are None below three seeds, where two say next to nothing of how much seeds differ, and where the
    difference is the same for every seed and not 0.
    """

    mean: float
    n: int
    low: float | None = None
    high: float | None = None
    p: float | None = None


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Difference | None:
    """Ours - theirs, by seed: mean +- t_{0.975, n-1} sd / sqrt(n); None without a common seed."""
    mean = Mean.of([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    if mean is None or mean.se is None or mean.n < FEWEST:
        return None if mean is None else Difference(mean.value, mean.n)
    from scipy.special import stdtr, stdtrit  # takes half a second, and a look at how runs stand needs no test

    freedom = mean.n - 1
    reach = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * mean.se
    if mean.se == 0:  # the very same for every seed: equal runs, or a number in coarse steps, of which t knows nothing
        return Difference(0.0, mean.n, 0.0, 0.0, 1.0) if mean.value == 0 else Difference(mean.value, mean.n)
    p = float(2 * stdtr(freedom, -abs(mean.value) / mean.se))
    return Difference(mean.value, mean.n, mean.value - reach, mean.value + reach, p)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for how many there are: sorted, p_(i) (m - i + 1), never falling, at most 1.

    All of them below 0.05 by chance alone has a probability below 0.05, however they depend on each other (Holm,
    1979). One that is None was no test and is not counted.
    """
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        adjusted[place] = least
    return adjusted


def improvement(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float | None:
    """P(ours < theirs), of a run drawn from each, ties half: the mean over tasks of the Mann-Whitney share.

    ``ours[k]`` and ``theirs[k]`` are the runs of task k (Agarwal et al., 2021, "Deep RL at the edge of the statistical
    precipice", section 4.3). A task that lacks one of the two does not count; None where none is left.
    """
    shares = [
        sum((a < b) + 0.5 * (a == b) for a in mine for b in others) / (len(mine) * len(others))
        for mine, others in zip(ours, theirs, strict=True)
        if mine and others
    ]
    return math.fsum(shares) / len(shares) if shares else None
