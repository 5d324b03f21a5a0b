"""Small classifiers of images, whose penultimate layer is the space in which samples are compared with data."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module, ABC):
    """A convolutional classifier of images of one size.

    Group norm and no dropout: nothing in it depends on ``train()`` or on the rest of the batch. ``scale`` is
    the one constant that multiplies the features; the file of weights sets it so that the trace of their
    covariance over the train split is 400. The logits are computed before it.

    A subclass sets the three attributes and gives ``layers``, which ends in ``num_features``.
    """

    shape: tuple[int, int, int]
    num_features: int
    classes: int
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*self.layers())
        self.head = nn.Linear(self.num_features, self.classes)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @abstractmethod
    def layers(self) -> Sequence[nn.Module]:
        """From data (N, *shape) to features (N, num_features)."""

    def embed(self, images: Tensor) -> Tensor:
        """The penultimate layer, unscaled: (N, *shape) with values in 0 ... 255 -> (N, num_features)."""
        return self.body(images.to(self.head.weight.dtype) / 127.5 - 1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.GELU(),
    )


class DigitClassifier(Classifier):
    """Of 8x8 digits."""

    shape, num_features, classes = (1, 8, 8), 64, 10

    def layers(self) -> Sequence[nn.Module]:
        """Three convolutions and a linear layer."""
        return (
            *_convolution(1, 32),
            *_convolution(32, 64),
            *_convolution(64, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, self.num_features),
            nn.GELU(),
        )


class MnistClassifier(Classifier):
    """Of 28x28 grey images in ten classes."""

    shape, num_features, classes = (1, 28, 28), 64, 10

    def layers(self) -> Sequence[nn.Module]:
        """Four convolutions and a linear layer."""
        return (
            *_convolution(1, 16),
            *_convolution(16, 32, stride=2),
            *_convolution(32, 32),
            *_convolution(32, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, self.num_features),
            nn.GELU(),
        )


class CifarClassifier(Classifier):
    """Of 32x32 colour images in ten classes."""

    shape, num_features, classes = (3, 32, 32), 128, 10

    def layers(self) -> Sequence[nn.Module]:
        """Five convolutions and a linear layer."""
        return (
            *_convolution(3, 32),
            *_convolution(32, 64, stride=2),
            *_convolution(64, 64),
            *_convolution(64, 128, stride=2),
            *_convolution(128, 128, stride=2),
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, self.num_features),
            nn.GELU(),
        )
