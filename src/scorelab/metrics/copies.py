"""Whether samples are copies of training images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorelab.errors import Refusal

LARGEST = 2**23  # numbers of training images looked at at once: 64 MB in float64
ENTRIES = 2**24  # of a matrix of distances held at once: 128 MB in float64


def memorization(samples: Tensor, train: Tensor) -> float:
    r"""The share of samples that are copies: much nearer to one training image than to any other.

    .. math:: \frac1N \#\{ i : \|x_i - y_{(1)}\| < \tfrac13 \|x_i - y_{(2)}\| \}

    with y_(1) and y_(2) the nearest and the second nearest *distinct* training images (Euclidean): identical
    ones are merged, or a copy of an image that occurs twice would not count. A set of other real images is
    the control.

    Args:
        samples: (N, ...), in the units of ``train``; bytes, levels or floats.
        train: (M, ...).

    Raises:
        Refusal: fewer than 2 distinct training images.

    """
    if samples.shape[1:] != train.shape[1:] or len(samples) == 0:
        raise ValueError(f"cannot compare samples {tuple(samples.shape)} with images {tuple(train.shape)}")
    known = distinct(train.flatten(1))
    if len(known) < 2:
        raise Refusal("memorisation needs at least 2 distinct training images")
    queries = samples.flatten(1)
    size = max(2, LARGEST // known.shape[1])
    found = [_nearest(queries, known, rows) for rows in torch.arange(len(known)).split(size)]
    squares, places = (torch.cat(each, 1) for each in zip(*found, strict=True))
    two = places.gather(1, squares.topk(2, largest=False).indices)
    copies = 0
    for x, pair in zip(queries.split(1024), two.split(1024), strict=True):
        # the expanded square finds the two; it cancels where a sample is a copy, so measure them afresh
        away = x[:, None].double() - known[pair].to(x.device).double()
        first, second = away.norm(dim=2).sort(dim=1).values.unbind(1)
        copies += int((first < second / 3).sum())
    return copies / len(samples)


def distinct(rows: Tensor) -> Tensor:
    """The rows (N, d) that differ from all before them, byte by byte."""
    array: Any = rows.contiguous().cpu().numpy()
    whole = array.view(np.dtype((np.void, array.dtype.itemsize * array.shape[1]))).ravel()
    places = torch.from_numpy(np.sort(np.unique(whole, return_index=True)[1]))
    return rows if len(places) == len(rows) else rows[places.to(rows.device)]


def _nearest(queries: Tensor, known: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of some of the known images, the two nearest to each query: ||y||^2 - 2 x y (Q, 2), and their places."""
    here = known[rows].to(queries.device).double()
    squares, found = here.square().sum(1), []
    for x in queries.split(max(1, ENTRIES // len(here))):
        found.append((squares - 2 * x.double() @ here.T).topk(min(2, len(here)), largest=False))
    return torch.cat([each.values for each in found]), torch.cat([rows[each.indices.cpu()] for each in found])
