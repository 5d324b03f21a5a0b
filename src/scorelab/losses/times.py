"""Laws that draw training times."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from scorelab.schedules import Schedule


@dataclass(frozen=True)
class Draw:
    """Times t (n,) in float64, and the weight (n,) each sample's loss carries in the mean."""

    t: Tensor
    weight: Tensor


class Times(nn.Module):
    """Draws one rank's n times of a batch that all ranks share.

    Every rank passes a generator in the same state, draws for all ``world`` ranks, and keeps its share, so laws over
    the whole batch (stratified) hold across ranks. ``divides_by_density`` says whether the weight undoes the law
    (the objective stays what it was) or the law is part of the objective.
    """

    divides_by_density: bool = True

    @abstractmethod
    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Draw:
        """The times of this rank's n samples at optimiser step ``step``."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the losses (n,) seen at t (n,); most laws do not."""
        return


class Uniform(Times):
    """Independent t ~ U over the schedule's training times."""

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Draw:
        """Grid times (floor(T u) + 1) / T, u ~ U[0, 1)."""
        u = torch.rand(n * world, generator=generator, dtype=torch.float64)[rank::world]
        return Draw(schedule.training_time(u), torch.ones(n))


class Stratified(Times):
    """u_i = (u + i/B) mod 1: one random offset, the batch spread evenly (Kingma et al. 2021, appendix I.1)."""

    def draw(self, schedule: Schedule, n: int, step: int, rank: int, world: int, generator: Generator) -> Draw:
        """B = n * world places, this rank's every world-th."""
        offset = torch.rand(1, generator=generator, dtype=torch.float64)
        places = torch.arange(rank, n * world, world, dtype=torch.float64) / (n * world)
        return Draw(schedule.training_time((offset + places) % 1.0), torch.ones(n))
