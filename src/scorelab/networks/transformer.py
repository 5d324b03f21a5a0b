"""The transformer of Peebles & Xie 2022 (DiT, arXiv 2212.09748), for images by patches and for points by groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from scorelab.errors import Refusal
from scorelab.networks.layers import Conditioned, TimeEmbedding, zeroed

HEAD = 32  # channels of each head of attention, at most; the paper's have 64, which would leave small networks one


class Transformer(Conditioned):
    """Tokens of an image's patches, or of a point's coordinates, that attend to each other.

    Each token enters by a linear layer. ``blocks`` follow, told of time and label by adaptive norms, then a norm of
    this kind and a linear layer back to patches. The gates of all blocks and the last layer start at zero
    ("adaLN-Zero"), so blocks start as the identity and the network at zero. Patches share their layers and are told
    apart by sines and cosines of row and column; coordinates have no order, so each token of a point has layers of its
    own (Gorishniy et al. 2021, arXiv 2106.11959, the feature tokenizer).

    Args:
        shape: (C, H, W) of the images, or (D,) of the points.
        channels: the width of a token; None is sized by the data (see ``sizes``), as the next two are.
        blocks: how many.
        patch: the side of a patch, or how many coordinates a token has. Zeros are put around what it does not divide,
            as many on either side, and what comes out is cut back.
        conditional: whether labels are seen; the label is then an embedding added to that of time.
        label_dropout: the share of labels that training takes away, so that guidance can be asked for.
        outputs: output channels per input channel, or numbers per coordinate.
        classes: how many labels there are.

    Raises:
        Refusal: for data that are neither, sizes that no network has, labels without classes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int | None = None,
        blocks: int | None = None,
        patch: int | None = None,
        conditional: bool = False,
        label_dropout: float = 0.0,
        outputs: int = 1,
        classes: int | None = None,
    ) -> None:
        channels, blocks, patch = self.sizes(shape, channels, blocks, patch).values()
        if channels < 4 or channels % 4 or blocks < 1 or patch < 1:
            raise Refusal(
                f"channels must be a multiple of 4, blocks and patch at least 1, got {channels}, {blocks} and {patch}"
            )
        super().__init__(channels, channels, conditional, label_dropout, classes)
        sides = tuple(shape) if len(shape) == 1 else tuple(shape[1:])
        self.patches = Patches(sides, patch)
        size = patch ** len(sides) * (shape[0] if len(shape) == 3 else 1)
        if len(shape) == 3:
            self.enter: nn.Module = Placed(size, channels, self.patches.grid)
            self.leave: nn.Module = zeroed(nn.Linear(channels, outputs * size))
        else:
            tokens = self.patches.grid[0]
            self.enter, self.leave = Apart(tokens, size, channels), zeroed(Apart(tokens, channels, outputs * size))
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels, elementwise_affine=False, eps=1e-6)
        self.last = zeroed(nn.Linear(channels, 2 * channels))

    @staticmethod
    def sizes(
        shape: Sequence[int],
        channels: int | None = None,
        blocks: int | None = None,
        patch: int | None = None,
        small: bool = False,
    ) -> dict[str, int]:
        """Widths and patches for data of this shape, where the arguments leave them open.

        Patches are the smallest, by doubling, that are not too many. Up to 8 pixels, or 512 coordinates, 4 blocks of 64
        channels and 16 tokens at most are enough: a step takes as long as the small U-Net's. Above, 256 at most, as the
        paper's 32 x 32 latents have in patches of 2, in 12 blocks of 384 channels, its model S, and beyond 64 pixels of
        768, its B. Where it is to be ``small``, for a CPU, there are 4 blocks, of 128 channels and 64 tokens at most up
        to 64 pixels: a step on 64 images of 28x28 takes a third of a second of one core then.

        Raises:
            Refusal: for data that are neither images nor points.
        """
        if len(shape) not in (1, 3):
            raise Refusal(f"this network is for images and points, and the data are of shape {tuple(shape)}")
        sides = tuple(shape) if len(shape) == 1 else tuple(shape[1:])
        chosen, on_cpu = next(
            sizes
            for limit, *sizes in (
                (8 if len(shape) == 3 else 512, (64, 4, 16), (64, 4, 16)),
                (64 if len(shape) == 3 else math.inf, (384, 12, 256), (128, 4, 64)),
                (math.inf, (768, 12, 256), (256, 4, 256)),
            )
            if max(sides) <= limit
        )
        width, depth, most = on_cpu if small else chosen
        least = 1
        while math.prod(Patches(sides, least).grid) > most:
            least *= 2
        return {
            "channels": width if channels is None else channels,
            "blocks": depth if blocks is None else blocks,
            "patch": least if patch is None else patch,
        }

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W) or (B, D), times (B,) in 0 ... 1000, labels (B,) -> the same with C or D times outputs.

        A label of -1 is none.

        Raises:
            Refusal: without labels, where the network is conditional and was not trained without.
        """
        condition = self.condition(time, label)
        points = x.ndim == 2
        h = self.enter(self.patches.cut(x[:, None] if points else x))
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.last(condition)[:, None].chunk(2, -1)
        out = self.patches.joined(self.leave(modulated(self.norm(h), shift, scale)))
        return out.flatten(1) if points else out


@dataclass(frozen=True)
class Patches:
    """How an image of these sides is cut into patches of ``size`` x ``size``, or a row of numbers into pieces."""

    sides: tuple[int, ...]
    size: int

    @property
    def grid(self) -> tuple[int, ...]:
        """How many there are along each side."""
        return tuple(-(-side // self.size) for side in self.sides)

    @property
    def before(self) -> tuple[int, ...]:
        """The zeros put before each side: half of those that are missing, rounded down."""
        return tuple((-side % self.size) // 2 for side in self.sides)

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, *sides) -> (B, N, C size^k), in the order of reading, k the number of sides."""
        batch, channels = x.shape[:2]
        missing = [(first, -side % self.size - first) for side, first in zip(self.sides, self.before, strict=True)]
        if any(after for _, after in missing):
            x = functional.pad(x, [zeros for pair in reversed(missing) for zeros in pair])
        x = x.reshape(batch, channels, *(length for n in self.grid for length in (n, self.size)))
        x = x.permute(0, *range(2, x.ndim, 2), 1, *range(3, x.ndim, 2))
        return x.reshape(batch, math.prod(self.grid), -1)

    def joined(self, tokens: Tensor) -> Tensor:
        """(B, N, C size^k) -> (B, C, *sides): the inverse, the margin left out."""
        k = len(self.sides)
        x = tokens.reshape(len(tokens), *self.grid, -1, *(self.size for _ in range(k)))
        x = x.permute(0, k + 1, *(axis for j in range(k) for axis in (1 + j, k + 2 + j)))
        x = x.reshape(len(tokens), -1, *(n * self.size for n in self.grid))
        for axis, (first, side) in enumerate(zip(self.before, self.sides, strict=True), 2):
            x = x.narrow(axis, first, side)
        return x


