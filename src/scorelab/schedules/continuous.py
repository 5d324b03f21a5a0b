"""Schedules in closed form; with num_steps set, processes of T steps along them."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.schedules.base import VariancePreserving, log_sigmoid
from scorelab.schedules.discrete import Table, discretized
from scorelab.schedules.shift import shift_rate, shifted


class Curve(VariancePreserving):
    """alpha_bar(t) as a curve; with num_steps set, the table of its values at t_i = i / T, beta cut at ``beta_max``.

    The continuous process runs over the part of the curve where lambda, unshifted, lies between the ends of ``cut``,
    its time stretched to [0, 1].

    Raises:
        Refusal: for num_steps < 1.
    """

    cut: tuple[float, float]
    log_snr_ends = (-math.inf, 13.3)

    def __init__(self, num_steps: int | None, beta_max: float, log_snr_shift: float = 0.0) -> None:
        super().__init__(num_steps, log_snr_shift)
        self.path: Stretched | Table = (
            stretched(self) if num_steps is None else discretized(self.curve, num_steps, beta_max, log_snr_shift)
        )

    @abstractmethod
    def curve(self, place: Tensor) -> Tensor:
        """ln(alpha_bar) at places in [0, 1] of the curve, float64."""

    @abstractmethod
    def fall(self, place: Tensor) -> Tensor:
        """-d ln(alpha_bar) / d place."""

    @abstractmethod
    def on_curve(self, value: Tensor) -> Tensor:
        """The place where ln(alpha_bar) is this value."""

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Of the table, or of the curve's part."""
        return self.path.log_alpha_bar(t)

    def beta(self, t: Tensor) -> Tensor:
        """Of the table, or of the curve's part."""
        return self.path.beta(t)

    def at_log_alpha_bar(self, value: Tensor) -> Tensor:
        """Of the table, or of the curve's part."""
        return self.path.at_log_alpha_bar(value)


@dataclass(frozen=True)
class Stretched:
    """The part of a curve between the places ``first`` and ``last``, run through evenly as t goes from 0 to 1.

    Its log-SNR is the curve's and the curve's ``log_snr_shift``.
    """

    of: Curve
    first: float
    last: float

    def place(self, t: Tensor) -> Tensor:
        """The place on the curve at time t."""
        return self.first + t.to(torch.float64) * (self.last - self.first)

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """The curve's there, shifted."""
        return shifted(self.of.curve(self.place(t)), self.of.log_snr_shift)

    def beta(self, t: Tensor) -> Tensor:
        """The curve's slope there, per unit of t."""
        place = self.place(t)
        rate = shift_rate(self.of.curve(place), self.of.log_snr_shift)
        return self.of.fall(place) * rate * (self.last - self.first)

    def at_log_alpha_bar(self, value: Tensor) -> Tensor:
        """The time of the curve's place."""
        value = shifted(value, -self.of.log_snr_shift)
        return (self.of.on_curve(value) - self.first) / (self.last - self.first)


def stretched(curve: Curve) -> Stretched:
    """The part of a curve inside its ``cut``."""
    ends = log_sigmoid(torch.tensor(curve.cut, dtype=torch.float64))
    last, first = curve.on_curve(ends).tolist()
    return Stretched(curve, first if ends[1] < 0 else 0.0, last)


class Cosine(Curve):
    """alpha_bar = f(t) / f(0), f(t) = cos^2(pi/2 (t + s) / (1 + s)); beta cut at 0.999.

    Nichol & Dhariwal 2021, "Improved denoising diffusion probabilistic models", eq. 17. The continuous process ends
    at lambda = -20 and 20.

    Raises:
        Refusal: for a negative s.
    """

    cut = (-20.0, 20.0)

    def __init__(
        self, num_steps: int | None = 1000, s: float = 0.008, beta_max: float = 0.999, log_snr_shift: float = 0.0
    ) -> None:
        if not 0 <= s < math.inf:
            raise Refusal(f"s must be at least 0 and finite, got {s}")
        self.s = s
        if self._start == 1:
            raise Refusal(f"s={s} leaves the curve no room to fall: take it near 0.008")
        super().__init__(num_steps, beta_max, log_snr_shift)

    @property
    def _start(self) -> float:
        """sin^2 of the angle at 0."""
        return math.sin(self.s / (1 + self.s) * (math.pi / 2)) ** 2

    def _angle(self, place: Tensor) -> Tensor:
        return (place + self.s) / (1 + self.s) * (math.pi / 2)

    def curve(self, place: Tensor) -> Tensor:
        """The difference ln cos^2(angle) - ln cos^2(angle at 0), as ln(1 - sin^2) where that is near 0."""
        sine2 = torch.sin(self._angle(place)) ** 2
        log_cosine2 = torch.where(sine2 < 0.5, torch.log1p(-sine2), 2 * torch.log(torch.cos(self._angle(place))))
        return log_cosine2 - math.log1p(-self._start)

    def fall(self, place: Tensor) -> Tensor:
        """The tangent of the angle, times pi / (1 + s)."""
        return math.pi / (1 + self.s) * torch.tan(self._angle(place))

    def on_curve(self, value: Tensor) -> Tensor:
        """From cos^2(angle) = alpha_bar cos^2(angle at 0), by the sine where that is the smaller one."""
        sine2 = self._start - torch.expm1(value) * (1 - self._start)
        cosine2 = torch.exp(value) * (1 - self._start)
        return torch.atan2(torch.sqrt(sine2), torch.sqrt(cosine2)) * (2 / math.pi) * (1 + self.s) - self.s


