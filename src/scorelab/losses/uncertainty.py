"""A weighted error whose weight is learned beside the network."""

import math

import torch
from torch import Generator, Tensor, nn

from scorelab.denoisers import Denoiser
from scorelab.losses.base import Example, Loss, Terms, eps_error, refuse_silence
from scorelab.losses.weightings import EDMWeight
from scorelab.tensors import mean_except_batch

FEATURES = 64  # pairs of sine and cosine of the log-SNR


class Uncertainty(Loss):
    """(w / e^u) ||x_0 - x^_0||^2 / d + u, with u(lambda) learned and w that of ``EDMWeight``.

    At its least e^u is the mean of w ||x_0 - x^_0||^2 / d at that noise level, so every level comes to the same 1 + u:
    none outweighs the others, whatever w was (Kendall et al. 2018; Karras et al. 2024, "Analyzing and improving the
    training dynamics of diffusion models", eq. 14-15 and appendix B.2). u is linear in 128 random Fourier features of
    -lambda/8 = ln(sigma~)/4, and 0 at first.

    Raises:
        Refusal: for sigma_data <= 0.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, sigma_data: float = 0.5, normalize: bool = True) -> None:
        super().__init__(normalize)
        self.base = EDMWeight(sigma_data)
        fixed = torch.Generator().manual_seed(0)  # the same in every run
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(2 * FEATURES, generator=fixed))
        self.register_buffer("phases", 2 * math.pi * torch.rand(2 * FEATURES, generator=fixed))
        self.readout = nn.utils.skip_init(nn.Linear, 2 * FEATURES, 1)  # draws nothing
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def log_spread(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """The learned u (B,) at times t (B,), float32."""
        place = (-denoiser.schedule.log_snr(t) / 8).to(self.frequencies)
        features = math.sqrt(2) * torch.cos(place[:, None] * self.frequencies + self.phases)
        with torch.autocast(features.device.type, enabled=False):
            spread: Tensor = self.readout(features)
        return spread.squeeze(1)

    def forward(self, denoiser: Denoiser, example: Example, generator: Generator | None = None) -> Terms:
        """Each sample's, (B,); ``weighted`` is the error before u has a say, ``spread`` is u."""
        estimate = denoiser(example.x_t, example.t, example.label)
        error = mean_except_batch((example.x0 - estimate.x0) ** 2)
        weighted = self.base.weighted(denoiser, example.t, error)
        spread = self.log_spread(denoiser, example.t).to(weighted)
        parts = {"weighted": weighted, "spread": spread}
        return Terms(weighted * torch.exp(-spread) + spread, parts, eps_error(example, estimate))

    def noise_weight(self, denoiser: Denoiser, t: Tensor) -> Tensor:
        """That of the base, over e^u as it is now."""
        return self.base.noise_weight(denoiser, t) * torch.exp(-self.log_spread(denoiser, t).detach().double())

    def check(self, denoiser: Denoiser) -> None:
        """Refuse a process that ends without signal, at no log-SNR.

        Raises:
            Refusal: where alpha is 0 at the last training time.
        """
        super().check(denoiser)
        refuse_silence(denoiser.schedule)

    def shortfall(self, floor: Tensor) -> Tensor:
        """Unknown: u is learned."""
        return torch.full_like(floor, torch.nan)
