"""A run against the true score, where x_t follows the law whose score is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate, Exact
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import (
    ByBin,
    Mean,
    bins_in_range,
    by_bin,
    by_log_snr,
    missing,
    plain,
    squared,
    standard_error,
)
from scorelab.evaluation.linear import best_linear, has_best_linear
from scorelab.likelihood import bits_per_dim, law_figure
from scorelab.log_snr import COMMON, SIMPLE, WIDTH
from scorelab.tensors import generator


@dataclass(frozen=True)
class Score:
    """Of every sample by bin: its error against the true noise estimate, against the noise, and the floor.

    ``error`` is ||eps^ - eps*||^2 / d with eps* = E[eps | x_t] = -sigma s_t(x_t), ``noise`` ||eps^ - eps||^2 / d, and
    ``floor`` S tr Var(x_0 | x_t) / d, S the SNR: E noise = E error + E floor, for x_t by the exact denoiser's own law.
    ``cut`` is ``error`` with x^_0 cut to [-1, 1], for pixels.
    """

    error: ByBin
    cut: ByBin
    floor: ByBin
    noise: ByBin

    @property
    def excess(self) -> Mean:
        """1/2 int E||eps^ - eps*||^2 / d dlambda over [-4.8, 9.0], bits/dim: what the bound loses to score error.

        x^_0 is cut for pixels, as in ``vlb_common``, whose integral is this and that of the floor.
        """
        bins = COMMON.stop - COMMON.start
        return self.cut.over(COMMON).scaled(lambda mean: mean * bins * WIDTH / (2 * math.log(2)))

    @property
    def metrics(self) -> list[float | None]:
        """The mean error over [-4.8, 6.6], and the excess."""
        return [self.error.over(SIMPLE).value, self.excess.value]

    def record(self) -> dict[str, object]:
        """Everything by bin, in plain values, and the standard errors."""
        curves = {"error": self.error.mean, "se": self.error.se, "floor": self.floor.mean}
        floor = self.floor.over(SIMPLE)
        means = {"floor_simple": floor, "score_error": self.error.over(SIMPLE), "excess": self.excess}
        errors = {f"{name}_se": mean.se for name, mean in means.items() if mean.value is not None and mean.value >= 0}
        n = self.error.each.shape[1]
        return by_log_snr(**curves) | {"n": n, "floor_simple": floor.value} | errors


def score_against(
    denoiser: Denoiser,
    exact: Exact,
    x0: Tensor,
    labels: Tensor | None,
    chunk: int = 256,
    bins: list[int] | None = None,
) -> Score:
    """Every item once in every bin that the schedule reaches, or in these; at the x_t of every other yardstick."""
    return scores_against([denoiser], exact, x0, labels, chunk, bins)[0]


def scores_against(
    denoisers: Sequence[Denoiser],
    exact: Exact,
    x0: Tensor,
    labels: Tensor | None,
    chunk: int = 256,
    bins: list[int] | None = None,
) -> list[Score]:
    """That of several denoisers of one schedule, at the same x_t; the exact one is asked once."""

    def look(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
        posterior = exact.posterior(made.x_t, t, label)
        alpha, sigma = made.alpha.double(), made.sigma.double()
        best = (made.x_t.double() - alpha * posterior.mean) / sigma
        floor = ((alpha / sigma) ** 2).flatten() * posterior.trace / x0[0].numel()
        seen = []
        for denoiser in denoisers:
            said = denoiser(made.x_t, t, label)
            cut = said if denoiser.levels is None else said.clipped()
            seen += [squared(said.eps, best), squared(cut.eps, best), floor, squared(said.eps, made.eps)]
        return seen

    found = by_bin(look, denoisers[0], x0, labels, chunk, 4 * len(denoisers), bins)
    return [Score(*found[4 * k : 4 * k + 4]) for k in range(len(denoisers))]


class ScoreError(Yardstick):
    """``score_error``: E||eps^ - eps*||^2 / d over lambda ~ U[-4.8, 6.6]; ``excess``: its cost to the bound, bits/dim.

    eps* is of the exact score, so neither has a floor: 0 is best. Told of held-out data where their law is known.
    Where the training set is finite, also ``train/score_error`` and ``train/excess``, on noised training data against
    the score of the training set: the distance to memorising. On held-out data of an unknown law there is no such
    number, for x_t does not follow the law whose score is known: see ``ExactGap``.

    ``score_error_linear`` is that of the best linear denoiser of the law at the same x_t, which knows its mean and
    covariance alone: beside it one sees what the network has learned beyond them.

    The records have both by log-SNR, with standard errors over data and noise, and the floor of the noise error; of the
    best linear denoiser, its noise error.
    """

    names = ("score_error", "excess", "score_error_linear", "train/score_error", "train/excess")
    rows = (
        TableRow(
            "score_error",
            "score error",
            "to the true score, held-out data; best linear {score_error_linear}; it costs the bound {excess} bits/dim",
            4,
        ),
        TableRow(
            "train/score_error",
            "to memorising",
            "error to the training set's exact score, on noised training data: at 0 it knows them by heart",
            8,
        ),
    )

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where no score is known."""
        return None if self.names_of(context) else context.without_score

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Those of held-out data of a known law, those of a finite training set."""
        known = context.exact_held_out
        held_out = () if known is None else self.names[: 2 + has_best_linear(known)]
        return held_out + (self.names[3:] if context.finite else ())

    def items(self, context: EvaluationContext) -> int:
        """How many training items are looked at: as many as are held out."""
        return min(len(context.held_out), len(context.train))

    def cost(self, context: EvaluationContext) -> int:
        """Each item once in every bin."""
        return sum(self.questions(context).values())

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """As many as the network is: those of the held-out law about held-out items, of the training set about its."""
        bins = len(bins_in_range(context.denoiser))
        asked = {context.exact_held_out: bins * len(context.held_out)}
        if context.finite:
            asked[context.exact_train] = bins * self.items(context)
        return {exact: items for exact, items in asked.items() if exact is not None}

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """What of the four there is."""
        metrics: dict[str, float | None] = {}
        records: dict[str, Any] = {}
        if context.exact_held_out is not None:
            x0, labels = context.held_out_data()
            linear = best_linear(context.denoiser, context.exact_held_out)
            both = [context.denoiser] if linear is None else [context.denoiser, linear]
            found, *beside = scores_against(both, context.exact_held_out, x0, labels, context.settings.chunk)
            metrics |= dict(zip(("score_error", "excess"), found.metrics, strict=True))
            records["held_out"] = found.record()
            for score in beside:
                metrics["score_error_linear"] = score.metrics[0]
                records["held_out"] |= plain(linear=score.noise.mean)
        if context.finite and context.exact_train is not None:
            x0, labels = self.training_items(context)
            found = score_against(context.denoiser, context.exact_train, x0, labels, context.settings.chunk)
            metrics |= dict(zip(("train/score_error", "train/excess"), found.metrics, strict=True))
            records["train"] = found.record()
        records |= missing(context.denoiser, needed=(SIMPLE, COMMON))
        return Result(metrics, records, self.cost(context))

    def training_items(self, context: EvaluationContext) -> tuple[Tensor, Tensor]:
        """Training data drawn as training draws them: each at most once, mirror images among them."""
        assert context.exact_train is not None
        drawn = context.exact_train.law.references(self.items(context), generator("training items"))
        device, label = context.denoiser.device, drawn.label
        x0 = drawn.x0.float().to(device)
        return x0, torch.zeros(len(x0), dtype=torch.long, device=device) if label is None else label.to(device)


class ExactLikelihood(Yardstick):
    """``exact_nll``: -log2 p(x_0) / d of held-out data under the law they were drawn from, bits/dim.

    No model does better on average: the floor of every bound.
    """

    names = ("exact_nll",)
    rows = (
        TableRow(
            "exact_nll",
            "exact −log p",
            "bits/dim of a density in the data's units, their own law: no bound is below it on average",
            5,
        ),
    )

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where no density is known."""
        if context.exact_held_out is None:
            return "the law of this data is not known"
        return None if context.exact_held_out.law.has_density else "its law has no density"

    def cost(self, context: EvaluationContext) -> int:
        """No network is asked."""
        return 0

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The mean, and its standard error over held-out data."""
        assert context.exact_held_out is not None
        x0, labels = context.held_out_data()
        nats = -context.exact_held_out.law.log_prob(x0, context.exact_held_out.label_for_law(labels))
        each = bits_per_dim(nats, x0[0].numel())
        return Result({"exact_nll": float(each.mean())}, {"se": standard_error(each)} | law_figure().record())
