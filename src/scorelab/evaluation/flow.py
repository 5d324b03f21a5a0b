"""The likelihood of a denoiser's probability flow."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import OverBudget, Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.bound import no_density
from scorelab.evaluation.curves import standard_error
from scorelab.likelihood import bin_gap, bits_per_dim, flow_figure, flow_log_prob, lattice_gap, uniform_figure
from scorelab.tensors import generator, spread_over_bins

BLOCK = 256  # items that share noise and the solver's steps, whatever the chunk


class FlowLikelihood(Yardstick):
    """``ode_nll``: the likelihood of held-out data by the probability flow, bits/dim (see ``flow_log_prob``).

    Points: -log2 p(x) / d at the least noise the denoiser knows, x = alpha x_0 + sigma eps; there, and nowhere below,
    the flow has a density. ``ode_nll_exact`` is that of the data's own law at the same x, where it is known: the
    difference is the denoiser's error and the solver's.

    Data with levels have no density, and a network trained on bare levels none that is smooth between them. So a bound
    that looks at it only where noise hides the lattice, sigma/alpha = a quarter of its spacing or the least there is:
    -log P(x_0) <= E_q[log q(x|x_0) - log p(x) - log P(x_0|x)], P the softmax over levels, p by the flow.

    With ``dequantize`` the published bound takes its place (Theis et al. 2016): of y = x_0 + Delta (u - 1/2), u
    uniform, Delta the spacing, at the least noise there is, x = alpha y + sigma eps,
    -log P(x_0) <= E[-log p(x) - d log alpha] - d log Delta. It too holds of any network; it says little of one trained
    on bare levels, which knows nothing between them.

    ``draws`` of noise an item are averaged: -log P(x_0) <= mean_k b_k for bounds b_k; if ``weighted``, it is at most
    -log mean_k exp(-b_k), which is nearer the more draws there are (Burda et al. 2016). That needs the exact
    divergence: one along a direction is right on average, and its exponential too large.

    Args:
        items: of held-out data; None is all.
        tolerance: of the solver.
        exact_dims: up to how many dimensions the divergence is exact.
        dequantize: levels by uniform noise over their bins, in place of the bound at a quarter of their spacing.
        draws: of noise an item.
        weighted: whether what is averaged over draws is the likelihood, not its logarithm.

    Raises:
        Refusal: for fewer than 2 items, a tolerance that is not above 0, fewer than 1 draw, weights for one draw.
    """

    names = ("ode_nll", "ode_nll_exact")
    rows = (
        TableRow(
            "ode_nll",
            "−log p by the ODE",
            "bits/dim of held-out levels at most, by the probability flow and a decoder",
            6,
        ),
    )
    uniform = (
        TableRow(
            "ode_nll",
            "−log p by the ODE",
            "bits/dim of held-out levels at most, by the probability flow, uniform noise over their bins",
            6,
        ),
    )
    density = (
        TableRow(
            "ode_nll",
            "−log p by the ODE",
            "bits/dim of a density in the data's units, by the flow; their own law has {ode_nll_exact}",
            6,
        ),
    )
    least_calls = 50  # of an adaptive solver, for the forecast

    def __init__(
        self,
        items: int | None = 256,
        tolerance: float = 1e-4,
        exact_dims: int = 16,
        dequantize: bool = False,
        draws: int = 1,
        weighted: bool = False,
    ) -> None:
        if (items is not None and items < 2) or not tolerance > 0:
            raise Refusal(f"at least 2 items and a tolerance above 0 are needed, got {items} and {tolerance}")
        if draws < 1 or (weighted and draws < 2):
            raise Refusal(f"draws must be at least 1, and 2 to be weighted, got {draws}")
        self.items, self.tolerance, self.exact_dims = items, tolerance, exact_dims
        self.dequantize, self.draws, self.weighted = dequantize, draws, weighted

    def rows_of(self, context: EvaluationContext) -> tuple[TableRow, ...]:
        """A density's by that name, and which noise is put on levels."""
        if context.denoiser.levels is None:
            return self.density
        return self.uniform if self.dequantize else self.rows

    def check(self, denoiser: Denoiser, settings: EvaluationSettings) -> None:
        """Refuse of points what is of levels alone.

        Raises:
            Refusal: for dequantising, or weighted draws, of data without levels.
        """
        if denoiser.levels is None and (self.dequantize or self.weighted):
            named = "dequantize" if self.dequantize else "weighted"
            raise Refusal(f"{named} is of data with levels, and these have none: leave metrics.ode_nll.{named} out")

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there are neither levels nor a density; under a known law x_t always has one, that stands beside it.

        Nor are weights told of a divergence that is not exact.
        """
        dims = context.train[0].numel()
        if self.weighted and dims > self.exact_dims:
            return (
                f"weighted draws need the exact divergence, and of {dims} dimensions it is an estimate: set "
                f"metrics.ode_nll.exact_dims={dims}, {dims} backward passes each, or weighted=false"
            )
        return None if context.exact_held_out is not None else no_density(context)

    def caution(self, context: EvaluationContext) -> str | None:
        """Where noise is put over the bins that the network never saw."""
        if not self.dequantize or context.dequantized:
            return None
        return (
            "trained on bare levels, between which the network knows no density, so uniform dequantisation says little "
            "of it: train with data.dequantize=true, or leave metrics.ode_nll.dequantize out"
        )

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """The law's own where it is known."""
        return self.names if context.exact_held_out is not None else self.names[:1]

    def count(self, context: EvaluationContext) -> int:
        """How many items are looked at."""
        return min(len(context.held_out), self.items or len(context.held_out))

    def turn(self, settings: EvaluationSettings) -> int:
        """The solver decides how often it asks."""
        return 1

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer items or draws, or a coarser solution."""
        return "lower metrics.ode_nll.items or draws, raise metrics.ode_nll.tolerance"

    def worth(self, context: EvaluationContext) -> int:
        """The divergence takes backward passes of twice the work."""
        dims = context.train[0].numel()
        return 1 + 2 * (dims if dims <= self.exact_dims else 1)

    def cost(self, context: EvaluationContext) -> int:
        """What the solver takes at the least."""
        return self.least_calls * self.worth(context) * self.count(context) * self.draws

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both numbers, and their standard errors over items."""
        spent, found, singly, exact = 0, [], [], []
        x0, labels = context.held_out_data()
        log_snr, dims = self.start(context.denoiser), x0[0].numel()
        for number, rows in enumerate(torch.arange(self.count(context), device=x0.device).split(BLOCK)):
            nats, known = [], []
            for draw in range(self.draws):
                more = (draw,) if draw else ()
                draws = generator("flow", context.seed, number, *more)
                one = self.looked_at(context, x0[rows], labels[rows], log_snr, draws)
                nats.append(one.nats)
                if one.exact is not None:
                    known.append(one.exact)
                spent += one.evaluations * self.worth(context) * len(rows)
                if left is not None and spent > left:
                    raise OverBudget(f"took {spent:,} network evaluations so far, {left:,} were left", spent)
            by_draw = torch.stack(nats)
            singly.append(bits_per_dim(by_draw.mean(0), dims).cpu())
            found.append(bits_per_dim(weighted(by_draw), dims).cpu() if self.weighted else singly[-1])
            if known:
                exact.append(bits_per_dim(torch.stack(known).mean(0), dims).cpu())
        each = torch.cat(found)
        metrics: dict[str, float | None] = {"ode_nll": float(each.mean())}
        records: dict[str, object] = {"items": len(each), "se": standard_error(each), "draws": self.draws}
        if self.weighted:
            records["mean_of_draws"] = float(torch.cat(singly).mean())
        levels, weights = context.denoiser.levels, self.draws if self.weighted else None
        if self.dequantize and levels is not None:
            records |= {"offset": -math.log2(2 / (levels - 1)), "offset_published": math.log2(levels / 2)}
            records |= {"log_snr": log_snr} | uniform_figure(levels, log_snr, weights).record()
        else:
            records |= {"log_snr": log_snr} | flow_figure(context.denoiser, log_snr, weights).record()
        if exact:
            metrics["ode_nll_exact"] = float(torch.cat(exact).mean())
            records["difference_se"] = standard_error(each - torch.cat(exact))
        return Result(metrics, records, spent)

    def start(self, denoiser: Denoiser) -> float:
        """The log-SNR where the flow begins: the greatest known; over bare levels, where it hides their lattice."""
        most = denoiser.log_snr_range()[1]
        return most if denoiser.levels is None or self.dequantize else min(most, hiding(denoiser.levels))

    def looked_at(
        self, context: EvaluationContext, x0: Tensor, labels: Tensor, log_snr: float, draws: torch.Generator
    ) -> "Look":
        """Items (B, ...) once, by noise of one draw."""
        denoiser, exact = context.denoiser, context.exact_held_out
        eps = torch.randn(x0.shape, generator=draws).to(x0)
        at = torch.full((len(x0),), log_snr, dtype=torch.float64, device=x0.device)
        t = denoiser.schedule.inverse(at)
        if self.dequantize and denoiser.levels is not None:
            x0 = spread_over_bins(x0, torch.rand(x0.shape, generator=draws).to(x0), denoiser.levels)
        made = denoiser.noised(x0, t, eps)
        by = (draws, self.tolerance, self.exact_dims, log_snr, context.settings.chunk)
        flow = flow_log_prob(denoiser, made.x_t, labels, *by)
        nats = -flow.log_prob
        if denoiser.levels is not None:
            nats = nats + (bin_gap if self.dequantize else lattice_gap)(made, at, denoiser.levels)
        known = None if exact is None else -exact.posterior(made.x_t, t, labels).log_prob
        return Look(nats, known, flow.evaluations)


@dataclass(frozen=True)
class Look:
    """Items looked at once: -log p (B,) in nats, or a bound; that of their own law, if known; calls of the denoiser."""

    nats: Tensor
    exact: Tensor | None
    evaluations: int


def hiding(levels: int) -> float:
    """The log-SNR where sigma/alpha is a quarter of the levels' spacing."""
    return 2 * math.log(2 * (levels - 1))


def weighted(nats: Tensor) -> Tensor:
    """-log mean_k exp(-b_k) (B,) of bounds b (K, B): at most their mean, and a bound itself."""
    return math.log(len(nats)) - torch.logsumexp(-nats, 0)