class Sigmoid(Curve):
    """alpha_bar falls from 1 to 0 along a sigmoid between ``start`` and ``end``, never below 1e-9.

    alpha_bar(t) = (S(end/tau) - S((start + t (end - start))/tau)) / (S(end/tau) - S(start/tau)), S(x) = 1/(1 + e^-x)
    (Jabri et al. 2022, "Scalable adaptive computation for iterative generation", appendix B).

    Raises:
        Refusal: for start >= end, or tau <= 0.
    """

    cut = (math.log(1e-9) - math.log1p(-1e-9), math.inf)

    def __init__(
        self,
        num_steps: int | None = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        log_snr_shift: float = 0.0,
    ) -> None:
        if not (-math.inf < start < end < math.inf and 0 < tau < math.inf):
            raise Refusal(f"start must be below end and tau above 0, got start={start}, end={end}, tau={tau}")
        self.start, self.end, self.tau = start, end, tau
        super().__init__(num_steps, 1.0, log_snr_shift)

    def _sigmoids(self) -> tuple[float, float]:
        low, high = torch.sigmoid(torch.tensor([self.start, self.end], dtype=torch.float64) / self.tau).tolist()
        return low, high

    def curve(self, place: Tensor) -> Tensor:
        """ln(alpha_bar), from 1 - alpha_bar where that is the smaller one."""
        low, high = self._sigmoids()
        now = torch.sigmoid((self.start + place * (self.end - self.start)) / self.tau)
        fallen = torch.where(place > 0, (now - low).clamp(min=0), 0.0)  # exactly 0 at the data
        return torch.log1p((-fallen / (high - low)).clamp(min=1e-9 - 1))

    def fall(self, place: Tensor) -> Tensor:
        """S' (end - start) / (tau (S(end/tau) - S)), S' = S (1 - S)."""
        _, high = self._sigmoids()
        now = torch.sigmoid((self.start + place * (self.end - self.start)) / self.tau)
        return now * (1 - now) * (self.end - self.start) / (self.tau * (high - now))

    def on_curve(self, value: Tensor) -> Tensor:
        """From S = S(start/tau) + (1 - alpha_bar) (S(end/tau) - S(start/tau))."""
        low, high = self._sigmoids()
        now = low - torch.expm1(value) * (high - low)
        return (torch.logit(now) * self.tau - self.start) / (self.end - self.start)


class VP(VariancePreserving):
    """beta(t) = beta_start + t (beta_end - beta_start), ln(alpha_bar) = -t beta_start - t^2 (beta_end - beta_start)/2.

    Song et al. 2021, eq. 32-33 (where beta_start = 0.1, beta_end = 20): Ho et al.'s linear table as T goes to
    infinity. ``num_steps`` is None for the continuous process.

    Raises:
        Refusal: for num_steps < 1, or unless 0 < beta_start < beta_end.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        beta_start: float = 0.1,
        beta_end: float = 20.0,
        log_snr_shift: float = 0.0,
    ) -> None:
        super().__init__(num_steps, log_snr_shift)
        if not 0 < beta_start < beta_end < math.inf:
            raise Refusal(f"0 < beta_start < beta_end is needed, got {beta_start} and {beta_end}")
        self.beta_start, self.beta_end = beta_start, beta_end

    def _straight(self, t: Tensor) -> Tensor:
        """The integral of -beta, before the shift."""
        t = t.to(torch.float64)
        return -t * self.beta_start - t**2 * (self.beta_end - self.beta_start) / 2

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """The integral of -beta, shifted."""
        return shifted(self._straight(t), self.log_snr_shift)

    def beta(self, t: Tensor) -> Tensor:
        """Linear in t, where nothing is shifted."""
        straight = self.beta_start + t.to(torch.float64) * (self.beta_end - self.beta_start)
        return straight * shift_rate(self._straight(t), self.log_snr_shift)

    def at_log_alpha_bar(self, value: Tensor) -> Tensor:
        """The positive root: 2 c / (b + sqrt(b^2 + 2 c (beta_end - b))), b = beta_start, c = -value unshifted."""
        value = shifted(value, -self.log_snr_shift)
        root = torch.sqrt(self.beta_start**2 - 2 * value * (self.beta_end - self.beta_start))
        return -2 * value / (self.beta_start + root)
