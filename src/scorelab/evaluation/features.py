"""Values as features: some at a time, and those of a large reference once for all runs."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from scorelab.data.cache import TensorCache
from scorelab.errors import Refusal
from scorelab.mapped import Reader, in_chunks
from scorelab.metrics.features import CHUNK, Extractor
from scorelab.tensors import as_data, to_bytes

LARGE = 10_000  # items from which their features are worth a file
ROUNDING = "round(255 k / (levels - 1)) of levels k, round(127.5 (x + 1)) of data x cut to [-1, 1]"


def features_input(values: Tensor, levels: int | None, extractor: Extractor) -> Tensor:
    """Values as a feature extractor takes them: bytes, or data."""
    return (to_bytes if extractor.of_bytes else as_data)(values, levels)


def features_of(values: Tensor, levels: int | None, extractor: Extractor) -> Tensor:
    """Features (N, f) of values (N, ...), float64 on the CPU; only some of the values are copied at a time."""
    return torch.cat(list(_blocks(values, levels, extractor)))


def _blocks(values: Tensor, levels: int | None, extractor: Extractor) -> Iterator[Tensor]:
    reader = Reader(values)
    for start in range(0, len(values), CHUNK):
        chunk = reader.between(start, min(start + CHUNK, len(values)))
        yield extractor.features(features_input(chunk, levels, extractor)).double().cpu()


def reference_features(values: Tensor, levels: int | None, extractor: Extractor) -> Tensor:
    """Features of a reference (N, f), kept in the cache where it is large and the extractor's weights have a hash.

    They are found again by the hash of the very values, their levels and the extractor's name and hash: what has
    changed is another key. Where the cache cannot be written they are computed.
    """
    if len(values) < LARGE or not extractor.hash:
        return features_of(values, levels, extractor)
    key = {"kind": "features", "values": fingerprint(values), "levels": levels, "rounding": ROUNDING}
    key |= {"extractor": extractor.name, "hash": extractor.hash}

    def make(put: Callable[[Tensor], None]) -> dict[str, Any]:
        for block in _blocks(values, levels, extractor):
            put(block)
        return {}

    try:
        return TensorCache().take(key, (extractor.num_features,), torch.float64, make).values
    except Refusal:
        return features_of(values, levels, extractor)


def fingerprint(values: Tensor) -> str:
    """The hash of values, their shape and type."""
    hashed = hashlib.sha256(repr((tuple(values.shape), values.dtype)).encode())
    for chunk in in_chunks(values):
        array: Any = chunk.contiguous().numpy()
        hashed.update(array.data)
    return hashed.hexdigest()
