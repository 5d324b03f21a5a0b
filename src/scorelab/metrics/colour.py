"""What images look like from very far: their brightness, how their channels go together, their power by frequency."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024


@dataclass(frozen=True)
class Part:
    """One distance of two sets of statistics: its name, in which columns they lie, the *square* of the distance."""

    name: str
    squared: Callable[[Tensor, Tensor], float]


def statistics(images: Tensor) -> Tensor:
    """Of each image (N, C, H, W), in units of bytes, what the distances are means of: (N, C + C^2 + R) in float64.

    Its channel means; the means of products of channels, pixel by pixel; its power by radius r = 1 ... R of the
    frequency, R half the shorter side: |FFT|^2 / (H W)^2 summed over channels and over the ring r - 1/2 ... r + 1/2.
    """
    return torch.cat([_of(part.double()) for part in images.split(CHUNK)])


def _of(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    flat = x.flatten(2)
    products = flat @ flat.transpose(1, 2) / flat.shape[2]
    power = torch.fft.fft2(x).abs().square().sum(1) / (height * width) ** 2
    down, across = (torch.fft.fftfreq(side, 1 / side, dtype=torch.float64) for side in (height, width))
    radius = (down[:, None] ** 2 + across**2).sqrt().round().long()
    rings = max(1, min(height, width) // 2)
    spectrum = torch.zeros(n, max(rings, int(radius.max())) + 1, dtype=torch.float64)
    spectrum.index_add_(1, radius.flatten(), power.flatten(1).cpu())
    return torch.cat([flat.mean(2).cpu(), products.flatten(1).cpu(), spectrum[:, 1 : rings + 1]], 1)


def parts(channels: int) -> list[Part]:
    r"""The three distances of two sets of statistics, as squares.

    .. math:: \text{mean}^2 = \frac1C \|\bar m - \bar m'\|^2, \quad \text{cov}^2 = \|Σ - Σ'\|_F^2 / \|Σ'\|_F^2, \quad
              \text{spectrum}^2 = \frac1R \sum_r \ln^2 (\bar P_r / \bar P'_r)

    with m the channel means in bytes, Σ the covariance of channels over all pixels of all images, P the power by
    radius; the second set is the reference.
    """
    ends = channels, channels + channels**2

    def mean(a: Tensor, b: Tensor) -> float:
        return float((_means(a)[: ends[0]] - _means(b)[: ends[0]]).square().mean())

    def covariance(a: Tensor, b: Tensor) -> float:
        one, other = (_covariance(_means(each), channels) for each in (a, b))
        return float((one - other).square().sum() / other.square().sum().clamp(min=1e-12))

    def spectrum(a: Tensor, b: Tensor) -> float:
        one, other = (_means(each)[ends[1] :].clamp(min=1e-12) for each in (a, b))
        return float((one / other).log().square().mean())

    return [Part("colour_mean", mean), Part("colour_cov", covariance), Part("colour_spectrum", spectrum)]


def _means(statistics: Tensor) -> Tensor:
    return statistics.mean(0)


def _covariance(means: Tensor, channels: int) -> Tensor:
    centre = means[:channels]
    return means[channels : channels + channels**2].reshape(channels, channels) - torch.outer(centre, centre)


def root(square: float) -> float:
    """Of a square that noise may have made negative."""
    return math.sqrt(max(0.0, square))
