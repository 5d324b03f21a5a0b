"""Where a run's gradient noise comes from, by log-SNR, and what other laws of times would save."""

import copy
import math

import torch
from torch import Generator, Tensor

from scorelab.denoisers import Exact
from scorelab.errors import Refusal, Unavailable
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.losses import Example
from scorelab.losses.card import FAINT, Card, weight_card
from scorelab.losses.gradient_variance import Bin, Noise
from scorelab.tensors import Rows, generator, spread_over_bins

EDGES = torch.cat([torch.tensor([-math.inf]), torch.arange(-12.0, 12.1, 1.2), torch.tensor([math.inf])]).double()


def levels_by_bin(card: Card) -> list[Tensor]:
    """The card's levels in each bin of log-SNR that has any, from data to noise."""
    place = torch.bucketize(card.log_snr, EDGES).clamp(min=1)  # no signal at all is in the noisiest bin
    return [torch.nonzero(place == number).flatten() for number in place.unique(sorted=True).flip(0)]


class Gradients:
    """Gradients of a run's objective at chosen noise levels, over the train split."""

    def __init__(self, context: EvaluationContext) -> None:
        self.context = context
        self.card = weight_card(context.denoiser, context.loss, context.timesteps)
        self.denoiser = copy.deepcopy(context.denoiser).requires_grad_(True).eval()
        self.denoiser.schedule.requires_grad_(False)  # a learned one has a gradient of another kind
        self.parameters = [p for p in self.denoiser.parameters() if p.requires_grad]
        self.mean = torch.zeros(sum(p.numel() for p in self.parameters), dtype=torch.float64)

    def times(self, levels: Tensor, n: int, draws: Generator) -> Tensor:
        """Times of n images among these levels, as training draws them; anywhere in a continuous interval."""
        chosen = levels[torch.multinomial(self.card.probability[levels], n, replacement=True, generator=draws)]
        if self.denoiser.schedule.num_steps is not None:
            return self.card.t[chosen]
        low, high = self.card.low[chosen], self.card.high[chosen]
        place = torch.rand(n, generator=draws, dtype=torch.float64)
        faint = high <= FAINT  # one level however far it reaches: anywhere in its time
        at = torch.where(faint, high, low + place * (high - low)).to(self.denoiser.device)
        t = self.denoiser.schedule.inverse(at).cpu()
        return torch.where(faint, t + place * (1 - t), t)

    def at(self, levels: Tensor, n: int, draws: Generator) -> tuple[Tensor, Tensor]:
        """The gradient (parameters,) of the mean loss of n images, and the losses (n,)."""
        context, device = self.context, self.denoiser.device
        rows = torch.randint(len(context.train), (n,), generator=draws)
        x0, labels = context.data(context.train[rows]), context.train_labels[rows].to(device)
        if context.dequantized and self.denoiser.levels is not None:  # as training does
            u = torch.rand(x0.shape, generator=draws).to(device)
            x0 = spread_over_bins(x0, u, self.denoiser.levels)
        t = self.times(levels, n, draws).to(device)
        eps = torch.randn(x0.shape, generator=draws).to(device)
        total, losses = torch.zeros((), dtype=torch.float64), []
        for first in range(0, n, context.settings.chunk):
            some = slice(first, first + context.settings.chunk)
            with torch.enable_grad():
                example = Example.of(self.denoiser, x0[some], t[some], eps[some], labels[some], context.exact_train)
                each = context.loss(self.denoiser, example, Rows([draws], n, some)).loss
                found = torch.autograd.grad(each.mean() * (len(each) / n), self.parameters, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True)]
            total = total + torch.cat([part.flatten() for part in flat]).cpu().double()
            losses.append(each.detach().cpu().double())
        return total, torch.cat(losses)

    def bin(self, number: int, levels: Tensor, batches: int, images: int) -> Bin:
        """One bin from ``batches`` independent gradients of ``images`` each, whose mean is added to ``mean``."""
        total, square, loss_square = torch.zeros(()), 0.0, 0.0
        for batch in range(batches):
            draws = generator("gradient noise", self.context.seed, number, batch)
            gradient, losses = self.at(levels, images, draws)
            total = total + gradient
            square += float(gradient.square().sum())
            loss_square += float(losses.square().mean()) / batches
        mean = total / batches
        of_batch = (square - batches * float(mean.square().sum())) / (batches - 1)
        error = of_batch / batches
        probability = float(self.card.probability[levels].sum())
        self.mean += probability * mean
        mean_square = float(mean.square().sum()) - error
        begin, end = self.span(levels)
        return Bin(levels, probability, begin, end, images * of_batch, mean_square, error, loss_square)

    def span(self, levels: Tensor) -> list[float]:
        """The times at which these levels begin and end."""
        steps = self.denoiser.schedule.num_steps
        if steps is not None:
            return [float(self.card.t[levels].min()) - 1 / steps, float(self.card.t[levels].max())]
        ends = torch.stack([self.card.high[levels].max(), self.card.low[levels].min().clamp(min=FAINT)])
        begin, end = self.denoiser.schedule.inverse(ends.to(self.denoiser.device)).tolist()
        return [begin, self.denoiser.schedule.t_max if float(self.card.low[levels].min()) < FAINT else end]


