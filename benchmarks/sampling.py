"""Sampling by 50 steps of DDIM beside diffusers' pipeline, around the same network, on one thread.

    pip install diffusers
    python benchmarks/sampling.py [--batches 16 64 250] [--rounds 12] [--side 8]

Prints, for each batch, the CPU time of a whole walk through the network that ``data=digits`` has unless told (``side``
28 is MNIST's); then what a step of it takes outside of the network, by a clock that stands still inside, and which
share of the walk that is; then a step of walks around a network that costs nothing, one after the other. The second is
what samples cost; it is more than the third, for a network leaves nothing of ours in the processor's caches. Both walk
the same table from the same noise, clip, and end in the same samples, which is seen to first. Theirs is the loop of
``DDIMPipeline.__call__``; it is told to recompute the noise after clipping, as ours always does.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from common import interleaved, machine, rows, table
from diffusers import DDIMScheduler
from torch import Tensor, nn

from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.networks import UNet
from scorelab.samplers import DDIM
from scorelab.schedules import Linear

STEPS = 50


class Free(nn.Module):
    """A network that costs nothing: its answer is what it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1))

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None = None) -> Tensor:
        return x


class Clock:
    """The CPU time of this process, but that inside of a network."""

    def __init__(self) -> None:
        self.inside = 0.0

    def __call__(self) -> float:
        return time.process_time() - self.inside

    def stopped_in(self, network: nn.Module) -> nn.Module:
        """The network, in which this clock stands still."""
        entered: list[float] = []
        network.register_forward_pre_hook(lambda *_: entered.append(time.process_time()))
        network.register_forward_hook(lambda *_: self.add(time.process_time() - entered.pop()))
        return network

    def add(self, seconds: float) -> None:
        """So much was spent in a network."""
        self.inside += seconds


def ours(network: nn.Module, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    """Our walk."""
    denoiser, sampler = NetworkDenoiser(Linear(), network, Eps(), FixedSmall(), levels=256), DDIM(STEPS)
    return lambda: sampler(denoiser, shape, generator=torch.Generator().manual_seed(0))


def theirs(network: nn.Module, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    """Theirs; our networks are told i where their list has i - 1."""
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=True, timestep_spacing="trailing")

    @torch.no_grad()
    def walk() -> Tensor:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            said = network(x, (t + 1).expand(len(x)))
            x = scheduler.step(said, t, x, eta=0.0, use_clipped_model_output=True).prev_sample
        return x

    return walk


def unlike_at_first(network: nn.Module) -> nn.Module:
    """With weights where a network begins with zeros, so that samples depend on all of it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in network.parameters():
            weights += 0.02 * torch.randn(weights.shape, generator=generator)
    return network.eval()


def several(walk: Callable[[], Tensor], times: int) -> None:
    """One walk after the other, as many samples are drawn."""
    for _ in range(times):
        walk()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 250])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--side", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), flush=True)
    clock = Clock()
    network = clock.stopped_in(unlike_at_first(UNet((1, asked.side, asked.side))))
    for batch in asked.batches:
        shape = (batch, 1, asked.side, asked.side)
        assert torch.allclose(ours(network, shape)(), theirs(network, shape)(), atol=1e-3), "not the same samples"
        medians = [
            told(f"batch {batch}: {what}", used, shape, asked.rounds, by, walks, units)
            for what, used, by, walks, units in (
                ("whole walk", network, time.process_time, 1, 1),
                ("a step, outside of the network", network, clock, 1, STEPS),
                ("a step, of a free network", Free(), time.process_time, 20, STEPS),
            )
        ]
        share = medians[1] * STEPS / medians[0]
        print(f"\nOutside of the network: {share:.2%} of scorelab's walk at batch {batch}", flush=True)


def told(
    what: str,
    network: nn.Module,
    shape: tuple[int, ...],
    rounds: int,
    clock: Callable[[], float],
    walks: int,
    units: int,
) -> float:
    """Print a table of so many walks each; the median of ours."""
    by = {"diffusers": theirs(network, shape), "scorelab": ours(network, shape)}
    times = interleaved({name: partial(several, walk, walks) for name, walk in by.items()}, rounds, clock=clock)
    found = rows(times, "diffusers", units * walks)
    print(f"\n{table(found, what)}", flush=True)
    return found[-1].median


if __name__ == "__main__":
    main()
