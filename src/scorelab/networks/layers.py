"""The parts of a U-Net."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorelab.errors import Refusal


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with min(32, C/4) groups, or the nearest number below that divides C."""
    groups = next(g for g in range(min(32, max(1, channels // 4)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all weights zero: a residual branch that starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def labels_of(classes: int, label: Tensor | None, x: Tensor, dropout: float, training: bool) -> Tensor:
    """Which row (B,) of an embedding of labels each x (B, ...) gets: its label's, or the last, of no label (-1).

    While training a share ``dropout`` of the labels is taken away, so that "no label" is learned too (Ho & Salimans
    2022, "Classifier-free diffusion guidance", algorithm 1).

    Raises:
        Refusal: for no labels at all, where training never left them out.
    """
    if label is None:
        if not dropout:
            raise Refusal(
                "this network is conditional and was never trained without labels: give labels, or train with "
                "model.label_dropout=0.1"
            )
        return torch.full((len(x),), classes, device=x.device)
    left_out = label < 0
    if training and dropout:
        left_out = left_out | (torch.rand(len(label), device=label.device) < dropout)
    return torch.where(left_out, classes, label)


def see_labels(conditional: bool, label_dropout: float, classes: int | None) -> None:
    """See that a network can have the labels it is to have.

    Raises:
        Refusal: where it cannot.
    """
    if conditional and not classes:
        raise Refusal("model.conditional=true needs data with labels")
    if not 0 <= label_dropout < 1:
        raise Refusal(f"label_dropout must lie in [0, 1), got {label_dropout}")
    if label_dropout and not conditional:
        raise Refusal("label_dropout takes labels away from a network that sees them: set model.conditional=true")


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

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Nearest-neighbour doubling, then a 3x3 convolution, computed as one transposed 4x4 convolution of stride 2.

    The two are the same linear map: each output pixel sees 2x2 inputs, weighted by sums of the 3x3 kernel. It needs
    4/9 of the multiplications; the stored weights stay those of the 3x3 convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        wide = functional.pad(self.weight, (1, 1, 1, 1))
        wide = wide[:, :, 1:] + wide[:, :, :-1]
        folded = (wide[..., 1:] + wide[..., :-1]).flip(2, 3).transpose(0, 1)
        return functional.conv_transpose2d(x, folded, self.bias, stride=2, padding=1)
