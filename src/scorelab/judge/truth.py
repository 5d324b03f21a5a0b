"""A run against the exact score of its training set: where it generalises, where it memorises."""

import math

import torch

from scorelab.judge.base import Case, Part, Result
from scorelab.judge.yardsticks import SIMPLE, Curve, bins_in_range, errors_in_bin, plain_curve


class OracleGap(Part):
    """``oracle_gap``: error of the network less that of the training set's exact score, on held-out images.

    Mean ||eps - eps^||^2 / d over lambda ~ U[-4.8, 6.6], both at the same x_t. The exact score of the training set is
    what minimises the training loss, and what it says of images it does not contain is wrong where noise is small: a
    network below it (a gap below 0) has learned the law and not the list. The records have both by log-SNR, and the
    network's error on training images beside that on held-out ones, which comes apart where it memorises.
    """

    names = ("oracle_gap",)

    def inapplicable(self, case: Case) -> str | None:
        """Where there is no list whose score is known."""
        if case.finite:
            return None
        return "training draws are endless: there is no list to learn" if case.law else "this data has no exact score"

    def cost(self, case: Case) -> int:
        """Held-out images, and as many of the train split, once in every bin."""
        return len(bins_in_range(case.denoiser)) * (len(case.held_out) + min(len(case.held_out), len(case.train)))

    def run(self, case: Case, left: int | None) -> Result:
        """The number, and in the records the three curves and the gap's standard error over images."""
        assert case.truth is not None
        held_out, labels = case.held_out_data()
        seen = case.data(case.train[: len(held_out)])
        seen_labels = case.train_labels[: len(held_out)].to(held_out.device)
        chunk, bins = case.metric.chunk, bins_in_range(case.denoiser)
        nothing = torch.full((len(Curve.centres()),), torch.nan, dtype=torch.float64)
        curves = {name: nothing.clone() for name in ("network_train", "network_held_out", "oracle_held_out", "gap_se")}
        for bin in bins:
            network = errors_in_bin(case.denoiser, held_out, labels, bin, chunk)[0]
            oracle = errors_in_bin(case.truth, held_out, labels, bin, chunk)[0]
            curves["network_train"][bin] = errors_in_bin(case.denoiser, seen, seen_labels, bin, chunk)[0].mean()
            curves["network_held_out"][bin], curves["oracle_held_out"][bin] = network.mean(), oracle.mean()
            curves["gap_se"][bin] = (network - oracle).std() / math.sqrt(len(network))
        whole = set(range(SIMPLE.start, SIMPLE.stop)) <= set(bins)
        gap = (curves["network_held_out"] - curves["oracle_held_out"])[SIMPLE]
        records: dict[str, object] = {"log_snr": [round(value, 3) for value in Curve.centres().tolist()]}
        records |= {name: plain_curve(curve) for name, curve in curves.items()}
        if whole:
            records["se"] = float(curves["gap_se"][SIMPLE].square().sum().sqrt()) / len(gap)
        else:
            records["missing"] = "the schedule does not reach all of log-SNR [-4.8, 6.6]"
        return Result({"oracle_gap": float(gap.mean()) if whole else None}, records, self.cost(case))
