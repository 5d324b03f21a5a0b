"""Yardsticks of samples: how near their law is to the data's, and whether they copy it."""

from scorelab.errors import Refusal
from scorelab.judge.base import Case, Metric, Part, Result
from scorelab.metrics.fidelity import frechet, frechet_floor, memorization, recognition


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
        # a distance's bias goes as 1/n + 1/n_ref; the floor is that of equal sizes, so give it their harmonic mean
        floor = frechet_floor(train, case.extractor, n=2 / (1 / case.count + 1 / len(train)))
        values = (distance, floor.value, distance - floor.value)
        records = {
            "n": case.count,
            "reference": f"train split, {len(train)} images",
            "extractor": case.extractor.name,
            "extractor_hash": case.extractor.hash,
            "floor_se": floor.se,
            "sampler": type(case.sampler).__name__,
            "network_evaluations_per_sample": case.sampler.evaluations(case.denoiser),
            "seed": case.seed,
        }
        return Result(dict(zip(self.names, values, strict=True)), records, evaluations)


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
    """``recognised``: the share of samples a classifier is sure of; how often it sees each class."""

    names = ("recognised", "rarest_class", "commonest_class")

    def __init__(self, confidence: float = 0.9) -> None:
        if not 0 < confidence < 1:
            raise Refusal(f"confidence must lie between 0 and 1, got {confidence}")
        self.confidence = confidence

    def inapplicable(self, case: Case) -> str | None:
        """Where there is no classifier."""
        return None if case.extractor.classifies else f"{type(case.extractor).__name__} recognises no classes"

    def run(self, case: Case, left: int | None) -> Result:
        """The share, and the least and greatest class share; all class shares in the records."""
        evaluations = case.sampling_cost
        found = recognition(case.shown(case.samples), case.extractor, self.confidence)
        values = (found.share, min(found.class_shares), max(found.class_shares))
        shares = [round(share, 4) for share in found.class_shares]
        records = {"confidence": self.confidence, "class_shares": shares}
        return Result(dict(zip(self.names, values, strict=True)), records, evaluations)
