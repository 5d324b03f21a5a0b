"""The score error taken apart: its gradient part, which moves marginals, and the rest, which does not."""

import math

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate, Exact
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.curves import ByBin, bins_in_range, by_bin, by_log_snr, centres, missing
from scorelab.evaluation.helmholtz import Lattice, Split, split
from scorelab.log_snr import BINS, SIMPLE
from scorelab.tensors import generator, sum_except_batch

DRAWS = 4096  # of x_t, which say how far the lattice reaches
MARGIN = 0.1  # of their width, beyond them on either side
PLANE = ("gradient_part", "gradient_rest")
ABOVE = ("gradient_rate", "score_curl")


class GradientPart(Yardstick):
    """The error e = s^ - s_t of the score as grad phi + r with div(p_t r) = 0, where the law of the data is known.

    Of a wrong score only grad phi enters the equation of the marginals: with e = r alone, of whatever size, all
    samples have the law of the data (Khelifa, Turner & Venkataramanan 2026, "Diffusion models observe only gradients",
    arXiv 2606.06179; docs/theory.md, section 11). In units of the noise error, over lambda in [-4.8, 6.6]:

    In the plane ``gradient_part`` = sigma^2 E||grad phi||^2 / d and ``gradient_rest`` = sigma^2 E||r||^2 / d, which add
    up to E||eps^ - eps*||^2 / d, the ``score_error`` over the whole law in place of held-out data. phi solves a Poisson
    problem weighed by p_t on a lattice, at the middle of each bin; both are off by the square of its edge over p_t's
    width.

    In other dimensions ``gradient_rate`` = sigma^4 E(div e + e.s_t)^2 / d and ``score_curl`` = sigma^4 E||J - J^T||^2
    / 2d, J the Jacobian of e, on held-out data, by two vectors of random signs v, w each (Hutchinson): v^T J v and
    w^T J w for the divergence, v^T (J - J^T) w for the curl, both without bias. div e + e.s_t = div(p_t e) / p_t is the
    relative rate at which e moves the density; r drops out of it, as grad phi does of the curl. So each is 0 exactly
    where its part is, and they are no shares of the score error: they weigh a part more, the finer it is.

    Args:
        side: nodes of the lattice along either axis.
        items: held-out items that are looked at above the plane; None is all.
    """

    names = PLANE + ABOVE
    rows = (
        TableRow(
            "gradient_part",
            "gradient part",
            "of the score error, all that samples can show; the rest, {gradient_rest}, moves no marginal",
            26,
        ),
        TableRow(
            "gradient_rate",
            "gradient part, rate",
            "how fast the score error moves the density; its curl, which moves none, is {score_curl}",
            27,
        ),
    )

    def __init__(self, side: int = 96, items: int | None = 512) -> None:
        if side < 8:
            raise Refusal(f"metrics.gradient_part.side must be at least 8 nodes, got {side}")
        if items is not None and items < 2:
            raise Refusal(f"metrics.gradient_part.items must be at least 2, got {items}")
        self.side, self.items = side, items

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where the law of the data is not known."""
        return None if context.exact_held_out else "the law of these data is not known"

    def names_of(self, context: EvaluationContext) -> tuple[str, ...]:
        """Both parts in the plane, else both rates."""
        return PLANE if self._plane(context) else ABOVE

    def cheaper(self, settings: EvaluationSettings) -> str:
        """A coarser lattice, or fewer items."""
        return "lower metrics.gradient_part.side or metrics.gradient_part.items"

    def worth(self, context: EvaluationContext) -> int:
        """Above the plane two backward passes, each of twice the work."""
        return 1 if self._plane(context) else 5

    def cost(self, context: EvaluationContext) -> int:
        """Every edge of the lattice, for each label that has a score of its own; else every item; in every bin."""
        edges = 2 * self.side * (self.side - 1) * len(self._labels(context))
        each = edges if self._plane(context) else self.worth(context) * self.count(context)
        return each * len(_bins(context.denoiser))

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """As many as the network."""
        return {context.exact_held_out: self.cost(context) // self.worth(context)} if context.exact_held_out else {}

    def count(self, context: EvaluationContext) -> int:
        """How many held-out items are looked at above the plane."""
        return min(len(context.held_out), self.items or len(context.held_out))

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Two numbers, and both by log-SNR."""
        assert context.exact_held_out is not None
        metrics: dict[str, float | None] = {}
        records: dict[str, object] = {}
        if self._plane(context):
            curves = self._parts(context, context.exact_held_out)
            records["side"] = self.side
            for name, curve in curves.items():
                mean = float(curve[SIMPLE].mean())
                metrics[name] = None if math.isnan(mean) else mean
        else:
            found = self._rates(context, context.exact_held_out)
            curves, records["n"] = {name: each.mean for name, each in found.items()}, self.count(context)
            for name, each in found.items():
                whole = each.over(SIMPLE)
                metrics[name], records[f"{name}_se"] = whole.value, whole.se
        records |= by_log_snr(**curves) | missing(context.denoiser)
        return Result(metrics, records, self.cost(context))

    def _plane(self, context: EvaluationContext) -> bool:
        return context.train[0].numel() == 2

    def _labels(self, context: EvaluationContext) -> list[tuple[int, float]]:
        """Labels whose score is their own, and the share of held-out data with each; one for all where none has."""
        if context.exact_held_out is None or not context.exact_held_out.conditional:
            return [(0, 1.0)]
        labels, counts = context.labels.unique(return_counts=True)
        return list(zip(labels.tolist(), (counts / counts.sum()).tolist(), strict=True))

    def _parts(self, context: EvaluationContext, exact: Exact) -> dict[str, Tensor]:
        """Both parts (40,) at the middle of each bin, NaN where there is none."""
        denoiser, chunk = context.denoiser, context.settings.chunk
        gradient, rest = torch.full((2, BINS), torch.nan, dtype=torch.float64)
        for bin in _bins(denoiser):
            t = denoiser.schedule.inverse(centres()[bin : bin + 1].to(denoiser.device))
            lattice = _lattice(exact, t, self.side)
            found = [(split_at(denoiser, exact, lattice, t, label, chunk), p) for label, p in self._labels(context)]
            gradient[bin] = sum(p * each.gradient for each, p in found) / 2
            rest[bin] = sum(p * (each.whole - each.gradient) for each, p in found) / 2
        return dict(zip(PLANE, (gradient, rest), strict=True))

    def _rates(self, context: EvaluationContext, exact: Exact) -> dict[str, ByBin]:
        """Both rates of each item by bin."""
        x0, labels = context.held_out_data()
        x0, labels = x0[: self.count(context)], labels[: self.count(context)]
        signs = generator("gradient part")

        def look(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
            two = [torch.randint(2, made.x_t.shape, generator=signs).to(made.x_t) * 2 - 1 for _ in range(2)]
            return list(rates(context.denoiser, exact, made.x_t, t, label, *two))

        found = by_bin(look, context.denoiser, x0, labels, context.settings.chunk, 2, _bins(context.denoiser))
        return dict(zip(ABOVE, found, strict=True))


def split_at(denoiser: Denoiser, exact: Exact, lattice: Lattice, t: Tensor, label: int, chunk: int = 256) -> Split:
    """E||eps^ - eps*||^2 and its gradient part at one time t (1,), for x_t in the plane and told one label."""
    log_prob: list[Tensor] = []
    along: list[Tensor] = []
    for axis in range(2):
        likely, errors = [], []
        for x in lattice.middles(axis).float().split(chunk):
            at, told = t.expand(len(x)), torch.full((len(x),), label, device=x.device)
            alpha, sigma = exact.schedule.alpha(at)[:, None], exact.schedule.sigma(at)[:, None]
            posterior = exact.posterior(x, at, told)
            error = denoiser(x, at, told).eps.double() - (x.double() - alpha * posterior.mean) / sigma
            likely.append(posterior.log_prob)
            errors.append(error[:, axis])
        log_prob.append(torch.cat(likely))
        along.append(torch.cat(errors))
    return split(lattice, log_prob, along)


def rates(
    denoiser: Denoiser, exact: Exact, x_t: Tensor, t: Tensor, label: Tensor | None, v: Tensor, w: Tensor
) -> tuple[Tensor, Tensor]:
    """sigma^4 (div e + e.s_t)^2 / d and sigma^4 ||J - J^T||^2 / 2d of each x_t (B, ...), in the mean over signs v, w.

    With delta = eps^ - eps* = -sigma e: sigma^2 (div e + e.s_t) = delta.eps* - sigma div delta, where the square is the
    product of two estimates; and v^T (J - J^T) w has the mean square ||J - J^T||^2.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        best = exact(x.double(), t, label).eps
        delta = denoiser(x, t, label).eps - best
        by_v, by_w = (_pulled(delta, x, each) for each in (v, w))
    sigma, dims = exact.schedule.sigma(t), x[0].numel()
    along = sum_except_batch(delta.detach().double() * best.detach())
    one, other = (along - sigma * sum_except_batch((each * by).double()) for each, by in ((v, by_v), (w, by_w)))
    curl = sigma * sum_except_batch((w * by_v - v * by_w).double())
    return one * other / dims, curl**2 / (2 * dims)


def _pulled(y: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """v^T dy/dx of each sample (B, ...); 0 where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (pulled,) = torch.autograd.grad(y, x, v.to(y), retain_graph=True, materialize_grads=True)
    return pulled


def _lattice(exact: Exact, t: Tensor, side: int) -> Lattice:
    """As far as draws of x_t at one time t (1,) reach, and a tenth of that more."""
    x0 = exact.law.draw(DRAWS, generator("lattice")).x0
    eps = torch.randn(x0.shape, generator=generator("lattice", "noise"), dtype=x0.dtype).to(x0)
    x_t = exact.noised(x0, t.expand(DRAWS), eps).x_t
    low, high = x_t.min(0).values, x_t.max(0).values
    return Lattice(low - MARGIN * (high - low), high + MARGIN * (high - low), side)


def _bins(denoiser: Denoiser) -> list[int]:
    """The bins of [-4.8, 6.6] that the schedule reaches."""
    return [bin for bin in bins_in_range(denoiser) if SIMPLE.start <= bin < SIMPLE.stop]