class Placed(nn.Linear):
    """One linear layer for all patches, plus sines and cosines of each one's row (half the channels) and column."""

    places: Tensor

    def __init__(self, inputs: int, channels: int, grid: tuple[int, ...]) -> None:
        super().__init__(inputs, channels)
        along = TimeEmbedding(channels // 2)
        rows, columns = (along(torch.arange(length)) for length in grid)
        places = torch.cat([rows[:, None].expand(-1, grid[1], -1), columns.expand(grid[0], -1, -1)], -1)
        self.register_buffer("places", places.flatten(0, 1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, N, channels)."""
        return super().forward(tokens) + self.places


class Apart(nn.Module):
    """A linear layer for each token, with weights and a bias of its own."""

    def __init__(self, tokens: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(tokens, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(tokens, outputs).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, N, outputs)."""
        return torch.einsum("bni,nio->bno", tokens, self.weight) + self.bias


class Block(nn.Module):
    """h + a attention(m(h)), then h + a' g(m'(h)): m, m' norms that the condition scales and shifts, a, a' its gates.

    g is a linear layer to four times the width, GELU and one back. Scales, shifts and gates start at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(h for h in range(-(-channels // HEAD), channels + 1) if channels % h == 0)
        self.condition = zeroed(nn.Linear(channels, 6 * channels))
        self.norm = nn.LayerNorm(channels, elementwise_affine=False, eps=1e-6)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.first, self.second = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, N, channels), (B, channels) -> (B, N, channels)."""
        shift, scale, gate, inner_shift, inner_scale, inner_gate = self.condition(condition)[:, None].chunk(6, -1)
        h = h + gate * self.attention(modulated(self.norm(h), shift, scale))
        inner = self.first(modulated(self.norm(h), inner_shift, inner_scale))
        return h + inner_gate * self.second(functional.gelu(inner, approximate="tanh"))

    def attention(self, h: Tensor) -> Tensor:
        """Softmax attention among the tokens of each sample, head by head."""
        batch, tokens, channels = h.shape
        q, k, v = self.qkv(h).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, channels))


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """What a norm gives, scaled and shifted: h (1 + scale) + shift."""
    return torch.addcmul(shift, h, 1 + scale)
