"""How close samples are to data: Fréchet distance and its floor, recognition.

Images are bytes, uint8 (N, C, H, W), or data as they are where the extractor takes those. Every function leaves
PyTorch's global generator as it was and writes no file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.metrics.features import Extractor

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

FID = "frechet_inception_distance"  # torch-fidelity's key


@dataclass(frozen=True)
class Chance:
    """How much chance the class counts of both sides hold: 1 is that of independent draws, 0 none (in proportion)."""

    samples: float = 1.0
    reference: float = 1.0


def class_chance(n: int, m: int, told: bool, reference: float | None) -> Chance:
    """How much chance is in the class counts of n samples and m reference images.

    Args:
        n: samples.
        m: reference images.
        told: whether samples have the reference's labels, over and over; else their classes are drawn by chance.
        reference: how much the reference's class counts hold; None where it is not known.

    """
    if not told:
        return Chance(1.0, 1.0 if reference is None else reference)
    cut = n % m  # only the labels of the last round, which is cut, are drawn from the reference's
    return Chance(cut / n * (1 - cut / m), 0.0)


def floor_kind(told: bool, reference: float | None) -> str:
    """What the floor is the floor of, in words; arguments as in :func:`class_chance`."""
    if told:
        return "samples have the reference's labels: chance within classes alone"
    if reference is None:
        return "no labels: as if classes were drawn on both sides, too high if the reference's are in proportion"
    if reference == 0:
        return "samples' classes drawn, the reference's in proportion"
    if reference == 1:
        return "classes drawn, the samples' and the reference's"
    return f"samples' classes drawn, the reference's with {reference:.2f} of that chance: drawn from a larger set"


@dataclass(frozen=True)
class Floor:
    """The Fréchet distance that perfect samples would have, and what one distance scatters about it.

    Attributes:
        value: its mean.
        se: the standard error of that mean, over the choice of parts.
        samples: the standard deviation over sets of perfect samples, of their distance to one reference.
        references: that of the mean distance over references of the same making.

    """

    value: float
    se: float
    samples: float
    references: float

    @property
    def excess_se(self) -> float:
        """The standard error of one distance less the floor: all three, as independent."""
        return math.hypot(self.se, self.samples, self.references)

    def spread(self) -> dict[str, float]:
        """Records of what a distance of perfect samples scatters, and ``excess_se``, the root of the sum of squares."""
        return {
            "floor_se": self.se,
            "spread_of_samples": self.samples,
            "spread_of_references": self.references,
            "excess_se": self.excess_se,
        }


@dataclass(frozen=True)
class Recognised:
    """The share of images recognised with confidence, and each class's share of the predictions for all."""

    share: float
    class_shares: tuple[float, ...]


def frechet(real: Tensor, fake: Tensor, extractor: Extractor) -> float:
    r"""Fréchet distance between two sets of images, by torch-fidelity's statistics of their features.

    .. math:: d^2 = \|\mu_r - \mu_f\|^2 + \operatorname{tr}(Σ_r + Σ_f - 2 (Σ_r Σ_f)^{1/2})

    with μ and Σ the mean and the covariance (n − 1 below) of the features of each set. The estimate is biased
    upwards by about c (1/n_r + 1/n_f): compare equal sizes only, and see :func:`frechet_floor`. With fewer
    images than features the covariance is singular; the distance is still defined, its bias is large.

    Args:
        real: bytes (n_r, C, H, W).
        fake: bytes (n_f, C, H, W).
        extractor: the feature space.

    Raises:
        Refusal: a set has fewer than 2 images, which have no covariance.

    """
    for images in (real, fake):
        _check(images, 2, extractor)
    return frechet_between(*(extractor.features(images).double().cpu() for images in (fake, real)))


