"""A run against the exact score of its training set: where it generalises, where it memorises."""

import torch
from torch import Tensor

from scorelab.denoisers import Estimate, Exact
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import ByBin, bins_in_range, by_bin, by_log_snr, missing, squared
from scorelab.evaluation.linear import best_linear, has_best_linear
from scorelab.evaluation.noise_error import noise_error
from scorelab.log_snr import SIMPLE
from scorelab.tensors import generator


class ExactGap(Yardstick):
    """``exact_gap``: error of the network less that of the training set's exact score, on held-out images.

    Mean ||eps - eps^||^2 / d over lambda ~ U[-4.8, 6.6], both at the same x_t. The exact score of the training set is
    what minimises the training loss, and what it says of images it does not contain is wrong where noise is small: a
    network below it (a gap below 0) has learned the law and not the list. ``exact_gap_linear`` is the gap of the best
    linear denoiser of the training set, which knows its mean and covariance alone. The records have all three by
    log-SNR, and the network's error on training images beside that on held-out ones, which comes apart where it
    memorises.
    """

    names = ("exact_gap", "exact_gap_linear")
    rows = (
        TableRow(
            "exact_gap",
            "exact gap",
            "its error less that of the train split's exact score on held-out images; below 0 it generalises; "
            "best linear {exact_gap_linear}",
            7,
        ),
    )

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there is no list whose score is known."""
        if context.finite:
            return None
        return (
            "training draws are endless: there is no list to learn" if context.exact_held_out else context.without_score
        )

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """The best linear denoiser's where there is one."""
        known = context.exact_train
        return self.names[: 1 + (known is not None and has_best_linear(known))]

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
        """The numbers; in the records the curves, how many images were looked at, the gap's standard error."""
        assert context.exact_train is not None
        held_out, labels = context.held_out_data()
        order = torch.randperm(len(context.train), generator=generator("seen"))[: len(held_out)]
        seen = context.data(context.train[order])
        seen_labels = context.train_labels[order].to(held_out.device)
        denoiser, exact, chunk = context.denoiser, context.exact_train, context.settings.chunk
        linear = best_linear(denoiser, exact)
        asked = [denoiser, exact] if linear is None else [denoiser, exact, linear]

        def all_of(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
            return [squared(each(made.x_t, t, label).eps, made.eps) for each in asked]

        network, known_score, *beside = by_bin(all_of, denoiser, held_out, labels, chunk, len(asked))
        known = noise_error(denoiser, seen, seen_labels, chunk).errors
        gap = ByBin(network.each - known_score.each, network.reached)
        curves = {"network_train": known.mean, "network_held_out": network.mean, "exact_held_out": known_score.mean}
        metrics = {"exact_gap": _gap(network, known_score)}
        for of_linear in beside:
            curves["linear_held_out"] = of_linear.mean
            metrics["exact_gap_linear"] = _gap(of_linear, known_score)
        records = by_log_snr(**curves, gap_se=gap.se) | missing(denoiser)
        return Result(metrics, records | {"n": len(held_out), "se": gap.over(SIMPLE).se}, self.cost(context))


def _gap(one: ByBin, other: ByBin) -> float | None:
    """The difference of two means over [-4.8, 6.6]; None where the schedule does not reach all of it."""
    return float((one.mean - other.mean)[SIMPLE].mean()) if one.reaches(SIMPLE) else None
