"""Yardsticks of samples by what others publish: the inception score, and the Fréchet distance in DINOv2's features."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow
from scorelab.evaluation.samples import Frechet, SampleYardstick, circumstances
from scorelab.mapped import in_chunks
from scorelab.metrics.compared import Score, inception_score


class InceptionScore(SampleYardstick):
    """``is``: the inception score of samples by the extractor's own classifier, that of held-out images beside it.

    Args:
        splits: parts whose scores are averaged. Published scores have 10 of 5,000 samples each; fewer samples in a part
            score too low, so by default all are one part. With more, ``is_of_splits`` in the records is the standard
            deviation over them.

    Raises:
        Refusal: for splits < 1.
    """

    names = ("is", "is_control")
    rows = (TableRow("is", "inception score", "held-out images {is_control}, by {is_classes} classes at most", 18),)

    def __init__(self, splits: int = 1) -> None:
        if splits < 1:
            raise Refusal(f"splits must be at least 1, got {splits}")
        self.splits = splits

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there is no classifier, or too little for the splits."""
        if not context.extractor.classifies:
            return f"{type(context.extractor).__name__} recognises no classes"
        fewest = min(context.count, len(context.held_out))
        return f"{self.splits} splits of {fewest} images leave some without any" if fewest < self.splits else None

    def scored(self, context: EvaluationContext, values: Tensor) -> tuple[Score, int]:
        """The score of values, and by how many classes."""
        logits = torch.cat(
            [context.extractor.logits(context.features_input(part)).double().cpu() for part in in_chunks(values)]
        )
        return inception_score(logits, self.splits), logits.shape[1]

    def look(self, context: EvaluationContext, samples: Tensor) -> dict[str, float]:
        """The score."""
        return {"is": self.scored(context, samples)[0].value}

    def beside(self, context: EvaluationContext) -> Result:
        """That of held-out images."""
        score, classes = self.scored(context, context.held_out)
        of_splits = self.scored(context, context.samples)[0].of_splits if self.splits > 1 else None
        records = circumstances(context) | {"is_classes": classes, "control_n": len(context.held_out)}
        return Result({"is_control": score.value}, records | {"splits": self.splits, "is_of_splits": of_splits})


class FrechetDino(Frechet):
    """``fd_dino``: the Fréchet distance in DINOv2's features, whatever ``extractor`` is; its floor and excess.

    For photographs it goes with what people see better than that in Inception's (Stein et al. 2023). Its weights are
    read once, before anything is trained.

    Args:
        weights: DINOv2's file; None is the one that was fetched before, or is fetched now.
        model: which, where none is given: see ``DinoExtractor``.
    """

    of_features = False  # of the extractor's
    names = ("fd_dino", "fd_dino_floor", "fd_dino_excess")
    rows = (
        TableRow(
            "fd_dino",
            "DINOv2 distance",
            "perfect samples have {fd_dino_floor:.2f}; {fd_dino_excess:.2f} ± {excess_se:.2f} above it",
            23,
        ),
    )

    def __init__(self, weights: str | None = None, model: str = "dinov2-vit-l-14") -> None:
        self.weights, self.model = weights, model
        self._of: EvaluationContext | None = None
        self._seen: EvaluationContext | None = None

    @cached_property
    def extractor(self) -> Any:
        """DINOv2."""
        from scorelab.metrics.pretrained import DinoExtractor

        return DinoExtractor(self.weights, self.model)

    def check(self, denoiser: Denoiser, settings: EvaluationSettings) -> None:
        """Refuse where there are no weights."""
        _ = self.extractor

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there are no images that it could look at."""
        looks = context.train.dim() == 4 and context.train.shape[1] in (1, 3)
        return None if looks else "DINOv2 looks at grey or colour images, and the data are none"

    def seen(self, context: EvaluationContext) -> EvaluationContext:
        """The context with DINOv2's features, those of the train split once for all sets of samples."""
        if self._seen is None or self._of is not context:
            self._of, self._seen = context, replace(context, extractor=self.extractor)
        return self._seen
