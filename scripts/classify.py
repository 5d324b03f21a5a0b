"""What the scripts that train classifiers of MNIST and CIFAR-10 share: the loop, and the file."""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from scorelab.data.hub import HuggingFace
from scorelab.metrics.classifiers import Classifier

TRACE = 400.0
DROPOUT = 0.2  # of the features
SMOOTHING = 0.05  # of the labels
WARM = 200  # steps

Augment = Callable[[Tensor, Generator], Tensor]  # bytes (N, C, H, W) to floats in 0 ... 255


@dataclass(frozen=True)
class Recipe:
    """How to train: epochs, images per step, peak rate, decay of the averaged weights per step."""

    epochs: int
    batch: int = 128
    rate: float = 3e-3
    decay: float = 0.995


def train(kind: type[Classifier], images: Tensor, labels: Tensor, augment: Augment, recipe: Recipe) -> Classifier:
    """A classifier with averaged weights, after some epochs of cross entropy on augmented images.

    Its features are scaled so that tr Cov = 400 over the images given, unaugmented.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net, mean = kind(), kind()
    mean.load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.05, fused=True)
    each = len(images) // recipe.batch
    steps, done, began = recipe.epochs * each, 0, time.time()
    for epoch in range(recipe.epochs):
        order, total = torch.randperm(len(images), generator=generator), 0.0
        for rows in order.split(recipe.batch)[:each]:
            rate = recipe.rate * min(1.0, (done + 1) / WARM) * (1 + math.cos(math.pi * done / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits = net.head(F.dropout(net.embed(augment(images[rows], generator)), DROPOUT))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done, total = done + 1, total + loss.item()
            with torch.no_grad():
                decay = min(recipe.decay, done / (done + 10))
                for average, value in zip(mean.parameters(), net.parameters(), strict=True):
                    average.lerp_(value, 1 - decay)
        print(f"epoch {epoch + 1}: loss {total / each:.4f}, {time.time() - began:.0f} s", flush=True)
    mean.requires_grad_(False)
    mean.scale.copy_((TRACE / embedded(mean, images).var(0).sum()).sqrt())
    return mean


def embedded(net: Classifier, images: Tensor) -> Tensor:
    """Unscaled features of many images, float64."""
    with torch.no_grad():
        return torch.cat([net.embed(part).double() for part in images.split(1000)])


def accuracy(net: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images it tells the class of."""
    return (net.head(embedded(net, images).float()).argmax(1) == labels).double().mean().item()


def main(doc: str, kind: type[Classifier], augment: Augment, recipe: Recipe, file: Path, dtype: torch.dtype) -> None:
    """Train, report the accuracies, write the file: weights of ``dtype``, the accuracies as its metadata."""
    from safetensors.torch import save

    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("folder", help="the set in the hub's layout")
    parser.add_argument("file", nargs="?", type=Path, default=file)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order are other weights

    splits = HuggingFace(arguments.folder, val=5000).splits()
    net = train(kind, splits["train"].values, splits["train"].labels, augment, recipe)
    state = {key: value if key == "scale" else value.to(dtype) for key, value in net.state_dict().items()}
    net.load_state_dict(state)
    said = {f"{name} accuracy": accuracy(net, splits[name].values, splits[name].labels) for name in ("val", "test")}
    arguments.file.write_bytes(save(state, {name: f"{value:.4f}" for name, value in said.items()}))
    print(said, f"{sum(value.numel() for value in state.values()):,} numbers")
