"""Whether two runs have learned the same."""

from torch import Tensor

from scorelab.denoisers import Estimate, Rescheduled
from scorelab.evaluation.base import EvaluationContext, Result, Yardstick
from scorelab.evaluation.curves import Curve, bins_in_range, by_bin, in_bin, plain_curve
from scorelab.log_snr import SIMPLE
from scorelab.tensors import mean_except_batch


class Agreement(Yardstick):
    """``agreement``: E||eps^_A - eps^_B||^2 / d of two runs over lambda ~ U[-4.8, 6.6], on held-out data.

    Two networks trained on disjoint halves agree where they have learned the law, and differ where each has learned its
    own list (Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive harmonic
    representations", section 2). The other run may have another schedule; the records have the curve by log-SNR.
    """

    names = ("agreement",)

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

        def look(made: Estimate, t: Tensor, label: Tensor | None) -> Tensor:
            mine, its = (each(made.x_t, t, label).eps.double() for each in (context.denoiser, other))
            return mean_except_batch((mine - its) ** 2)[None]

        bins = sorted(set(bins_in_range(context.denoiser)) & set(bins_in_range(other)))
        (found,) = by_bin(
            bins, len(x0), lambda bin: in_bin(context.denoiser, x0, labels, bin, context.settings.chunk, look)
        )
        records: dict[str, object] = {"log_snr": [round(value, 3) for value in Curve.centres().tolist()]}
        records |= {"difference": plain_curve(found.mean), "difference_se": plain_curve(found.se)}
        if (whole := found.over(SIMPLE)) is not None:
            records["se"] = whole.se
        else:
            records["missing"] = "the two schedules do not both reach all of log-SNR [-4.8, 6.6]"
        return Result({"agreement": None if whole is None else whole.value}, records, self.cost(context))
