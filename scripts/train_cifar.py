"""Train the classifier behind the ``cifar`` extractor: ``python scripts/train_cifar.py FOLDER [FILE]``.

FOLDER holds CIFAR-10 in the hub's layout (parquet). The packaged weights were made from a re-encoding of it as JPEG of
quality 75. It learns from the train split but for 5,000 images by class, val, on which the settings were chosen; the
test split was looked at once. About twenty minutes on one thread; the weights are kept in half precision.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from classify import Recipe, main
from torch import Generator, Tensor

import scorelab.metrics
from scorelab.metrics.classifiers import CifarClassifier

EDGE = 4  # pixels by which an image may be moved


def augment(images: Tensor, generator: Generator) -> Tensor:
    """Bytes as floats (N, 3, 32, 32), each moved by up to four pixels either way, and mirrored or not."""
    n, _, height, width = images.shape
    padded = F.pad(images.float(), (EDGE,) * 4, mode="reflect")
    down, across = torch.randint(2 * EDGE + 1, (2, n), generator=generator)
    rows = down[:, None] + torch.arange(height)
    columns = across[:, None] + torch.arange(width)
    mirrored = torch.rand(n, generator=generator) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


if __name__ == "__main__":
    place = Path(scorelab.metrics.__file__).parent / "weights" / "cifar.safetensors"
    main(__doc__, CifarClassifier, augment, Recipe(epochs=8), place, torch.float16)
