"""T-step schedules: tables of beta_i, read between their grid points."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.schedules.base import VariancePreserving
from scorelab.schedules.shift import shifted


class Table(VariancePreserving):
    """A variance-preserving process given by beta_1 ... beta_T: alpha_bar_i = prod_{j <= i} (1 - beta_j).

    alpha^2 = alpha_bar, sigma^2 = 1 - alpha_bar (Ho et al. 2020, eq. 4). Between grid points ln(alpha_bar) is
    linear in t, that is beta(t) = -T ln(1 - beta_i) on the interval (t_{i-1}, t_i]; so every t has an exact inverse.
    beta_T may be 1, which leaves no signal at t = 1: in that last interval alpha_bar itself is linear. All in float64.

    Args:
        betas: beta_1 ... beta_T, each in (0, 1), the last in (0, 1].
        log_snr_shift: what is added to the log-SNR at every grid point.

    Raises:
        Refusal: when a beta lies outside.
    """

    log_snr_ends = (-math.inf, 13.3)
    grid_log_alpha_bar: Tensor

    def __init__(self, betas: Tensor, log_snr_shift: float = 0.0) -> None:
        super().__init__(len(betas), log_snr_shift)
        betas = betas.to(torch.float64)
        if not bool(((betas > 0) & (betas < 1))[:-1].all() and 0 < betas[-1] <= 1):
            raise Refusal(f"a beta of this schedule lies outside (0, 1) at num_steps={len(betas)}")
        table = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
        self.register_buffer("grid_log_alpha_bar", shifted(table, log_snr_shift), persistent=False)

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The index i - 1 of the interval (t_{i-1}, t_i] that holds t, and the place within it in [0, 1]."""
        steps = len(self.grid_log_alpha_bar) - 1
        place = t.to(torch.float64) * steps
        # i/T times T may come out a rounding above i, which still belongs to the interval that ends there
        left = (torch.ceil(place - 1e-9) - 1).clamp(0, steps - 1)
        return left.long(), place - left

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Linear between ln(alpha_bar_{i-1}) and ln(alpha_bar_i)."""
        falling, (left, share) = self.grid_log_alpha_bar.to(t.device), self._interval(t)
        first, last = falling[left], falling[left + 1]
        even = torch.lerp(first, torch.where(last.isfinite(), last, first), share)
        return torch.where(last.isfinite(), even, first + torch.log1p(-share.clamp(max=1)))

    def beta(self, t: Tensor) -> Tensor:
        """-T ln(1 - beta_i) on the interval that ends at t_i."""
        falling, (left, share) = self.grid_log_alpha_bar.to(t.device), self._interval(t)
        first, last = falling[left], falling[left + 1]
        return (len(falling) - 1) * torch.where(last.isfinite(), first - last, 1 / (1 - share.clamp(max=1)))

    def at_log_alpha_bar(self, value: Tensor) -> Tensor:
        """Solved on the interval that holds it: exact, no iteration."""
        falling = self.grid_log_alpha_bar.to(value.device)
        left = (torch.searchsorted(-falling, -value, right=True) - 1).clamp(0, len(falling) - 2)
        first, last = falling[left], falling[left + 1]
        share = torch.where(last.isfinite(), (value - first) / (last - first), -torch.expm1(value - first))
        return (left + share) / (len(falling) - 1)


def discretized(
    curve: Callable[[Tensor], Tensor], num_steps: int, beta_max: float = 1.0, log_snr_shift: float = 0.0
) -> Table:
    """The T-step process through the points of a curve at t_i = i / T.

    Its beta_i = 1 - alpha_bar(t_i) / alpha_bar(t_{i-1}) is cut at ``beta_max`` and multiplied up again.

    Args:
        curve: ln(alpha_bar) at times in [0, 1], in float64: the ``log_alpha_bar`` of any schedule, whose x_t is divided
            by sqrt(alpha^2 + sigma^2) where that is not 1.
        num_steps: T.
        beta_max: where beta is cut.
        log_snr_shift: what is added to the log-SNR of the table.

    Raises:
        Refusal: when a beta lies outside (0, 1).
    """
    value = curve(torch.arange(num_steps + 1, dtype=torch.float64) / num_steps)
    return Table((-torch.expm1(value.diff())).clamp(max=beta_max), log_snr_shift)


def ends(num_steps: int, beta_start: float, beta_end: float) -> tuple[float, float]:
    """Both ends for T steps, given those for 1000: each times 1000 / T, so that the process stays the same.

    Raises:
        Refusal: for T < 1, a beta that is not above 0, and where beta_T would reach 1.
    """
    if num_steps < 1:
        raise Refusal(f"num_steps must be at least 1, got {num_steps}")
    if not (beta_start > 0 and beta_end > 0):
        raise Refusal(f"beta_start and beta_end must be above 0, got {beta_start} and {beta_end}")
    first, last = beta_start * 1000 / num_steps, beta_end * 1000 / num_steps
    if max(first, last) >= 1:
        raise Refusal(
            f"beta reaches {max(first, last):.2g} at num_steps={num_steps}: take more steps, or schedule=cosine"
        )
    return first, last


class Linear(Table):
    """beta rises linearly from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020, section 4), both times 1000 / T.

    Raises:
        Refusal: for T <= 20, where beta_T would reach 1.
    """

    def __init__(
        self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, log_snr_shift: float = 0.0
    ) -> None:
        first, last = ends(num_steps, beta_start, beta_end)
        super().__init__(torch.linspace(first, last, num_steps, dtype=torch.float64), log_snr_shift)


class ScaledLinear(Table):
    """sqrt(beta) rises linearly between the roots of the same ends (Rombach et al. 2022, latent diffusion's code).

    Raises:
        Refusal: for T <= 20, where beta_T would reach 1.
    """

    def __init__(
        self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, log_snr_shift: float = 0.0
    ) -> None:
        first, last = ends(num_steps, beta_start, beta_end)
        super().__init__(torch.linspace(first**0.5, last**0.5, num_steps, dtype=torch.float64) ** 2, log_snr_shift)


class Warmup(Table):
    """beta rises linearly from 1e-4 to 0.02 over the first ``warmup`` of the steps, then stays; both times 1000 / T.

    Ho et al. 2020's code: warmup10, warmup50, and, with ``warmup`` of 0, const.

    Raises:
        Refusal: for T <= 20, where beta_T would reach 1, or a share outside [0, 1].
    """

    def __init__(
        self,
        num_steps: int = 1000,
        warmup: float = 0.1,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        log_snr_shift: float = 0.0,
    ) -> None:
        if not 0 <= warmup <= 1:
            raise Refusal(f"warmup is a share of the steps, in [0, 1], got {warmup}")
        first, last = ends(num_steps, beta_start, beta_end)
        betas = torch.full((num_steps,), last, dtype=torch.float64)
        rising = int(num_steps * warmup)
        betas[:rising] = torch.linspace(first, last, rising, dtype=torch.float64)
        super().__init__(betas, log_snr_shift)


class JSD(Table):
    """beta_i = 1 / (T - i + 1): 1/T, 1/(T-1), ..., 1, so alpha_bar_i = 1 - i/T (Ho et al. 2020's code).

    (Sohl-Dickstein et al. 2015, section 2.4.1, for binary data.) It ends without signal: the noise cannot be predicted
    there, nor its error be trained on.
    """

    def __init__(self, num_steps: int = 1000, log_snr_shift: float = 0.0) -> None:
        if num_steps < 1:
            raise Refusal(f"num_steps must be at least 1, got {num_steps}")
        super().__init__(1 / torch.arange(num_steps, 0, -1, dtype=torch.float64), log_snr_shift)


class LinearZeroSNR(Table):
    """The linear table's sqrt(alpha_bar), moved to end at 0 and stretched to begin where it did.

    s_i = (r_i - r_T) r_1 / (r_1 - r_T), r_i the table's sqrt(alpha_bar_i), beta_i = 1 - s_i^2 / s_{i-1}^2 (Lin et al.
    2024, "Common diffusion noise schedules and sample steps are flawed", algorithm 1). It ends without signal: the
    noise cannot be predicted there, nor its error be trained on.

    Raises:
        Refusal: for T <= 20, where beta_T of the linear table would reach 1.
    """

    def __init__(
        self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, log_snr_shift: float = 0.0
    ) -> None:
        first, last = ends(num_steps, beta_start, beta_end)
        root = (1 - torch.linspace(first, last, num_steps, dtype=torch.float64)).cumprod(0).sqrt()
        moved = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), moved**2])
        super().__init__(1 - alpha_bar[1:] / alpha_bar[:-1], log_snr_shift)
