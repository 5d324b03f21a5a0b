"""A run against the exact score of its training set: where it generalises, where it memorises."""

import torch
from torch import Tensor

from scorelab.evaluation.base import EvaluationContext, Result, Yardstick
from scorelab.evaluation.curves import ByBin, Curve, bins_in_range, by_bin, plain_curve
from scorelab.evaluation.noise_error import errors_in_bin
from scorelab.log_snr import SIMPLE


class ExactGap(Yardstick):
    """``exact_gap``: error of the network less that of the training set's exact score, on held-out images.

    Mean ||eps - eps^||^2 / d over lambda ~ U[-4.8, 6.6], both at the same x_t. The exact score of the training set is
    what minimises the training loss, and what it says of images it does not contain is wrong where noise is small: a
    network below it (a gap below 0) has learned the law and not the list. The records have both by log-SNR, and the
    network's error on training images beside that on held-out ones, which comes apart where it memorises.
    """

    names = ("exact_gap",)

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

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The number, and in the records the three curves and the gap's standard error over images."""
        assert context.exact_train is not None
        held_out, labels = context.held_out_data()
        seen = context.data(context.train[: len(held_out)])
        seen_labels = context.train_labels[: len(held_out)].to(held_out.device)
        denoiser, exact, chunk, bins = (
            context.denoiser,
            context.exact_train,
            context.settings.chunk,
            bins_in_range(context.denoiser),
        )

        def both(bin: int) -> Tensor:
            return torch.stack([errors_in_bin(each, held_out, labels, bin, chunk)[0] for each in (denoiser, exact)])

        network, known_score = by_bin(bins, len(held_out), both, columns=2)
        (known,) = by_bin(bins, len(seen), lambda bin: errors_in_bin(denoiser, seen, seen_labels, bin, chunk)[:1])
        gap = ByBin(network.each - known_score.each, bins)
        curves = {"network_train": known.mean, "network_held_out": network.mean, "exact_held_out": known_score.mean}
        records: dict[str, object] = {"log_snr": [round(value, 3) for value in Curve.centres().tolist()]}
        records |= {name: plain_curve(curve) for name, curve in curves.items()} | {"gap_se": plain_curve(gap.se)}
        if (whole := gap.over(SIMPLE)) is not None:
            records["se"] = whole.se
        else:
            records["missing"] = "the schedule does not reach all of log-SNR [-4.8, 6.6]"
        value = None if whole is None else float((network.mean - known_score.mean)[SIMPLE].mean())
        return Result({"exact_gap": value}, records, self.cost(context))
