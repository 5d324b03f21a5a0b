"""A U-Net for least work: one norm a block, one sum a resolution on the way up."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorelab.errors import Refusal
from scorelab.networks.layers import Attention, Conditioned, Downsample, Frame, Upsample, norm, see_buildable, zeroed


class LightUNet(Conditioned):
    """Blocks over falling, then rising resolutions; each resolution down is added to the same one on the way up.

    Beside Ho et al.'s: a block has one norm, which time and label scale and shift, and no layers of other widths, for
    only the steps between resolutions change them; what was kept on the way down is added once a resolution, where
    theirs is put beside the input of every layer up, whose convolutions are then twice as wide. At equal weights a
    step takes less than two thirds of the time (benchmarks/RESULTS.md).

    Args:
        shape: (C, H, W) of the images; any H and W, see ``forward``.
        channels: the width at full resolution; None is sized by the data (see ``sizes``), as the next three are.
        multipliers: the width at each resolution, in units of ``channels``.
        blocks: how many there are at each resolution on the way down, and as many on the way up.
        attention: the heights of the feature maps that get self-attention, after the blocks down and the blocks up; at
            the lowest resolution, where these follow each other, between them alone.
        dropout: inside blocks.
        conditional: whether labels are seen; the label is then an embedding added to that of time.
        label_dropout: the share of labels that training takes away, so that guidance can be asked for.
        outputs: output channels per input channel.
        classes: how many labels there are.

    Raises:
        Refusal: for sizes that no network has, labels without classes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int | None = None,
        multipliers: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        attention: Sequence[int] | None = None,
        dropout: float = 0.0,
        conditional: bool = False,
        label_dropout: float = 0.0,
        outputs: int = 1,
        classes: int | None = None,
    ) -> None:
        channels, multipliers, blocks, attention = self.sizes(shape, channels, multipliers, blocks, attention).values()
        heights = Frame.heights(shape[1], len(multipliers))
        if len(blocks) != len(multipliers) or min(blocks, default=0) < 1:
            told = f"blocks must say for each of {len(multipliers)} resolutions how many there are, at least 1"
            raise Refusal(f"{told}; got {list(blocks)}")
        see_buildable(channels, multipliers, attention, dropout, heights)
        super().__init__(channels, 4 * channels, conditional, label_dropout, classes)
        widths = [channels * m for m in multipliers]

        def stages(attend: Sequence[bool]) -> nn.ModuleList:
            return nn.ModuleList(
                Stage([LightBlock(width, 4 * channels, dropout) for _ in range(many)], Attention(width) if so else None)
                for width, many, so in zip(widths, blocks, attend, strict=True)
            )

        attend, steps = [height in attention for height in heights], list(pairwise(widths))
        self.enter = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.down, self.up = stages(attend), stages([*attend[:-1], False])
        self.shrink = nn.ModuleList(Downsample(wide, wider) for wide, wider in steps)
        self.grow = nn.ModuleList(Upsample(wider, wide) for wide, wider in steps)
        self.leave = nn.Sequential(
            norm(channels), nn.SiLU(), zeroed(nn.Conv2d(channels, outputs * shape[0], 3, padding=1))
        )

    @staticmethod
    def sizes(
        shape: Sequence[int],
        channels: int | None = None,
        multipliers: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        attention: Sequence[int] | None = None,
        small: bool = False,
    ) -> dict[str, Any]:
        """Widths, blocks and attention for images of this shape, where the arguments leave them open.

        Two resolutions for up to 8 pixels, three up to 31, four up to 64, then one more per doubling; one block at the
        first, two at each other; attention where the feature map is 4 to 16 pixels high, full resolution aside.
        Where it is to be ``small``, for a CPU, it is 16 channels wide at full resolution.

        Raises:
            Refusal: for data that are no images.
        """
        if len(shape) != 3:
            raise Refusal(f"this network is for images, and the data are of shape {tuple(shape)}: set model=mlp")
        width, factors, on_cpu = next(
            (wide, most, few)
            for limit, wide, most, few in (
                (8, 16, [1, 2], [1, 2]),
                (31, 64, [1, 2, 2], [1, 2, 4]),
                (64, 128, [1, 2, 2, 2], [1, 2, 4, 4]),
                (128, 128, [1, 1, 2, 3, 4], [1, 1, 2, 4, 4]),
                (float("inf"), 128, [1, 1, 2, 2, 4, 4], [1, 1, 1, 2, 4, 4]),
            )
            if max(shape[1:]) <= limit
        )
        factors = on_cpu if small else factors
        factors = factors if multipliers is None else list(multipliers)
        heights = Frame.heights(shape[1], len(factors))
        return {
            "channels": channels if channels is not None else 16 if small else width,
            "multipliers": factors,
            "blocks": list(blocks) if blocks is not None else [1] + [2] * (len(factors) - 1),
            "attention": [h for h in heights[1:] if 4 <= h <= 16] if attention is None else list(attention),
        }

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), times (B,) in 0 ... 1000, labels (B,), of which -1 is none -> (B, outputs C, H, W).

        Where H or W cannot be halved as often as there are resolutions, zeros are put around the image (``Frame``).

        Raises:
            Refusal: without labels, where the network is conditional and was not trained without.
        """
        condition, frame = self.condition(time, label), Frame.around(x, len(self.down))
        h, kept = self.enter(frame.put(x)), []
        for stage, shrink in zip(self.down[:-1], self.shrink, strict=True):
            kept.append(stage(h, condition))
            h = shrink(kept[-1])
        h = self.up[-1](self.down[-1](h, condition), condition)
        for stage, grow in zip(reversed(self.up[:-1]), reversed(self.grow), strict=True):
            h = stage(grow(h) + kept.pop(), condition)
        return frame.cut(self.leave(h))


class LightBlock(nn.Module):
    """x + conv(SiLU(conv((1 + scale) norm(x) + shift))), scale and shift linear in the condition (B, width).

    The second convolution starts at zero, so a block starts as the identity.
    """

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm(channels).num_groups, channels, affine=False)
        self.condition, self.dropout = nn.Linear(width, 2 * channels), nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        scale, shift = self.condition(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(torch.addcmul(shift, self.norm(x), 1 + scale))
        return x + self.conv2(self.dropout(functional.silu(h)))


class Stage(nn.Module):
    """Blocks, then attention or nothing."""

    def __init__(self, blocks: Sequence[LightBlock], attention: Attention | None) -> None:
        super().__init__()
        self.blocks, self.attention = nn.ModuleList(blocks), attention or nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        for block in self.blocks:
            x = block(x, condition)
        return self.attention(x)
