"""Train the classifier behind the ``mnist`` extractor: ``python scripts/train_mnist.py FOLDER [FILE]``.

FOLDER holds MNIST in the hub's layout (parquet). It learns from the train split but for 5,000 images by class, val, on
which the settings were chosen; the test split was looked at once. About five minutes on one thread.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from classify import Recipe, main
from torch import Generator, Tensor

import scorelab.metrics
from scorelab.metrics.classifiers import MnistClassifier


def augment(images: Tensor, generator: Generator) -> Tensor:
    """Bytes as floats (N, 1, 28, 28), each moved by its own small affine map and blurred by noise.

    Rotation, shear, scale and shift are normal with standard deviations 0.12 rad, 0.12, 0.08 and 1 pixel; the noise has
    a standard deviation drawn from 0 ... 16 bytes.
    """
    n = len(images)

    def normal(std: float) -> Tensor:
        return std * torch.randn(n, generator=generator)

    angle, shear, across, down = normal(0.12), normal(0.12), normal(0.08).exp(), normal(0.08).exp()
    cos, sin = angle.cos(), angle.sin()
    rows = [across * cos, -sin + shear, normal(1 / 14), sin, down * cos, normal(1 / 14)]
    grid = F.affine_grid(torch.stack(rows, 1).reshape(n, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    noise = torch.randn(moved.shape, generator=generator)
    return moved + 16 * torch.rand(n, 1, 1, 1, generator=generator) * noise


if __name__ == "__main__":
    place = Path(scorelab.metrics.__file__).parent / "weights" / "mnist.safetensors"
    main(__doc__, MnistClassifier, augment, Recipe(epochs=6), place, torch.float32)
