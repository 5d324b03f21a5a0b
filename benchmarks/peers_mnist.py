"""MNIST by two other projects' own ways of training, for as many CPU seconds as a run of scorelab took.

    pip install diffusers denoising-diffusion-pytorch ema-pytorch
    OMP_NUM_THREADS=1 python benchmarks/peers_mnist.py diffusers --seconds 1200 --data ../shared/data/mnist

Each trains a network of its own of about the size that ``data=mnist`` has on a CPU (0.73 million weights) with the
batch, optimiser, schedule, averaging and prediction of its own defaults: diffusers those of its unconditional training
example, denoising-diffusion-pytorch those of its README and its ``Trainer``. Then ``--samples`` images of averaged
weights by 50 steps of its own DDIM, compared as ``metrics=[fid]`` compares them: the Fréchet distance of the MNIST
classifier's features to the 54,000 images of the train split, after rounding to bytes. Seconds are of this process
(``time.process_time``), loading the data aside.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import save_image

from scorelab.data.hub import HuggingFace
from scorelab.evaluation.features import features_of
from scorelab.metrics.features import MnistExtractor
from scorelab.metrics.fidelity import frechet_between


class Until:
    """Whether so many CPU seconds of this process have passed since it was made."""

    def __init__(self, seconds: float) -> None:
        self.began, self.seconds = time.process_time(), seconds

    @property
    def spent(self) -> float:
        return time.process_time() - self.began

    @property
    def over(self) -> bool:
        return self.spent >= self.seconds


Sampled = tuple[int, int, Callable[[int], Tensor]]  # weights, steps, images in [0, 1]


def by_diffusers(images: Tensor, seconds: float) -> Sampled:
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    net = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(16, 32, 48),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def step(optimizer: torch.optim.Optimizer) -> None:
        x0 = images[torch.randint(len(images), (16,))].float() / 127.5 - 1
        eps, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        loss = torch.nn.functional.mse_loss(net(noising.add_noise(x0, eps, t), t).sample, eps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    aside = torch.optim.SGD(net.parameters(), lr=0.0)
    warm = Until(seconds)
    for _ in range(20):
        step(aside)
    expected = int(20 * seconds / warm.spent)  # its rate falls to 0 at a last step that has to be known
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = get_cosine_schedule_with_warmup(optimizer, 500, expected)
    until, steps = Until(seconds), 0
    while not until.over:
        step(optimizer)
        rate.step()
        ema.step(net.parameters())
        steps += 1
    ema.copy_to(net.parameters())
    net.eval()

    @torch.no_grad()
    def sample(n: int) -> Tensor:
        walk = DDIMScheduler.from_config(noising.config)
        walk.set_timesteps(50)
        x = torch.randn(n, 1, 28, 28)
        for t in walk.timesteps:
            x = walk.step(net(x, t).sample, t, x).prev_sample
        return (x / 2 + 0.5).clamp(0, 1)

    return sum(p.numel() for p in net.parameters()), steps, sample


def by_lucidrains(images: Tensor, seconds: float) -> Sampled:
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    net = Unet(dim=16, dim_mults=(1, 2, 4), channels=1, flash_attn=False)
    diffusion = GaussianDiffusion(net, image_size=28, timesteps=1000, sampling_timesteps=50)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images[:1000]):  # its Trainer wants files; the images are put in below
            save_image(image / 255, f"{folder}/{number}.png")
        trainer = Trainer(
            diffusion, folder, train_num_steps=1, calculate_fid=False, num_samples=4, results_folder=folder
        )
    until, steps = Until(seconds), 0
    # the loop of Trainer.train, over images in memory rather than files
    while not until.over:
        for _ in range(trainer.gradient_accumulate_every):
            batch = images[torch.randint(len(images), (trainer.batch_size,))].float() / 255
            trainer.accelerator.backward(trainer.model(batch) / trainer.gradient_accumulate_every)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.max_grad_norm)
        trainer.opt.step()
        trainer.opt.zero_grad()
        trainer.ema.update()
        steps += 1
    trainer.ema.ema_model.eval()

    @torch.no_grad()
    def sample(n: int) -> Tensor:
        return trainer.ema.ema_model.sample(batch_size=n)

    return sum(p.numel() for p in net.parameters()), steps, sample


LOOPS = {"diffusers": by_diffusers, "lucidrains": by_lucidrains}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("loop", choices=LOOPS)
    asked.add_argument("--seconds", type=float, default=1200)
    asked.add_argument("--samples", type=int, default=500)
    asked.add_argument("--data", default="../shared/data/mnist")
    asked.add_argument("--picture", type=Path, default=None)
    given = asked.parse_args()
    torch.manual_seed(0)
    train = HuggingFace(given.data).splits()["train"].values
    weights, steps, sample = LOOPS[given.loop](train, given.seconds)
    drawn = torch.cat([sample(250) for _ in range(given.samples // 250)])
    levels = (drawn * 255).round().to(torch.uint8)
    if given.picture is not None:
        save_image(drawn[:64], given.picture)
    extractor = MnistExtractor()
    fid = frechet_between(features_of(levels, 256, extractor), features_of(train, 256, extractor))
    print(
        f"{given.loop}: {weights:,} weights, {steps:,} steps, {given.seconds:.0f} CPU s, fid {fid:.2f} ({len(levels)})"
    )


if __name__ == "__main__":
    main()