def frechet_between(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two sets of features (N, f), float64 on the CPU: see :func:`frechet`.

    Raises:
        Refusal: a set has fewer than 2 items, which have no covariance.
    """
    if (least := min(len(a), len(b))) < 2:
        raise Refusal(f"2 images are needed, not {least}")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = (F.pad(each, (0, 1)) if each.shape[1] == 1 else each for each in (a, b))  # it wants a matrix
    one, other = (fid_features_to_statistics(features) for features in (a, b))
    return float(fid_statistics_to_metric(one, other, False)[FID])


def frechet_floor(
    reference: Tensor,
    extractor: Extractor | None = None,
    n: int | None = None,
    labels: Tensor | None = None,
    chance: Chance = Chance(),
    halves: int | None = None,
    seed: int = 0,
) -> Floor:
    r"""The Fréchet distance that n perfect samples would have from the reference, from its own halves.

    .. math:: \text{floor} = \frac{c_s}{n} + \frac{c_r}{m}, \qquad c = c_w + \text{chance} \cdot (c_d - c_w), \qquad
              c_d, c_w = \frac{h}{2} \cdot \frac1K \sum_{k=1}^{K} d^2(A_k, B_k)

    A_k and B_k are disjoint halves of the reference, h = ⌊m/2⌋ images each of its m. Both come from one law, so their
    distance is bias alone, c/h + c/h: with c_d where the halves are random, so that chance is in their class counts,
    with c_w where each class is halved. The bias of n samples against m reference images is a sum over both sides too,
    and each has its own share of the chance in class counts.

    To that order d^2 is a square of Gaussian deviations Γ/n and Γ/m: var = 2 tr Γ² is the variance of h/2 d² over
    halves of that side's kind, and with it the scatter

    .. math:: \text{samples}^2 = \frac{var_s}{n^2} + \frac{2 var_r}{nm}, \qquad
              \text{references}^2 = \frac{var_r}{m^2}

    is that of a sum of squares (where the sides differ, tr Γ_s Γ_r is taken for the smaller tr Γ_r²).

    Args:
        reference: what the extractor takes (m, ...); features (m, f) where there is none.
        extractor: the feature space.
        n: the number of samples; by default m.
        labels: the reference's (m,); needed where a side holds less than the whole chance.
        chance: how much of it each side's class counts hold.
        halves: K; None is 100, or 8,192 / f where that is less, but at least 4: each takes the root of an f x f matrix.
        seed: of the halvings.

    Raises:
        Refusal: fewer than 4 images, so that a half has no covariance; n < 1; or halves < 2.
        ValueError: no labels where they are needed.

    """
    if extractor is None:
        features = reference.double().cpu()
    else:
        _check(reference, 4, extractor)
        features = extractor.features(reference).double().cpu()
    halves = max(4, min(100, 8192 // features.shape[1])) if halves is None else halves
    return floor_of_halves(features, frechet_between, n, labels, chance, halves, seed)


def floor_of_halves(
    features: Tensor,
    squared: Callable[[Tensor, Tensor], float],
    n: int | None = None,
    labels: Tensor | None = None,
    chance: Chance = Chance(),
    halves: int = 100,
    seed: int = 0,
) -> Floor:
    """As :func:`frechet_floor`, for any squared distance of features (m, f) whose mean is c/n + c/m for equal laws.

    Raises:
        Refusal: fewer than 4 images, n < 1, or halves < 2.
        ValueError: no labels where they are needed.
    """
    m = len(features)
    n = m if n is None else n
    if m < 4 or n < 1 or halves < 2:
        raise Refusal(f"a floor needs 4 images, n >= 1 and 2 halvings, not {m}, {n} and {halves}")
    generator = torch.Generator().manual_seed(seed)
    drawn = within = _halved(features, squared, torch.zeros(m), halves, generator)
    if chance != Chance():
        if labels is None:
            raise ValueError("class counts without chance need the reference's labels")
        within = _halved(features, squared, labels.cpu(), halves, generator)
    whole = chance.samples / n + chance.reference / m
    rest = 1 / n + 1 / m - whole
    value = whole * drawn.mean() + rest * within.mean()
    se = ((whole**2 * drawn.var() + rest**2 * within.var()) / halves).sqrt()
    ours, theirs = (
        share**2 * drawn.var() + (1 - share**2) * within.var() for share in (chance.samples, chance.reference)
    )
    one, other = (ours / n**2 + 2 * theirs / (n * m)).sqrt(), theirs.sqrt() / m
    return Floor(value.item(), se.item(), one.item(), other.item())


def _halved(
    features: Tensor,
    squared: Callable[[Tensor, Tensor], float],
    labels: Tensor,
    halves: int,
    generator: torch.Generator,
) -> Tensor:
    """h/2 times the distance of halves (K,): equal in each class, to one image, and else random."""
    half, distances = len(features) // 2, []
    for _ in range(halves):
        order = torch.randperm(len(features), generator=generator)
        order = order[labels[order].argsort(stable=True)][: 2 * half]
        distances.append(squared(features[order[::2]], features[order[1::2]]))
    return torch.tensor(distances, dtype=torch.float64) * half / 2


def running_frechet(extractor: nn.Module) -> "FrechetInceptionDistance":
    """The same distance as a torchmetrics metric, for batches during training.

    A module that gives back what it is given, with an integer ``num_features``, has it take features.

    Load the reference once, ``metric.update(bytes, real=True)``: ``reset`` keeps it. It is of what its own process
    has seen: of several, one draws and measures. Moving the metric to a device moves the extractor.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=extractor, reset_real_features=False, sync_on_compute=False)


def recognition(images: Tensor, extractor: Extractor, confidence: float = 0.9) -> Recognised:
    r"""What a classifier sees in images: how many it is sure of, and how the classes are represented.

    .. math:: \text{share} = \frac1N \#\{ i : \max_c p(c|x_i) > \text{confidence} \}, \qquad
              \text{class share}_c = \frac1N \#\{ i : \operatorname{argmax} p(\cdot|x_i) = c \}

    Raises:
        Refusal: no images.
        NotImplementedError: the extractor is no classifier.

    """
    _check(images, 1, extractor)
    best, classes = (probabilities := extractor.probabilities(images)).max(1)
    counts = classes.bincount(minlength=probabilities.shape[1]).double()
    return Recognised((best > confidence).double().mean().item(), tuple((counts / len(images)).tolist()))


def _check(images: Tensor, least: int, extractor: Extractor) -> None:
    if extractor.of_bytes and images.dtype != torch.uint8:
        raise ValueError(f"images must be bytes (uint8), not {images.dtype}")
    if len(images) < least:
        raise Refusal(f"{least} images are needed, not {len(images)}")
