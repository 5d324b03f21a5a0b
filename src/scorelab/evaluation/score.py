"""A run against the true score, where x_t follows the law whose score is known."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate, Exact
from scorelab.evaluation.base import EvaluationContext, Result, Yardstick
from scorelab.evaluation.curves import ByBin, Curve, Mean, bins_in_range, by_bin, in_bin, plain_curve, standard_error
from scorelab.likelihood import bits_per_dim
from scorelab.log_snr import COMMON, SIMPLE, WIDTH
from scorelab.tensors import generator, mean_except_batch


@dataclass(frozen=True)
class Errors:
    """Of every sample of one bin, (N,): its error against the true noise estimate, against the noise, and the floor.

    ``score`` is ||eps^ - eps*||^2 / d with eps* = E[eps | x_t] = -sigma s_t(x_t), ``noise`` ||eps^ - eps||^2 / d, and
    ``floor`` S tr Var(x_0 | x_t) / d, S the SNR: E noise = E score + E floor, for x_t by the exact denoiser's own law.
    ``cut`` is ``score`` with x^_0 cut to [-1, 1], for pixels.
    """

    score: Tensor
    noise: Tensor
    floor: Tensor
    cut: Tensor


def errors_against(
    denoiser: Denoiser, exact: Exact, x0: Tensor, labels: Tensor | None, bin: int, chunk: int = 256
) -> Errors:
    """One bin, at the x_t of every other yardstick; float64 on the CPU."""

    def look(made: Estimate, t: Tensor, label: Tensor | None) -> Tensor:
        said, posterior = denoiser(made.x_t, t, label), exact.posterior(made.x_t, t, label)
        alpha, sigma = made.alpha.double(), made.sigma.double()
        best = (made.x_t.double() - alpha * posterior.mean) / sigma
        floor = ((alpha / sigma) ** 2).flatten() * posterior.trace / x0[0].numel()
        cut = said if denoiser.levels is None else said.clipped()
        score, noise = mean_except_batch((said.eps - best) ** 2), mean_except_batch((said.eps - made.eps).double() ** 2)
        return torch.stack([score, noise, floor, mean_except_batch((cut.eps - best) ** 2)])

    return Errors(*in_bin(denoiser, x0, labels, bin, chunk, look))


@dataclass(frozen=True)
class Score:
    """``Errors`` by bin of log-SNR."""

    error: ByBin
    cut: ByBin
    floor: ByBin

    @property
    def excess(self) -> Mean | None:
        """1/2 int E||eps^ - eps*||^2 / d dlambda over [-4.8, 9.0], bits/dim: what the bound loses to score error.

        x^_0 is cut for pixels, as in ``vlb_common``, whose integral is this and that of the floor.
        """
        if (mean := self.cut.over(COMMON)) is None:
            return None
        told = (part * (COMMON.stop - COMMON.start) * WIDTH / (2 * math.log(2)) for part in (mean.value, mean.se))
        return Mean(*told)

    @property
    def metrics(self) -> list[float | None]:
        """The mean error over [-4.8, 6.6], and the excess."""
        return [None if each is None else each.value for each in (self.error.over(SIMPLE), self.excess)]

    def record(self) -> dict[str, object]:
        """Everything by bin, in plain values, and the standard errors."""
        record: dict[str, object] = {"log_snr": [round(value, 3) for value in Curve.centres().tolist()]}
        curves = {"error": self.error.mean, "se": self.error.se, "floor": self.floor.mean}
        record |= {name: plain_curve(curve) for name, curve in curves.items()}
        floor = self.floor.over(SIMPLE)
        record["floor_simple"] = None if floor is None else floor.value
        means = {"floor_simple": floor, "score_error": self.error.over(SIMPLE), "excess": self.excess}
        record |= {f"{name}_se": mean.se for name, mean in means.items() if mean is not None and mean.value >= 0}
        return record


def score_against(context: EvaluationContext, exact: Exact, x0: Tensor, labels: Tensor) -> Score:
    """Every item once in every bin the schedule reaches."""

    def look(bin: int) -> Tensor:
        found = errors_against(context.denoiser, exact, x0, labels, bin, context.settings.chunk)
        return torch.stack([found.score, found.cut, found.floor])

    return Score(*by_bin(bins_in_range(context.denoiser), len(x0), look, columns=3))


class ScoreError(Yardstick):
    """``score_error``: E||eps^ - eps*||^2 / d over lambda ~ U[-4.8, 6.6]; ``excess``: its cost to the bound, bits/dim.

    eps* is of the exact score, so neither has a floor: 0 is best. Told of held-out data where their law is known.
    Where the training set is finite, also ``train/score_error`` and ``train/excess``, on noised training data against
    the score of the training set: the distance to memorising. On held-out data of an unknown law there is no such
    number, for x_t does not follow the law whose score is known: see ``ExactGap``.

    The records have both by log-SNR, with standard errors over data and noise, and the floor of the noise error.
    """

    names = ("score_error", "excess", "train/score_error", "train/excess")

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where no score is known."""
        return None if self.names_of(context) else "this data has no exact score"

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Those of held-out data of a known law, those of a finite training set."""
        return (self.names[:2] if context.exact_held_out is not None else ()) + (
            self.names[2:] if context.finite else ()
        )

    def items(self, context: EvaluationContext) -> int:
        """How many training items are looked at: as many as are held out."""
        return min(len(context.held_out), len(context.train))

    def cost(self, context: EvaluationContext) -> int:
        """Each item once in every bin."""
        items = (len(context.held_out) if context.exact_held_out is not None else 0) + (
            self.items(context) if context.finite else 0
        )
        return len(bins_in_range(context.denoiser)) * items

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """What of the four there is."""
        metrics: dict[str, float | None] = {}
        records: dict[str, object] = {}
        if context.exact_held_out is not None:
            x0, labels = context.held_out_data()
            found = score_against(context, context.exact_held_out, x0, labels)
            metrics |= dict(zip(("score_error", "excess"), found.metrics, strict=True))
            records["held_out"] = found.record()
        if context.finite and context.exact_train is not None:
            x0, labels = self.training_items(context)
            found = score_against(context, context.exact_train, x0, labels)
            metrics |= dict(zip(("train/score_error", "train/excess"), found.metrics, strict=True))
            records["train"] = found.record()
        if None in metrics.values():
            low, high = context.denoiser.log_snr_range()
            records["missing"] = f"the schedule's log-SNR [{low:.1f}, {high:.1f}] does not contain all that is asked"
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
        nats = -context.exact_held_out.law.log_prob(x0, context.exact_held_out.seen(labels))
        each = bits_per_dim(nats, x0[0].numel())
        return Result({"exact_nll": float(each.mean())}, {"se": standard_error(each)})
