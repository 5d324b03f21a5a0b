"""Data whose law is known: points in the plane, and images of digits drawn from a fitted mixture."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources

import torch
from torch import Tensor

from scorelab.data.base import Source, Split
from scorelab.errors import Refusal
from scorelab.laws import Boxes, Embedding, GaussianMixture, Law
from scorelab.tensors import generator

BLOCK = 1024  # draws at once of a list that can be cut anywhere


class Synthetic(Source):
    """Data drawn from a law that is known: training draws are endless, held-out draws are its own.

    The train split is a sample of the law for comparison; it is trained on only where the data module's ``limit``
    makes a finite set of it.
    """

    levels = None
    sizes: Mapping[str, int] = {"train": 1500, "val": 500, "test": 1500}

    def __init__(self, split_seed: int = 0) -> None:
        self.split_seed = split_seed

    @abstractmethod
    def law(self) -> Law:
        """The law, a new object each time: whoever asks may move it to a device."""

    @cached_property
    def _own(self) -> Law:
        return self.law()

    def splits(self) -> dict[str, Split]:
        """Independent draws for each split, by ``split_seed``."""
        return {name: self.drawn(size, name, self.split_seed) for name, size in self.sizes.items()}

    def first(self, n: int, half: str) -> Split:
        """The first n of a fixed endless list of draws, one list for each half.

        Raises:
            Refusal: for n < 1.
        """
        if n < 1:
            raise Refusal(f"limit must be at least 1, got {n}")
        blocks = [self.drawn(BLOCK, "list", self.split_seed, half, k) for k in range(-(-n // BLOCK))]
        values, labels = (torch.cat([getattr(each, name) for each in blocks])[:n] for name in ("values", "labels"))
        return Split(values, labels)

    def drawn(self, n: int, *key: int | str) -> Split:
        """N draws that depend on the key alone, and their labels: 0 where the law has none."""
        drawn = self._own.draw(n, generator("law", *key))
        label = torch.zeros(n, dtype=torch.long) if drawn.label is None else drawn.label
        return Split(drawn.x0.float(), label)


class Points(Synthetic):
    """Points in the plane, about as large as [-1, 1]."""

    shape = (2,)
    classes: int | None = None


class Gaussian(Points):
    """N(mean, covariance)."""

    def __init__(
        self,
        mean: Sequence[float] = (0.2, -0.1),
        covariance: Sequence[Sequence[float]] = ((0.2, 0.12), (0.12, 0.1)),
        split_seed: int = 0,
    ) -> None:
        super().__init__(split_seed)
        if [len(row) for row in covariance] != [2, 2]:
            raise Refusal(f"covariance has 2 rows of 2 numbers, got {list(covariance)}")
        self.mean, self.covariance = (torch.tensor(each, dtype=torch.float64) for each in (mean, covariance))
        if self.mean.shape != (2,):
            raise Refusal(f"mean has 2 numbers, got {list(mean)}")
        self.law()  # refuses what is no covariance

    def law(self) -> Law:
        """One component."""
        return GaussianMixture(self.mean[None], self.covariance[None])


class Ring(Points):
    """Equal Gaussians of the same small spread, evenly on a circle; the label is which.

    Raises:
        Refusal: for no component, or a spread or radius that is not above 0.
    """

    classes = 8

    def __init__(self, radius: float = 0.75, std: float = 0.08, split_seed: int = 0) -> None:
        super().__init__(split_seed)
        _positive(radius=radius, std=std)
        self.radius, self.std = radius, std

    def law(self) -> Law:
        """Eight components."""
        angle = torch.arange(self.classes, dtype=torch.float64) * (2 * math.pi / self.classes)
        return _along(self.radius * _direction(angle), self.std, torch.arange(self.classes))


class Moons(Points):
    """Two interleaved half circles, each a chain of Gaussians much closer to each other than they are wide.

    That chain is the law itself, not an approximation of it: its score is exact. The label is which half circle.

    Raises:
        Refusal: for a spread that is not above 0.
    """

    classes = 2
    links = 64

    def __init__(self, std: float = 0.05, split_seed: int = 0) -> None:
        super().__init__(split_seed)
        _positive(std=std)
        self.std = std

    def law(self) -> Law:
        """128 components, 64 a half circle."""
        angle = (torch.arange(self.links, dtype=torch.float64) + 0.5) * (math.pi / self.links)
        shift = torch.tensor([0.3, 0.15], dtype=torch.float64)
        upper = 0.6 * _direction(angle) - shift
        labels = torch.arange(2).repeat_interleave(self.links)
        return _along(torch.cat([upper, -upper]), self.std, labels)


class SwissRoll(Points):
    """A spiral of one and a half turns, a chain of Gaussians much closer to each other than they are wide.

    That chain is the law itself, not an approximation of it: its score is exact.

    Raises:
        Refusal: for a spread that is not above 0.
    """

    links = 256

    def __init__(self, std: float = 0.04, split_seed: int = 0) -> None:
        super().__init__(split_seed)
        _positive(std=std)
        self.std = std

    def law(self) -> Law:
        """256 components, evenly by angle from 1.5 pi to 4.5 pi, at a radius in proportion to it."""
        angle = math.pi * (1.5 + 3 * (torch.arange(self.links, dtype=torch.float64) + 0.5) / self.links)
        return _along(0.95 * (angle / angle[-1])[:, None] * _direction(angle), self.std, None)


class Checkerboard(Points):
    """Uniform over the eight black squares of a 4 x 4 board on [-1, 1]^2."""

    def law(self) -> Law:
        """Eight boxes."""
        corners = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
        low = torch.tensor(corners, dtype=torch.float64) / 2 - 1
        return Boxes(low, low + 0.5)


class Embedded(Synthetic):
    """Points of a law in the plane, turned into ``dims`` dimensions by an orthonormal map: the truth stays exact.

    Where data fill two dimensions of many, what a network predicts decides what it can learn: x_0 has two dimensions,
    the noise all of them (Li & He 2025, "Back to basics: let denoising generative models denoise", section 4).

    Args:
        law: gaussian, mixture, moons, checkerboard or swiss_roll, as they are by default.
        dims: of the space they are turned into; the map is the same in every run.
        split_seed: of the splits.

    Raises:
        Refusal: for another law, or fewer than 2 dimensions.
    """

    def __init__(self, law: str = "moons", dims: int = 16, split_seed: int = 0) -> None:
        super().__init__(split_seed)
        if law not in IN_THE_PLANE:
            raise Refusal(f"law must be one of {', '.join(IN_THE_PLANE)}, got {law}")
        if dims < 2:
            raise Refusal(f"dims must be at least 2, got {dims}")
        self.of, self.shape = IN_THE_PLANE[law](), (dims,)
        self.classes = self.of.classes

    def law(self) -> Law:
        """The points' law, turned."""
        white = torch.randn(self.shape[0], 2, generator=generator("basis", self.shape[0]), dtype=torch.float64)
        return Embedding(self.of.law(), torch.linalg.qr(white).Q)


