"""Laws that draw training times by their noise level, and are part of the objective unless told to divide."""

import math
from abc import abstractmethod

import torch
from torch import Generator, Tensor

from scorelab.errors import Refusal
from scorelab.losses.timesteps import Timesteps, TimestepSampler, of_rank
from scorelab.losses.weightings import positive
from scorelab.schedules import Schedule


class NoiseLaw(TimestepSampler):
    """A law over a place that falls with time, mostly the log-SNR, cut to the training times and renormalised.

    To write one: a subclass with ``pdf``, ``cdf`` and ``quantile``, of a place anywhere on the real line. On a grid
    p_i is the law's mass between the places of t_i and t_{i-1}; at i = 1, where that is endless, the density at t_1
    times the length of the interval of i = 2.

    Args:
        divide: whether samples are weighted by one over the density, which leaves the objective what it was; else the
            law is part of the objective, as where these laws were published.
    """

    def __init__(self, divide: bool = False) -> None:
        super().__init__()
        self.divides_by_density = divide

    @abstractmethod
    def pdf(self, place: Tensor) -> Tensor:
        """The density, per unit of place."""

    @abstractmethod
    def cdf(self, place: Tensor) -> Tensor:
        """The mass below."""

    @abstractmethod
    def quantile(self, mass: Tensor) -> Tensor:
        """The place below which this mass lies."""

    def place(self, schedule: Schedule, t: Tensor) -> Tensor:
        """Where times stand."""
        return schedule.log_snr(t)

    def time(self, schedule: Schedule, place: Tensor) -> Tensor:
        """The time that stands there."""
        return schedule.inverse(place)

    def fall(self, schedule: Schedule, t: Tensor) -> Tensor:
        """-d place / dt."""
        return schedule.g2(t) / schedule.sigma(t) ** 2

    def probabilities(self, schedule: Schedule) -> Tensor:
        """Those of the grid times t_1 ... t_T."""
        place = self.place(schedule, schedule.grid()[1:])
        between = (self.cdf(place[:-1]) - self.cdf(place[1:])).clamp(min=0)
        length = place[:1] - place[1:2] if len(place) > 1 else torch.ones_like(place)
        p = torch.cat([self.pdf(place[:1]) * length, between])
        if not float(p.sum()) > 0:
            raise Refusal(f"{type(self).__name__} gives no mass to the training times of this schedule")
        return p / p.sum()

    def ends(self, schedule: Schedule) -> Tensor:
        """The mass below the noisiest training time of a continuous process, and below the cleanest."""
        ends = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
        mass = self.cdf(self.place(schedule, ends))
        if not float(mass[1] - mass[0]) > 0:
            raise Refusal(f"{type(self).__name__} gives no mass to the training times of this schedule")
        return mass

    def relative(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The density relative to that of uniform training times, whether or not it is divided by."""
        if schedule.num_steps is not None:
            i = torch.round(t.double() * schedule.num_steps).long() - 1
            return schedule.num_steps * self.probabilities(schedule)[i]
        low, high = self.ends(schedule)
        return self.pdf(self.place(schedule, t)) / (high - low) * self.fall(schedule, t) * schedule.duration

    def density(self, schedule: Schedule, t: Tensor) -> Tensor:
        """1 where it divides."""
        return torch.ones_like(t, dtype=torch.float64) if self.divides_by_density else self.relative(schedule, t)

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Timesteps:
        """Independent times."""
        u = of_rank(torch.rand(n * world, generator=generator, dtype=torch.float64), n, rank)
        if schedule.num_steps is not None:
            mass = self.probabilities(schedule).cumsum(0)
            index = torch.searchsorted(mass, u.contiguous(), right=True).clamp(max=len(mass) - 1)
            t = (index + 1).double() / len(mass)
        else:
            low, high = self.ends(schedule)
            t = self.time(schedule, self.quantile(torch.lerp(high, low, u))).clamp(schedule.t_min, schedule.t_max)
        weight = 1 / self.relative(schedule, t) if self.divides_by_density else torch.ones(n, dtype=torch.float64)
        return Timesteps(t, weight)


class SplitLogNormal(NoiseLaw):
    """ln(sigma~) by two halves of normal laws about one centre, sigma~ = sigma / alpha = e^{-lambda/2}.

    The densities meet at the centre, so each side has mass in proportion to its own spread.

    Args:
        mean: the centre, in ln(sigma~).
        std_below: the spread where there is less noise.
        std_above: the spread where there is more.
        divide: see ``NoiseLaw``.

    Raises:
        Refusal: for a spread that is not above 0.
    """

    def __init__(
        self, mean: float = -1.2, std_below: float = 1.2, std_above: float = 1.2, divide: bool = False
    ) -> None:
        super().__init__(divide)
        if not abs(mean) < math.inf:
            raise Refusal(f"mean must be finite, got {mean}")
        self.centre = -2 * mean  # in log-SNR, where more noise is less
        self.low, self.high = 2 * positive("std_above", std_above), 2 * positive("std_below", std_below)
        self.share = self.low / (self.low + self.high)  # of the mass, below the centre

    def pdf(self, place: Tensor) -> Tensor:
        """That of either normal law, scaled to meet."""
        away = place - self.centre
        spread = torch.where(away < 0, self.low, self.high)
        return torch.exp(-0.5 * (away / spread) ** 2) * math.sqrt(2 / math.pi) / (self.low + self.high)

    def cdf(self, place: Tensor) -> Tensor:
        """Of the side that the place is on."""
        away = place - self.centre
        below = 2 * self.share * torch.special.ndtr(away / self.low)
        above = 1 - 2 * (1 - self.share) * torch.special.ndtr(-away / self.high)
        return torch.where(away < 0, below, above)

    def quantile(self, mass: Tensor) -> Tensor:
        """Of the side that the mass ends on."""
        below = self.low * torch.special.ndtri((mass / (2 * self.share)).clamp(max=0.5))
        above = -self.high * torch.special.ndtri(((1 - mass) / (2 * (1 - self.share))).clamp(max=0.5))
        return self.centre + torch.where(mass < self.share, below, above)


class LogNormal(SplitLogNormal):
    """ln(sigma~) ~ N(mean, std^2), sigma~ = sigma / alpha: EDM's P_mean and P_std (Karras et al. 2022, table 1).

    Raises:
        Refusal: for a std that is not above 0.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, divide: bool = False) -> None:
        super().__init__(mean, positive("std", std), std, divide)


