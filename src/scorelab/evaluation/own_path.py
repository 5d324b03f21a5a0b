"""How wrong a denoiser is where its own sampler goes, beside how wrong it is where the data are."""

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate, Exact
from scorelab.evaluation.base import EvaluationContext, Result, TableRow, Yardstick
from scorelab.evaluation.curves import squared, standard_error
from scorelab.log_snr import RANGE
from scorelab.samplers import Ask
from scorelab.tensors import generator, standard_normal

WALKS = 256


class Watched(Denoiser):
    """Another denoiser, and what it was asked and said."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner = inner
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def prior_std(self) -> float:
        """The inner one's."""
        return self.inner.prior_std

    def time_range(self) -> tuple[float, float]:
        """The inner one's."""
        return self.inner.time_range()

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        """The inner one's estimate, remembered."""
        said = self.inner(x_t, t, label)
        self.seen.append((x_t, t, said.eps))
        return said


class OwnPath(Yardstick):
    """``own_path``: E||eps^ - eps*||^2 / d at the x_t that 256 walks of the run's own sampler visit, and at the data's.

    Over the visited times with log-SNR in [-4.8, 6.6], eps* that of the law of held-out data; ``own_path_data`` is the
    same at noised draws of the law at the same times. Where the first is greater, the network is asked about what it
    was never trained on: its errors feed on themselves (exposure bias: Ning et al. 2023, "Input perturbation reduces
    exposure bias in diffusion models"). The exact denoiser has 0 on both.
    """

    names = ("own_path", "own_path_data")
    rows = (
        TableRow(
            "own_path",
            "score error, own path",
            "where its sampler goes; {own_path_data:.4f} at the data's x_t at the same times",
            25,
        ),
    )

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where the law of the data is not known."""
        return None if context.exact_held_out else "the law of these data is not known"

    def cost(self, context: EvaluationContext) -> int:
        """The walks, and as many questions about data."""
        return 2 * WALKS * context.evaluations_per_sample

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """About all that the network is asked."""
        return {context.exact_held_out: self.cost(context)} if context.exact_held_out else {}

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """Both numbers, their standard errors over walks, and the curves by log-SNR."""
        exact, watched = context.exact_held_out, Watched(context.denoiser)
        assert exact is not None
        drawn = exact.law.draw(WALKS, generator("own path"))
        x0, label = drawn.x0.float().to(context.denoiser.device), drawn.label
        with torch.no_grad():
            times = context.sampler.times(watched)
            shape = (WALKS, *context.train.shape[1:])
            start = standard_normal(shape, generator("own path", "start"), device=context.denoiser.device)
            ask = Ask(watched, label, context.sampler.clip)
            context.sampler.walk(ask, watched.prior_std * start, times, generator("own path", "walk"))
            found = [self._at(exact, *each, label) for each in watched.seen if self._ranged(context, each[1])]
            data = []
            for number, (_, t, _) in enumerate(watched.seen):
                if self._ranged(context, t):
                    eps = torch.randn(x0.shape, generator=generator("own path", "data", number)).to(x0)
                    x_t = context.denoiser.noised(x0, t, eps).x_t
                    data.append(self._at(exact, x_t, t, context.denoiser(x_t, t, label).eps, label))
        if not found:
            return Result(dict.fromkeys(self.names), {"missing": "no visited time has a log-SNR in [-4.8, 6.6]"})
        own, beside = torch.stack(found), torch.stack(data)  # (visited, walks)
        kept = [t[0] for _, t, _ in watched.seen if self._ranged(context, t)]
        records = {
            "visited_log_snr": [round(float(context.denoiser.schedule.log_snr(t[None])), 3) for t in kept],
            "own": own.mean(1).tolist(),
            "data": beside.mean(1).tolist(),
            "own_path_se": standard_error(own.mean(0)),
            "own_path_data_se": standard_error(beside.mean(0)),
            "n": WALKS,
            "sampler": type(context.sampler).__name__,
        }
        numbers = {"own_path": float(own.mean()), "own_path_data": float(beside.mean())}
        return Result(dict(numbers), records, WALKS * (ask.count + len(data)))

    def _ranged(self, context: EvaluationContext, t: Tensor) -> bool:
        return RANGE[0] <= float(context.denoiser.schedule.log_snr(t[:1])) <= RANGE[1]

    def _at(self, exact: Exact, x_t: Tensor, t: Tensor, eps: Tensor, label: Tensor | None) -> Tensor:
        """The squared error of each (B,)."""
        return squared(eps.double(), exact(x_t.double(), t, label).eps)