IN_THE_PLANE: dict[str, type[Points]] = {
    "gaussian": Gaussian,
    "mixture": Ring,
    "moons": Moons,
    "checkerboard": Checkerboard,
    "swiss_roll": SwissRoll,
}


class DigitsGaussians(Synthetic):
    """A mixture of 30 Gaussians in 64 dimensions, fitted to the 8x8 digits, three to a class: images without levels.

    The fit is ``python scripts/fit_digits.py``; its parameters ship with the package.
    """

    shape = (1, 8, 8)
    classes = 10
    sizes = {"train": 1437, "val": 180, "test": 720}  # noqa: RUF012

    def law(self) -> Law:
        """Thirty components."""
        from safetensors.torch import load

        fitted = load((resources.files("scorelab.data") / "weights" / "digits_gaussians.safetensors").read_bytes())
        means, factors = fitted["means"].double(), fitted["factors"].double()
        return GaussianMixture(
            means.reshape(-1, *self.shape), factors @ factors.mT, fitted["weights"], fitted["labels"]
        )


def _direction(angle: Tensor) -> Tensor:
    return torch.stack([angle.cos(), angle.sin()], 1)


def _along(means: Tensor, std: float, labels: Tensor | None) -> GaussianMixture:
    """Equal round Gaussians about these means."""
    round_ = torch.eye(means.shape[1], dtype=torch.float64).expand(len(means), -1, -1)
    return GaussianMixture(means, std**2 * round_, None, labels)


def _positive(**given: float) -> None:
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise Refusal(f"{name} must be above 0 and finite, got {value}")
