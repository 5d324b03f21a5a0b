"""The best linear denoiser, to stand beside a network and an exact score."""

from scorelab.denoisers import BestLinear, Denoiser, Exact

MOST_DIMS = 1024  # beyond them it takes longer than the rest: minutes of one core for CIFAR-10, seconds for MNIST


def has_best_linear(exact: Exact) -> bool:
    """Whether the data have few enough dimensions for one."""
    return exact.law.shape.numel() <= MOST_DIMS


def best_linear(denoiser: Denoiser, exact: Exact) -> BestLinear | None:
    """That of the law of an exact denoiser, under a denoiser's schedule and where it is; None of too many dimensions.

    Of a training set it has the mean and the covariance of its points. It looks at no label.
    """
    if not has_best_linear(exact):
        return None
    return BestLinear(denoiser.schedule, denoiser.variance, exact.law, denoiser.levels).to(denoiser.device)
