"""The weight card: how much each noise level counts in an objective, whatever it is called."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.log_snr import RANGE
from scorelab.losses.base import Loss
from scorelab.losses.timesteps import TimestepSampler

LEVELS = 400  # of a continuous process
FAINT = -30.0  # the log-SNR below which a continuous process is one level: float32 has lost the signal there


@dataclass(frozen=True)
class Card:
    """An objective as a weight on ||eps - eps^||^2 / d over log-SNR: E loss = sum_i mass_i E||eps - eps^||^2 / d.

    Two objectives whose cards agree up to a factor have the same expected loss and the same gradient direction, up to
    that factor, for any denoiser that is a function of (x_t / sqrt(a), lambda).

    A T-step process has one level for each i, an atom at lambda_i, which counts for [lambda_i, lambda_{i-1}]; a
    continuous one is cut into equal intervals of lambda, and all below -30 is one more, however far it reaches.
    All tensors (levels,), float64, from data to noise.

    Attributes:
        t: the level's time.
        low, high: its interval of log-SNR; ``high`` is infinite at i = 1, ``low`` where no signal is left.
        weight: w, in the loss's own scale; NaN where the loss is no weighted square.
        probability: of being drawn for training, the law's correction included.
        notes: what the card leaves out.
    """

    t: Tensor
    low: Tensor
    high: Tensor
    weight: Tensor
    probability: Tensor
    notes: tuple[str, ...]

    @property
    def mass(self) -> Tensor:
        """What the level contributes, w p."""
        return self.weight * self.probability

    @property
    def density(self) -> Tensor:
        """The effective weight w(lambda) p(lambda) per unit of log-SNR; 0 where the interval is endless."""
        return self.mass / (self.high - self.low)

    @property
    def log_snr(self) -> Tensor:
        """Where the level stands: lambda_i on a grid, the middle of an interval else."""
        return self.low if bool(self.high[0].isinf()) else (self.low + self.high) / 2

    @property
    def normalizer(self) -> float:
        """The mean weight over the drawn levels with log-SNR in [-4.8, 6.6].

        Raises:
            Refusal: when there is none.
        """
        ranged = (self.log_snr >= RANGE[0]) & (self.log_snr <= RANGE[1])
        inside, endless = ranged & self.weight.isfinite(), self.weight.isinf()
        none = not bool(self.weight.isfinite().any())
        if bool((endless & ranged).any()) or (none and bool(endless.any())):
            raise Refusal(
                f"this loss has an infinite weight at {self.place(endless)} and cannot be normalised by it: "
                "take another schedule or loss, or set loss.normalize=false"
            )
        if none:
            raise Refusal(
                "this loss declares no weight to be normalised by: write noise_weight(), or set loss.normalize=false"
            )
        mean = float(self.mass[inside].sum() / self.probability[inside].sum())
        if not mean > 0:
            raise Refusal(
                "no training time that has a weight has a log-SNR in [-4.8, 6.6] to normalise the loss by: "
                "take more steps (schedule.num_steps), or set loss.normalize=false"
            )
        return mean

    def place(self, levels: Tensor) -> str:
        """Where the first of the levels that a mask (levels,) names stands, in words."""
        first = int(torch.nonzero(levels)[0])
        return f"t = {float(self.t[first]):.4g} (log-SNR {float(self.log_snr[first]):.4g})"

    def rows(self) -> list[dict[str, float]]:
        """The card as a table."""
        names = ("t", "log_snr_low", "log_snr_high", "weight", "probability", "mass", "density")
        columns = (self.t, self.low, self.high, self.weight, self.probability, self.mass, self.density)
        return [dict(zip(names, row, strict=True)) for row in torch.stack(columns, 1).tolist()]


@torch.no_grad()
def weight_card(denoiser: Denoiser, loss: Loss, timesteps: TimestepSampler) -> Card:
    """The card of a loss under a denoiser's schedule and variance, and a timestep sampler."""
    schedule = denoiser.schedule
    notes = ["the variance is learned: the card covers the mean, at f = 1/2"] if denoiser.variance.outputs > 1 else []
    if schedule.num_steps is not None:
        grid = schedule.grid()
        t, edges = grid[1:], schedule.log_snr(grid)
        low, high = edges[1:], edges[:-1].clone()
        high[0] = torch.inf
        probability = timesteps.density(schedule, t) / schedule.num_steps
    else:
        noisiest, cleanest = schedule.log_snr_range()
        edges = torch.linspace(cleanest, max(noisiest, FAINT), LEVELS + 1, dtype=torch.float64)
        low, high = edges[1:], edges[:-1]
        t = schedule.inverse((low + high) / 2)
        fall = schedule.g2(t) / schedule.sigma(t) ** 2  # -dlambda/dt
        length = (high - low) / fall
        if noisiest < FAINT:
            rest = schedule.t_max - schedule.inverse(low[-1:])
            t, length = torch.cat([t, schedule.t_max - rest / 2]), torch.cat([length, rest])
            low, high = torch.cat([low, low.new_tensor([noisiest])]), torch.cat([high, low[-1:]])
        probability = timesteps.density(schedule, t) * length / schedule.duration
    weight = loss.noise_weight(denoiser, t)
    if bool(weight.isnan().all()):
        notes.append("this loss declares no weight on the noise error")
    elif bool(weight.isnan().any()):
        notes.append("the decoder at i = 1 is no weighted square and is left out")
    share = float((weight * probability)[-1] / (weight * probability).nansum())
    if schedule.num_steps is not None and share > 0.5:
        notes.append(f"{share:.1%} of the weight lies on the last step, log-SNR [{low[-1]:.1f}, {high[-1]:.1f}]")
    card = Card(t, low, high, weight, probability, tuple(notes))
    if bool(weight.isinf().any()):
        return replace(card, notes=(*notes, f"the weight is infinite at {card.place(weight.isinf())}"))
    return card