class GradientNoise(Yardstick):
    """``gradient_noise``: tr Var(g) / ||E g||^2 of one image's gradient g under the run's objective, uniform times.

    It is the batch size at which noise and signal are equal (McCandlish et al. 2018, "An empirical model of
    large-batch training", eq. 2.9). The other numbers are the variance under importance, stratified and logit-normal
    times (all leaving the objective what it is) as a share of that under uniform ones: below 1 it saves. Between bins
    of log-SNR only: within one, times stay as they are. The records have the variance by log-SNR.

    Raises:
        Refusal: for fewer than 2 batches or 1 image.
    """

    names = (
        "gradient_noise",
        "gradient_noise_importance",
        "gradient_noise_stratified",
        "gradient_noise_logitnormal",
    )
    rows = (
        TableRow(
            "gradient_noise_importance",
            "gradient noise",
            "of its variance left by importance times (1: no gain), {gradient_noise_stratified:.2g} by stratified, "
            "{gradient_noise_logitnormal:.2g} by logit-normal ones",
            15,
        ),
    )

    def __init__(self, batches: int = 8, images: int = 16) -> None:
        if batches < 2 or images < 1:
            raise Refusal(f"at least 2 batches of 1 image are needed, got {batches} of {images}")
        self.batches, self.images = batches, images

    def inapplicable(self, context: EvaluationContext) -> str | None:
        """Where nothing is trained."""
        trained = any(p.is_floating_point() for p in context.denoiser.parameters())
        return None if trained else "this denoiser has nothing to train"

    def worth(self, context: EvaluationContext) -> int:
        """A gradient costs about three times its loss."""
        return 3 * context.loss.cost(context.train[0].numel())

    def cost(self, context: EvaluationContext) -> int:
        """Every image of every batch in every bin."""
        card = weight_card(context.denoiser, context.loss, context.timesteps)
        return self.worth(context) * len(levels_by_bin(card)) * self.batches * self.images

    def questions(self, context: EvaluationContext) -> dict[Exact, int]:
        """As many images, where the objective asks for the score of the training data."""
        if context.exact_train is None or not context.loss.needs_exact:
            return {}
        return {context.exact_train: self.cost(context) // self.worth(context)}

    def cheaper(self, settings: EvaluationSettings) -> str:
        """Fewer batches of fewer images."""
        return "lower metrics.gradient_noise.batches or metrics.gradient_noise.images"

    def run(self, context: EvaluationContext, left: int | None) -> Result:
        """All bins."""
        gradients = Gradients(context)
        by_bin = levels_by_bin(gradients.card)
        bins = [gradients.bin(k, levels, self.batches, self.images) for k, levels in enumerate(by_bin)]
        noise = Noise(bins, gradients.mean)
        uniform = noise.uniform
        if not math.isfinite(uniform):
            raise Unavailable("the gradients are not finite", self.cost(context))
        values = (
            uniform / noise.mean_square if noise.mean_square > 0 else None,
            noise.importance / uniform,
            noise.stratified / uniform,
            noise.logitnormal / uniform,
        )
        total = sum(each.probability * each.second_moment for each in noise.bins)
        log_snr = gradients.card.log_snr
        records = {
            "images_per_bin": self.batches * self.images,
            "best_law_of_bins": noise.least / uniform,
            "log_snr": [
                [round(float(log_snr[b.levels].min()), 3), round(float(log_snr[b.levels].max()), 3)] for b in noise.bins
            ],
            "probability": [float(f"{b.probability:.6g}") for b in noise.bins],
            "variance": [float(f"{b.variance:.6g}") for b in noise.bins],
            "share": [float(f"{b.probability * b.second_moment / total:.6g}") for b in noise.bins],
        }
        if values[0] is None:
            records["missing"] = "the mean gradient is lost in its noise: raise metrics.gradient_noise.batches"
        return Result(dict(zip(self.names, values, strict=True)), records, self.cost(context))
