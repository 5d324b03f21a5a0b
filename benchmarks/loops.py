"""How three other projects train: each by what its own example or trainer says, for so many seconds of the processor.

Width, rate and batch are arguments, for their defaults are meant for runs of days.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from peers import Azula, Diffusers, lucidrains, weights
from torch import Tensor, nn

EVALUATIONS, WARM = 50, 20


@dataclass(frozen=True)
class Setting:
    """What is searched for each of the others."""

    width: int = 32
    lr: float = 2e-3
    batch: int = 64

    @property
    def told(self) -> str:
        return f"width {self.width}, rate {self.lr:g}, batch {self.batch}"


@dataclass(frozen=True)
class Trained:
    """A network after its seconds; ``sample`` draws n images as data in [-1, 1] by DDIM of a given eta."""

    weights: int
    steps: int
    seconds: float
    sample: Callable[[int, float], Tensor]


def trained(
    network: nn.Module, step: Callable[[bool], object], seconds: float, sample: Callable[[int, float], Tensor]
) -> Trained:
    """Take steps until the seconds are over; ``step`` is told whether what it does counts."""
    began, steps = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        step(True)
        steps += 1
    return Trained(weights(network), steps, spent, sample)


def expected(step: Callable[[bool], object], seconds: float) -> int:
    """How many steps there will be in so many seconds."""
    step(False)
    began = time.process_time()
    for _ in range(WARM):
        step(False)
    return max(1, int(WARM * seconds / (time.process_time() - began)))


def by_diffusers(x0: Tensor, of: Setting, seconds: float) -> Trained:
    """The loop of its unconditional example: AdamW, cosine decay, averaged weights, noise predicted; DDIM."""
    from diffusers import DDIMScheduler, DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    deep = x0.shape[-1] > 8
    widths, attention = (
        ((of.width, 2 * of.width, 2 * of.width), (False, True, True))
        if deep
        else ((of.width, 2 * of.width), (False, True))
    )
    network = Diffusers(tuple(x0.shape[1:]), widths, attention)
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon")
    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate: list[torch.optim.lr_scheduler.LRScheduler] = []

    def step(counts: bool) -> None:
        batch = x0[torch.randint(len(x0), (of.batch,))]
        eps, t = torch.randn_like(batch), torch.randint(0, 1000, (len(batch),))
        loss = nn.functional.mse_loss(network(noising.add_noise(batch, eps, t), t), eps)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if counts:
            optimizer.step()
            rate[0].step()
            ema.step(network.parameters())
        optimizer.zero_grad()

    last = expected(step, seconds)
    for group in optimizer.param_groups:
        group["lr"] = of.lr
    rate.append(get_cosine_schedule_with_warmup(optimizer, min(500, last // 10), last))

    def sample(n: int, eta: float) -> Tensor:
        ema.copy_to(network.parameters())
        walk = DDIMScheduler.from_config(noising.config)
        walk.set_timesteps(EVALUATIONS)
        x = torch.randn(n, *x0.shape[1:])
        for t in walk.timesteps:
            x = walk.step(network(x, t.expand(n)), t, x, eta=eta).prev_sample
        return x

    return trained(network, step, seconds, sample)


def by_lucidrains(x0: Tensor, of: Setting, seconds: float) -> Trained:
    """The loop of its ``Trainer``, over images in memory: Adam, averages, v predicted under a sigmoid schedule."""
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA

    network = lucidrains(x0.shape[1], of.width, (1, 2, 2) if x0.shape[-1] > 8 else (1, 2))
    diffusion = GaussianDiffusion(network, image_size=x0.shape[-1], timesteps=1000, sampling_timesteps=EVALUATIONS)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=of.lr, betas=(0.9, 0.99))
    ema = EMA(diffusion, beta=0.995, update_every=10)

    def step(_: bool) -> None:
        diffusion((x0[torch.randint(len(x0), (of.batch,))] + 1) / 2).backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()

    def sample(n: int, eta: float) -> Tensor:
        ema.ema_model.ddim_sampling_eta = eta
        return ema.ema_model.sample(batch_size=n) * 2 - 1

    return trained(network, step, seconds, sample)


def by_azula(x0: Tensor, of: Setting, seconds: float) -> Trained:
    """As its tutorials train: preconditioned as by Karras et al., uniform times; here with decay and averages too."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import CosineSchedule
    from azula.sample import DDIMSampler

    deep = x0.shape[-1] > 8
    widths = (of.width, 2 * of.width, 2 * of.width) if deep else (of.width, 2 * of.width)
    network = Azula(tuple(x0.shape[1:]), widths, (2,) * len(widths), scale=100.0)
    denoiser = KarrasDenoiser(network, CosineSchedule())
    averaged = torch.optim.swa_utils.AveragedModel(
        denoiser, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=of.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    rate: list[torch.optim.lr_scheduler.LRScheduler] = []

    def step(counts: bool) -> None:
        batch = x0[torch.randint(len(x0), (of.batch,))]
        denoiser.loss(batch, torch.rand(len(batch))).backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        if counts:
            optimizer.step()
            rate[0].step()
            averaged.update_parameters(denoiser)
        optimizer.zero_grad()

    last = expected(step, seconds)
    warm = max(1, min(100, last // 10))

    def factor(n: int) -> float:
        return min(1.0, (n + 1) / warm) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, n / last)))

    rate.append(torch.optim.lr_scheduler.LambdaLR(optimizer, factor))

    def sample(n: int, eta: float) -> Tensor:
        walk = DDIMSampler(averaged.module, eta=eta, steps=EVALUATIONS, silent=True)
        return walk(walk.init((n, *x0.shape[1:])))

    return trained(network, step, seconds, sample)


OTHERS = {"diffusers": by_diffusers, "lucidrains": by_lucidrains, "azula": by_azula}
