"""Whether two runs have learned the same."""

from torch import Tensor

from scorelab.denoisers import Estimate, Rescheduled
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import bins_in_range, by_bin, by_log_snr, missing, squared
from scorelab.log_snr import SIMPLE


class Agreement(Yardstick):
    """``agreement``: E||eps^_A - eps^_B||^2 / d of two runs over lambda ~ U[-4.8, 6.6], on held-out data.

    Two networks trained on disjoint halves agree where they have learned the law, and differ where each has learned its
    own list (Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive harmonic
    representations", section 2). The other run may have another schedule; the records have the curve by log-SNR.
    """

    names = ("agreement",)
    rows = (TableRow("agreement", "agreement", "squared difference to the other run's noise, on held-out data", 9),)

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where there is no other run."""
        return None if context.other else "there is no other run to compare with: python src/eval.py run=A against=B"

    def cost(self, context: EvaluationContext) -> int:
        """Two networks, every held-out item once in every bin."""
        return 2 * len(bins_in_range(context.denoiser)) * len(context.held_out)

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """The number, the curve, and their standard errors over items."""
        assert context.other is not None
        other = Rescheduled(context.other, context.denoiser.schedule)
        x0, labels = context.held_out_data()

        def look(made: Estimate, t: Tensor, label: Tensor | None) -> list[Tensor]:
            return [squared(*(each(made.x_t, t, label).eps.double() for each in (context.denoiser, other)))]

        bins = bins_in_range(context.denoiser, other)
        (found,) = by_bin(look, context.denoiser, x0, labels, context.settings.chunk, bins=bins)
        records = by_log_snr(difference=found.mean, difference_se=found.se) | missing(context.denoiser, other)
        whole = found.over(SIMPLE)
        return Result({"agreement": whole.value}, records | {"se": whole.se}, self.cost(context))
