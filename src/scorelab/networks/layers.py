"""The parts of networks: how they are told time and label, and the layers of a U-Net."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorelab.errors import Refusal

Layer = TypeVar("Layer", bound=nn.Module)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with min(32, C/4) groups, or the nearest number below that divides C."""
    groups = next(g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def zeroed(layer: Layer) -> Layer:
    """The layer with all weights zero: a residual branch that starts as the identity."""
    for weights in layer.parameters():
        nn.init.zeros_(weights)
    return layer


@dataclass(frozen=True)
class Frame:
    """Zeros around an image, as many on either side, up to the next size that can be halved again and again.

    Attributes:
        height, width: of the image.
        left, right, top, bottom: how many zeros there are.
    """

    height: int
    width: int
    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def around(cls, x: Tensor, resolutions: int) -> "Frame":
        """For images (B, C, H, W) that are to be seen at so many resolutions."""
        (height, width), grain = x.shape[2:], 2 ** (resolutions - 1)
        across, down = -width % grain, -height % grain
        return cls(height, width, across // 2, across - across // 2, down // 2, down - down // 2)

    @staticmethod
    def heights(height: int, resolutions: int) -> list[int]:
        """The height at each resolution, zeros among it."""
        grain = 2 ** (resolutions - 1)
        return [-(-height // grain) * grain >> level for level in range(resolutions)]

    def put(self, x: Tensor) -> Tensor:
        """(B, C, H, W) with zeros around."""
        margins = (self.left, self.right, self.top, self.bottom)
        return functional.pad(x, margins) if any(margins) else x

    def cut(self, x: Tensor) -> Tensor:
        """What lies where the image was, (B, C, H, W)."""
        return x[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


class TimeEmbedding(nn.Module):
    """Sines and cosines of a real number in 0 ... 1000 at geometric frequencies 1 ... 1e-4 (Vaswani et al. 2017)."""

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        exponents = torch.arange(channels // 2) / max(1, channels // 2 - 1)
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * exponents), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """(B,) -> (B, channels)."""
        phase = time[:, None].float() * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=1)


class Conditioned(nn.Module):
    """A network that is told the time, and the label where it is ``conditional``: the sum of two embeddings.

    Args:
        channels: sines and cosines of the time; two layers make ``width`` numbers of them.
        width: of the condition.
        conditional: whether labels are seen.
        label_dropout: the share of labels that training takes away, so that guidance can be asked for.
        classes: how many labels there are.

    Raises:
        Refusal: for labels without classes, and a share that is none.
    """

    def __init__(self, channels: int, width: int, conditional: bool, label_dropout: float, classes: int | None) -> None:
        super().__init__()
        if conditional and not classes:
            raise Refusal("model.conditional=true needs data with labels")
        if not 0 <= label_dropout < 1:
            raise Refusal(f"label_dropout must lie in [0, 1), got {label_dropout}")
        if label_dropout and not conditional:
            raise Refusal("label_dropout takes labels away from a network that sees them: set model.conditional=true")
        self.label_dropout = label_dropout
        self.time = nn.Sequential(
            TimeEmbedding(channels), nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width)
        )
        # one row more than labels, for none of them
        self.label = nn.Embedding(classes + 1, width) if conditional and classes else None

    def condition(self, time: Tensor, label: Tensor | None) -> Tensor:
        """Times (B,) in 0 ... 1000 and labels (B,), of which -1 is none -> what layers are told, (B, width).

        While training a share ``label_dropout`` of the labels is taken away, so that "no label" is learned too (Ho &
        Salimans 2022, "Classifier-free diffusion guidance", algorithm 1).

        Raises:
            Refusal: for no labels at all, where the network is conditional and training never left them out.
        """
        embedded: Tensor = self.time(time)
        if self.label is not None:
            embedded = embedded + self.label(self._rows(self.label.num_embeddings - 1, time, label))
        return functional.silu(embedded)

    def _rows(self, none: int, time: Tensor, label: Tensor | None) -> Tensor:
        """Which row of the embedding each label has; no label has the last."""
        if label is None:
            if not self.label_dropout:
                raise Refusal(
                    "this network is conditional and was never trained without labels: give labels, or train with "
                    "model.label_dropout=0.1"
                )
            return torch.full((len(time),), none, device=time.device)
        left_out = label < 0
        if self.training and self.label_dropout:
            left_out = left_out | (torch.rand(len(label), device=label.device) < self.label_dropout)
        return torch.where(left_out, none, label)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv; condition; norm, SiLU, dropout, conv; plus the input (Ho et al. 2020, appendix B).

    The condition (B, width) either scales and shifts the second norm's output (``scale_shift``, Dhariwal & Nichol
    2021, section 3) or is added before it.
    """

    def __init__(self, inputs: int, outputs: int, width: int, dropout: float, scale_shift: bool) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.condition = nn.Linear(width, 2 * outputs if scale_shift else outputs)
        self.norm2, self.dropout = norm(outputs), nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        condition = self.condition(condition)[:, :, None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + condition)
        return self.skip(x) + self.conv2(self.dropout(functional.silu(h)))


class Attention(nn.Module):
    """Self-attention over pixels, plus the input (Ho et al. 2020, appendix B); heads of at most 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(h for h in range(max(1, channels // 64), 0, -1) if channels % h == 0)
        self.norm, self.qkv = norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(x.shape))


class Downsample(nn.Conv2d):
    """A 3x3 convolution of stride 2: half the size."""

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__(channels, outputs or channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Nearest-neighbour doubling, then a 3x3 convolution, computed as one transposed 4x4 convolution of stride 2.

    The two are the same linear map: each output pixel sees 2x2 inputs, weighted by sums of the 3x3 kernel. It needs
    4/9 of the multiplications; the stored weights stay those of the 3x3 convolution.
    """

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__(channels, outputs or channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', 2H, 2W)."""
        wide = functional.pad(self.weight, (1, 1, 1, 1))
        wide = wide[:, :, 1:] + wide[:, :, :-1]
        folded = (wide[..., 1:] + wide[..., :-1]).flip(2, 3).transpose(0, 1)
        return functional.conv_transpose2d(x, folded, self.bias, stride=2, padding=1)


def see_buildable(
    channels: int, multipliers: Sequence[int], attention: Sequence[int], dropout: float, heights: Sequence[int]
) -> None:
    """Refuse what no U-Net can be built from, ``heights`` being those of its feature maps.

    Raises:
        Refusal: for widths, a share or heights that cannot be.
    """
    if channels < 4 or channels % 2:
        raise Refusal(f"channels must be even and at least 4, got {channels}")
    if not multipliers or min(multipliers) < 1:
        raise Refusal(f"multipliers must be at least 1, got {list(multipliers)}")
    if not 0 <= dropout < 1:
        raise Refusal(f"dropout must lie in [0, 1), got {dropout}")
    if missing := [h for h in attention if h not in heights]:
        raise Refusal(f"attention={missing} names heights that do not occur: the feature maps have {list(heights)}")
