"""The variational bound of held-out images, in bits/dim, by step."""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.judge.base import Case, Metric, OverBudget, Part, Result, Unjudged
from scorelab.likelihood import bits_per_dim, bound_term, gaussian_log_prob, level_decoder_nll, marginal_kl
from scorelab.tensors import generator, like, sum_rest

PILOT = 8
MOST = 100_000  # rounds


@dataclass(frozen=True)
class Bound:
    """Means over images in bits/dim: prior KL, sum of the steps' KLs, decoder; se over times and noise.

    ``se`` is None where each step was visited once and no error can be told; ``by_step`` then holds the terms of
    i = 1 ... T. ``evaluations`` of the network.
    """

    prior: float
    diffusion: float
    decoder: float
    se: float | None
    evaluations: int
    by_step: tuple[float, ...] = ()

    @property
    def total(self) -> float:
        """The bound on -log2 p(x_0) / d."""
        return self.prior + self.diffusion + self.decoder


class Terms:
    """What the bound is made of, estimated by one noise per image; counts what it evaluates.

    x^_0 is clipped for pixels. Answers are (N,) on the CPU, in bits/dim. ``decoder_costs`` says whether the
    decoder asks the network.
    """

    decoder_costs = True

    def __init__(self, denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int) -> None:
        self.denoiser, self.x0, self.labels, self.chunk = denoiser, x0, labels, chunk
        self.evaluations = 0

    @torch.no_grad()
    def of(
        self, t: Tensor, noise: torch.Generator, term: Callable[[Estimate, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """A term (estimate, x0, eps, t) of every image at its own time t (N,)."""
        eps = torch.randn(self.x0.shape, generator=noise).to(self.x0.device)
        t = t.double().to(self.x0.device)
        found = []
        for rows in torch.arange(len(self.x0), device=self.x0.device).split(self.chunk):
            truth = self.denoiser.noised(self.x0[rows], t[rows], eps[rows])
            estimate = self.denoiser(truth.x_t, t[rows], None if self.labels is None else self.labels[rows])
            if self.denoiser.levels is not None:
                estimate = estimate.clipped()
            found.append(term(estimate, self.x0[rows], eps[rows], t[rows]))
        self.evaluations += len(self.x0)
        return bits_per_dim(torch.cat(found), self.x0[0].numel()).cpu()

    def places(self, noise: torch.Generator) -> Tensor:
        """One place in [0, 1) for each image, stratified over the images."""
        offset = torch.rand(1, generator=noise, dtype=torch.float64)
        return (torch.randperm(len(self.x0), generator=noise) + offset) / len(self.x0)

    @abstractmethod
    def diffusion(self, noise: torch.Generator) -> Tensor:
        """An estimate for each image whose mean is the diffusion part."""

    @abstractmethod
    def decoder(self, noise: torch.Generator) -> Tensor:
        """An estimate for each image whose mean is the decoder."""


class Steps(Terms):
    """The terms of a T-step process."""

    def __init__(self, denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int) -> None:
        super().__init__(denoiser, x0, labels, chunk)
        self.steps, self.law = len(denoiser.schedule.grid()) - 1, step_law(denoiser)

    def at(self, i: Tensor, noise: torch.Generator) -> Tensor:
        """L_i of every image at its own step i (N,)."""
        return self.of(i / self.steps, noise, lambda estimate, x0, _, t: bound_term(self.denoiser, estimate, x0, t))

    def diffusion(self, noise: torch.Generator) -> Tensor:
        """Every image at one step of i = 2 ... T, by ``step_law`` and divided by it."""
        index = torch.searchsorted(self.law.cumsum(0), self.places(noise)).clamp(max=len(self.law) - 1)
        return self.at(index + 2, noise) / self.law[index]

    def decoder(self, noise: torch.Generator) -> Tensor:
        """Every image at i = 1."""
        return self.at(torch.ones(len(self.x0)), noise)


class Integral(Terms):
    """The terms of a continuous process: 1/2 int E||eps - eps^||^2 dlambda, and a decoder at the integral's end."""

    decoder_costs = False

    def diffusion(self, noise: torch.Generator) -> Tensor:
        """Every image at one log-SNR, uniform over the schedule's range."""
        low, high = self.denoiser.log_snr_range()
        t = self.denoiser.schedule.inverse(low + self.places(noise) * (high - low))
        return self.of(t, noise, lambda estimate, _, eps, __: (high - low) / 2 * sum_rest((eps - estimate.eps) ** 2))

    def decoder(self, noise: torch.Generator) -> Tensor:
        """Pixels by the softmax over levels, points by N(x_0; x_t / alpha, (sigma / alpha)^2); no network is asked."""
        x0, eps = self.x0.cpu(), torch.randn(self.x0.shape, generator=noise)
        log_snr = torch.full((len(x0),), self.denoiser.log_snr_range()[1], dtype=torch.float64)
        if self.denoiser.levels is not None:
            nats = level_decoder_nll(log_snr, x0, eps, self.denoiser.levels)
        else:
            away = like(torch.exp(-0.5 * log_snr), eps.double()) * eps
            nats = -sum_rest(gaussian_log_prob(x0, x0 + away, like(-log_snr, eps.double())))
        return bits_per_dim(nats, x0[0].numel())


def exact_bound(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, seed: int = 0, chunk: int = 256) -> Bound:
    """Every step of every image once, each with noise of its own."""
    terms = Steps(denoiser, x0, labels, chunk)
    by_step = []
    for i in range(1, terms.steps + 1):
        at = torch.full((len(x0),), i)
        by_step.append(float(terms.at(at, generator("bound", seed, i)).mean()))
    return Bound(_prior(denoiser, x0), sum(by_step[1:]), by_step[0], None, terms.evaluations, tuple(by_step))


def sampled_bound(
    denoiser: Denoiser,
    x0: Tensor,
    labels: Tensor | None,
    tolerance: float,
    left: int | None = None,
    seed: int = 0,
    chunk: int = 256,
) -> Bound:
    """Draw steps until the standard error over times and noise, the images fixed, is at most ``tolerance`` bits/dim.

    A round of the diffusion part gives every image one time, stratified over the images; a round of the decoder
    visits every image. Rounds go to the two in proportion to how much theirs scatter. The prior is exact.

    Raises:
        OverBudget: when the error cannot come under the tolerance within ``left`` evaluations.
        Unjudged: when it has not done so after 100,000 rounds, or answers are not finite.
    """
    terms = (Integral if denoiser.schedule.num_steps is None else Steps)(denoiser, x0, labels, chunk)
    rounds = {"diffusion": Rounds(), "decoder": Rounds()}
    while True:
        least_known = max(rounds, key=lambda name: rounds[name].spread / max(1, rounds[name].count))
        noise = generator("bound", seed, least_known, rounds[least_known].count)
        found = terms.diffusion(noise) if least_known == "diffusion" else terms.decoder(noise)
        if not bool(found.isfinite().all()):
            raise Unjudged("the denoiser's answers are not finite", terms.evaluations)
        rounds[least_known].add(float(found.mean()))
        se = math.hypot(*(part.se for part in rounds.values()))
        if se <= tolerance:
            diffusion, decoder = rounds["diffusion"].mean, rounds["decoder"].mean
            return Bound(_prior(denoiser, x0), diffusion, decoder, se, terms.evaluations)
        if sum(part.count for part in rounds.values()) >= MOST:
            raise Unjudged(f"the standard error is still {se:.3g} bits/dim after {MOST:,} rounds", terms.evaluations)
        # rounds in proportion to the spreads reach the tolerance soonest: (sum of spreads / tolerance)^2 of them
        spreads = [part.spread for part in rounds.values()]
        need = terms.evaluations + len(x0)
        if math.isfinite(sum(spreads)):
            paying = sum(spreads) if terms.decoder_costs else spreads[0]
            need = max(need, math.ceil(paying * sum(spreads) / tolerance**2) * len(x0))
        if left is not None and need > left:
            told = f"needs about {need:,} network evaluations to tell {tolerance} bits/dim, {left:,} are left"
            raise OverBudget(told, terms.evaluations)


class Rounds:
    """The mean of independent rounds and how much they scatter, updated as they come (Welford 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.count += 1
        away = value - self.mean
        self.mean += away / self.count
        self._squares += away * (value - self.mean)

    @property
    def spread(self) -> float:
        """The standard deviation of a round; infinite until there are enough to tell."""
        return math.sqrt(self._squares / (self.count - 1)) if self.count >= PILOT else math.inf

    @property
    def se(self) -> float:
        """The standard error of the mean; infinite until there are enough rounds to tell."""
        return self.spread / math.sqrt(max(1, self.count))


def step_law(denoiser: Denoiser) -> Tensor:
    """The probability of each step i = 2 ... T, on the CPU: in proportion to how far lambda falls in it.

    At s^2 = beta~, L_i is expm1(lambda_{i-1} - lambda_i)/2 times the noise error, so L_i / p_i is near the error
    itself, which is at most of order one. A fall is cut at 1 (the cosine schedule's last ones are large, and their
    error nearly none), and a tenth is spread evenly so that no step is rare.
    """
    log_snr = denoiser.schedule.log_snr(denoiser.schedule.grid()[1:].to(denoiser.device)).cpu()
    fall = (log_snr[:-1] - log_snr[1:]).clamp(max=1.0)
    law = fall / fall.sum()
    return 0.9 * law + 0.1 / len(law)


def _prior(denoiser: Denoiser, x0: Tensor) -> float:
    """KL of the marginal at the denoiser's greatest time to the law that sampling starts from there."""
    end = torch.full((len(x0),), denoiser.time_range()[1], dtype=torch.float64, device=x0.device)
    alpha, sigma = denoiser.schedule.alpha(end), denoiser.schedule.sigma(end)
    return float(bits_per_dim(marginal_kl(alpha, sigma, denoiser.prior_std, x0), x0[0].numel()).mean())


class VariationalBound(Part):
    """``vlb``: the bound in bits/dim with the run's own T and variance, and its three parts."""

    names = ("vlb", "vlb_prior", "vlb_diffusion", "vlb_decoder")

    def check(self, denoiser: Denoiser, metric: Metric) -> None:
        """Refuse a schedule without steps between prior and decoder, and a sum over steps where there are none.

        Raises:
            ValueError: for T < 2; for bound=exact and no T.
        """
        steps = denoiser.schedule.num_steps
        if steps is not None and steps < 2:
            raise ValueError("the bound needs schedule.num_steps of 2 or more: set it, or leave vlb out of judge=[...]")
        if steps is None and metric.bound == "exact":
            raise ValueError("a continuous schedule has no steps to sum exactly: set metric.bound=sampled")

    def cost(self, case: Case) -> int:
        """The pilot's evaluations, or those of every step."""
        steps = case.denoiser.schedule.num_steps
        if steps is None:
            return len(case.held_out) * PILOT
        return len(case.held_out) * (steps if case.metric.bound == "exact" else 2 * PILOT)

    def run(self, case: Case, left: int | None) -> Result:
        """The bound of the held-out images."""
        x0, labels = case.held_out_data()
        if case.metric.bound == "exact":
            bound = exact_bound(case.denoiser, x0, labels, case.seed, case.metric.chunk)
        else:
            bound = sampled_bound(case.denoiser, x0, labels, case.metric.tolerance, left, case.seed, case.metric.chunk)
        values = (bound.total, bound.prior, bound.diffusion, bound.decoder)
        records: dict[str, Any] = {
            "estimator": case.metric.bound,
            "se_over_times_and_noise": bound.se,
            "images": len(x0),
            "steps": case.denoiser.schedule.num_steps,
            "log_snr": case.denoiser.log_snr_range(),
            "x0_clipped": case.denoiser.levels is not None,
            "decoder": "levels" if case.denoiser.levels is not None else "density",
        }
        if bound.by_step:
            records["by_step"] = [float(f"{value:.6g}") for value in bound.by_step]
        return Result(dict(zip(self.names, values, strict=True)), records, bound.evaluations)
