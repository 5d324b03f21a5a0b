"""What guidance does to samples: their distance, and how often they are what was asked for, by its scale."""

from collections.abc import Sequence

from torch import Tensor

from scorelab.denoisers import Guided
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.samples import circumstances, floor_of
from scorelab.metrics.fidelity import frechet_between


class GuidanceScales(Yardstick):
    """``guidance_fid``: the least Fréchet distance over guidance scales, that at the scale ``guidance_scale``.

    The same noise and labels at each scale. ``guidance_asked`` is the greatest share of samples, over the scales,
    whose likeliest class by the extractor is their label, ``guidance_control`` that share of held-out images: the
    classifier's accuracy. Both are missing where the extractor knows no such classes. The records have all by scale.

    Args:
        scales: 1 is the conditional denoiser itself.

    Raises:
        Refusal: for no scales.
    """

    of_features = True
    names = ("guidance_fid", "guidance_scale", "guidance_asked", "guidance_control")
    rows = (
        TableRow(
            "guidance_fid",
            "guidance",
            "the least Fréchet distance, at scale {guidance_scale:g}; floor {floor_value:.2f}; label recognised in up "
            "to {guidance_asked:.3f}, of held-out images {guidance_control:.3f}",
            28,
        ),
    )

    def __init__(self, scales: Sequence[float] = (1.0, 1.5, 2.0, 3.0, 5.0)) -> None:
        if not scales:
            raise Refusal("scales must name one at least")
        self.scales = [float(scale) for scale in scales]

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where labels are not known, or nothing was learned without them, or guidance is there already."""
        if context.denoiser.guided:
            return "this denoiser is guided already"
        if not context.conditional:
            return "it was trained without labels (model.conditional=true model.label_dropout=0.1)"
        return None if context.denoiser.label_free else "it never did without labels (model.label_dropout=0.1)"

    def cost(self, context: EvaluationContext) -> int:
        """The samples of each scale, twice the evaluations each where it is not 1."""
        each = context.count * context.evaluations_per_sample
        return sum(each if scale == 1 else 2 * each for scale in self.scales)

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer samples, steps or scales."""
        return "lower evaluation.samples or sampler.steps, or name fewer metrics.guidance.scales"

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both by scale, and the best of each."""
        distances, asked = [], []
        for scale in self.scales:
            denoiser = context.denoiser if scale == 1 else Guided(context.denoiser, scale)
            samples = context.sampled(denoiser, context.sampler)
            distances.append(frechet_between(context.features(samples), context.train_features))
            asked.append(recognised_as(context, samples, context.sample_labels))
        least = min(range(len(self.scales)), key=distances.__getitem__)
        floor, of_floor = floor_of(context)
        control = recognised_as(context, context.held_out, context.labels)
        known = [share for share in asked if share is not None]
        records = {"scale": self.scales, "fid": distances, "asked": asked, "control": control}
        return Result(
            {
                "guidance_fid": distances[least],
                "guidance_scale": self.scales[least],
                "guidance_asked": max(known) if known else None,
                "guidance_control": control,
            },
            records
            | {"floor_value": floor.value, "control_n": len(context.held_out)}
            | circumstances(context)
            | of_floor,
            self.cost(context),
        )


def recognised_as(context: EvaluationContext, values: Tensor, labels: Tensor) -> float | None:
    """The share of values (n, ...) whose likeliest class is their label (n,); None where the classes are others."""
    if not context.extractor.classifies:
        return None
    probabilities = context.extractor.probabilities(context.features_input(values))
    if probabilities.shape[1] != int(context.train_labels.max()) + 1:
        return None
    return float((probabilities.argmax(1).cpu() == labels.cpu()).double().mean())
