"""Yardsticks of samples: how near their law is to the data's, and whether they copy it."""

import math
from statistics import stdev

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.features import ROUNDING
from scorelab.metrics.copies import memorization
from scorelab.metrics.fidelity import Floor, class_chance, floor_kind, frechet_between, frechet_floor, recognition

SEEN = "held-out images {recognised_control:.3f}, rarest class {rarest_class:.3f}, commonest {commonest_class:.3f}"


class SampleYardstick(Yardstick):
    """A part that looks at the context's samples; the first of them pays for drawing.

    It looks at one set at a time (``look``). Of several sets the mean of each number is told; the records then hold
    those of each, under ``repeats``, and under ``repeats_se`` the standard errors of their means over sets. What does
    not depend on the samples is computed once (``beside``).
    """

    of_samples = True

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """What it finds in one set of samples."""
        raise NotImplementedError

    def beside(self, context: EvaluationContext) -> Result:
        """What stands beside it: floors and controls, and the records."""
        return Result({})

    def combined(self, metrics: dict[str, float | None]) -> dict[str, float | None]:
        """Numbers made of those of samples and those beside them, in the order in which they are told."""
        return metrics

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The mean over the sets of samples, and what stands beside it."""
        evaluations = self.cost(context)
        found = [self.look(context, samples) for samples in context.sample_sets]
        beside = self.beside(context)
        means = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
        records = dict(beside.records)
        if len(found) > 1:
            each = {name: [one[name] for one in found] for name in found[0]}
            records |= {"repeats": each, "repeats_se": {name: stdev(v) / len(v) ** 0.5 for name, v in each.items()}}
        return Result(self.combined({**means, **beside.metrics}), records, evaluations)

    def cost(self, context: EvaluationContext) -> int:
        """What the samples still cost."""
        return context.sampling_cost

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer samples, fewer steps for each."""
        return "lower evaluation.samples or sampler.steps"


class Frechet(SampleYardstick):
    """``fid`` of the samples to the train split, its floor at this size, and the excess over it."""

    of_features = True
    names = ("fid", "fid_floor", "fid_excess")
    rows = (
        TableRow(
            "fid",
            "Fréchet distance",
            "perfect samples have {fid_floor:.2f} (the floor); {fid_excess:.2f} ± {excess_se:.2f} above it",
            0,
        ),
    )

    def seen(self, context: EvaluationContext) -> EvaluationContext:
        """The context with the features that are compared."""
        return context

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """The distance."""
        seen = self.seen(context)
        return {self.names[0]: frechet_between(seen.features(samples), seen.train_features)}

    def beside(self, context: EvaluationContext) -> Result:
        """The floor, and what a distance depends on.

        ``excess_se`` is that of one set of samples, and of the mean over several: of the floor's parts, that of samples
        shrinks with the sets.
        """
        seen = self.seen(context)
        floor, of_floor = floor_of(seen)
        sets = context.settings.repeats
        of_floor["excess_se"] = math.hypot(floor.se, floor.samples / math.sqrt(sets), floor.references)
        return Result({self.names[1]: floor.value}, circumstances(seen) | of_floor)

    def combined(self, metrics: dict[str, float | None]) -> dict[str, float | None]:
        """With the excess."""
        distance, floor, excess = self.names
        return {**metrics, excess: metrics[distance] - metrics[floor]}  # type: ignore[operator]


def circumstances(context: EvaluationContext) -> dict[str, object]:
    """Everything that another figure of the same samples was ever put down to."""
    plain = (bool, int, float, str, type(None))
    arguments = {key: value for key, value in vars(context.sampler).items() if isinstance(value, plain)}
    return {
        "n": context.count,
        "sets": context.settings.repeats,
        "reference": f"train split, {len(context.train)} images",
        "extractor": context.extractor.name,
        "extractor_hash": context.extractor.hash,
        "extractor_accuracy": getattr(context.extractor, "accuracy", None),
        "rounding": ROUNDING if context.extractor.of_bytes else "none",
        "labels": "the train split's, in its order" if context.conditional else "none: classes by chance",
        "sampler": type(context.sampler).__name__,
        "sampler_arguments": arguments,
        "steps": len(context.sampler.times(context.denoiser)) - 1,
        "network_evaluations_per_sample": context.evaluations_per_sample,
        "seed": context.seed,
        "seeds": context.seeds,
        "device": context.denoiser.device.type,
    }


def floor_of(context: EvaluationContext) -> tuple[Floor, dict[str, object]]:
    """The distance that perfect samples of the context's own kind would have from its train split; its records."""
    features = context.train_features
    chance = class_chance(context.count, len(features), context.conditional, context.chance)
    floor = frechet_floor(features, None, context.count, context.train_labels, chance)
    return floor, {"floor": floor_kind(context.conditional, context.chance), **floor.spread()}


class Memorization(SampleYardstick):
    """``memorization``: the share of samples that copy a training image; held-out images beside it as control."""

    names = ("memorization", "memorization_control")
    rows = (TableRow("memorization", "memorization", "held-out images {memorization_control:.3f}", 13),)

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there is no list."""
        return (
            "training draws are endless: there is no list to copy"
            if context.exact_train and not context.finite
            else None
        )

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """The share of copies."""
        return {"memorization": memorization(samples, self.known(context))}

    def beside(self, context: EvaluationContext) -> Result:
        """That of held-out images."""
        control = memorization(context.held_out, self.known(context))
        return Result({"memorization_control": control}, {"n": context.count, "control_n": len(context.held_out)})

    def known(self, context: EvaluationContext) -> Tensor:
        """What is trained on."""
        return torch.cat([context.train, context.train.flip(-1)]) if context.mirrored else context.train


class Recognition(SampleYardstick):
    """``recognised``: the share of samples a classifier is sure of; how often it sees each class.

    Held-out images beside it as control.
    """

    names = ("recognised", "recognised_control", "rarest_class", "commonest_class")
    rows = (TableRow("recognised", "recognised", SEEN, 14),)

    def __init__(self, confidence: float = 0.9) -> None:
        if not 0 < confidence < 1:
            raise Refusal(f"confidence must lie between 0 and 1, got {confidence}")
        self.confidence = confidence

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there is no classifier."""
        return None if context.extractor.classifies else f"{type(context.extractor).__name__} recognises no classes"

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """The share, and the least and the greatest class share."""
        found = recognition(context.features_input(samples), context.extractor, self.confidence)
        shares = found.class_shares
        return {"recognised": found.share, "rarest_class": min(shares), "commonest_class": max(shares)}

    def beside(self, context: EvaluationContext) -> Result:
        """The share of held-out images; in the records all class shares of the first set of samples."""
        control = recognition(context.features_input(context.held_out), context.extractor, self.confidence)
        seen = recognition(context.features_input(context.samples), context.extractor, self.confidence)
        shares = [round(share, 4) for share in seen.class_shares]
        return Result({"recognised_control": control.share}, {"confidence": self.confidence, "class_shares": shares})

    def combined(self, metrics: dict[str, float | None]) -> dict[str, float | None]:
        """In the order of the names."""
        return {name: metrics[name] for name in self.names}
