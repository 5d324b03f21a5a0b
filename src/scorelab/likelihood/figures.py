"""What a likelihood in bits/dim is of: which lattice, which dequantisation, which decoder."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from scorelab.denoisers import Denoiser, Estimate
from scorelab.likelihood.formulas import decoder_log_variance
from scorelab.tensors import generator

NO_LATTICE = "none: the data have no levels"
SOFTMAX = "softmax over the levels by each pixel's own x_t (Kingma et al. 2021, section 3.3)"
LOOKED_AT = 4096  # numbers of a data set that are looked at for repeats
REPEATED = 0.05  # of them that may be equal: float32 holds few enough numbers that some are by chance


@dataclass(frozen=True)
class Figure:
    """What a figure in bits/dim is of; two figures compare where all of it is the same.

    Attributes:
        of: -log2 P(x_0) / d of levels, or -log2 p(x) / d of a density in the data's own units: x in other units, x / s,
            has log2 s less, and it may be negative, so it is no number of bits that would store anything.
        lattice: how many levels, how far apart, between which bounds.
        dequantisation: what is added to the levels before a density is looked at.
        decoder: the law p(x_0 | x) that ends it.
        decoder_std: the least and the greatest standard deviation of its noise, in the data's units (levels in
            [-1, 1]); None without one.
    """

    of: str
    lattice: str
    dequantisation: str
    decoder: str
    decoder_std: tuple[float, float] | None = None

    def record(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self) | {"decoder_std": self.decoder_std and [float(f"{std:.6g}") for std in self.decoder_std]}


def lattice(levels: int | None) -> str:
    """Where data stand: 256 levels 2/255 apart on [-1, 1], see ``from_levels``."""
    return NO_LATTICE if levels is None else f"{levels} levels 2/{levels - 1} apart on [-1, 1]"


def bound_figure(denoiser: Denoiser, x0: Tensor) -> Figure:
    """What the variational bound of such data x_0 (N, ...) is of: a grid's decoder at i = 1, an integral's at its end.

    Both are of levels where the denoiser has them, and of a density where it has none.
    """
    continuous = denoiser.schedule.num_steps is None
    if continuous:
        decoder_std = noise_std(denoiser.log_snr_range()[1])
        where = f"at sigma/alpha = {decoder_std:.4g}"
        stds: tuple[float, float] | None = (decoder_std, decoder_std)
        decoder = f"{SOFTMAX}, {where}"
        density = f"density N(x_0; x_t / alpha, (sigma / alpha)^2 I), {where}"
    else:
        stds, named = _decoder_of_steps(denoiser, x0)
        density = f"density N(x_0; x^_0(x_1), s^2 I), {named}"
        decoder = (
            f"N(x^_0(x_1), s^2 I) over bins about the levels, the outer two open (Ho et al. 2020, eq. 13), {named}"
        )
    return _figure(denoiser, "", "none", decoder, density, stds)


def common_figure(denoiser: Denoiser, log_snr: float) -> Figure:
    """What the bound that ends by the softmax at this log-SNR is of."""
    std = noise_std(log_snr)
    return _figure(denoiser, "", "none", f"{SOFTMAX}, at sigma/alpha = {std:.4g}", "none", (std, std))


def flow_figure(denoiser: Denoiser, log_snr: float, weighted: int | None = None) -> Figure:
    """What the likelihood by the probability flow from this log-SNR on is of.

    Levels: of q = N(alpha x_0, sigma^2 I) in place of uniform noise, which goes beyond a level's bin; what that adds
    is taken off by the decoder, so that the sum is a bound of -log P(x_0) whatever q is. ``weighted`` is over how many
    draws the likelihood itself is averaged.
    """
    std = noise_std(log_snr)
    if denoiser.levels is None:
        return _figure(
            denoiser, f" of x = alpha x_0 + sigma eps, sigma/alpha = {std:.4g}", "none", "none", "none", None
        )
    share = std * (denoiser.levels - 1) / 2
    added = f"Gaussian noise of {std:.4g} = {share:.3g} of the spacing (no uniform noise, no offset){_over(weighted)}"
    return _figure(denoiser, "", added, f"{SOFTMAX}, at sigma/alpha = {std:.4g}", "none", (std, std))


def uniform_figure(levels: int, log_snr: float, weighted: int | None = None) -> Figure:
    """What the likelihood by the flow of uniformly dequantised levels is of, with the offset that brings back the bins.

    Published figures put level k at (k + u) / levels * 2 - 1 and add log2(levels / 2): other units, the same bits.
    """
    std, spacing = noise_std(log_snr), f"2/{levels - 1}"
    offset = f"offset -log2({spacing}) = {-math.log2(2 / (levels - 1)):.3f} bits/dim"
    published = f"published: (k + u) / {levels} * 2 - 1, offset log2({levels}/2) = {math.log2(levels / 2):.3f}"
    return Figure(
        "-log2 P(x_0) / d of levels, at most",
        lattice(levels),
        f"uniform noise x_0 + {spacing} (u - 1/2), {offset} ({published}){_over(weighted)}",
        f"density N(x_0; x_t / alpha, (sigma / alpha)^2 I) of the noised levels, at sigma/alpha = {std:.4g}",
        (std, std),
    )


def law_figure() -> Figure:
    """What the likelihood under a known law is of: the density of x_0 itself."""
    return Figure(_density(""), NO_LATTICE, "none", "none")


def noise_std(log_snr: float) -> float:
    """Sigma/alpha at a log-SNR: the noise of x_t in the units of x_0."""
    return math.exp(-log_snr / 2)


def repeated(values: Tensor) -> float:
    """The share of numbers that another is equal to, of up to 4,096 of a data set (N, ...).

    Nearly 0 where data have a density, whatever it is: two draws of it are never equal. Not so where numbers lie on a
    lattice, are cut at a bound, are the same in every item, or where items are in the set twice.
    """
    flat = values.flatten()
    rows = torch.randint(len(flat), (LOOKED_AT,), generator=generator("repeated")).unique()
    if len(flat) <= LOOKED_AT:
        rows = torch.arange(len(flat))
    _, counts = flat[rows].unique(return_counts=True)
    return float(counts[counts > 1].sum()) / len(rows)


def _figure(
    denoiser: Denoiser, of: str, dequantisation: str, decoder: str, density: str, std: tuple[float, float] | None
) -> Figure:
    if denoiser.levels is None:
        return Figure(_density(of), NO_LATTICE, "none", density, std)
    return Figure("-log2 P(x_0) / d of levels, at most", lattice(denoiser.levels), dequantisation, decoder, std)


def _over(weighted: int | None) -> str:
    return "" if weighted is None else f", -log of the mean likelihood over {weighted} draws"


def _density(of: str) -> str:
    return f"-log2 p / d of a density{of}, in the data's own units: not comparable with that of levels"


def _decoder_of_steps(denoiser: Denoiser, x0: Tensor) -> tuple[tuple[float, float] | None, str]:
    """The least and greatest s of the decoder at i = 1, and which variance of the process that is."""
    if not denoiser.variance.bounded:
        return None, "s^2 = what the network says, pixel by pixel"
    no = torch.zeros_like(x0[:1], dtype=torch.float64)  # of an estimate it is the variance alone that counts
    said = [Estimate(no, no, no, no, no, variance_fraction=no + place) for place in (0.0, 1.0)]
    ends = [torch.exp(0.5 * decoder_log_variance(denoiser, each)) for each in said]
    stds = float(ends[0].min()), float(ends[1].max())
    zero, one, two = denoiser.schedule.grid()[:3].double().unsqueeze(1).to(x0.device)
    known = {
        "beta~_2": denoiser.schedule.transition(one, two).posterior_variance,
        "sigma^2_{1|0}": denoiser.schedule.transition(zero, one).forward_variance,
    }
    names = [_named(std, {name: float(variance) ** 0.5 for name, variance in known.items()}) for std in stds]
    return stds, f"s^2 = {names[0]}" if names[0] == names[1] else f"s^2 between {names[0]} and {names[1]}"


def _named(std: float, known: dict[str, float]) -> str:
    return next((name for name, each in known.items() if math.isclose(std, each, rel_tol=1e-5)), f"{std**2:.4g}")
