"""Estimates of the variational bound of given data, in bits/dim: step by step, or by draws of steps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import OverBudget, Unavailable
from scorelab.likelihood.formulas import bits_per_dim, marginal_kl
from scorelab.likelihood.terms import Integral, StepTerms
from scorelab.tensors import generator

FEW, PILOT, MOST = 8, 32, 100_000  # rounds


@dataclass(frozen=True)
class Bound:
    """Means over images in bits/dim: prior KL, sum of the steps' KLs, decoder; se over times and noise.

    ``se`` is None where each step was visited once and no error can be told; ``by_step`` then holds the terms of
    i = 1 ... T. ``by_log_snr`` has the diffusion part by where it is found: below -12, in 40 bins of [-12, 12], above;
    a step counts where it begins, at its noisier end. ``evaluations`` of the network.
    """

    prior: float
    diffusion: float
    decoder: float
    se: float | None
    evaluations: int
    by_step: tuple[float, ...] = ()
    by_log_snr: tuple[float, ...] = ()

    @property
    def total(self) -> float:
        """The bound on -log2 p(x_0) / d."""
        return self.prior + self.diffusion + self.decoder


def exact_bound(denoiser: Denoiser, x0: Tensor, labels: Tensor | None, seed: int = 0, chunk: int = 256) -> Bound:
    """Every step of every image once, each with noise of its own."""
    terms = StepTerms(denoiser, x0, labels, chunk)
    by_step = []
    for i in range(1, terms.steps + 1):
        at = torch.full((len(x0),), i)
        by_step.append(float(terms.at(at, generator("bound", seed, i)).mean()))
    found = torch.tensor(by_step[1:], dtype=torch.float64)
    terms.by_log_snr.add(terms.log_snr(torch.arange(2, terms.steps + 1)), len(found) * found)
    parts = _prior(denoiser, x0), float(found.sum()), by_step[0]
    return Bound(*parts, None, terms.evaluations, tuple(by_step), terms.by_log_snr.means())


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
    visits every image. Rounds go to the two in proportion to how much theirs scatter, once there are enough to tell
    (see ``unknown``). The prior is exact.

    Raises:
        OverBudget: when the error cannot come under the tolerance within ``left`` evaluations.
        Unavailable: when it has not done so after 100,000 rounds or would take more, or answers are not finite.
    """
    terms = (Integral if denoiser.schedule.num_steps is None else StepTerms)(denoiser, x0, labels, chunk)
    rounds = {"diffusion": Rounds(), "decoder": Rounds()}
    while True:
        least_known = unknown(rounds) or max(rounds, key=lambda name: rounds[name].spread / rounds[name].count)
        noise = generator("bound", seed, least_known, rounds[least_known].count)
        found = terms.diffusion(noise) if least_known == "diffusion" else terms.decoder(noise)
        if not bool(found.isfinite().all()):
            raise Unavailable("the denoiser's answers are not finite", terms.evaluations)
        rounds[least_known].add(float(found.mean()))
        se = math.hypot(*(part.se for part in rounds.values()))
        if se <= tolerance and unknown(rounds) is None:
            diffusion, decoder = rounds["diffusion"].mean, rounds["decoder"].mean
            parts, where = (_prior(denoiser, x0), diffusion, decoder), terms.by_log_snr.means()
            return Bound(*parts, se, terms.evaluations, by_log_snr=where)
        if sum(part.count for part in rounds.values()) >= MOST:
            raise Unavailable(f"the standard error is still {se:.3g} bits/dim after {MOST:,} rounds", terms.evaluations)
        # rounds in proportion to the spreads reach the tolerance soonest: (sum of spreads / tolerance)^2 of them
        spreads = [part.spread for part in rounds.values()]
        need = terms.evaluations + len(x0)
        if math.isfinite(sum(spreads)):
            if (ratio := sum(spreads) / tolerance) > math.sqrt(MOST):
                rounds_needed = min(ratio, 1e150) ** 2
                told = f"a standard error of {tolerance} bits/dim would take about {rounds_needed:.1e} rounds"
                raise Unavailable(told, terms.evaluations)
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
        return math.sqrt(self._squares / (self.count - 1)) if self.count >= FEW else math.inf

    @property
    def se(self) -> float:
        """The standard error of the mean; infinite until there are enough rounds to tell."""
        return self.spread / math.sqrt(max(1, self.count))


def unknown(rounds: dict[str, Rounds]) -> str | None:
    """A part whose spread too few rounds have told; None where there is none.

    A spread told by few rounds is often too small, and that is when a bound would stop: after 8 its scatter is up to
    1.24 times what it says, after 32 it is what it says. Only a decoder that hardly counts, by less than a sixteenth
    of the variance, is content with 8.
    """
    for name, part in rounds.items():
        if part.count < FEW:
            return name
    diffusion, decoder = rounds["diffusion"], rounds["decoder"]
    if diffusion.count < PILOT:
        return "diffusion"
    counts = decoder.se > math.hypot(diffusion.se, decoder.se) / 4
    return "decoder" if counts and decoder.count < PILOT else None


def _prior(denoiser: Denoiser, x0: Tensor) -> float:
    """KL of the marginal at the denoiser's greatest time to the law that sampling starts from there."""
    end = torch.full((len(x0),), denoiser.time_range()[1], dtype=torch.float64, device=x0.device)
    alpha, sigma = denoiser.schedule.alpha(end), denoiser.schedule.sigma(end)
    return float(bits_per_dim(marginal_kl(alpha, sigma, denoiser.prior_std, x0), x0[0].numel()).mean())
