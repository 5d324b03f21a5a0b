"""Broadcasting, sums over non-batch axes, the lattice on which pixels live, and seeded generators."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a per-sample coefficient (B,) so that it multiplies x (B, ...), in x's precision and on its device."""
    return coefficient.to(device=x.device, dtype=x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def mixed(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """The mixture a x + b y of x and y (B, ...), a and b (B,) shaped by ``like``: two passes over memory, not three."""
    return torch.addcmul(like(a, x) * x, like(b, y), y)


def sum_except_batch(x: Tensor) -> Tensor:
    """Sum over every axis but the batch: (B, ...) -> (B,)."""
    return x.flatten(1).sum(1)


def mean_except_batch(x: Tensor) -> Tensor:
    """Mean over every axis but the batch: (B, ...) -> (B,)."""
    return x.flatten(1).mean(1)


def from_levels(k: Tensor, levels: int) -> Tensor:
    """Pixel levels k in {0, ..., levels-1} as float32 data 2k/(levels-1) - 1 in [-1, 1]."""
    return k.float() * (2.0 / (levels - 1)) - 1.0


def to_levels(x: Tensor, levels: int) -> Tensor:
    """The nearest level of data in [-1, 1], as uint8; values outside are cut to the first or last level."""
    return ((x.float() + 1.0) * ((levels - 1) / 2)).round().clamp(0, levels - 1).to(torch.uint8)


def nearest_level(x: Tensor, levels: int) -> Tensor:
    """The point of the lattice of ``from_levels`` that lies nearest, in x's own precision."""
    k = ((x + 1.0) * ((levels - 1) / 2)).round().clamp(0, levels - 1)
    return k * (2.0 / (levels - 1)) - 1.0


def spread_over_bins(x: Tensor, u: Tensor, levels: int) -> Tensor:
    """Levels spread evenly over their bins: x + Delta (u - 1/2), Delta = 2/(levels - 1) the lattice's spacing.

    For x on the lattice and u uniform on [0, 1), both (B, ...). A density p gives x's bin the mass P(x) = Delta^d
    E_u p, so -log P(x) <= E_u[-log p] - d log Delta (Uria et al. 2013, Theis et al. 2016).
    """
    return x + (2.0 / (levels - 1)) * (u - 0.5)


def to_bytes(values: Tensor, levels: int | None) -> Tensor:
    """Bytes 0 ... 255, as image files and feature extractors expect: levels spread over them, or data in [-1, 1].

    Data outside is cut.
    """
    scaled = values.float() * (255.0 / (levels - 1)) if levels is not None else (values.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8)


def log_interval(low: Tensor, high: Tensor) -> Tensor:
    """Log of Phi(high) - Phi(low) for low < high, elementwise in float64, Phi the standard normal cdf.

    Exact at any distance from 0: the difference is taken in logarithms, on the side where both Phi are small.
    """
    right = low + high > 0
    near, far = torch.where(right, -low, high), torch.where(right, -high, low)
    log_near = torch.special.log_ndtr(near)
    return log_near + torch.log(-torch.expm1(torch.special.log_ndtr(far) - log_near))


def as_data(values: Tensor, levels: int | None) -> Tensor:
    """What a data set holds, as float32 data: pixel levels mapped to [-1, 1], points as they are."""
    return values.float() if levels is None else from_levels(values, levels)


def slope_along(y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """v^T (dy/dx) v of each sample, (B,): one backward pass, which can itself be differentiated.

    0 where y does not depend on x.
    """
    if not y.requires_grad:
        return torch.zeros(len(x), dtype=y.dtype, device=y.device)
    (pulled,) = torch.autograd.grad(y, x, v, create_graph=True, materialize_grads=True)
    return sum_except_batch(pulled * v)


def divergence(y: Tensor, x: Tensor) -> Tensor:
    """The trace of dy/dx of each sample, (B,), y and x both (B, ...): a backward pass for each of the d dimensions."""
    total = torch.zeros(len(x), dtype=y.dtype, device=y.device)
    for place in range(x[0].numel()):
        one = torch.zeros_like(x).flatten(1)
        one[:, place] = 1
        total = total + slope_along(y, x, one.reshape(x.shape))
    return total


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose stream depends on the key alone, so no draw can disturb another.

    The key is hashed: neighbouring seeds and steps give unrelated streams.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed what layers draw from (dropout): PyTorch's own generators of the CPU and of a device.

    torch.manual_seed would also note the call, and where it came from, for every kind of accelerator that is not in
    use: half a millisecond a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class Rows(Generator):
    """A generator for some rows of a longer draw, in blocks of ``size`` rows that have a generator each.

    ``standard_normal`` draws whole blocks from it and cuts ``rows`` out of them, so a row's noise is its own however
    many are asked at a time. What is drawn for all rows together comes as it would from the first block's generator.
    """

    def __new__(cls, blocks: Sequence[Generator], size: int, rows: slice) -> "Rows":
        """On the device of the blocks' generators."""
        return super().__new__(cls, blocks[0].device)  # type: ignore[call-arg]

    def __init__(self, blocks: Sequence[Generator], size: int, rows: slice) -> None:
        self.set_state(blocks[0].get_state())
        self.blocks = [each.clone_state() for each in blocks]  # which may be asked for other rows too
        self.size, self.rows = size, rows


def share_of(
    *key: int | str, rows: int, share: int, shares: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """The generator of one of so many shares, of so many rows each, of a draw that ``key`` names.

    From it ``standard_normal`` draws the share's rows of what one share with all rows would; anything else is its own.
    """
    whole = generator(*key, 0, 0, device=device)
    if shares == 1:
        return whole
    mine = Rows([whole], rows * shares, slice(share * rows, (share + 1) * rows))
    return mine.manual_seed(generator(*key, share, shares).initial_seed())


def standard_normal(shape: Sequence[int], generator: Generator | None, **of: Any) -> Tensor:
    """torch.randn of this shape; from ``Rows``, these rows of a longer draw."""
    if not isinstance(generator, Rows):
        return torch.randn(tuple(shape), generator=generator, **of)
    whole = [torch.randn((generator.size, *shape[1:]), generator=each, **of) for each in generator.blocks]
    return torch.cat(whole)[generator.rows]
