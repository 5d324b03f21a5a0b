"""A run against the exact score of its training set: where it generalises, where it memorises."""

import torch
from torch import Tensor

from scorelab.denoisers import Estimate, Exact
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import ByBin, bins_in_range, by_bin, by_log_snr, missing, squared
from scorelab.evaluation.noise_error import noise_error
from scorelab.log_snr import SIMPLE
from scorelab.tensors import generator


class ExactGap(Yardstick):
    """``exact_gap``: error of the network less that of the training set's exact score, on held-out images.

    Mean ||eps - eps^||^2 / d over lambda ~ U[-4.8, 6.6], both at the same x_t. The exact score of the training set is
    what minimises the training loss, and what it says of images it does not contain is wrong where noise is small: a
    network below it (a gap below 0) has learned the law and not the list. The records have both by log-SNR, and the
    network's error on training images beside that on held-out ones, which comes apart where it memorises.
    """

    names = ("exact_gap",)
    rows = (
        TableRow(
            "exact_gap",
            "exact gap",
            "its error less that of the train split's exact score on held-out images; below 0 it generalises",
            7,
        ),
    )

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there is no list whose score is known."""
        if context.finite:
            return None
        return (
            "training draws are endless: there is no list to learn"
            if context.exact_held_out
            else "this data has no exact score"
        )

    def cost(self, context: EvaluationContext) -> int:
        """Held-out images, and as many of the train split, once in every bin."""
        return len(bins_in_range(context.denoiser)) * (
            len(context.held_out) + min(len(context.held_out), len(context.train))
        )

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """Held-out images, once in every bin."""
        assert context.exact_train is not None
        return {context.exact_train: len(bins_in_range(context.denoiser)) * len(context.held_out)}

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The number; in the records the three curves, how many images were looked at, the gap's standard error."""
        assert context.exact_train is not None
        held_out, labels = context.held_out_data()
        order = torch.randperm(len(context.train), generator=generator("seen"))[: len(held_out)]
        seen = context.data(context.train[order])
        seen_labels = context.train_labels[order].to(held_out.device)
        denoiser, exact, chunk = context.denoiser, context.exact_train, context.settings.chunk

        def both(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
            return [squared(each(made.x_t, t, label).eps, made.eps) for each in (denoiser, exact)]

        network, known_score = by_bin(both, denoiser, held_out, labels, chunk, 2)
        known = noise_error(denoiser, seen, seen_labels, chunk).errors
        gap = ByBin(network.each - known_score.each, network.reached)
        curves = {"network_train": known.mean, "network_held_out": network.mean, "exact_held_out": known_score.mean}
        records = by_log_snr(**curves, gap_se=gap.se) | missing(denoiser)
        whole = gap.over(SIMPLE)
        value = None if whole.value is None else float((network.mean - known_score.mean)[SIMPLE].mean())
        return Result({"exact_gap": value}, records | {"n": len(held_out), "se": whole.se}, self.cost(context))
