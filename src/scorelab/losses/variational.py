"""The variational bound as a training objective."""

from torch import Generator, Tensor

from scorelab.denoisers import Denoiser
from scorelab.likelihood import bits_per_dim, bound_term
from scorelab.losses.base import Loss, Terms


class VariationalBound(Loss):
    """T L_t in bits/dim: each term of the bound with its true weight, its constant, and the decoder at i = 1.

    Its mean over t ~ U{t_1 ... t_T} is the bound without the prior term, which no network changes
    (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, section 3).
    """

    def forward(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: Tensor,
        eps: Tensor,
        label: Tensor | None = None,
        truth: Denoiser | None = None,
        generator: Generator | None = None,
    ) -> Terms:
        """T L_t of each sample, (B,), bits/dim."""
        target = denoiser.noised(x0, t, eps)
        nats = bound_term(denoiser, denoiser(target.x_t, t, label), x0, t)
        steps = len(denoiser.schedule.grid()) - 1
        return Terms(steps * bits_per_dim(nats, x0[0].numel()).to(x0.dtype))

    def check(self, denoiser: Denoiser) -> None:
        """Refuse fewer than two steps.

        Raises:
            ValueError: for T < 2, where there is no step between prior and decoder.
        """
        if denoiser.schedule.num_steps is None or denoiser.schedule.num_steps < 2:
            raise ValueError("loss=vlb needs steps between prior and data: set schedule.num_steps to 2 or more")
