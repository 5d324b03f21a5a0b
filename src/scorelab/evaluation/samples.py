"""Yardsticks of samples: how near their law is to the data's, and whether they copy it."""

from scorelab.errors import Refusal
from scorelab.evaluation.base import Case, Metric, Part, Result
from scorelab.metrics.fidelity import Chance, Floor, frechet, frechet_floor, memorization, recognition


class SamplePart(Part):
    """A part that looks at the case's samples; the first of them pays for drawing."""

    of_samples = True

    def cost(self, case: Case) -> int:
        """What the samples still cost."""
        return case.sampling_cost

    def cheaper(self, metric: Metric) -> str:
        """Fewer samples, fewer steps for each."""
        return "lower metric.samples or sampler.steps"


class Frechet(SamplePart):
    """``fid`` of the samples to the train split, its floor at this size, and the excess over it."""

    names = ("fid", "fid_floor", "fid_excess")

    def run(self, case: Case, left: int | None) -> Result:
        """All three, and what they depend on."""
        evaluations = case.sampling_cost
        samples, train = case.shown(case.samples), case.shown(case.train)
        distance = frechet(train, samples, case.extractor)
        floor = floor_of(case)
        values = (distance, floor.value, distance - floor.value)
        records = {
            "n": case.count,
            "reference": f"train split, {len(train)} images",
            "extractor": case.extractor.name,
            "extractor_hash": case.extractor.hash,
            "floor": kind(case),
            **spread(floor),
            "sampler": type(case.sampler).__name__,
            "network_evaluations_per_sample": case.sampler.evaluations(case.denoiser),
            "seed": case.seed,
        }
        return Result(dict(zip(self.names, values, strict=True)), records, evaluations)


def floor_of(case: Case) -> Floor:
    """The distance that perfect samples of the case's own kind would have from its train split."""
    train = case.shown(case.train)
    return frechet_floor(train, case.extractor, case.count, case.train_labels, class_chance(case))


def class_chance(case: Case) -> Chance:
    """How much chance is in the class counts of samples and train split."""
    if not case.conditional:
        return Chance(1.0, 1.0 if case.chance is None else case.chance)
    # the labels are the train split's, over and over; only those of the last round, which is cut, are drawn from it
    size = len(case.train)
    cut = case.count % size
    return Chance(cut / case.count * (1 - cut / size), 0.0)


def kind(case: Case) -> str:
    """What the floor is the floor of, in words."""
    if case.conditional:
        return "samples have the reference's labels: chance within classes alone"
    if case.chance is None:
        return "no labels: as if classes were drawn on both sides, too high if the reference's are in proportion"
    if case.chance == 0:
        return "samples' classes drawn, the reference's in proportion"
    if case.chance == 1:
        return "classes drawn, the samples' and the reference's"
    return f"samples' classes drawn, the reference's with {case.chance:.2f} of that chance: drawn from a larger set"


def spread(floor: Floor) -> dict[str, float]:
    """Records of what a distance of perfect samples scatters, and ``excess_se``, the root of the sum of squares."""
    return {
        "floor_se": floor.se,
        "spread_of_samples": floor.samples,
        "spread_of_references": floor.references,
        "excess_se": floor.excess_se,
    }


class Memorization(SamplePart):
    """``memorization``: the share of samples that copy a training image; held-out images beside it as control."""

    names = ("memorization", "memorization_control")

    def inapplicable(self, case: Case) -> str | None:
        """Where there is no list."""
        return "training draws are endless: there is no list to copy" if case.truth and not case.finite else None

    def run(self, case: Case, left: int | None) -> Result:
        """Both shares."""
        evaluations = case.sampling_cost
        known = case.train if case.training is None else case.training
        values = (memorization(case.samples, known), memorization(case.held_out, known))
        return Result(dict(zip(self.names, values, strict=True)), {"n": case.count}, evaluations)


class Recognition(SamplePart):
    """``recognised``: the share of samples a classifier is sure of; how often it sees each class.

    Held-out images beside it as control.
    """

    names = ("recognised", "recognised_control", "rarest_class", "commonest_class")

    def __init__(self, confidence: float = 0.9) -> None:
        if not 0 < confidence < 1:
            raise Refusal(f"confidence must lie between 0 and 1, got {confidence}")
        self.confidence = confidence

    def inapplicable(self, case: Case) -> str | None:
        """Where there is no classifier."""
        return None if case.extractor.classifies else f"{type(case.extractor).__name__} recognises no classes"

    def run(self, case: Case, left: int | None) -> Result:
        """Both shares, and the samples' least and greatest class share; all class shares in the records."""
        evaluations = case.sampling_cost
        found = recognition(case.shown(case.samples), case.extractor, self.confidence)
        control = recognition(case.shown(case.held_out), case.extractor, self.confidence)
        values = (found.share, control.share, min(found.class_shares), max(found.class_shares))
        shares = [round(share, 4) for share in found.class_shares]
        records = {"confidence": self.confidence, "class_shares": shares}
        return Result(dict(zip(self.names, values, strict=True)), records, evaluations)
