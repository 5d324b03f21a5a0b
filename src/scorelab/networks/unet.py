"""The U-Net of Ho et al. 2020 (appendix B), for 8x8x1 to 256x256x3 by its arguments."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.networks.layers import (
    Attention,
    Conditioned,
    Downsample,
    Frame,
    ResidualBlock,
    Upsample,
    norm,
    see_buildable,
    zeroed,
)


class UNet(Conditioned):
    """Residual blocks over falling, then rising resolutions, each layer up fed by one on the way down.

    Args:
        shape: (C, H, W) of the images; any H and W, see ``forward``.
        channels: the width at full resolution; None is sized by the data (see ``sizes``).
        multipliers: the width at each resolution, in units of ``channels``.
        blocks: residual blocks per resolution going down; one more going up.
        attention: the heights of the feature maps that get self-attention; the middle has it too unless this is empty.
        conditioning: how time and label act: "scale_shift" of the norms, or "add".
        dropout: inside residual blocks.
        conditional: whether labels are seen; the label is then an embedding added to that of time.
        label_dropout: the share of labels that training takes away, so that guidance can be asked for.
        outputs: output channels per input channel.
        classes: how many labels there are.

    Raises:
        Refusal: for an attention height that does not occur, labels without classes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int | None = None,
        multipliers: Sequence[int] | None = None,
        blocks: int = 1,
        attention: Sequence[int] | None = None,
        conditioning: Literal["scale_shift", "add"] = "scale_shift",
        dropout: float = 0.0,
        conditional: bool = False,
        label_dropout: float = 0.0,
        outputs: int = 1,
        classes: int | None = None,
    ) -> None:
        channels, multipliers, attention = self.sizes(shape, channels, multipliers, attention).values()
        heights = Frame.heights(shape[1], len(multipliers))
        if blocks < 1:
            raise Refusal(f"blocks must be at least 1, got {blocks}")
        see_buildable(channels, multipliers, attention, dropout, heights)
        super().__init__(channels, 4 * channels, conditional, label_dropout, classes)
        self.resolutions = len(multipliers)
        width, widths = 4 * channels, [channels * m for m in multipliers]
        scale_shift = conditioning == "scale_shift"

        def stage(inputs: int, outputs: int, attend: bool) -> nn.Module:
            block = ResidualBlock(inputs, outputs, width, dropout, scale_shift)
            return Stage(block, Attention(outputs) if attend else nn.Identity())

        self.enter = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.down, skips, now = nn.ModuleList(), [channels], channels
        for level, (out, height) in enumerate(zip(widths, heights, strict=True)):
            for _ in range(blocks):
                self.down.append(stage(now, out, height in attention))
                skips.append(now := out)
            if level + 1 < len(widths):
                self.down.append(Downsample(now))
                skips.append(now)
        self.middle = nn.ModuleList([stage(now, now, bool(attention)), stage(now, now, False)])
        self.up = nn.ModuleList()
        for level, (out, height) in reversed(list(enumerate(zip(widths, heights, strict=True)))):
            for _ in range(blocks + 1):
                self.up.append(stage(now + skips.pop(), out, height in attention))
                now = out
            if level > 0:
                self.up.append(Upsample(now))
        self.leave = nn.Sequential(norm(now), nn.SiLU(), zeroed(nn.Conv2d(now, outputs * shape[0], 3, padding=1)))

    @staticmethod
    def sizes(
        shape: Sequence[int],
        channels: int | None = None,
        multipliers: Sequence[int] | None = None,
        attention: Sequence[int] | None = None,
        small: bool = False,
    ) -> dict[str, Any]:
        """Widths and attention for images of this shape, where the arguments leave them open.

        Two resolutions for up to 8 pixels, three up to 31, four up to 64, then one more per doubling; attention
        where the feature map is 4 to 16 pixels high, full resolution aside. Where it is to be ``small``, for a CPU,
        it is 16 channels wide at full resolution: a step on 64 images of 28x28 takes half a second of one core then.

        Raises:
            Refusal: for data that are no images.
        """
        if len(shape) != 3:
            raise Refusal(f"this network is for images, and the data are of shape {tuple(shape)}: set model=mlp")
        height = max(shape[1:])
        width, factors, on_cpu = next(
            sizes
            for limit, sizes in (
                (8, (16, [1, 2], [1, 2])),
                (31, (64, [1, 2, 2], [1, 2, 4])),
                (64, (128, [1, 2, 2, 2], [1, 2, 4, 4])),
                (128, (128, [1, 1, 2, 3, 4], [1, 1, 2, 4, 4])),
                (float("inf"), (128, [1, 1, 2, 2, 4, 4], [1, 1, 1, 2, 4, 4])),
            )
            if height <= limit
        )
        if small:
            width, factors = 16, on_cpu
        factors = factors if multipliers is None else list(multipliers)
        heights = Frame.heights(shape[1], len(factors))
        return {
            "channels": width if channels is None else channels,
            "multipliers": factors,
            "attention": [h for h in heights[1:] if 4 <= h <= 16] if attention is None else list(attention),
        }

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), times (B,) in 0 ... 1000, labels (B,) -> (B, outputs C, H, W).

        Where H or W cannot be halved as often as there are resolutions, zeros are put around the image (``Frame``).

        A label of -1 is none.

        Raises:
            Refusal: without labels, where the network is conditional and was not trained without.
        """
        condition, frame = self.condition(time, label), Frame.around(x, self.resolutions)
        h = self.enter(frame.put(x))
        skips = [h]
        for layer in self.down:
            h = layer(h, condition) if isinstance(layer, Stage) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, condition)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], 1), condition) if isinstance(layer, Stage) else layer(h)
        return frame.cut(self.leave(h))


class Stage(nn.Module):
    """A residual block, then attention or nothing."""

    def __init__(self, block: ResidualBlock, attention: nn.Module) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return self.attention(self.block(x, condition))
