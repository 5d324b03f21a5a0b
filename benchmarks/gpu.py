"""unet_cifar (35.7 M weights) on a GPU: images a second of a training step, beside diffusers' UNet2DModel of that size.

    python benchmarks/gpu.py [--batches 128,256,512] [--rounds 9]

Ours as trainer=gpu has it: bfloat16 by autocast, channels last, fused AdamW, compiled and as written. Theirs in float32
as its training example runs it, in bfloat16, and compiled in bfloat16, channels last too. The share of the peak is of
a bfloat16 matrix product's rate on this GPU, measured in the same rounds. It has not run yet: no GPU was at hand.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext

import torch
from common import Row, interleaved, machine
from peers import weights
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from scorelab.networks import UNet

SHAPE = (3, 32, 32)
SIDE = 8192
STEPS = 20  # of one turn


def ours() -> nn.Module:
    """configs/model/unet_cifar.yaml."""
    return UNet(SHAPE, 128, [1, 2, 2, 2], 2, [16], "add", 0.1)


class Theirs(nn.Module):
    """google/ddpm-cifar10-32's configuration, called as ours is."""

    def __init__(self) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        down = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
        self.network = UNet2DModel(
            sample_size=32,
            block_out_channels=(128, 256, 256, 256),
            down_block_types=down,
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
            norm_eps=1e-6,
            downsample_padding=0,
            dropout=0.1,
        )

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.network(x, time).sample


def turn(build: Callable[[], nn.Module], batch: int, half: bool, last: bool, compiled: bool) -> Callable[[], object]:
    """So many training steps, and a wait for the device."""
    network = build().cuda()
    if last:
        network = network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    x0 = torch.rand(batch, *SHAPE, device="cuda") * 2 - 1

    def steps() -> None:
        for _ in range(STEPS):
            time, eps = torch.rand(batch, device="cuda") * 1000, torch.randn_like(x0)
            with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
                output = network(0.8 * x0 + 0.6 * eps, time)
            functional.mse_loss(output.float(), eps).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()

    return steps


def product() -> None:
    left, right = torch.ones(2, SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    for _ in range(STEPS):
        left @ right
    torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="128,256,512")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU, and PyTorch sees none")
    with FlopCounterMode(display=False) as counter, torch.device("cuda"):
        ours()(torch.zeros(1, *SHAPE), torch.zeros(1))
    flops = 3 * counter.get_total_flops()
    sizes = f"{weights(ours()):,} weights, theirs {weights(Theirs()):,}"
    print(f"### unet_cifar on {torch.cuda.get_device_name()}\n\n{machine()}; {sizes}\n")
    print("| batch | network | image/s | of the peak | time to diffusers, compiled |\n|---|---|---|---|---|")
    for batch in map(int, given.batches.split(",")):
        base = "diffusers, bf16, compiled"
        candidates = {
            base: turn(Theirs, batch, True, True, True),
            "diffusers, bf16": turn(Theirs, batch, True, False, False),
            "diffusers, as its example": turn(Theirs, batch, False, False, False),
            "scorelab, bf16, compiled": turn(ours, batch, True, True, True),
            "scorelab, bf16": turn(ours, batch, True, True, False),
        }
        times = interleaved({**candidates, "product": product}, given.rounds, warmups=3)
        peak = 2 * SIDE**3 * STEPS / Row("", times.pop("product")).median
        for name, seconds in times.items():
            row = Row(name, seconds, None if name == base else times[base], STEPS * batch)
            share = flops / row.median / peak
            print(f"| {batch} | {name} | {1 / row.median:,.0f} | {share:.0%} | {row.verdict or 1} |", flush=True)


if __name__ == "__main__":
    main()
