"""Train the classifier behind the ``digits`` extractor: ``python scripts/train_digits.py [FILE]``.

It learns from the 1,437 images of the train split alone; val chose the settings, test was looked at once. One
minute on one thread, and the same file every time on the same machine.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import scorelab.metrics
from scorelab.metrics.classifiers import DigitClassifier

TRACE = 400.0
EPOCHS = 120
BATCH = 96
RATE = 2e-3
DECAY = 0.99  # of the averaged weights, per step
DROPOUT = 0.5  # of the features
SMOOTHING = 0.02  # of the labels: without it a Gaussian of the pixels is "recognised" half the time
SEED = 0


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Bytes as floats (N, 1, 8, 8), each moved by its own small affine map and blurred by noise.

    Rotation, shear, scale and shift are normal with standard deviations 0.12 rad, 0.12, 0.08 and 0.5 pixel;
    the noise has a standard deviation drawn from 0 ... 16 bytes, one level.
    """
    n = len(images)

    def normal(std: float) -> Tensor:
        return std * torch.randn(n, generator=generator)

    angle, shear, across, down = normal(0.12), normal(0.12), normal(0.08).exp(), normal(0.08).exp()
    shift_x, shift_y = normal(0.5 / 4), normal(0.5 / 4)  # half the image's side, 4 pixels, is 1
    cos, sin = angle.cos(), angle.sin()
    rows = [across * cos, -sin + shear, shift_x, sin, down * cos, shift_y]
    grid = F.affine_grid(torch.stack(rows, 1).reshape(n, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    noise = torch.randn(moved.shape, generator=generator)
    return moved + 16 * torch.rand(n, 1, 1, 1, generator=generator) * noise


def train(images: Tensor, labels: Tensor, seed: int = SEED, epochs: int = EPOCHS) -> DigitClassifier:
    """A classifier with averaged weights, after ``epochs`` of cross entropy on augmented images.

    Its features are scaled so that tr Cov = 400 over the images given, unaugmented.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net, mean = DigitClassifier(), DigitClassifier()
    mean.load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.05)
    steps = epochs * (len(images) // BATCH)
    done = 0
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(BATCH)[: len(images) // BATCH]:
            rate = RATE * min(1.0, done / 100) * (1 + math.cos(math.pi * done / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            embedded = net.embed(augment(images[rows], generator))
            logits = net.head(F.dropout(embedded, DROPOUT))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for average, value in zip(mean.parameters(), net.parameters(), strict=True):
                    average.lerp_(value, 1 - DECAY)
            done += 1
    mean.double().requires_grad_(False)
    mean.scale.copy_((TRACE / mean.embed(images).var(0).sum()).sqrt())
    return mean


def main() -> None:
    """Train, report the accuracies, write the file."""
    from safetensors.torch import save

    from scorelab.data.images import Digits
    from scorelab.tensors import to_bytes

    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(scorelab.metrics.__file__).parent / "weights" / "digits.safetensors"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order are other weights

    splits = Digits().splits()
    images = {name: to_bytes(split.values, Digits().levels) for name, split in splits.items()}
    net = train(images["train"], splits["train"].labels, arguments.seed, arguments.epochs)
    for name in ("train", "val", "test"):
        right = (net.head(net.embed(images[name])).argmax(1) == splits[name].labels).sum().item()
        print(f"{name}: {right}/{len(images[name])} = {right / len(images[name]):.4f}")
    state = {key: value if key == "scale" else value.float() for key, value in net.state_dict().items()}
    arguments.file.write_bytes(save(state))
    print(f"{arguments.file.name}: {sum(value.numel() for value in state.values())} numbers")


if __name__ == "__main__":
    main()
