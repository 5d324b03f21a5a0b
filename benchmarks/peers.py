"""Networks of other projects and ours of about one size, called alike: network(x_t, time) -> what it predicts.

pip install -e '.[bench]'
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorelab.networks import LightUNet, Transformer, UNet
from scorelab.networks.layers import TimeEmbedding

Net = Callable[[], nn.Module]


class Diffusers(nn.Module):
    """UNet2DModel, with attention where it is asked for and in the middle."""

    def __init__(self, shape: tuple[int, int, int], widths: tuple[int, ...], attention: tuple[bool, ...]) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        down = tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attention)
        up = tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attention))
        self.network = UNet2DModel(
            sample_size=shape[1],
            in_channels=shape[0],
            out_channels=shape[0],
            layers_per_block=1,
            block_out_channels=widths,
            down_block_types=down,
            up_block_types=up,
            norm_num_groups=8,
            attention_head_dim=64,
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.network(x, time).sample


class Azula(nn.Module):
    """azula's UNet as it comes: no attention, one norm a block, one concatenation a resolution.

    Times are multiplied by ``scale``, for an embedding that is made for 0 ... 1000.
    """

    def __init__(
        self, shape: tuple[int, int, int], widths: tuple[int, ...], blocks: tuple[int, ...], scale: float = 1.0
    ) -> None:
        from azula.nn.unet import UNet as Theirs

        super().__init__()
        embedded = 2 * widths[0]
        self.time, self.scale = TimeEmbedding(embedded), scale
        self.network = Theirs(shape[0], shape[0], hid_channels=widths, hid_blocks=blocks, mod_features=embedded)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.network(x, self.time(self.scale * time.expand(len(x))))


def lucidrains(channels: int, width: int, multipliers: tuple[int, ...]) -> nn.Module:
    """denoising-diffusion-pytorch's Unet, linear attention at every resolution but the last."""
    from denoising_diffusion_pytorch import Unet

    return Unet(width, channels=channels, dim_mults=multipliers)


@dataclass(frozen=True)
class Size:
    """Images of one shape, how many a step sees, and networks for them of about one number of weights."""

    shape: tuple[int, int, int]
    batch: int
    networks: dict[str, Net]


COLOUR32 = (3, 32, 32)


def grey(side: int, batch: int) -> Size:
    """Images of one channel, and networks of about 1.2 million weights with attention below full resolution."""
    shape, attention = (1, side, side), [side // 2, side // 4]
    networks: dict[str, Net] = {
        "diffusers": lambda: Diffusers(shape, (32, 64, 64), (False, True, True)),
        "azula": lambda: Azula(shape, (32, 64, 80), (2, 2, 2)),
        "denoising-diffusion-pytorch": lambda: lucidrains(1, 28, (1, 2, 2)),
        "unet": lambda: UNet(shape, 32, [1, 2, 2], attention=attention),
        "light_unet": lambda: LightUNet(shape, 32, [1, 2, 4], [1, 1, 1], attention),
        "transformer": lambda: Transformer(shape, 128, 4, 2),
    }
    return Size(shape, batch, networks)


SIZES = {
    "1x8x8": grey(8, 128),
    "1x16x16": grey(16, 64),
    "3x32x32": Size(
        COLOUR32,
        8,
        {
            "diffusers": lambda: Diffusers(COLOUR32, (96, 192, 192), (False, True, False)),
            "azula": lambda: Azula(COLOUR32, (72, 144, 288), (2, 2, 2)),
            "denoising-diffusion-pytorch": lambda: lucidrains(3, 64, (1, 2, 4)),
            "unet": lambda: UNet(COLOUR32, 92, [1, 2, 2], attention=[16, 8]),
            "light_unet": lambda: LightUNet(COLOUR32, 64, [1, 2, 4, 4], [1, 1, 1, 1], [16, 8, 4]),
            "transformer": lambda: Transformer(COLOUR32, 288, 6, 2),
        },
    ),
}


def weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(build: Net) -> nn.Module:
    with torch.device("meta"):
        return build()
