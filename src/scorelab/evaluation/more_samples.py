"""Further yardsticks of samples, for ``metrics=[kid, prc, colour]``."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from scorelab.denoisers import Estimate
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, Result, TableRow
from scorelab.evaluation.curves import bins_in_range, by_bin
from scorelab.evaluation.samples import SampleYardstick, circumstances
from scorelab.mapped import in_chunks
from scorelab.metrics.colour import parts, root, statistics
from scorelab.metrics.compared import kernel_distance, precision_recall
from scorelab.metrics.fidelity import Floor, class_chance, floor_kind, floor_of_halves
from scorelab.tensors import generator

NOISY = range(12)  # bins of lambda in [-12, -4.8): noisier than the mean noise error looks
HALVES = 20  # of a floor
BYTES = 127.5  # of one unit of data


def floor_in(context: EvaluationContext, features: Tensor, squared: Callable[[Tensor, Tensor], float]) -> Floor:
    """What perfect samples of the context's own kind and number would have by a squared distance of features."""
    chance = class_chance(context.count, len(features), context.conditional, context.chance)
    return floor_of_halves(features, squared, context.count, context.train_labels, chance, HALVES)


class KernelDistance(SampleYardstick):
    """``kid``: squared kernel distance of the features of samples to those of the train split, without bias.

    ``kid_floor`` is what halves of the train split have from each other, about 0; ``excess_se`` in the records what one
    set of perfect samples scatters about it.

    Raises:
        Refusal: for subsets of fewer than 2, or none.
    """

    of_features = True
    names = ("kid", "kid_floor")
    rows = (TableRow("kid", "kernel distance", "floor {kid_floor} ± {kid_floor_se}", 16),)

    def __init__(self, size: int = 1000, subsets: int = 20) -> None:
        if size < 2 or subsets < 1:
            raise Refusal(f"size must be at least 2 and subsets at least 1, got {size} and {subsets}")
        self.size, self.subsets = size, subsets

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """The distance."""
        return {"kid": self.distance(context.features(samples), context.train_features)}

    def distance(self, a: Tensor, b: Tensor) -> float:
        """Of two sets of features."""
        return kernel_distance(a, b, self.size, self.subsets).value

    def beside(self, context: EvaluationContext) -> Result:
        """The floor."""
        order = torch.randperm(len(context.train_features), generator=generator("kernel"))
        some = order[: 2 * self.size]  # whose halves are as large as what is compared
        chance = class_chance(context.count, len(some), context.conditional, context.chance)
        squared = partial(_kernel, size=self.size)
        n, labels = min(context.count, self.size), context.train_labels[some]
        floor = floor_of_halves(context.train_features[some], squared, n, labels, chance, HALVES)
        records = circumstances(context) | {"subset_size": self.size, "subsets": self.subsets, "floor": FLOOR_OF_KID}
        return Result({"kid_floor": floor.value}, records | floor.spread() | {"kid_floor_se": floor.excess_se})


FLOOR_OF_KID = "halves of so much of the train split that each is as large as a subset"


def _kernel(a: Tensor, b: Tensor, size: int) -> float:
    return kernel_distance(a, b, size, 1).value


class PrecisionRecall(SampleYardstick):
    """``precision`` and ``recall`` of samples among as many images of the train split, those of held-out images beside.

    Both depend on how many are compared, so all are as many: held-out images, samples or ``most``, the fewest.

    Raises:
        Refusal: for neighbours < 1.
    """

    of_features = True
    names = ("precision", "recall", "precision_control", "recall_control")
    rows = (
        TableRow(
            "precision",
            "precision, recall",
            "recall {recall}; held-out images {precision_control} and {recall_control}",
            17,
        ),
    )

    def __init__(self, neighbours: int = 3, most: int = 5000) -> None:
        if neighbours < 1 or most <= neighbours:
            raise Refusal(f"neighbours must be at least 1 and most above it, got {neighbours} and {most}")
        self.neighbours, self.most = neighbours, most

    def compared(self, context: EvaluationContext) -> int:
        """How many of each."""
        return min(context.count, len(context.held_out), self.most)

    def reference(self, context: EvaluationContext, n: int) -> Tensor:
        """Features of so many of the train split, the same ones each time."""
        features = context.train_features
        order = torch.randperm(len(features), generator=generator("precision"))
        return features[order[:n]]

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """Both shares."""
        features = context.features(samples[: self.compared(context)])
        found = precision_recall(features, self.reference(context, len(features)), self.neighbours)
        return {"precision": found.precision, "recall": found.recall}

    def beside(self, context: EvaluationContext) -> Result:
        """Those of held-out images, against as many of the train split as they are."""
        features = context.features(context.held_out[: self.compared(context)])
        found = precision_recall(features, self.reference(context, len(features)), self.neighbours)
        records = circumstances(context) | {"n": len(features), "neighbours": self.neighbours}
        return Result({"precision_control": found.precision, "recall_control": found.recall}, records)


