"""How long a step takes, found out before the first one."""

import time

import torch
from torch import Tensor

from scorelab.data.module import DataModule
from scorelab.lit.module import DiffusionModule
from scorelab.losses import Example
from scorelab.tensors import as_data, generator

LONG = 2.0  # seconds after which a first call, which is slower than those that follow, is told as it is


def seconds_per_step(module: DiffusionModule, data: DataModule) -> float:
    """Seconds of one batch there and back, as one process of a run takes it, on the module's device.

    Nothing is learned by it, and nothing drawn from a generator that training draws from: weights, gradients and all
    states stay what they were. The optimiser's own time is not in it.
    """
    train = data.splits["train"]
    rows = torch.arange(data.batch_size) % len(train)
    x0 = as_data(train.values[rows], data.levels).to(module.device)
    label = train.labels[rows].to(module.device)
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        seconds = _once(module, x0, label)
        return seconds if seconds > LONG else min(seconds, _once(module, x0, label))


def _once(module: DiffusionModule, x0: Tensor, label: Tensor) -> float:
    parameters = [p for part in (module.denoiser, module.loss) for p in part.parameters() if p.requires_grad]
    began = time.perf_counter()
    draw = module.timesteps.draw(module.denoiser.schedule, len(x0), 0, 0, 1, generator("timing"))
    example = Example.of(module.denoiser, x0, draw.t.to(x0.device), torch.randn_like(x0), label, module.exact)
    terms = module.loss(module.denoiser, example, generator("timing"))
    loss = (draw.weight.to(x0.device) * terms.loss).mean()
    found = torch.autograd.grad(loss, parameters, allow_unused=True)  # no .grad is touched
    float(sum((each.flatten()[0] for each in found if each is not None), torch.zeros((), device=x0.device)))
    return time.perf_counter() - began
