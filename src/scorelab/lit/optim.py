"""Learning-rate schedules."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from scorelab.errors import Refusal


class WarmupCosine(LambdaLR):
    """The rate rises linearly over ``warmup`` steps, then falls to 0 along half a cosine until ``total_steps``.

    The warm-up is never longer than a tenth of the steps.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: int = 100) -> None:
        if warmup < 0:
            raise Refusal(f"warmup must be at least 0 steps, got {warmup}")
        self.total_steps, self.warmup = total_steps, max(1, min(warmup, total_steps // 10))
        super().__init__(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        rest = max(1, self.total_steps - self.warmup)
        done = min(1.0, max(0.0, (step - self.warmup) / rest))
        return min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * done))


class Constant(LambdaLR):
    """The rate rises linearly over ``warmup`` steps (at most a tenth of all), then stays."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: int = 100) -> None:
        if warmup < 0:
            raise Refusal(f"warmup must be at least 0 steps, got {warmup}")
        self.warmup = max(1, min(warmup, total_steps // 10))
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / self.warmup))
