"""Feature extractors: maps from images, or points, to the space in which their distributions are compared.

An extractor is one class with a name, a hash, features and perhaps logits.
"""

import hashlib
from abc import ABC, abstractmethod
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorelab.errors import Refusal

CHUNK = 1024  # images at once: enough to keep the cores busy, and 50,000 images still fit


class Extractor(nn.Module, ABC):
    """A frozen map from uint8 images (N, C, H, W) to features (N, num_features).

    A subclass sets the three attributes and defines ``features``; it defines ``logits`` too if it is a
    classifier.

    Attributes:
        num_features: the dimension of the feature space.
        name: one name, one set of weights.
        hash: the first 12 hexadecimal digits of the SHA-256 of the weights file, empty without weights.
        of_bytes: whether it takes images as bytes; else it takes data as they are.

    """

    num_features: int
    name: str
    hash: str
    of_bytes: bool = True

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (N, num_features) of bytes (N, C, H, W), or of data (N, ...), on the extractor's device."""

    def logits(self, images: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the classes, (N, classes).

        Raises:
            NotImplementedError: the extractor is no classifier.

        """
        raise NotImplementedError(f"{type(self).__name__} recognises no classes")

    @property
    def classifies(self) -> bool:
        """Whether it is a classifier."""
        return type(self).logits is not Extractor.logits

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities of the classes, softmax(logits), (N, classes)."""
        return self.logits(images).softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        """The features; what torchmetrics calls."""
        return self.features(images)


class Coordinates(Extractor):
    """The data's own coordinates, for points and for images without levels.

    Args:
        dims: how many there are.

    """

    of_bytes = False
    hash = ""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.num_features, self.name = dims, f"scorelab-coordinates-{dims}"

    def features(self, images: Tensor) -> Tensor:
        """The data, flat, in float64.

        Raises:
            Refusal: for data of another size.

        """
        flat = images.flatten(1).double()
        if flat.shape[1] != self.num_features:
            raise Refusal(f"expected data of {self.num_features} coordinates, not {flat.shape[1]}")
        return flat


class Thumbnails(Extractor):
    """The mean colour of each of size x size patches: what images look like from afar, where nothing better is named.

    Args:
        channels: of the images.
        size: patches across, and down.

    """

    hash = ""

    def __init__(self, channels: int, size: int = 16) -> None:
        super().__init__()
        self.size, self.num_features = size, channels * size**2
        self.name = f"scorelab-thumbnails-{channels}x{size}x{size}"

    def features(self, images: Tensor) -> Tensor:
        """Means of bytes (N, C, H, W) as data in [-1, 1], flat, in float64."""
        patches = [F.adaptive_avg_pool2d(chunk.double(), self.size) for chunk in images.split(CHUNK)]
        return torch.cat(patches).flatten(1) / 127.5 - 1


class DigitClassifier(nn.Module):
    """A small convolutional classifier of 8x8 digits, whose penultimate layer is the feature space.

    Group norm and no dropout: nothing in it depends on ``train()`` or on the rest of the batch. ``scale`` is
    the one constant that multiplies the features; the file of weights sets it so that the trace of their
    covariance over the train split is 400. The logits are computed before it.
    """

    num_features = 64
    classes = 10
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(1, 32, stride=1),
            *_convolution(32, 64, stride=1),
            *_convolution(64, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, self.num_features),
            nn.GELU(),
        )
        self.head = nn.Linear(self.num_features, self.classes)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def embed(self, images: Tensor) -> Tensor:
        """The penultimate layer, unscaled: (N, 1, 8, 8) with values in 0 ... 255 -> (N, 64)."""
        return self.body(images.to(self.head.weight.dtype) / 127.5 - 1)


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.GELU(),
    )


class DigitsExtractor(Extractor):
    """The space of scikit-learn's 8x8 digits: 64 features of a :class:`DigitClassifier`, and 10 classes.

    It works in float64, which autocast leaves alone: the same image has the same features to 1e-9 whatever
    the batch or the precision of training, and the Fréchet distance needs those digits.

    Args:
        weights: a file written by ``python scripts/train_digits.py``; by default the packaged one.

    Raises:
        Refusal: for a file of something else.

    """

    num_features = DigitClassifier.num_features

    def __init__(self, weights: str | Path | None = None) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        super().__init__()
        packaged = resources.files("scorelab.metrics") / "weights" / "digits.safetensors"
        data = packaged.read_bytes() if weights is None else Path(weights).read_bytes()
        self.hash = hashlib.sha256(data).hexdigest()[:12]
        self.name = f"scorelab-digits-{self.hash}"
        with torch.device("meta"):  # no random initial values, so no draw from anyone's generator
            self.net = DigitClassifier()
        try:
            self.net.load_state_dict(load(data), assign=True)
        except (SafetensorError, RuntimeError) as error:
            if weights is None:
                raise
            raise Refusal(f"weights={weights} are none of this classifier's") from error
        self.net.double().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Scaled features (N, 64), float64, of bytes (N, 1, 8, 8)."""
        return self.net.scale * self._embed(images)

    def logits(self, images: Tensor) -> Tensor:
        """Logits of the ten digits (N, 10), float64, of bytes (N, 1, 8, 8)."""
        return self.net.head(self._embed(images))

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.shape[1:] != (1, 8, 8):
            raise Refusal(f"expected uint8 images (N, 1, 8, 8), not {images.dtype} {tuple(images.shape)}")
        device = self.net.scale.device
        return torch.cat([self.net.embed(chunk.to(device)) for chunk in images.split(CHUNK)])
