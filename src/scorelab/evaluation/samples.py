"""Yardsticks of samples: how near their law is to the data's, and whether they copy it."""

from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.metrics.fidelity import Floor, class_chance, floor_kind, frechet, frechet_floor, memorization, recognition

SEEN = "held-out images {recognised_control:.3f}, rarest class {rarest_class:.3f}, commonest {commonest_class:.3f}"


class SampleYardstick(Yardstick):
    """A part that looks at the context's samples; the first of them pays for drawing."""

    of_samples = True

    def cost(self, context: EvaluationContext) -> int:
        """What the samples still cost."""
        return context.sampling_cost

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer samples, fewer steps for each."""
        return "lower evaluation.samples or sampler.steps"


class Frechet(SampleYardstick):
    """``fid`` of the samples to the train split, its floor at this size, and the excess over it."""

    names = ("fid", "fid_floor", "fid_excess")
    rows = (TableRow("fid", "Fréchet distance", "floor {fid_floor:.2f}, excess {fid_excess:.2f} ± {excess_se:.2f}", 0),)

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """All three, and what they depend on."""
        evaluations = context.sampling_cost
        samples, train = context.features_input(context.samples), context.features_input(context.train)
        distance = frechet(train, samples, context.extractor)
        floor, of_floor = floor_of(context)
        values = (distance, floor.value, distance - floor.value)
        records = {
            "n": context.count,
            "reference": f"train split, {len(train)} images",
            "extractor": context.extractor.name,
            "extractor_hash": context.extractor.hash,
            **of_floor,
            "sampler": type(context.sampler).__name__,
            "network_evaluations_per_sample": context.sampler.evaluations(context.denoiser),
            "seed": context.seed,
        }
        return Result(dict(zip(self.names, values, strict=True)), records, evaluations)


def floor_of(context: EvaluationContext) -> tuple[Floor, dict[str, object]]:
    """The distance that perfect samples of the context's own kind would have from its train split; its records."""
    train = context.features_input(context.train)
    chance = class_chance(context.count, len(train), context.conditional, context.chance)
    floor = frechet_floor(train, context.extractor, context.count, context.train_labels, chance)
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

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both shares."""
        evaluations = context.sampling_cost
        known = context.train if context.training is None else context.training
        values = (memorization(context.samples, known), memorization(context.held_out, known))
        return Result(dict(zip(self.names, values, strict=True)), {"n": context.count}, evaluations)


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

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both shares, and the samples' least and greatest class share; all class shares in the records."""
        evaluations = context.sampling_cost
        found = recognition(context.features_input(context.samples), context.extractor, self.confidence)
        control = recognition(context.features_input(context.held_out), context.extractor, self.confidence)
        values = (found.share, control.share, min(found.class_shares), max(found.class_shares))
        shares = [round(share, 4) for share in found.class_shares]
        records = {"confidence": self.confidence, "class_shares": shares}
        return Result(dict(zip(self.names, values, strict=True)), records, evaluations)
