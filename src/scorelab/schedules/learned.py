"""A schedule with parameters: a monotone network for the log-SNR, its ends fixed."""

import math

import torch
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.schedules.base import VariancePreserving, log_sigmoid

BENDS = 0.5  # what the steps of the network add to the straight line's 1 at first


class LearnedSchedule(VariancePreserving):
    """lambda(t) = lambda_max - (lambda_max - lambda_min) (n(t) - n(0)) / (n(1) - n(0)), n a monotone network.

    n(t) = t + sum_j v_j S(a_j (t - c_j)), S the logistic function, v_j, a_j > 0 (the form of Kingma et al. 2021,
    "Variational diffusion models", appendix H, whose published code does not divide by n(1) - n(0), so that its ends
    move). It begins near the straight line.

    In a continuous process the bound does not depend on what is between the ends, but the variance of its estimate
    does (Kingma et al. 2021, section 5.1 and appendix I): ``log_density`` carries the gradient of that, and nothing
    else does, alpha and sigma are constants of the parameters. In a process of T steps the bound itself depends on
    them, and alpha, sigma and lambda carry its gradient; there t = 0 is the data themselves, as in VE.

    Args:
        log_snr_min, log_snr_max: the fixed ends, at t = 1 and t = 0.
        width: how many steps the network is made of.

    Raises:
        Refusal: for ends that are not finite or not in order, a width below 1, or num_steps < 1.
    """

    log_snr_ends = (-math.inf, math.inf)

    def __init__(
        self,
        num_steps: int | None = None,
        log_snr_min: float = -5.0,
        log_snr_max: float = 13.3,
        width: int = 32,
        log_snr_shift: float = 0.0,
    ) -> None:
        super().__init__(num_steps, log_snr_shift)
        if not -math.inf < log_snr_min < log_snr_max < math.inf:
            raise Refusal(f"log_snr_min must be below log_snr_max, got {log_snr_min} and {log_snr_max}")
        if width < 1:
            raise Refusal(f"width must be at least 1, got {width}")
        self.log_snr_min, self.log_snr_max = log_snr_min + log_snr_shift, log_snr_max + log_snr_shift
        self.centres = nn.Parameter((torch.arange(width) + 0.5) / width)
        self.steepness = nn.Parameter(torch.full((width,), inverse_softplus(2.0 * width)))
        self.heights = nn.Parameter(torch.full((width,), inverse_softplus(BENDS / width)))

    def _network(self, t: Tensor, trained: bool) -> tuple[Tensor, Tensor]:
        """The share of the fall that is done at t, 0 to 1, and its slope; with gradients to the parameters or not."""
        kept = (p if trained else p.detach() for p in (self.centres, self.steepness, self.heights))
        centres, steepness, heights = (p.to(t.device, torch.float64) for p in kept)
        steepness, heights = nn.functional.softplus(steepness), nn.functional.softplus(heights)
        places = torch.cat([t.to(torch.float64), t.new_tensor([0.0, 1.0], dtype=torch.float64)])
        steps = torch.sigmoid(steepness * (places[:, None] - centres))
        done = places + (steps * heights).sum(-1)  # no product of matrices: a time's sum would depend on its neighbours
        slope = 1 + (steps * (1 - steps) * (heights * steepness)).sum(-1)
        start, length = done[-2], done[-1] - done[-2]
        return (done[:-2] - start) / length, slope[:-2] / length

    def log_snr(self, t: Tensor) -> Tensor:
        """From the fixed upper end to the lower one; of T steps, infinite at t = 0."""
        log_snr = self.log_snr_max - self._span * self._network(t, self.num_steps is not None)[0]
        return log_snr if self.num_steps is None else torch.where(t > 0, log_snr, torch.inf)

    @property
    def _span(self) -> float:
        return self.log_snr_max - self.log_snr_min

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Ln S(lambda)."""
        return log_sigmoid(self.log_snr(t))

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(S(-lambda))."""
        return torch.exp(0.5 * log_sigmoid(-self.log_snr(t)))

    def beta(self, t: Tensor) -> Tensor:
        """-sigma^2 dlambda / dt."""
        return self.sigma(t) ** 2 * self._span * self._network(t, self.num_steps is not None)[1]

    def inverse(self, log_snr: Tensor) -> Tensor:
        """By bisection, on lambda itself."""
        return super(VariancePreserving, self).inverse(log_snr)

    def log_density(self, t: Tensor) -> Tensor:
        """Ln p(lambda), p = -dt / dlambda the density of log-SNR when t ~ U[0, 1], at the lambda that t has now.

        Its gradient is that of the parameters where lambda, not t, stays what it is: t moves by
        -(d lambda / d parameters) / (d lambda / dt), one step of Newton's.
        """
        with torch.no_grad():
            _, slope = self._network(t, True)
        done, _ = self._network(t, True)
        followed = t.to(torch.float64) - (done - done.detach()) / slope
        return -torch.log(self._span * self._network(followed, True)[1])


def inverse_softplus(value: float) -> float:
    """The x with ln(1 + e^x) = value."""
    return value + math.log(-math.expm1(-value))
