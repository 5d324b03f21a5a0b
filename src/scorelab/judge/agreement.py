"""Whether two runs have learned the same."""

import math

import torch

from scorelab.denoisers import Rescheduled
from scorelab.judge.base import Case, Part, Result
from scorelab.judge.yardsticks import BINS, SIMPLE, Curve, bins_in_range, plain_curve, yardstick_draws
from scorelab.tensors import mean_rest


class Agreement(Part):
    """``agreement``: E||eps^_A - eps^_B||^2 / d of two runs over lambda ~ U[-4.8, 6.6], on held-out data.

    Two networks trained on disjoint halves agree where they have learned the law, and differ where each has learned its
    own list (Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive harmonic
    representations", section 2). The other run may have another schedule; the records have the curve by log-SNR.
    """

    names = ("agreement",)

    def inapplicable(self, case: Case) -> str | None:
        """Where there is no other run."""
        return None if case.other else "there is no other run to compare with: python src/eval.py run=A against=B"

    def cost(self, case: Case) -> int:
        """Two networks, every held-out item once in every bin."""
        return 2 * len(bins_in_range(case.denoiser)) * len(case.held_out)

    @torch.no_grad()
    def run(self, case: Case, left: int | None) -> Result:
        """The number, the curve, and their standard errors over items."""
        assert case.other is not None
        other = Rescheduled(case.other, case.denoiser.schedule)
        x0, labels = case.held_out_data()
        curve, se = (torch.full((BINS,), torch.nan, dtype=torch.float64) for _ in range(2))
        bins = set(bins_in_range(case.denoiser)) & set(bins_in_range(other))
        for bin in sorted(bins):
            draws = yardstick_draws(case.denoiser, x0, bin)
            found = []
            for rows in torch.arange(len(x0), device=x0.device).split(case.metric.chunk):
                t, label = draws.t[rows], labels[rows]
                x_t = case.denoiser.noised(x0[rows], t, draws.eps[rows]).x_t
                mine, its = (each(x_t, t, label).eps.double() for each in (case.denoiser, other))
                found.append(mean_rest((mine - its) ** 2))
            each = torch.cat(found).cpu()
            curve[bin], se[bin] = each.mean(), each.std() / math.sqrt(len(each))
        whole = set(range(SIMPLE.start, SIMPLE.stop)) <= bins
        records: dict[str, object] = {"log_snr": [round(value, 3) for value in Curve.centres().tolist()]}
        records |= {"difference": plain_curve(curve), "difference_se": plain_curve(se)}
        if whole:
            records["se"] = float(se[SIMPLE].square().sum().sqrt()) / (SIMPLE.stop - SIMPLE.start)
        else:
            records["missing"] = "the two schedules do not both reach all of log-SNR [-4.8, 6.6]"
        return Result({"agreement": float(curve[SIMPLE].mean()) if whole else None}, records, self.cost(case))
