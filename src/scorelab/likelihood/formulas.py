"""The variational bound on -log p(x_0), term by term, in nats per sample.

-log p(x_0) <= KL(q(x_T|x_0) || p(x_T)) + sum_{i=2}^T E KL(q(x_{i-1}|x_i,x_0) || p(x_{i-1}|x_i)) - E log p(x_0|x_1)
(Ho et al. 2020, eq. 5): the prior, the diffusion terms and the decoder. A continuous process has, in place of the
sum, 1/2 int (-dlambda/dt) E||eps - eps^||^2 dt over [t_min, t_max], and its decoder stands at t_min
(Kingma et al. 2021, "Variational diffusion models", eq. 11-12).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorelab.denoisers import Denoiser, Estimate
from scorelab.errors import Refusal
from scorelab.schedules import Schedule, Transition
from scorelab.tensors import (
    divergence,
    from_levels,
    like,
    log_interval,
    nearest_level,
    slope_along,
    sum_except_batch,
)

LONGEST = 1.0  # of u = -lambda / 2, in one step along the flow


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """Nats per sample as bits per dimension: nats / (d ln 2)."""
    return nats / (dims * math.log(2))


def prior_kl(schedule: Schedule, x0: Tensor) -> Tensor:
    """KL(q(x_t|x_0) || N(0, p^2 I)) in nats, (B,), at t = ``t_max`` (1 on a grid), p the schedule's ``prior_std``."""
    end = torch.full((len(x0),), schedule.t_max, dtype=torch.float64, device=x0.device)
    return marginal_kl(schedule.alpha(end), schedule.sigma(end), schedule.prior_std, x0)


def marginal_kl(alpha: Tensor, sigma: Tensor, std: float, x0: Tensor) -> Tensor:
    """KL(N(alpha x_0, sigma^2 I) || N(0, p^2 I)) = 1/2 sum [(alpha^2 x_0^2 + sigma^2)/p^2 - 1 - ln(sigma^2/p^2)].

    In nats, (B,), for alpha and sigma (B,) and p = ``std``.
    """
    x0 = x0.double()
    log_ratio = like(2 * torch.log(sigma / std), x0)
    return 0.5 * sum_except_batch(torch.expm1(log_ratio) - log_ratio + (like(alpha / std, x0) * x0) ** 2)


def step_kl(step: Transition, estimate: Estimate, x0: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(x_s|x_t,x_0) || N(posterior mean at x^_0, s^2 I)) in nats, (B,).

    1/2 sum [r - 1 - ln r + c_0^2 (x_0 - x^_0)^2 / s^2], r = beta~ / s^2, c_0 = alpha_s sigma^2_{t|s} / sigma_t^2:
    both means weigh x_t alike, so they differ by c_0 times the error in x_0. ``log_variance`` is log s^2,
    broadcastable to x_0.
    """
    log_r = like(torch.log(step.posterior_variance), x0) - log_variance
    error = like(step.mean_of_x0, x0) * (x0 - estimate.x0)
    return 0.5 * sum_except_batch(torch.expm1(log_r) - log_r + error**2 * torch.exp(-log_variance))


def lattice_log_prob(x0: Tensor, mean: Tensor, log_variance: Tensor, levels: int) -> Tensor:
    """Log mass that N(mean, s^2) gives to the bin around x_0: nats, elementwise, float64.

    log [Phi((x_0 + h - mean)/s) - Phi((x_0 - h - mean)/s)] with h = 1/(levels - 1); the first and last bins are open
    (Ho et al. 2020, eq. 13), exact at any distance.
    """
    half = 1.0 / (levels - 1)
    scale = torch.exp(-0.5 * log_variance.double())
    centred = x0.double() - mean.double()
    low, high = (centred - half) * scale, (centred + half) * scale
    outer = torch.where(x0 > 0, torch.special.log_ndtr(-low), torch.special.log_ndtr(high))
    return torch.where(x0.abs() > 1 - half, outer, log_interval(low, high))


def gaussian_log_prob(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log N(x_0; mean, s^2): nats, elementwise, float64."""
    log_variance = log_variance.double()
    squared = (x0.double() - mean.double()) ** 2 * torch.exp(-log_variance)
    return -0.5 * (math.log(2 * math.pi) + log_variance + squared)


