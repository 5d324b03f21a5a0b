"""The loss x loss matrix: one network under every objective, on one axis of log-SNR and in one unit."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorelab.denoisers import Exact
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.curves import Mean, bins_in_range, by_log_snr, plain, standard_error, yardstick_draws
from scorelab.evaluation.score import score_against
from scorelab.log_snr import BINS, LOWEST, WIDTH
from scorelab.losses import Example, Loss, Uniform
from scorelab.losses.card import weight_card
from scorelab.tensors import Rows, generator

UNKNOWN = "the law of held-out data is not known"


@dataclass
class Column:
    """One objective over its weight by bin of log-SNR, NaN where it has none; the noise error that this implies.

    ``each`` (40, N) is what every item adds to it: its mean over items is ``value``.
    """

    each: Tensor
    value: Tensor = field(default_factory=lambda: torch.full((BINS,), torch.nan, dtype=torch.float64))
    se: Tensor = field(default_factory=lambda: torch.full((BINS,), torch.nan, dtype=torch.float64))
    implied: Tensor = field(default_factory=lambda: torch.full((BINS,), torch.nan, dtype=torch.float64))


class Objectives(Yardstick):
    """``objective_NAME``: the mean of each objective under its own law of noise levels, over its mean weight.

    Every objective is E w(lambda) ||eps - eps^||^2 / d up to a constant of the law, so over its weight it is a noise
    error: the unit they share. By log-SNR (records): ``value``, the loss over its weight, and ``noise_error``, that
    plus the constant: the same curve for all objectives, up to sampling noise, where the losses are right. The numbers
    weigh the value by the objective's own card (see ``weight_card``), uniform training times: one row of the matrix,
    whose columns are objectives.

    Objectives that compare with the exact score are told on held-out data of a known law, and left out elsewhere.

    Args:
        items: held-out items per bin; None is all.
        losses: the objectives by name; one that is None is left out.

    Raises:
        Refusal: for fewer than 2 items, no objective, or what is none.
    """

    def __init__(self, items: int | None = 64, **losses: Loss | None) -> None:
        rows = {name: loss for name, loss in losses.items() if loss is not None}
        if wrong := [name for name, loss in rows.items() if not isinstance(loss, Loss)]:
            raise Refusal(f"{wrong[0]} is no objective: give it a _target_, or null to leave it out")
        if (items is not None and items < 2) or not rows:
            raise Refusal(f"at least 2 items and 1 objective are needed, got {items} and {len(rows)}")
        self.items, self.losses = items, rows
        self.names = tuple(f"objective_{name}" for name in rows)
        self.rows = tuple(
            TableRow(name, name.replace("_", " ", 1), "its mean over its mean weight") for name in self.names
        )

    def applicable(self, context: EvaluationContext) -> dict[str, Loss]:
        """Those that need no score, and where the law is known all."""
        return {
            name: loss
            for name, loss in self.losses.items()
            if context.exact_held_out is not None or not loss.needs_exact
        }

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where all need the score of held-out data."""
        return None if self.applicable(context) else UNKNOWN

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Of those that are told."""
        return tuple(f"objective_{name}" for name in self.applicable(context))

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer items."""
        return "lower metrics.objectives.items"

    def count(self, context: EvaluationContext) -> int:
        """How many items are looked at in each bin."""
        return min(len(context.held_out), self.items or len(context.held_out))

    def cost(self, context: EvaluationContext) -> int:
        """Every objective that is told once for every item in every bin."""
        dims = context.train[0].numel()
        each = sum(loss.cost(dims) for loss in self.applicable(context).values()) + 1
        return each * self.count(context) * len(bins_in_range(context.denoiser))

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """Of the law of held-out data: each item in every bin, for the floor and for objectives that ask."""
        if context.exact_held_out is None:
            return {}
        times = 1 + sum(loss.needs_exact for loss in self.applicable(context).values())
        return {context.exact_held_out: times * self.count(context) * len(bins_in_range(context.denoiser))}

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The row of this network, and every curve."""
        x0, labels = context.held_out_data()
        x0, labels = x0[: self.count(context)], labels[: self.count(context)]
        losses = self.applicable(context)
        nothing = torch.full((BINS, len(x0)), torch.nan, dtype=torch.float64)
        rows = {name: Column(nothing.clone()) for name in losses}
        refused: dict[str, str] = {}
        floors = torch.full((BINS,), math.nan, dtype=torch.float64)
        if context.exact_held_out is not None:
            floors = score_against(
                context.denoiser, context.exact_held_out, x0, labels, context.settings.chunk
            ).floor.mean
        for bin in bins_in_range(context.denoiser):
            for name, loss in losses.items():
                if name in refused:
                    continue
                try:
                    self._look(context, loss, rows[name], x0, labels, bin, floors[bin])
                except Refusal as error:
                    refused[name] = str(error)
        means = {name: weighted_mean(context, losses[name], row) for name, row in rows.items()}
        metrics = {f"objective_{name}": mean.value for name, mean in means.items()}
        records = by_log_snr() | {"items": self.count(context), "refused": refused}
        if left_out := [name for name in self.losses if name not in losses]:
            records["inapplicable"] = dict.fromkeys(left_out, UNKNOWN)
        if refused:
            records["missing"] = "; ".join(f"{name}: {why}" for name, why in refused.items())
        for name, row in rows.items():
            curves = plain(value=row.value, se=row.se, noise_error=row.implied)
            records[name] = {"mean_se": means[name].se} | curves
        return Result(metrics, records, self.cost(context))

    def _look(
        self, context: EvaluationContext, loss: Loss, row: Column, x0: Tensor, labels: Tensor, bin: int, floor: Tensor
    ) -> None:
        """One objective in one bin."""
        draws, denoiser = yardstick_draws(context.denoiser, x0, bin), context.denoiser
        t = on_grid(draws.t, denoiser.schedule.num_steps)
        log_snr = denoiser.schedule.log_snr(t)
        inside = (log_snr >= LOWEST + WIDTH * bin) & (log_snr <= LOWEST + WIDTH * (bin + 1))
        if int(inside.sum()) < 2:
            return
        x0, t, eps, labels = x0[inside], t[inside], draws.eps[inside], labels[inside]
        found = []
        for first in range(0, len(x0), context.settings.chunk):
            rows = slice(first, first + context.settings.chunk)
            slices = Rows([generator("objectives", bin)], len(x0), rows)
            example = Example.of(denoiser, x0[rows], t[rows], eps[rows], labels[rows], context.exact_held_out)
            found.append(loss(denoiser, example, slices).loss.detach().double())
        each = torch.cat(found) / loss.noise_weight(denoiser, t)
        row.value[bin], row.se[bin] = each.mean(), each.std() / math.sqrt(len(each))
        # an item whose grid time falls into another bin adds the mean, the others so much more
        row.each[bin] = row.value[bin]
        row.each[bin, inside.cpu()] += (each.cpu() - row.value[bin]) * len(inside) / len(each)
        row.implied[bin] = row.value[bin] + loss.shortfall(floor)


def on_grid(t: Tensor, steps: int | None) -> Tensor:
    """The nearest grid times t_i, or the times themselves of a continuous process."""
    return t if steps is None else (t * steps).round().clamp(1, steps) / steps


def weighted_mean(context: EvaluationContext, loss: Loss, row: Column) -> Mean:
    """The mean of a row's values under the objective's card, over the bins it has."""
    card = weight_card(context.denoiser, loss, Uniform())
    edges = LOWEST + WIDTH * torch.arange(BINS + 1, dtype=torch.float64)
    place = torch.bucketize(card.log_snr.cpu(), edges) - 1
    known = (place >= 0) & (place < BINS) & card.mass.isfinite().cpu()
    mass = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place[known], card.mass.cpu()[known])
    told = row.value.isfinite() & (mass > 0)
    if not bool(told.any()):
        return Mean()
    share = mass[told] / mass[told].sum()
    return Mean(float((mass * row.value)[told].sum() / mass[told].sum()), standard_error(share @ row.each[told]))