class Laplace(NoiseLaw):
    """The log-SNR by e^{-|lambda - mean| / scale} / (2 scale) (Hang et al. 2024, "Improved noise schedule", table 1).

    Raises:
        Refusal: for a scale that is not above 0.
    """

    def __init__(self, mean: float = 0.0, scale: float = 0.5, divide: bool = False) -> None:
        super().__init__(divide)
        self.mean, self.scale = mean, positive("scale", scale)

    def pdf(self, place: Tensor) -> Tensor:
        """Falls evenly in its logarithm."""
        return torch.exp(-(place - self.mean).abs() / self.scale) / (2 * self.scale)

    def cdf(self, place: Tensor) -> Tensor:
        """Half of an exponential on either side."""
        tail = 0.5 * torch.exp(-(place - self.mean).abs() / self.scale)
        return torch.where(place < self.mean, tail, 1 - tail)

    def quantile(self, mass: Tensor) -> Tensor:
        """The logarithm of the smaller tail."""
        tail = torch.minimum(mass, 1 - mass)
        return self.mean + self.scale * torch.sign(mass - 0.5) * -torch.log(2 * tail)


class Cauchy(NoiseLaw):
    """The log-SNR by scale / (pi ((lambda - mean)^2 + scale^2)) (Hang et al. 2024, table 1).

    Raises:
        Refusal: for a scale that is not above 0.
    """

    def __init__(self, mean: float = 0.0, scale: float = 1.0, divide: bool = False) -> None:
        super().__init__(divide)
        self.mean, self.scale = mean, positive("scale", scale)

    def pdf(self, place: Tensor) -> Tensor:
        """Falls as the square of the distance."""
        return self.scale / (math.pi * ((place - self.mean) ** 2 + self.scale**2))

    def cdf(self, place: Tensor) -> Tensor:
        """By the angle under which it is seen."""
        return 0.5 + torch.atan((place - self.mean) / self.scale) / math.pi

    def quantile(self, mass: Tensor) -> Tensor:
        """By the tangent of the angle."""
        return self.mean + self.scale * torch.tan(math.pi * (mass - 0.5))


class LogitNormal(NoiseLaw):
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, "Scaling rectified flow transformers", eq. 19).

    A law of time itself: under ``flow``, of -lambda/2.

    Raises:
        Refusal: for a std that is not above 0.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, divide: bool = False) -> None:
        super().__init__(divide)
        self.mean, self.std = mean, positive("std", std)

    def place(self, schedule: Schedule, t: Tensor) -> Tensor:
        """-logit(t)."""
        return -torch.logit(t.double())

    def time(self, schedule: Schedule, place: Tensor) -> Tensor:
        """Back."""
        return torch.sigmoid(-place)

    def fall(self, schedule: Schedule, t: Tensor) -> Tensor:
        """1 / (t (1 - t))."""
        return 1 / (t.double() * (1 - t.double())).clamp(min=1e-300)  # at either end the density is 0 all the same

    def pdf(self, place: Tensor) -> Tensor:
        """Normal, about -mean."""
        away = (place + self.mean) / self.std
        return torch.exp(-0.5 * away**2) / (math.sqrt(2 * math.pi) * self.std)

    def cdf(self, place: Tensor) -> Tensor:
        """Normal."""
        return torch.special.ndtr((place + self.mean) / self.std)

    def quantile(self, mass: Tensor) -> Tensor:
        """Normal."""
        return self.std * torch.special.ndtri(mass) - self.mean
