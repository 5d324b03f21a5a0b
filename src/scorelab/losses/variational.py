"""The variational bound as a training objective, alone and beside L_simple."""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.errors import Refusal
from scorelab.likelihood import bits_per_dim, bound_rate, bound_term
from scorelab.losses.base import Example, Loss, Terms, eps_error, refuse_silence
from scorelab.schedules import Schedule
from scorelab.tensors import mean_except_batch


class VariationalBound(Loss):
    """T L_t in bits/dim: each term of the bound with its true weight, its constant, and the decoder at i = 1.

    Its mean over t ~ U{t_1 ... t_T} is the bound without the prior term, which no network changes
    (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, section 3). Where the schedule is continuous, the integrand
    (t_max - t_min)/2 (-dlambda/dt) ||eps - eps^||^2, whose mean over t ~ U[t_min, t_max] is the diffusion part; prior
    and decoder move no network there (Kingma et al. 2021, eq. 17).

    A learned schedule is trained along with it: through the bound on the steps of a grid; where it is continuous,
    which leaves the bound as it is, to make its estimate vary less (``steady``).
    """

    trains_variance = True
    trains_schedule = True

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """T L_t, or the integrand, of each sample, (B,), bits/dim."""
        schedule = denoiser.schedule
        estimate = denoiser(example.x_t, example.t, example.label)
        loss = scaled_term(denoiser, estimate, example)
        if schedule.learns and schedule.num_steps is None:
            loss = loss + steady(schedule, example.t, loss.detach())
        return Terms(loss, eps_error=eps_error(example, estimate))

    def noise_weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """T/(2 ln 2) c_0^2 / (S s^2) on a step, NaN at the decoder; continuous: duration (-dlambda/dt)/(2 ln 2)."""
        schedule = denoiser.schedule
        if schedule.num_steps is None:
            return schedule.duration * schedule.g2(t) / schedule.sigma(t) ** 2 / (2 * math.log(2))
        steps = schedule.num_steps
        s = t.double() - 1 / steps
        step = schedule.transition(s, t.double())
        none = torch.zeros_like(step.gain)
        start = denoiser.variance.read(
            Estimate(none, none, none, none, none), *[none] * (denoiser.variance.outputs - 1)
        )
        log_variance = denoiser.variance.log_variance(step, start)
        per_x0 = step.mean_of_x0**2 * torch.exp(-log_variance)
        weight = steps / (2 * math.log(2)) * per_x0 * torch.exp(-schedule.log_snr(t))
        return torch.where(s > 0.5 / steps, weight, torch.nan)

    def check(self, denoiser: Denoiser) -> None:
        """Refuse fewer than two steps, and a learned variance where there are no steps.

        Raises:
            Refusal: for T < 2, or no T and a learned variance.
        """
        steps = denoiser.schedule.num_steps
        if steps is not None and steps < 2:
            raise Refusal("the bound needs steps between prior and data: set schedule.num_steps to 2 or more")
        if steps is None and denoiser.variance.outputs > 1:
            raise Refusal(
                "a continuous process has no steps whose variance could be learned: set schedule.num_steps, or "
                "variance=fixed_small"
            )


def steady(schedule: Schedule, t: Tensor, loss: Tensor) -> Tensor:
    """0 for each sample (B,), with the gradient of ln E[L^2] / 2 to the parameters of a continuous schedule.

    The mean of L = e(lambda) / p(lambda), e the noise error and p the density of lambda, is the integral of e: p does
    not move it, but its second moment, the integral of E[e^2] / p, and so its variance. That is least where p is in
    proportion to sqrt(E[e^2 | lambda]), the law of ``Importance``. Held at the lambdas that were drawn, by the present
    p, its gradient is that of E[L^2 p / p']; it is divided by the batch's own mean of L^2, so that it has one scale
    beside that of the bound (Kingma et al. 2021, appendix I.2 differentiate through the network instead).

    Args:
        schedule: that drew t.
        t: times (B,), uniform over the schedule's.
        loss: L (B,), without a gradient.
    """
    share = loss.double() ** 2 / loss.double().square().mean()
    log_density = schedule.log_density(t)
    return (0.5 * share * (log_density.detach() - log_density)).to(loss.dtype)


class Hybrid(Loss):
    """L_simple + lambda T L_t, L_t in bits/dim with the decoder at i = 1, its mean cut from the graph.

    The bound's term trains the variance alone (Nichol & Dhariwal 2021, eq. 16; lambda = 0.001 there too, with L_t in
    bits/dim and times T, as in their code).

    Args:
        bound: lambda.
        normalize: see ``Loss``.

    Raises:
        Refusal: for a negative lambda.
    """

    trains_variance = True

    def __init__(self, bound: float = 0.001, normalize: bool = True) -> None:
        super().__init__(normalize)
        if not 0 <= bound < math.inf:
            raise Refusal(f"bound must be at least 0 and finite, got {bound}")
        self.bound = bound

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """The sum of each sample, (B,); ``simple`` and ``vlb`` are its parts, the second without lambda."""
        estimate = denoiser(example.x_t, example.t, example.label)
        simple = mean_except_batch((example.eps - estimate.eps) ** 2)
        vlb = scaled_term(denoiser, replace(estimate, x0=estimate.x0.detach(), eps=estimate.eps.detach()), example)
        return Terms(simple + self.bound * vlb, {"simple": simple, "vlb": vlb}, simple.detach())

    def noise_weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """1: the bound's term moves the variance, not the mean."""
        return torch.ones_like(t, dtype=torch.float64)

    def check(self, denoiser: Denoiser) -> None:
        """Refuse a variance that is not learned, and a process without steps, or one that ends without signal.

        Raises:
            Refusal: for a fixed variance, or T < 2, or no T, or alpha = 0 at t = 1.
        """
        super().check(denoiser)
        refuse_silence(denoiser.schedule)
        if denoiser.schedule.num_steps is None or denoiser.schedule.num_steps < 2:
            raise Refusal("this loss learns the variance of steps: set schedule.num_steps to 2 or more")
        if denoiser.variance.outputs < 2:
            raise Refusal(
                "with a fixed variance this loss is loss=simple plus a constant: set variance=learned, or loss=simple"
            )


def scaled_term(denoiser: Denoiser, estimate: Estimate, example: Example) -> Tensor:
    """The bound's term at t times the number of terms, or the length of time: bits/dim, (B,), in x_0's precision."""
    schedule = denoiser.schedule
    if schedule.num_steps is None:
        nats = schedule.duration * bound_rate(schedule, estimate, example.eps, example.t)
    else:
        nats = schedule.num_steps * bound_term(denoiser, estimate, example.x0, example.t)
    return bits_per_dim(nats, example.x0[0].numel()).to(example.x0.dtype)
