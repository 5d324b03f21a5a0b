"""Many samples, a few at a time."""

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Unavailable
from scorelab.samplers.base import Sampler
from scorelab.tensors import Rows, generator, to_levels

BLOCK = 256  # samples whose noise comes from one generator


def draw_samples(
    denoiser: Denoiser, sampler: Sampler, shape: tuple[int, ...], labels: Tensor, seed: int, chunk: int
) -> Tensor:
    """Samples as values (n, *shape) on the CPU, levels in uint8 or float32 data, one for each label.

    ``chunk`` at a time, each by ``draw_chunk``.

    Raises:
        Unavailable: where a sample is no number.
    """
    drawn, first = [], 0
    for part in labels.split(chunk):
        drawn.append(draw_chunk(denoiser, sampler, shape, part, seed, first))
        first += len(part)
    return torch.cat(drawn)


def draw_chunk(
    denoiser: Denoiser, sampler: Sampler, shape: tuple[int, ...], labels: Tensor, seed: int, first: int
) -> Tensor:
    """The samples of places first, first + 1, ..., all in one walk, as values on the CPU, one for each label.

    A sample's noise depends on the seed and its place alone, so it is the same in any chunk and however many follow,
    up to the rounding of a network that is shown fewer or more at once.

    Raises:
        Unavailable: where a sample is no number, which as a level would look like any other.
    """
    skipped, last = first // BLOCK, first + len(labels)
    blocks = [
        generator("samples", seed, number, device=denoiser.device) for number in range(skipped, -(-last // BLOCK))
    ]
    noise = Rows(blocks, BLOCK, slice(first - skipped * BLOCK, last - skipped * BLOCK))
    x0 = sampler(denoiser, (len(labels), *shape), labels.to(denoiser.device), noise)
    if not bool(x0.isfinite().all()):
        raise Unavailable(f"{type(sampler).__name__} ended in samples that are not finite")
    return (x0 if denoiser.levels is None else to_levels(x0, denoiser.levels)).cpu()