def level_decoder_nll(log_snr: Tensor, x0: Tensor, eps: Tensor, levels: int) -> Tensor:
    """-log prod P(x_0 | x_t) in nats, (B,), by a decoder that knows each pixel's own x_t and nothing else.

    x_t = alpha x_0 + sigma eps at the log-SNR (B,).

    P(level k | x_t) = softmax_k(-(x_t - alpha k)^2 / 2 sigma^2) over the levels k in [-1, 1] (Kingma et al. 2021,
    section 3.3), as log-odds against x_0: the squares differ by alpha^2 (k - x_0)^2 - 2 alpha sigma (k - x_0) eps.
    """
    x0, eps = x0.double(), eps.double()
    snr = like(torch.exp(0.5 * log_snr), x0)  # alpha / sigma
    total = torch.zeros_like(x0)
    for k in from_levels(torch.arange(levels, device=x0.device), levels).double():
        away = snr * (k - x0)
        total = total + torch.exp(-0.5 * away**2 + away * eps)
    return sum_except_batch(torch.log(total))


def lattice_gap(made: Estimate, log_snr: Tensor, levels: int) -> Tensor:
    """Log q(x | x_0) - log P(x_0 | x) in nats (B,), for x made of x_0 on the lattice and eps."""
    forward = gaussian_log_prob(made.eps, torch.zeros_like(made.eps), torch.zeros_like(made.eps))
    scale = made.x0[0].numel() * torch.log(made.sigma.double()).flatten()
    return sum_except_batch(forward) - scale + level_decoder_nll(log_snr, made.x0, made.eps, levels)


def bin_gap(made: Estimate, log_snr: Tensor, levels: int) -> Tensor:
    """Log q(x | y) - log p(y | x) - d log Delta in nats (B,), for x made of a y in a bin of width Delta and eps.

    q = N(x; alpha y, sigma^2 I) and p(y | x) = N(y; x / alpha, (sigma / alpha)^2 I) differ by d log alpha alone.
    """
    dims = made.x0[0].numel()
    return -dims * (torch.log(made.alpha.double()).flatten() + math.log(2 / (levels - 1)))


def bound_rate(schedule: Schedule, estimate: Estimate, eps: Tensor, t: Tensor) -> Tensor:
    """1/2 (-dlambda/dt) ||eps - eps^||^2 in nats, (B,): what a continuous process adds to the bound per unit of t."""
    rate = 0.5 * schedule.g2(t) / schedule.sigma(t) ** 2
    return rate * sum_except_batch((eps - estimate.eps) ** 2).double()


def decoder_nll(denoiser: Denoiser, estimate: Estimate, x0: Tensor) -> Tensor:
    """-log p(x_0|x_1) in nats, (B,), for an estimate made at t_1: the mean of that step is x^_0 itself.

    A law over pixel levels where the denoiser has levels, a Gaussian density where it has none. An x_0 off the lattice,
    such as one with noise over its bin, counts as its nearest level: the bound holds of that, for its chain x_1 ... x_T
    may begin about any point.
    """
    log_variance = decoder_log_variance(denoiser, estimate)
    if denoiser.levels is None:
        return -sum_except_batch(gaussian_log_prob(x0, estimate.x0, log_variance))
    level = nearest_level(x0, denoiser.levels)
    return -sum_except_batch(lattice_log_prob(level, estimate.x0, log_variance, denoiser.levels))


def decoder_log_variance(denoiser: Denoiser, estimate: Estimate) -> Tensor:
    """Log s^2 of p(x_0|x_1), broadcastable to x_0, for an estimate made at t_1."""
    schedule, x0 = denoiser.schedule, estimate.x0
    zero, one, two = schedule.grid()[:3].to(x0.device).unsqueeze(1).expand(-1, len(x0))
    return denoiser.variance.log_decoder_variance(
        schedule.transition(zero, one), schedule.transition(one, two), denoiser.levels is not None, estimate
    )


def bound_term(denoiser: Denoiser, estimate: Estimate, x0: Tensor, t: Tensor) -> Tensor:
    """The bound's term at the grid times t_i = i/T, (B,) in nats: the decoder at i = 1, a step's KL at i >= 2.

    ``estimate`` is what the denoiser said at t; clip it for evaluation, never in a training loss.

    Raises:
        Refusal: for a continuous schedule or T < 2.
    """
    steps = len(denoiser.schedule.grid()) - 1
    if steps < 2:
        raise Refusal("the bound needs schedule.num_steps of at least 2")
    i = torch.round(t.double() * steps)
    inner = i.clamp(min=2)
    step = denoiser.schedule.transition((inner - 1) / steps, inner / steps)
    kl = step_kl(step, estimate, x0, denoiser.variance.log_variance(step, estimate))
    # elsewhere x^_0 may be so far off that the decoder has no gradient there, though it is not asked for
    last = replace(estimate, x0=torch.where(like(i, x0) > 1, x0.to(estimate.x0), estimate.x0))
    return torch.where(i > 1, kl.double(), decoder_nll(denoiser, last, x0))


