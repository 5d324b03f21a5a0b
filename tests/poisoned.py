"""A loss of a user's own that goes wrong, for the tests of what is done about it."""

import torch

from scorelab.losses import Simple
from scorelab.losses.base import Terms


class Poisoned(Simple):
    """L_simple, but ``value`` times as much at times above ``above``; or with a gradient that is not finite there."""

    def __init__(self, above: float = 2.0, value: float = float("nan"), gradient: bool = False, normalize: bool = True):
        super().__init__(normalize=normalize)
        self.above, self.value, self.gradient = above, value, gradient

    def forward(self, denoiser, example, generator=None):
        terms = super().forward(denoiser, example, generator)
        bad = example.t > self.above
        if self.gradient:  # the square root has an infinite slope at 0: the loss stays finite, its gradient does not
            return Terms(terms.loss + torch.where(bad, terms.loss - terms.loss.detach(), 1.0).sqrt() * bad, terms.parts)
        return Terms(terms.loss * torch.where(bad, self.value, 1.0).to(terms.loss), terms.parts)
