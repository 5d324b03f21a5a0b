"""Two sets of features compared in other ways than by their Gaussians, with torch-fidelity's own functions."""

from dataclasses import dataclass

from torch import Tensor

from scorelab.errors import Refusal


@dataclass(frozen=True)
class Shares:
    """Precision, the share of samples that lie among the data; recall, the share of data that lie among samples."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Kernel:
    """An unbiased squared distance, and the standard deviation of one subset's about it."""

    value: float
    of_subsets: float


@dataclass(frozen=True)
class Score:
    """An inception score: the mean over splits, and the standard deviation of one split's (None for one)."""

    value: float
    of_splits: float | None


def kernel_distance(samples: Tensor, reference: Tensor, size: int = 1000, subsets: int = 50, seed: int = 0) -> Kernel:
    r"""Squared maximum mean discrepancy of features (n, f) and (m, f) (KID; Bińkowski et al. 2018, section 4).

    .. math:: k(x, y) = (x^T y / f + 1)^3

    The mean of unbiased estimates over random subsets of ``size`` of either, or of all where one has fewer. It may be
    negative.

    Raises:
        Refusal: for fewer than 2 of either.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(size, len(samples), len(reference))
    if size < 2:
        raise Refusal(f"2 images are needed, not {size}")
    found = kid_features_to_metric(
        samples, reference, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return Kernel(found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"])


def precision_recall(samples: Tensor, reference: Tensor, neighbours: int = 3) -> Shares:
    """Shares of samples, and of the reference, that lie nearer to one of the others than that one's k-th neighbour.

    Kynkäänniemi et al. 2019, eq. 1 and 2, with k = ``neighbours``. Both depend on how many there are: compare equal
    numbers only.

    Raises:
        Refusal: for no more than ``neighbours`` of either.
    """
    from torch_fidelity.metric_prc import prc_features_to_metric

    if (least := min(len(samples), len(reference))) <= neighbours:
        raise Refusal(f"more than {neighbours} images are needed, not {least}")
    found = prc_features_to_metric(
        samples, reference, prc_neighborhood=neighbours, prc_batch_size=10000, save_cpu_ram=True, verbose=False
    )
    return Shares(found["precision"], found["recall"])


def inception_score(logits: Tensor, splits: int = 1) -> Score:
    r"""Exp E KL(p(c|x) || p(c)) of a classifier's logits (n, classes) (Salimans et al. 2016): at most the classes.

    p(c) is the mean of p(c|x) over those it is told of, so that of few is too low. The published figure is the mean
    over 10 splits of 50,000 samples.

    Args:
        logits: the classifier's.
        splits: random parts, each with a score of its own.

    Raises:
        Refusal: for fewer images than splits, or no split.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    if not 1 <= splits <= len(logits):
        raise Refusal(f"splits must be from 1 to the number of images, {len(logits)}, got {splits}")
    found = isc_features_to_metric(logits, splits, splits > 1)
    return Score(found["inception_score_mean"], found["inception_score_std"] if splits > 1 else None)
