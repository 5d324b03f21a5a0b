"""The likelihood of a denoiser's probability flow."""

import math

import torch

from scorelab.denoisers import Denoiser
from scorelab.errors import OverBudget, Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.bound import no_density
from scorelab.evaluation.curves import standard_error
from scorelab.likelihood import bits_per_dim, flow_figure, flow_log_prob, lattice_gap
from scorelab.tensors import generator

BLOCK = 256  # items that share noise and the solver's steps, whatever the chunk


class FlowLikelihood(Yardstick):
    """``ode_nll``: the likelihood of held-out data by the probability flow, bits/dim (see ``flow_log_prob``).

    Points: -log2 p(x) / d at the least noise the denoiser knows, x = alpha x_0 + sigma eps; there, and nowhere below,
    the flow has a density. ``ode_nll_exact`` is that of the data's own law at the same x, where it is known: the
    difference is the denoiser's error and the solver's.

    Data with levels have no density, and a network trained on bare levels none that is smooth between them. So a bound
    that looks at it only where noise hides the lattice, sigma/alpha = a quarter of its spacing or the least there is:
    -log P(x_0) <= E_q[log q(x|x_0) - log p(x) - log P(x_0|x)], P the softmax over levels, p by the flow.

    Args:
        items: of held-out data; None is all.
        tolerance: of the solver.
        exact_dims: up to how many dimensions the divergence is exact.

    Raises:
        Refusal: for fewer than 2 items, or a tolerance that is not above 0.
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
    density = (
        TableRow(
            "ode_nll",
            "−log p by the ODE",
            "bits/dim of a density in the data's units, by the flow; their own law has {ode_nll_exact}",
            6,
        ),
    )
    least_calls = 50  # of an adaptive solver, for the forecast

    def __init__(self, items: int | None = 256, tolerance: float = 1e-4, exact_dims: int = 16) -> None:
        if (items is not None and items < 2) or not tolerance > 0:
            raise Refusal(f"at least 2 items and a tolerance above 0 are needed, got {items} and {tolerance}")
        self.items, self.tolerance, self.exact_dims = items, tolerance, exact_dims

    def rows_of(self, context: EvaluationContext) -> tuple[TableRow, ...]:
        """A density's by that name."""
        return self.density if context.denoiser.levels is None else self.rows

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there are neither levels nor a density; under a known law x_t always has one, that stands beside it."""
        return None if context.exact_held_out is not None else no_density(context)

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
        """Fewer items, or a coarser solution."""
        return "lower metrics.ode_nll.items, raise metrics.ode_nll.tolerance"

    def worth(self, context: EvaluationContext) -> int:
        """The divergence takes backward passes of twice the work."""
        dims = context.train[0].numel()
        return 1 + 2 * (dims if dims <= self.exact_dims else 1)

    def cost(self, context: EvaluationContext) -> int:
        """What the solver takes at the least."""
        return self.least_calls * self.worth(context) * self.count(context)

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both numbers, and their standard errors over items."""
        spent, found, exact = 0, [], []
        x0, labels = context.held_out_data()
        log_snr, dims = start(context.denoiser), x0[0].numel()
        for number, rows in enumerate(torch.arange(self.count(context), device=x0.device).split(BLOCK)):
            draws = generator("flow", context.seed, number)
            eps = torch.randn(x0[rows].shape, generator=draws).to(x0)
            at = torch.full((len(rows),), log_snr, dtype=torch.float64, device=x0.device)
            made = context.denoiser.noised(x0[rows], context.denoiser.schedule.inverse(at), eps)
            by = (draws, self.tolerance, self.exact_dims, log_snr, context.settings.chunk)
            flow = flow_log_prob(context.denoiser, made.x_t, labels[rows], *by)
            nats = -flow.log_prob
            if context.denoiser.levels is not None:
                nats = nats + lattice_gap(made, at, context.denoiser.levels)
            found.append(bits_per_dim(nats, dims).cpu())
            if context.exact_held_out is not None:
                posterior = context.exact_held_out.posterior(
                    made.x_t, context.denoiser.schedule.inverse(at), labels[rows]
                )
                exact.append(bits_per_dim(-posterior.log_prob, dims).cpu())
            spent += flow.evaluations * self.worth(context) * len(rows)
            if left is not None and spent > left:
                raise OverBudget(f"took {spent:,} network evaluations so far, {left:,} were left", spent)
        each = torch.cat(found)
        metrics: dict[str, float | None] = {"ode_nll": float(each.mean())}
        records: dict[str, object] = {"items": len(each), "se": standard_error(each)}
        records |= {"log_snr": log_snr} | flow_figure(context.denoiser, log_snr).record()
        if exact:
            metrics["ode_nll_exact"] = float(torch.cat(exact).mean())
            records["difference_se"] = standard_error(each - torch.cat(exact))
        return Result(metrics, records, spent)


def start(denoiser: Denoiser) -> float:
    """The log-SNR where the flow begins: the greatest known; over levels, where sigma/alpha is 1/4 of their spacing."""
    most = denoiser.log_snr_range()[1]
    return most if denoiser.levels is None else min(most, 2 * math.log(2 * (denoiser.levels - 1)))
