"""Feature extractors: maps from images, or points, to the space in which their distributions are compared.

An extractor is one class with a name, a hash, features and perhaps logits.
"""

import hashlib
import json
import struct
from abc import ABC, abstractmethod
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorelab.errors import Refusal
from scorelab.metrics.classifiers import CifarClassifier, Classifier, DigitClassifier, MnistClassifier

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

    def check(self) -> None:
        """Refuse to compare anything, where that cannot be done, before anything is trained.

        Raises:
            Refusal: one sentence that says what to change.
        """
        return

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """Why it cannot look at data of this shape, and what to change; None where it can."""
        if self.of_bytes and len(shape) != 3:
            return "this extractor compares images, and the data are points: leave extractor= out"
        return None

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


class NoFeatures(Extractor):
    """For points of too many coordinates: there is no space in which their samples are compared.

    Args:
        dims: how many coordinates they have.

    """

    of_bytes = False
    hash = ""
    num_features = 0

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims, self.name = dims, "none"

    def check(self) -> None:
        """Refuse it to whoever needs features.

        Raises:
            Refusal: always.
        """
        raise Refusal(
            f"this data names no extractor, and {self.dims:,} coordinates of its own are too many to compare: set "
            "data.extractor in the data's YAML, or leave it out of metrics=[...]"
        )

    def features(self, images: Tensor) -> Tensor:
        """There are none.

        Raises:
            Refusal: always.
        """
        self.check()
        raise AssertionError


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


class ClassifierExtractor(Extractor):
    """The features of a classifier with weights from a file, and its classes.

    It works in its own precision, which autocast leaves alone: the same image has the same features whatever the batch
    or the precision of training, to 1e-9 in float64 and to 1e-5 in float32.

    Attributes:
        kind: of classifier.
        packaged: the file of weights that comes with the package.
        script: that wrote it.
        precision: in which it works.
        accuracy: the share of test images it tells the class of, where its file says so.

    Args:
        weights: a file written by that script; by default the packaged one.

    Raises:
        Refusal: for a file of something else.

    """

    kind: type[Classifier]
    packaged: str
    script: str
    precision = torch.float32

    def __init__(self, weights: str | Path | None = None) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        super().__init__()
        packaged = resources.files("scorelab.metrics") / "weights" / f"{self.packaged}.safetensors"
        try:
            data = packaged.read_bytes() if weights is None else Path(weights).read_bytes()
        except OSError as error:
            raise Refusal(f"weights={weights} cannot be read: python {self.script} writes such a file") from error
        self.num_features = self.kind.num_features
        self.hash = hashlib.sha256(data).hexdigest()[:12]
        self.name = f"scorelab-{self.packaged}-{self.hash}"
        with torch.device("meta"):  # no random initial values, so no draw from anyone's generator
            self.net = self.kind()
        try:
            self.net.load_state_dict(load(data), assign=True)
        except (SafetensorError, RuntimeError) as error:
            if weights is None:
                raise
            raise Refusal(
                f"weights={weights} are none of this classifier's: python {self.script} makes some"
            ) from error
        self.accuracy = _said(data).get("test accuracy")
        self.net.to(self.precision).requires_grad_(False)
        self.net.scale = self.net.scale.double()

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        """For data of another shape."""
        if len(shape) == 3 and tuple(shape) != self.kind.shape:
            told = f"this extractor looks at images {self.kind.shape}, and the data are {tuple(shape)}"
            return f"{told}: extractor=auto, or data of that size"
        return super().unfit(shape)

    def features(self, images: Tensor) -> Tensor:
        """Scaled features (N, num_features), float64, of bytes (N, C, H, W)."""
        return self.net.scale * self._embed(images).double()

    def logits(self, images: Tensor) -> Tensor:
        """Logits of the classes (N, classes), float64, of bytes (N, C, H, W)."""
        return self.net.head(self._embed(images)).double()

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.shape[1:] != self.kind.shape:
            wanted = ", ".join(map(str, self.kind.shape))
            raise Refusal(f"expected uint8 images (N, {wanted}), not {images.dtype} {tuple(images.shape)}")
        device = self.net.scale.device
        with torch.autocast(device.type, enabled=False):
            return torch.cat([self.net.embed(chunk.to(device)) for chunk in images.split(CHUNK)])


def _said(data: bytes) -> dict[str, float]:
    """The numbers that a safetensors file says of itself."""
    (size,) = struct.unpack("<Q", data[:8])
    said = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    return {name: float(value) for name, value in said.items()}


class DigitsExtractor(ClassifierExtractor):
    """The space of scikit-learn's 8x8 digits: 64 features, and 10 classes, in float64."""

    kind, packaged, script = DigitClassifier, "digits", "scripts/train_digits.py"
    precision = torch.float64


class MnistExtractor(ClassifierExtractor):
    """The space of MNIST: 64 features of 28x28 grey images, and 10 digits."""

    kind, packaged, script = MnistClassifier, "mnist", "scripts/train_mnist.py"


class CifarExtractor(ClassifierExtractor):
    """The space of CIFAR-10: 128 features of 32x32 colour images, and 10 classes.

    Its weights were made from a JPEG re-encoding of the set.
    """

    kind, packaged, script = CifarClassifier, "cifar", "scripts/train_cifar.py"