class Colour(SampleYardstick):
    """Whether samples have the data's brightness, colours and sharpness, each as one distance to the train split.

    ``colour_mean``: root mean square difference of the channel means, in bytes; ``colour_cov``: relative difference of
    the covariance of channels over all pixels; ``colour_spectrum``: root mean square log ratio of the power by
    frequency. Each has a floor, what as many perfect samples would have; the records say by how many standard errors
    its square is above that (``standard_errors``).

    ``colour_low`` is where a drift in brightness begins: the root mean square over channels of E[x^_0 - x_0] in bytes,
    over held-out images at lambda < -4.8, 0 for the exact denoiser; ``colour_low_floor`` what chance makes of that 0.
    """

    names = tuple(f"colour_{each}{end}" for each in ("mean", "cov", "spectrum", "low") for end in ("", "_floor"))
    rows = (
        TableRow("colour_mean", "brightness, bytes", "off from the data's; floor {colour_mean_floor}", 19),
        TableRow("colour_cov", "colours", "covariance of channels, relative; floor {colour_cov_floor}", 20),
        TableRow("colour_spectrum", "spectrum", "log ratio of power; floor {colour_spectrum_floor}", 21),
        TableRow("colour_low", "brightness of x̂₀", "bytes, at log-SNR < -4.8; chance {colour_low_floor}", 22),
    )

    def __init__(self) -> None:
        self._of, self._reference = torch.empty(0), torch.empty(0)

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there are no images."""
        return None if context.train.dim() == 4 else "it is for images, and the data are none"

    def cost(self, context: EvaluationContext) -> int:
        """The samples, and held-out images once in each noisy bin."""
        return context.sampling_cost + len(context.held_out) * len(self.noisy(context))

    def noisy(self, context: EvaluationContext) -> list[int]:
        """The noisiest bins that the schedule reaches."""
        return [bin for bin in bins_in_range(context.denoiser) if bin in NOISY]

    def seen(self, context: EvaluationContext, values: Tensor) -> Tensor:
        """Statistics of values as data, some at a time."""
        return torch.cat([statistics(BYTES * context.data(part).cpu()) for part in in_chunks(values)])

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """The three distances, squared."""
        mine, reference = self.seen(context, samples), self.reference(context)
        return {part.name: part.squared(mine, reference) for part in parts(context.train.shape[1])}

    def reference(self, context: EvaluationContext) -> Tensor:
        """Statistics of the train split, once for all sets of samples."""
        if self._of is not context.train:
            self._of, self._reference = context.train, self.seen(context, context.train)
        return self._reference

    def beside(self, context: EvaluationContext) -> Result:
        """Floors of the squares, and the brightness of x^_0."""
        reference = self.reference(context)
        floors = {part.name: floor_in(context, reference, part.squared) for part in parts(context.train.shape[1])}
        metrics: dict[str, float | None] = {f"{name}_floor": floor.value for name, floor in floors.items()}
        low, chance = self.low(context)
        records = circumstances(context) | {"floor": floor_kind(context.conditional, context.chance)}
        spread = {name: floor.excess_se for name, floor in floors.items()}
        return Result(metrics | {"colour_low": low, "colour_low_floor": chance}, records | {"square_se": spread})

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """All four, and by how many standard errors the first three are off."""
        found = super().run(context, left)
        off = {}
        for name, se in found.records["square_se"].items():
            mine, floor = (found.metrics[f"{name}{end}"] or 0.0 for end in ("", "_floor"))
            off[name] = (mine**2 - floor**2) / max(se, 1e-12)
        return Result(found.metrics, found.records | {"standard_errors": off}, found.evaluations)

    def low(self, context: EvaluationContext) -> tuple[float | None, float | None]:
        """The mean error of x^_0 at the noisiest levels, and what chance makes of none."""
        channels, bins = context.train.shape[1], self.noisy(context)
        if not bins:
            return None, None

        def look(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
            said = context.denoiser(made.x_t, t, label)
            said = said if context.denoiser.levels is None else said.clipped()
            return list((BYTES * (said.x0 - made.x0).double().flatten(2).mean(2)).unbind(1))

        x0, labels = context.held_out_data()
        found = by_bin(look, context.denoiser, x0, labels, context.settings.chunk, channels, bins)
        each = torch.stack([channel.each[bins].mean(0) for channel in found])
        chance = each.var(1) / each.shape[1]
        return float(each.mean(1).square().mean().sqrt()), math.sqrt(float(chance.mean()))

    def combined(self, metrics: dict[str, float | None]) -> dict[str, float | None]:
        """Roots of the squares."""
        low = {name: metrics[name] for name in ("colour_low", "colour_low_floor")}
        roots = {name: root(value) for name, value in metrics.items() if name not in low and value is not None}
        return {name: (roots | low)[name] for name in self.names}
