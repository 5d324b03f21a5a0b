"""What the variational bound is made of, estimated image by image: the steps of a grid, or an integral over log-SNR."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.likelihood.formulas import bits_per_dim, bound_term, gaussian_log_prob, level_decoder_nll
from scorelab.log_snr import BINS, LOWEST, WIDTH
from scorelab.tensors import like, sum_except_batch


class BoundTerms(ABC):
    """What the bound is made of, estimated by one noise per image; counts what it evaluates.

    x^_0 is clipped for pixels. Answers are (N,) on the CPU, in bits/dim. ``decoder_costs`` says whether the
    decoder asks the network, ``by_log_snr`` where along the log-SNR the diffusion part was found.
    """

    decoder_costs = True

    def __init__(self, denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int) -> None:
        self.denoiser, self.x0, self.labels, self.chunk = denoiser, x0, labels, chunk
        self.evaluations, self.by_log_snr = 0, ByLogSnr()

    @torch.no_grad()
    def of(
        self, t: Tensor, noise: torch.Generator, term: Callable[[Estimate, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """A term (estimate, x0, eps, t) of every image at its own time t (N,)."""
        eps = torch.randn(self.x0.shape, generator=noise).to(self.x0.device)
        t = t.double().to(self.x0.device)
        found = []
        for rows in torch.arange(len(self.x0), device=self.x0.device).split(self.chunk):
            noised = self.denoiser.noised(self.x0[rows], t[rows], eps[rows])
            estimate = self.denoiser(noised.x_t, t[rows], None if self.labels is None else self.labels[rows])
            if self.denoiser.levels is not None:
                estimate = estimate.clipped()
            found.append(term(estimate, self.x0[rows], eps[rows], t[rows]))
        self.evaluations += len(self.x0)
        return bits_per_dim(torch.cat(found), self.x0[0].numel()).cpu()

    def places(self, noise: torch.Generator) -> Tensor:
        """One place in [0, 1) for each image, stratified over the images."""
        offset = torch.rand(1, generator=noise, dtype=torch.float64)
        return (torch.randperm(len(self.x0), generator=noise) + offset) / len(self.x0)

    @abstractmethod
    def diffusion(self, noise: torch.Generator) -> Tensor:
        """An estimate for each image whose mean is the diffusion part."""

    @abstractmethod
    def decoder(self, noise: torch.Generator) -> Tensor:
        """An estimate for each image whose mean is the decoder."""


class ByLogSnr:
    """What the diffusion part is in each bin of log-SNR, below the first and above the last: its mean by where."""

    def __init__(self) -> None:
        self.sums, self.count = torch.zeros(BINS + 2, dtype=torch.float64), 0

    def add(self, log_snr: Tensor, each: Tensor) -> Tensor:
        """Estimates (N,) of the whole, each found at its own log-SNR (N,); they are returned."""
        edges = LOWEST + WIDTH * torch.arange(BINS + 1, dtype=torch.float64)
        self.sums.index_add_(0, torch.bucketize(log_snr.cpu().double(), edges), each.double())
        self.count += len(each)
        return each

    def means(self) -> tuple[float, ...]:
        """Their mean is the sum of these 42."""
        return tuple((self.sums / self.count).tolist())


class StepTerms(BoundTerms):
    """The terms of a T-step process."""

    def __init__(self, denoiser: Denoiser, x0: Tensor, labels: Tensor | None, chunk: int) -> None:
        super().__init__(denoiser, x0, labels, chunk)
        self.steps, self.law = len(denoiser.schedule.grid()) - 1, step_law(denoiser)

    def log_snr(self, i: Tensor) -> Tensor:
        """Lambda where the steps i (N,) begin, from noise to data."""
        return self.denoiser.schedule.log_snr((i.double() / self.steps).to(self.denoiser.device))

    def at(self, i: Tensor, noise: torch.Generator) -> Tensor:
        """L_i of every image at its own step i (N,)."""
        return self.of(i / self.steps, noise, lambda estimate, x0, _, t: bound_term(self.denoiser, estimate, x0, t))

    def diffusion(self, noise: torch.Generator) -> Tensor:
        """Every image at one step of i = 2 ... T, by ``step_law`` and divided by it."""
        index = torch.searchsorted(self.law.cumsum(0), self.places(noise)).clamp(max=len(self.law) - 1)
        return self.by_log_snr.add(self.log_snr(index + 2), self.at(index + 2, noise) / self.law[index])

    def decoder(self, noise: torch.Generator) -> Tensor:
        """Every image at i = 1."""
        return self.at(torch.ones(len(self.x0)), noise)


class Integral(BoundTerms):
    """The terms of a continuous process: 1/2 int E||eps - eps^||^2 dlambda, and a decoder at the integral's end."""

    decoder_costs = False

    def diffusion(self, noise: torch.Generator) -> Tensor:
        """Every image at one log-SNR, uniform over the schedule's range."""
        low, high = self.denoiser.log_snr_range()
        log_snr = low + self.places(noise) * (high - low)
        found = self.of(
            self.denoiser.schedule.inverse(log_snr),
            noise,
            lambda estimate, _, eps, __: (high - low) / 2 * sum_except_batch((eps - estimate.eps) ** 2),
        )
        return self.by_log_snr.add(log_snr, found)

    def decoder(self, noise: torch.Generator) -> Tensor:
        """Pixels by the softmax over levels, points by N(x_0; x_t / alpha, (sigma / alpha)^2); no network is asked."""
        x0, eps = self.x0.cpu(), torch.randn(self.x0.shape, generator=noise)
        log_snr = torch.full((len(x0),), self.denoiser.log_snr_range()[1], dtype=torch.float64)
        if self.denoiser.levels is not None:
            nats = level_decoder_nll(log_snr, x0, eps, self.denoiser.levels)
        else:
            away = like(torch.exp(-0.5 * log_snr), eps.double()) * eps
            nats = -sum_except_batch(gaussian_log_prob(x0, x0 + away, like(-log_snr, eps.double())))
        return bits_per_dim(nats, x0[0].numel())


def step_law(denoiser: Denoiser) -> Tensor:
    """The probability of each step i = 2 ... T, on the CPU: in proportion to how far lambda falls in it.

    At s^2 = beta~, L_i is expm1(lambda_{i-1} - lambda_i)/2 times the noise error, so L_i / p_i is near the error
    itself, which is at most of order one. A fall is cut at 1 (the cosine schedule's last ones are large, and their
    error nearly none), and a tenth is spread evenly so that no step is rare.
    """
    log_snr = denoiser.schedule.log_snr(denoiser.schedule.grid()[1:].to(denoiser.device)).cpu()
    fall = (log_snr[:-1] - log_snr[1:]).clamp(max=1.0)
    law = fall / fall.sum()
    return 0.9 * law + 0.1 / len(law)