@dataclass(frozen=True)
class FlowDensity:
    """Log density (B,) in nats along the probability flow, and how often the denoiser was asked about the batch."""

    log_prob: Tensor
    evaluations: int


def flow_log_prob(
    denoiser: Denoiser,
    x: Tensor,
    label: Tensor | None = None,
    generator: Generator | None = None,
    tolerance: float = 1e-5,
    exact_dims: int = 16,
    log_snr: float | None = None,
    chunk: int | None = None,
) -> FlowDensity:
    """Log p_t(x) at one time by the probability flow from there to all noise (Song et al. 2021, eq. 39).

    In z = x / sqrt(a) and u = -lambda / 2 the flow is dz/du = s (eps^ - s z), s = sigma / sqrt(a), in every family, and
    log p(z(u_0)) = log p(z(u_1)) + int div (dz/du) du, with N(0, prior_std^2 I) for x at the end. The divergence is
    exact up to ``exact_dims`` dimensions, else v^T (d/dz) v along one Rademacher v per sample (Grathwohl et al. 2019),
    drawn from a generator on the CPU: right on average over v.

    No step is longer than 2 in lambda: where noise is small or all, the rates are nearly nothing, and a solver that
    trusts them leaps over where they are not.

    Args:
        denoiser: of any kind.
        x: (B, ...) at the time of ``log_snr``.
        label: (B,) or None.
        generator: of v.
        tolerance: absolute and relative, of the adaptive solver (Dormand & Prince 1980).
        exact_dims: as above.
        log_snr: by default the greatest that the denoiser can be asked about.
        chunk: samples per network call; None is all. The solver's steps are those of all in any case.

    Raises:
        Refusal: for a log-SNR it cannot be asked about.
    """
    from torchdiffeq import odeint

    low, most = denoiser.log_snr_range()
    high = most if log_snr is None else log_snr
    if not low < high <= most + 1e-9:
        raise Refusal(f"a denoiser of log-SNR [{low:.2f}, {most:.2f}] has no flow from {high:.2f}")
    schedule, dims, asked = denoiser.schedule, x[0].numel(), 0
    v = None if dims <= exact_dims else torch.randn(x.shape, generator=generator).sign().to(x)

    def of(rows: slice, u: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z[rows].to(x.dtype).detach().requires_grad_(True)
        t = schedule.inverse((-2 * u).clamp(low, high).expand(len(z)))
        alpha, sigma = like(schedule.alpha(t), x), like(schedule.sigma(t), x)
        power = torch.sqrt(alpha**2 + sigma**2)
        s = sigma / power
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            eps = denoiser(power * z, t, None if label is None else label[rows]).eps
            slope = divergence(eps, z) if v is None else slope_along(eps, z, v[rows])
        spread = s.flatten() * slope.detach() - dims * s.flatten() ** 2
        return (s * (eps - s * z)).detach(), spread

    def rate(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal asked
        asked += 1
        cut = range(0, len(x), chunk or len(x))
        flow, spread = zip(*(of(slice(k, k + cut.step), u, state[0]) for k in cut), strict=True)
        return torch.cat(flow).to(state[0].dtype), torch.cat(spread).to(state[1].dtype)

    ends = torch.tensor([-high / 2, -low / 2], dtype=torch.float64, device=x.device)
    first, last = schedule.inverse(-2 * ends).tolist()
    power = [math.sqrt(float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)) for t in torch.tensor([[first], [last]])]
    begin = (x.double() / power[0], torch.zeros(len(x), dtype=torch.float64, device=x.device))
    z, gained = odeint(
        rate, begin, ends, rtol=tolerance, atol=tolerance, method="dopri5", options={"max_step": LONGEST}
    )
    nothing = torch.zeros_like(z[-1])
    at_end = gaussian_log_prob(z[-1] * power[1], nothing, nothing + 2 * math.log(denoiser.prior_std))
    change = dims * (math.log(power[1]) - math.log(power[0]))
    return FlowDensity(sum_except_batch(at_end) + gained[-1] + change, asked)
