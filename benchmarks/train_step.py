"""One training step of networks of one size, ours and other projects', in turn on one thread.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py                    all sizes
    OMP_NUM_THREADS=1 python benchmarks/train_step.py 1x8x8 --rounds 40

A step noises a batch, predicts the noise, goes back through the mean squared error and takes an AdamW step (fused):
the same code for all, so that networks are compared and nothing else. Weights differ by at most 10 % from diffusers'.
Operations are those of PyTorch's FlopCounterMode, forward and backward; the rate of matrix products is measured in the
same rounds, so that its share says how far from this machine's limit a network is. Memory is how much a process of its
own grows by three steps.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import Memory, Row, interleaved, machine
from peers import SIZES, Net, Size, on_meta, weights
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

BASE = "diffusers"
PEERS = (BASE, "azula", "denoising-diffusion-pytorch")
SIDE = 512  # of the matrices whose product is the limit


def stepper(network: nn.Module, size: Size) -> Callable[[], object]:
    """A training step on noised images of this size."""
    x0 = torch.rand(size.batch, *size.shape) * 2 - 1
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        time, eps = torch.rand(size.batch) * 1000, torch.randn_like(x0)
        functional.mse_loss(network(0.8 * x0 + 0.6 * eps, time), eps).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measured(size: Size, rounds: int) -> str:
    """The table of one size."""
    steps: dict[str, Callable[[], object]] = {}
    counts, flops = {}, {}
    for name, build in size.networks.items():
        torch.manual_seed(0)
        network = build()
        step, counts[name] = stepper(network, size), weights(network)
        with FlopCounterMode(display=False) as counter:
            step()
        steps[name], flops[name] = step, counter.get_total_flops() / size.batch
    left, right = torch.randn(2, SIDE, SIDE)

    def product() -> None:
        for _ in range(10):
            left @ right

    times = interleaved({**steps, "product": product}, rounds, warmups=2, clock=time.process_time)
    limit = 10 * 2 * SIDE**3 / Row("product", times.pop("product")).median
    best = min((Row(name, times[name]) for name in PEERS), key=lambda row: row.median)
    lines = [
        f"| network | weights | MFLOP/image | ms | image/s | GFLOP/s | of products' {limit / 1e9:.0f} | peak MiB "
        f"| to {BASE} | to {best.name} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seconds in times.items():
        row, rate = Row(name, seconds, times[BASE]), flops[name] * size.batch / Row(name, seconds).median
        told = [f"{counts[name]:,}", f"{flops[name] / 1e6:.1f}", f"{row.median * 1e3:.1f} ± {row.spread * 1e3:.1f}"]
        told += [f"{size.batch / row.median:,.0f}", f"{rate / 1e9:.0f}", f"{rate / limit:.0%}", memory(name, size)]
        others = [Row(name, seconds, times[other]).verdict if name != other else "1" for other in (BASE, best.name)]
        lines.append(f"| {name} | {' | '.join(told + others)} |")
    return "\n".join(lines)


def memory(name: str, size: Size) -> str:
    """MiB by which a process of its own grows in three steps of a network."""
    key = next(key for key, each in SIZES.items() if each is size)
    command = [sys.executable, __file__, key, "--memory", name]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    return said.stdout.split()[-1]


def grown(build: Net, size: Size) -> float:
    """What ``memory`` reads: the peak of a process less what it had with the network's module imported."""
    on_meta(build)
    memory = Memory()
    step = stepper(build(), size)
    for _ in range(3):
        step()
    return memory.grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--memory", help="tell the memory of one network alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for key in given.sizes or SIZES:
        size = SIZES[key]
        if given.memory:
            print(f"{grown(size.networks[given.memory], size):.0f}")
            continue
        print(f"### {key}, batch {size.batch}\n\n{machine()}\n\n{measured(size, given.rounds)}\n", flush=True)


if __name__ == "__main__":
    main()
