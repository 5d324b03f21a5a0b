"""The axis that weights, yardsticks and curves share: lambda = log(alpha^2 / sigma^2), its bins and its ranges."""

LOWEST, WIDTH, BINS = -12.0, 0.6, 40  # the bins of [-12, 12]
SIMPLE = slice(12, 31)  # the 19 whole bins of [-4.8, 6.6]
COMMON = slice(12, 35)  # the 23 whole bins of [-4.8, 9.0]


def ends(bins: slice) -> tuple[float, float]:
    """The log-SNRs between which these bins lie."""
    return LOWEST + WIDTH * bins.start, LOWEST + WIDTH * bins.stop


RANGE = ends(SIMPLE)
