"""The variational bound of held-out images, in bits/dim."""

from collections.abc import Sequence
from typing import Any

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.likelihood import FEW, PILOT, REPEATED, bound_figure, exact_bound, repeated, sampled_bound
from scorelab.log_snr import BINS, LOWEST, WIDTH

PARTS = "prior {vlb_prior:.4f} + diffusion {vlb_diffusion:.3f} + decoder {vlb_decoder:.3f}"


def no_density(context: EvaluationContext) -> str | None:
    """Why bits/dim would mean nothing of such data: they have neither levels nor a density."""
    if context.denoiser.levels is not None:
        return None
    if (known := context.exact_held_out) is not None:
        return None if known.law.has_density else "the law of this data has no density"
    if (share := repeated(context.held_out)) <= REPEATED:
        return None
    return (
        f"{share:.0%} of the held-out numbers are repeated, so these floats have no density to tell bits/dim of: "
        "save what lies on levels as uint8, and leave out what is constant or there twice"
    )


def six_digits(values: Sequence[float]) -> list[float]:
    """Numbers as records keep them."""
    return [float(f"{value:.6g}") for value in values]


class HeldOutBound(Yardstick):
    """``vlb``: the bound in bits/dim with the run's own T and variance, and its three parts.

    Of levels where the data has them; else of a density, where there is one. The records say which (``Figure``), and
    have the diffusion part by log-SNR (below the first edge, between edges, above the last), and by step where each was
    visited.
    """

    names = ("vlb", "vlb_prior", "vlb_diffusion", "vlb_decoder")
    rows = (TableRow("vlb", "bound, bits/dim", PARTS, 1),)

    def rows_of(self, context: EvaluationContext) -> tuple[TableRow, ...]:
        """A density's by that name."""
        if context.denoiser.levels is not None:
            return self.rows
        return (TableRow("vlb", "bound of a density", f"{PARTS}, bits/dim in the data's units", 1),)

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there are neither levels nor a density."""
        return no_density(context)

    def check(self, denoiser: Denoiser, settings: EvaluationSettings) -> None:
        """Refuse a schedule without steps between prior and decoder, and a sum over steps where there are none.

        Raises:
            Refusal: for T < 2; for bound=exact and no T.
        """
        steps = denoiser.schedule.num_steps
        if steps is not None and steps < 2:
            raise Refusal("the bound needs schedule.num_steps of 2 or more: set it, or leave vlb out of metrics=[...]")
        if steps is None and settings.bound == "exact":
            raise Refusal("a continuous schedule has no steps to sum exactly: set evaluation.bound=sampled")

    def cost(self, context: EvaluationContext) -> int:
        """The pilot's evaluations, or those of every step."""
        steps = context.denoiser.schedule.num_steps
        if steps is None:
            return len(context.held_out) * PILOT
        return len(context.held_out) * (steps if context.settings.bound == "exact" else PILOT + FEW)

    def turn(self, settings: EvaluationSettings) -> int:
        """Last, where it draws until its error is small."""
        return 2 if settings.bound == "sampled" else 0

    def cheaper(self, settings: EvaluationSettings) -> str:
        """A larger error, or one that can be told."""
        return "raise evaluation.tolerance" if settings.bound == "sampled" else "set evaluation.bound=sampled"

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The bound of the held-out images."""
        x0, labels = context.held_out_data()
        if context.settings.bound == "exact":
            bound = exact_bound(context.denoiser, x0, labels, context.seed, context.settings.chunk)
        else:
            bound = sampled_bound(
                context.denoiser, x0, labels, context.settings.tolerance, left, context.seed, context.settings.chunk
            )
        values = (bound.total, bound.prior, bound.diffusion, bound.decoder)
        records: dict[str, Any] = {
            "estimator": context.settings.bound,
            "se_over_times_and_noise": bound.se,
            "images": len(x0),
            "steps": context.denoiser.schedule.num_steps,
            "log_snr": context.denoiser.log_snr_range(),
            "x0_clipped": context.denoiser.levels is not None,
        } | bound_figure(context.denoiser, x0).record()
        if bound.by_step:
            records["by_step"] = six_digits(bound.by_step)
        edges = [round(LOWEST + WIDTH * k, 3) for k in range(BINS + 1)]
        records["by_log_snr"] = {"edges": edges, "diffusion": six_digits(bound.by_log_snr)}
        return Result(dict(zip(self.names, values, strict=True)), records, bound.evaluations)
