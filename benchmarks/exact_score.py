"""How fast the exact score of 50,000 CIFAR-sized images is, against this machine's own matrix product.

    python benchmarks/exact_score.py [threads]

Prints, for each noise level, the median over rounds of (time of a product alone) / (time of the whole), measured in
turn. The products are of 256 queries with 50,000 points of 3,072 dimensions: "there" for all distances, "back" for
the mean of all points, which small noise does not need.
"""

import statistics
import sys
import time

import torch

from scorelab.laws import FiniteSet
from scorelab.tensors import from_levels, to_levels

N, D, B, ROUNDS = 50_000, 3072, 256, 3


def images(n: int) -> torch.Tensor:
    """Smooth random images on 256 levels, with about CIFAR's variance, as levels."""
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(n, 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear").flatten(1)
    return to_levels((0.6 * smooth).clamp(-1, 1), 256)


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    points = images(N)
    oracle = FiniteSet(points, levels=256)
    data = from_levels(points, 256)
    generator = torch.Generator().manual_seed(1)
    queries, back = torch.randn(B, D, generator=generator), torch.rand(B, N, generator=generator)
    for sigma in (0.1, 1.0, 80.0):
        noise = torch.full((B,), sigma, dtype=torch.float64)
        x = data[:B].double() + sigma * torch.randn(B, D, generator=generator)
        there, both, whole = [], [], []
        for _ in range(ROUNDS):
            one = seconds(lambda: queries @ data.T)
            other = seconds(lambda: back @ data)
            whole.append(seconds(lambda x=x, noise=noise: oracle.posterior(x, torch.ones_like(noise), noise)))
            there.append(one / whole[-1])
            both.append((one + other) / whole[-1])
        median = statistics.median
        rates = f"there {median(there):.2f}, there and back {median(both):.2f} of the product's rate"
        print(f"sigma {sigma:<5} {rates}, {median(whole):.2f} s", flush=True)


if __name__ == "__main__":
    main()
