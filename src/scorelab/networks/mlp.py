"""A residual network for points."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorelab.errors import Refusal
from scorelab.networks.layers import Conditioned, zeroed


class MLP(Conditioned):
    """Points (B, D), times (B,) in 0 ... 1000 and labels -> (B, outputs D).

    A linear layer to ``width``, then ``blocks`` of norm, scale and shift by time and label, SiLU, linear, SiLU, linear,
    plus the input; the last layer of each block, and of the network, starts at zero.

    Args:
        shape: (D,).
        width: of the hidden layers.
        blocks: how many.
        conditional: whether labels are seen.
        label_dropout: the share of labels that training takes away, so that guidance can be asked for.
        outputs: numbers per dimension.
        classes: how many labels there are.

    Raises:
        Refusal: for images, sizes below 1, or labels without classes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        blocks: int = 3,
        conditional: bool = False,
        label_dropout: float = 0.0,
        outputs: int = 1,
        classes: int | None = None,
    ) -> None:
        if len(shape) != 1:
            raise Refusal(f"this network is for points, and the data are of shape {tuple(shape)}: set model=unet")
        if width < 2 or width % 2 or blocks < 1:
            raise Refusal(f"width must be even and blocks at least 1, got {width} and {blocks}")
        super().__init__(width, width, conditional, label_dropout, classes)
        self.enter = nn.Linear(shape[0], width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.leave = zeroed(nn.Linear(width, outputs * shape[0]))

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, D), times (B,) in 0 ... 1000, labels (B,) -> (B, outputs D).

        A label of -1 is none.

        Raises:
            Refusal: without labels, where the network is conditional and was not trained without.
        """
        h, condition = self.enter(x), self.condition(time, label)
        for block in self.blocks:
            h = block(h, condition)
        return self.leave(functional.silu(h))


class Block(nn.Module):
    """Two linear layers beside the identity, told of time and label by scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.condition = nn.Linear(width, 2 * width)
        self.first, self.second = nn.Linear(width, width), zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, width), (B, width) -> (B, width)."""
        scale, shift = self.condition(condition).chunk(2, 1)
        inner = functional.silu(torch.addcmul(shift, self.norm(h), 1 + scale))
        return h + self.second(functional.silu(self.first(inner)))
