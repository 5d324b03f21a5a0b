"""How fast the exact score of a finite set is, against this machine's matrix products and against broadcasting.

    OMP_NUM_THREADS=1 python benchmarks/exact_score.py

First 256 queries of 50,000 points with 3,072 dimensions, as CIFAR-10 has: time of the products alone, over time of the
whole, measured in turn. "There" is the product for all distances, "back" that for the mean of all points, which small
noise does not need. Then 256 queries of 1,797 points with 64 dimensions, as the digits have, beside the three lines
that everyone writes first: all differences, a softmax, a mean; in float32, which the whole exceeds in accuracy.
"""

import argparse
from collections.abc import Callable

import torch
from common import Row, interleaved, machine, rows, table
from torch import Tensor

from scorelab.laws import FiniteSet
from scorelab.tensors import from_levels, to_levels

BATCH = 256


def smooth(n: int) -> Tensor:
    """Smooth random images on 256 levels, with about CIFAR's variance, as levels."""
    small = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear").flatten(1)
    return to_levels((0.6 * images).clamp(-1, 1), 256)


def asked(law: FiniteSet, data: Tensor, sigma: float) -> tuple[Callable[[], object], Tensor]:
    """The posterior at noised points of the set, to be called, and the noised points."""
    noise = torch.randn(BATCH, data.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, spread = data[:BATCH].double() + sigma * noise, torch.full((BATCH,), sigma, dtype=torch.float64)
    return lambda: law.posterior(x, torch.ones_like(spread), spread), x


def shares(rounds: int) -> str:
    """The products' time over the whole's, by noise."""
    points = smooth(50_000)
    law, data = FiniteSet(points, levels=256), from_levels(points, 256)
    queries, back = torch.randn(BATCH, data.shape[1]), torch.rand(BATCH, len(data))
    lines = ["| sigma | whole, s | there / whole | there and back / whole |", "|---|---|---|---|"]
    for sigma in (0.1, 1.0, 80.0):
        whole, _ = asked(law, data, sigma)
        products = {"there": lambda: queries @ data.T, "back": lambda: back @ data}
        times = interleaved({"whole": whole, **products}, rounds)
        both = [one + other for one, other in zip(times["there"], times["back"], strict=True)]
        told = [Row("", some, times["whole"]) for some in (times["there"], both)]
        middle = [sorted(each.ratios)[len(each.ratios) // 2] for each in told]
        median = Row("", times["whole"]).median
        lines.append(f"| {sigma} | {median:.2f} | {middle[0]:.2f} | {middle[1]:.2f} |")
    return "\n".join(lines)


def beside_broadcasting(rounds: int) -> str:
    """The whole against all differences at once, on a set of the digits' size, at two noises."""
    points = torch.randint(0, 17, (1797, 64), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    law, data = FiniteSet(points, levels=17), from_levels(points, 17)
    told = []
    for sigma in (0.3, 3.0):
        ours, x = asked(law, data, sigma)
        near = x.float()

        def theirs(near: Tensor = near, sigma: float = sigma) -> Tensor:
            squares = (near[:, None] - data).square().sum(-1)
            return torch.softmax(-squares / (2 * sigma**2), 1) @ data

        spread = torch.full((BATCH,), sigma, dtype=torch.float64)
        assert torch.allclose(law.posterior(x, torch.ones_like(spread), spread).mean.float(), theirs(), atol=1e-3)
        times = interleaved({f"broadcasting, sigma {sigma}": theirs, f"scorelab, sigma {sigma}": ours}, rounds)
        told += rows(times, base=f"broadcasting, sigma {sigma}")
    return table(told, "posterior mean, 256 x 1,797 x 64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"### Exact scores\n\n{machine()}\n\n{shares(given.rounds)}\n\n{beside_broadcasting(3 * given.rounds)}\n")


if __name__ == "__main__":
    main()
