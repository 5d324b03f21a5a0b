"""Laws that draw training times."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from scorelab.errors import Refusal
from scorelab.schedules import Schedule


@dataclass(frozen=True)
class Timesteps:
    """Times t (n,) in float64, and the weight (n,) each sample's loss carries in the mean."""

    t: Tensor
    weight: Tensor


class TimestepSampler(nn.Module, ABC):
    """Draws one rank's n times of a batch that all ranks share.

    Every rank passes a generator in the same state, draws for all ``world`` ranks, and keeps its share (``of_rank``),
    so laws over the whole batch (stratified) hold across ranks, and one rank with all of it draws the same times.
    ``divides_by_density`` says whether the weight undoes the law (the objective stays what it was) or the law is part
    of the objective, ``uniform_in_time`` whether there is nothing to undo.
    """

    divides_by_density: bool = True
    uniform_in_time: bool = False

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that learns where times are dense, if this law says that itself.

        Raises:
            Refusal: one sentence that says what to change.
        """
        if schedule.learns and not self.uniform_in_time:
            raise Refusal("a learned schedule itself says which noise is drawn: set timesteps=uniform or stratified")

    def density(self, schedule: Schedule, t: Tensor) -> Tensor:
        """What the law makes of the objective, relative to uniform times: E[weight g(t)] = E_uniform[density g(t)].

        1 for every law that divides by its own density; the others say theirs.
        """
        return torch.ones_like(t, dtype=torch.float64)

    @abstractmethod
    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Timesteps:
        """The times of this rank's n samples at optimiser step ``step``."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the losses (n,) seen at t (n,); most laws do not."""
        return

    def see(self, schedule: Schedule, t: Tensor, errors: Tensor | None) -> None:
        """Learn from ||eps - eps^||^2 / d (n,) of the same samples, None where the loss says none; most laws do not."""
        return


def of_rank(draws: Tensor, n: int, rank: int) -> Tensor:
    """One rank's n of the draws (..., n * world) for a whole batch, in its order."""
    return draws[..., rank * n : (rank + 1) * n]


class Uniform(TimestepSampler):
    """Independent t ~ U over the schedule's training times."""

    uniform_in_time = True

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Timesteps:
        """Grid times (floor(T u) + 1) / T, u ~ U[0, 1)."""
        u = of_rank(torch.rand(n * world, generator=generator, dtype=torch.float64), n, rank)
        return Timesteps(schedule.training_time(u), torch.ones(n))


class Stratified(TimestepSampler):
    """u_i = (u + i/B) mod 1: one random offset, the batch spread evenly (Kingma et al. 2021, appendix I.1)."""

    uniform_in_time = True

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Timesteps:
        """B = n * world places, this rank's n of them."""
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        places = torch.arange(rank * n, (rank + 1) * n, dtype=torch.float64) / (n * world)
        return Timesteps(schedule.training_time((offset + places) % 1.0), torch.ones(n))


class LogSNRUniform(TimestepSampler):
    """lambda ~ U[lambda(t_max), lambda(t_min)], divided by its density: p(t) ~ -dlambda/dt = g^2/sigma^2.

    The importance sampling of Song et al. 2021, "Maximum likelihood training of score-based diffusion models". On a
    grid p_i is in proportion to lambda_{i-1} - lambda_i, and i = 1 as likely as i = 2.
    """

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Timesteps:
        """Independent times, the mean weight 1 under this law."""
        u = of_rank(torch.rand(n * world, generator=generator, dtype=torch.float64), n, rank)
        low, high = schedule.log_snr_range()
        if schedule.num_steps is None:
            t = schedule.inverse(low + u * (high - low))
            fall = schedule.g2(t) / schedule.sigma(t) ** 2
            return Timesteps(t, (high - low) / (schedule.duration * fall))
        fall = -schedule.log_snr(schedule.grid()[1:]).diff()
        return pick(torch.cat([fall[:1], fall]) if len(fall) else u.new_ones(1), u)


def pick(p: Tensor, u: Tensor) -> Timesteps:
    """Grid times t_i at the quantiles u in [0, 1) of a law in proportion to p (T,), weighted by 1/(T p_i)."""
    p = p / p.sum()
    index = torch.searchsorted(p.cumsum(0), u.contiguous(), right=True).clamp(max=len(p) - 1)
    return Timesteps((index + 1).double() / len(p), 1 / (len(p) * p[index]))


class Importance(TimestepSampler):
    """p is in proportion to sqrt(E[L^2 | t]), divided by it (Nichol & Dhariwal 2021, section 3.3, eq. 18).

    E is over the last ``history`` losses seen in each bin: one per grid time, ``bins`` of equal length where the
    schedule is continuous. Uniform until every bin has its history; the share ``uniform`` of p stays uniform. What
    was seen is kept in checkpoints.

    Raises:
        Refusal: for a number that cannot be.
    """

    def __init__(self, history: int = 10, uniform: float = 0.001, bins: int = 1000) -> None:
        super().__init__()
        if history < 1 or bins < 1 or not 0 < uniform <= 1:
            raise Refusal(
                f"history and bins must be at least 1 and uniform in (0, 1], got {history}, {bins} and {uniform}"
            )
        self.history, self.uniform, self.bins = history, uniform, bins
        self.losses, self.seen = torch.zeros(0, history, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
        self.first, self.last = 0.0, 1.0

    def get_extra_state(self) -> dict[str, Any]:
        """The losses seen, for the checkpoint."""
        return {"losses": self.losses, "seen": self.seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.losses, self.seen = state["losses"].cpu(), state["seen"].cpu()

    def probabilities(self) -> Tensor:
        """The probability of each bin, float64."""
        bins, p = len(self.seen), self.losses.square().mean(1).sqrt()
        if bool((self.seen < self.history).any()) or float(p.sum()) == 0:
            return torch.full((bins,), 1 / bins, dtype=torch.float64)
        return (1 - self.uniform) * p / p.sum() + self.uniform / bins

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Timesteps:
        """Independent bins, and a uniform time within one where the schedule is continuous."""
        bins = schedule.num_steps or self.bins
        self.first, self.last = (0.0, 1.0) if schedule.num_steps is not None else (schedule.t_min, schedule.t_max)
        if len(self.seen) != bins:
            self.losses, self.seen = self.losses.new_zeros(bins, self.history), self.seen.new_zeros(bins)
        u = of_rank(torch.rand(2, n * world, generator=generator, dtype=torch.float64), n, rank)
        drawn = pick(self.probabilities(), u[0])
        if schedule.num_steps is not None:
            return drawn
        return Timesteps(schedule.training_time(drawn.t - u[1] / bins), drawn.weight)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the losses (n,) seen at t (n,), the newest ``history`` of each bin; infinite ones and NaN aside."""
        t, losses = t.detach().cpu().double(), losses.detach().cpu().double()
        t, losses = t[losses.isfinite()], losses[losses.isfinite()]
        bins, share = len(self.seen), (t - self.first) / (self.last - self.first)
        bin = (torch.ceil(share * bins - 1e-6) - 1).long().clamp(0, bins - 1)
        order = torch.argsort(bin, stable=True)
        bin, losses = bin[order], losses[order]
        count = bin.bincount(minlength=bins)
        nth = torch.arange(len(bin)) - (count.cumsum(0) - count)[bin]  # its place among those of its bin, oldest first
        kept = nth >= count[bin] - self.history
        self.losses[bin[kept], (self.seen[bin] + nth)[kept] % self.history] = losses[kept]
        self.seen += count
