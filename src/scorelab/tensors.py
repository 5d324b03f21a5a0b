"""Broadcasting, sums over non-batch axes, the lattice on which pixels live, and seeded generators."""

import hashlib

import torch
from torch import Tensor


def like(coefficient: Tensor, x: Tensor) -> Tensor:
    """Shape a per-sample coefficient (B,) so that it multiplies x (B, ...), in x's precision and on its device."""
    return coefficient.to(device=x.device, dtype=x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def sum_rest(x: Tensor) -> Tensor:
    """Sum over every axis but the batch: (B, ...) -> (B,)."""
    return x.flatten(1).sum(1)


def mean_rest(x: Tensor) -> Tensor:
    """Mean over every axis but the batch: (B, ...) -> (B,)."""
    return x.flatten(1).mean(1)


def from_levels(k: Tensor, levels: int) -> Tensor:
    """Pixel levels k in {0, ..., levels-1} as float32 data 2k/(levels-1) - 1 in [-1, 1]."""
    return k.float() * (2.0 / (levels - 1)) - 1.0


def to_levels(x: Tensor, levels: int) -> Tensor:
    """The nearest level of data in [-1, 1], as uint8; values outside are cut to the first or last level."""
    return ((x.float() + 1.0) * ((levels - 1) / 2)).round().clamp(0, levels - 1).to(torch.uint8)


def to_bytes(k: Tensor, levels: int) -> Tensor:
    """Levels 0 ... levels-1 spread over the bytes 0 ... 255 that image files and feature extractors expect."""
    return (k.float() * (255.0 / (levels - 1))).round().to(torch.uint8)


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose stream depends on the key alone, so no draw can disturb another.

    The key is hashed: neighbouring seeds and steps give unrelated streams.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big", signed=True))
