"""How a network is laid out and compiled for what computes it; its function, its weights and their names stay."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from scorelab.config.check import checked
from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.errors import UserError
from scorelab.losses import Loss

LONG = 5_000  # steps from which a minute or two of compiling is little


def fit_to(on_gpu: bool, denoiser: Denoiser, loss: Loss, config: dict[str, Any], shape: tuple[int, ...]) -> bool:
    """Lay the network out for a GPU, where convolutions want channels last, and compile it in place if it is to be.

    ``compile`` of None compiles for a GPU alone, and a run of at least ``LONG`` steps: on a CPU it wins a few per cent.
    A loss that asks for derivatives of the network along its input is left as it is, for what is compiled can be
    differentiated once. Averaged weights are a copy, and copies are not compiled. Answers whether the network is.

    Raises:
        UserError: where compile=true cannot be had.
    """
    if not isinstance(denoiser, NetworkDenoiser):
        return False
    asked, once = checked(config.get("compile"), "compile"), loss.cost(math.prod(shape)) == 1
    if asked and not once:
        raise UserError("compile=true: this loss differentiates the network twice, which what is compiled cannot do")
    if on_gpu and len(shape) == 3:
        denoiser.network.to(memory_format=torch.channels_last)
    compiled = once and (on_gpu and config["trainer"]["max_steps"] >= LONG if asked is None else asked)
    if compiled:
        denoiser.network.compile()
    return compiled


@contextmanager
def as_written(compiled: bool) -> Iterator[None]:
    """Inside of it networks run as they are written: for evaluations, which differentiate them freely."""
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
