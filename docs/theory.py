"""Draw the figures of docs/theory.md from the code: make figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from scorelab.data.images import Digits
from scorelab.data.synthetic import Ring
from scorelab.denoisers import Denoiser, Eps, Estimate, Exact, FixedSmall, NetworkDenoiser
from scorelab.evaluation import EvaluationContext, EvaluationSettings, Objectives
from scorelab.evaluation.gradient import Gradients, levels_by_bin
from scorelab.laws import FiniteSet, GaussianMixture, Law
from scorelab.losses import DSM, ESM, ISM, SSM, Example, Loss, Simple, Uniform
from scorelab.losses.exact_score import averaged_score
from scorelab.networks import MLP
from scorelab.samplers import DDIM, DDPM, Sampler
from scorelab.schedules import VP, Schedule
from scorelab.tensors import as_data, generator, like

HERE = Path(__file__).parent
THREE = GaussianMixture(torch.tensor([[-0.9], [0.2], [0.9]]), torch.full((3, 1, 1), 0.006), torch.tensor([3.0, 2, 4]))
SCORE = {  # all in units of the noise error
    "dsm": DSM("sigma2"),
    "esm": ESM("sigma2"),
    "esm, M = 16": ESM("sigma2", references=16),
    "ism": ISM("sigma2"),
    "ssm": SSM("sigma2"),
}


def save(figure: Figure, name: str) -> None:
    """Beside this file."""
    figure.savefig(HERE / f"theory_{name}.png", dpi=100)


def graph(axes: Axes, **named: object) -> Axes:
    """Its labels, over a pale grid."""
    axes.set(**named)
    axes.grid(color="0.88", linewidth=0.5)
    return axes


def at(schedule: Schedule, log_snr: float, n: int = 1) -> Tensor:
    """The time of a log-SNR, n times."""
    return schedule.inverse(torch.full((n,), log_snr, dtype=torch.float64))


# --- forward and back


def chain(denoiser: Exact, x: Tensor, walk: Tensor) -> Tensor:
    """x_0 (n, 1) through the one-step kernels of the forward chain: places (steps + 1, n)."""
    seen = [x]
    for number, (s, t) in enumerate(pairwise(walk.tolist())):
        step = denoiser.schedule.transition(*(torch.full((len(x),), u, dtype=torch.float64) for u in (s, t)))
        noise = torch.randn(x.shape, generator=generator("forward", number), dtype=torch.float64)
        x = like(step.alpha_t / step.alpha_s, x) * x + like(step.forward_variance.sqrt(), x) * noise
        seen.append(x)
    return torch.cat(seen, 1).T


def back(denoiser: Exact, sampler: Sampler, x: Tensor, walk: Tensor) -> Tensor:
    """x_1 (n, 1) through the sampler's steps, from the last time of a walk to its first."""
    seen, noise = [x], generator("back")
    for t, s in pairwise(walk.flip(0).tolist()):
        now, before = (torch.full((len(x),), u, dtype=torch.float64) for u in (t, s))
        x = sampler.step(denoiser, denoiser(x, now), before, now, noise)
        seen.append(x)
    return torch.cat(seen, 1).T


def draw_paths() -> None:
    """p_t as a picture, and over it paths of the forward chain, of the reverse one and of the ODE."""
    denoiser, n = Exact(VP(), FixedSmall(), THREE), 6
    walk = torch.linspace(denoiser.schedule.t_min, denoiser.schedule.t_max, 401, dtype=torch.float64)
    places = torch.linspace(-2.6, 2.6, 131, dtype=torch.float64)
    log_prob = [denoiser.posterior(places[:, None], t.expand(len(places))).log_prob for t in walk[::4]]
    x0, ends = THREE.draw(n, generator("three")).x0, torch.linspace(-1.6, 1.6, n, dtype=torch.float64)[:, None]
    panels = {
        "the forward chain": (walk, chain(denoiser, x0, walk)),
        "back by ancestral steps": (walk.flip(0), back(denoiser, DDPM(400), ends, walk)),
        "back along the ODE": (walk.flip(0), back(denoiser, DDIM(400), ends, walk)),
    }
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    for number, (title, (along, paths)) in enumerate(panels.items()):
        axes = figure.add_subplot(1, 3, number + 1)
        shade = torch.stack(log_prob, 1).exp().sqrt()
        axes.imshow(shade, extent=(0, 1, -2.6, 2.6), origin="lower", aspect="auto", cmap="Blues", vmax=1.6)
        axes.plot(along[::4], paths[::4], linewidth=0.8, color="tab:red" if number else "0.25")
        axes.set(title=title, xlabel="t  (data ← → noise)", ylim=(-2.6, 2.6), xlim=(0, 1))
        if number == 0:
            axes.set_ylabel("x_t")
    save(figure, "paths")


# --- conditional scores and their mean


def draw_mean() -> None:
    """The noise in x_t, point by point, and its mean given x_t, which is -sigma times the score."""
    denoiser, n = Exact(VP(), FixedSmall(), THREE), 700
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    for number, log_snr in enumerate((-2.0, 1.0, 4.0)):
        t, draws = at(denoiser.schedule, log_snr, n), generator("mean", number)
        x0, eps = THREE.draw(n, draws).x0, torch.randn(n, 1, generator=draws, dtype=torch.float64)
        made = denoiser.noised(x0, t, eps)
        x_t = torch.linspace(float(made.x_t.min()), float(made.x_t.max()), n, dtype=torch.float64)[:, None]
        mean = denoiser(x_t, t).eps[:, 0]
        spread = (math.exp(log_snr) * denoiser.posterior(x_t, t).trace).sqrt()
        floor = math.exp(log_snr) * float(denoiser.posterior(made.x_t, t).trace.mean())
        axes = figure.add_subplot(1, 3, number + 1)
        axes.scatter(made.x_t, eps, s=4, linewidths=0, color="0.4", label="ε = −σ s(x_t | x_0)")
        axes.fill_between(x_t[:, 0], mean - spread, mean + spread, alpha=0.25, linewidth=0, color="tab:orange")
        axes.plot(x_t, mean, color="tab:red", linewidth=1.6, label="E[ε | x_t] = −σ s_t(x_t)")
        graph(axes, title=f"λ = {log_snr:g}: floor {floor:.2f}", xlabel="x_t", ylim=(-3.6, 4.6))
        if number == 0:
            axes.set_ylabel("noise in x_t")
            axes.legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, "mean")


# --- the exact score of a list


def draw_memory() -> None:
    """What the training set's exact score says of a held-out digit, how sure it is, and how wrong."""
    source = Digits()
    splits = {name: as_data(split.values, source.levels) for name, split in source.splits().items()}
    train, held_out = splits["train"], splits["test"]
    denoiser = Exact(VP(), FixedSmall(), FiniteSet(train), source.levels)
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    pictures, curves = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    show_pictures(pictures, denoiser, held_out[[9, 2]], train)
    levels, found = torch.linspace(-8, 8, 33).tolist(), []
    for number, log_snr in enumerate(levels):
        t, draws = at(denoiser.schedule, log_snr, len(held_out)), generator("curve", number)
        noise = torch.randn(held_out.shape, generator=draws)
        unseen, seen = (
            denoiser.posterior(denoiser.noised(images, t, noise).x_t, t) for images in (held_out, train[: len(t)])
        )
        errors = ((unseen.mean - held_out).square().mean(), (seen.mean - train[: len(t)]).square().mean())
        found.append([float(errors[0]), float(unseen.trace.mean()) / held_out[0].numel(), float(errors[1])])
    names = ("its error, held-out images", "what it expects of it", "its error, training images")
    axes = graph(curves.add_subplot(), xlabel="log-SNR λ", ylabel="‖x_0 − E[x_0 | x_t]‖² / d", yscale="log")
    for name, values, line in zip(names, zip(*found, strict=True), ("-", "--", "-"), strict=True):
        axes.plot(levels, values, line, label=name, linewidth=1.6)
    axes.set_ylim(1e-4, 1)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    save(figure, "memory")


def show_pictures(figure: SubFigure, denoiser: Exact, images: Tensor, train: Tensor) -> None:
    """x_t of each image by log-SNR, and below it the mean of x_0 over the training set."""
    log_snrs, draws = (-5.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0), generator("memory")
    grid = figure.subplots(2 * len(images), len(log_snrs) + 1)
    for number, image in enumerate(images):
        pair, eps = grid[2 * number : 2 * number + 2], torch.randn(1, *image.shape, generator=draws)
        for column, log_snr in enumerate(log_snrs):
            t = at(denoiser.schedule, log_snr)
            x_t = denoiser.noised(image[None], t, eps).x_t
            for axes, shown in zip(pair[:, column], (x_t, denoiser(x_t, t).x0), strict=True):
                axes.imshow(shown[0, 0], cmap="gray", vmin=-1, vmax=1)
            grid[0, column].set_title(f"λ = {log_snr:g}", fontsize=8)
        nearest = train[torch.cdist(image.flatten()[None], train.flatten(1)).argmin()]
        for axes, shown, title in zip(pair[:, -1], (image, nearest), ("x_0", "nearest"), strict=True):
            axes.imshow(shown[0], cmap="gray", vmin=-1, vmax=1)
            axes.set_title(title, fontsize=8)
        for axes, label in zip(pair[:, 0], ("x_t", "E[x_0 | x_t]"), strict=True):
            axes.set_ylabel(label, fontsize=7)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])


# --- one scale, and one network under every score loss


def trained(law: Law, schedule: Schedule, steps: int) -> NetworkDenoiser:
    """A small network after so many steps of L_simple on fresh draws."""
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(schedule, MLP((2,), width=48, blocks=2), Eps(), FixedSmall())
    optimizer, draws = torch.optim.AdamW(denoiser.parameters(), lr=3e-3), generator("train")
    for step in range(steps):
        x0 = law.draw(256, draws).x0.float()
        eps = torch.randn(x0.shape, generator=draws)
        t = Uniform().draw(schedule, 256, step, 0, 1, draws).t
        loss = Simple()(denoiser, Example.of(denoiser, x0, t, eps)).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser


def case_of(denoiser: Denoiser, law: Law, loss: Loss, items: int) -> EvaluationContext:
    """A network beside the exact denoiser of a known law, as evaluating sees it."""
    exact, data = Exact(denoiser.schedule, FixedSmall(), law), law.draw(items, generator("items")).x0.float()
    labels = torch.zeros(items, dtype=torch.long)
    return EvaluationContext(
        denoiser,
        DDIM(),
        EvaluationSettings(),
        data,
        labels,
        data,
        labels,
        None,
        loss,
        Uniform(),
        exact_train=exact,
        exact_held_out=exact,
    )


def draw_scale(denoiser: NetworkDenoiser, law: Law) -> None:
    """One network under four objectives: as they are, and each plus its constant."""
    losses = {name: SCORE[name] for name in ("dsm", "esm", "ism", "ssm")}
    records = Objectives(items=None, **losses).run(case_of(denoiser, law, Simple(), 4000), None).records
    at_bins, figure = records["log_snr"], Figure(figsize=(9.6, 3.4), layout="constrained")
    for number, (key, title) in enumerate(
        (("value", "mean loss, w = σ²"), ("noise_error", "plus its constant: 0, floor, 1, 1"))
    ):
        axes = graph(figure.add_subplot(1, 2, number + 1), title=title, xlabel="log-SNR λ", ylim=(-1.1, 1.1))
        for name, line in zip(losses, ("-", "--", "-.", ":"), strict=True):
            values = [math.nan if value is None else value for value in records[name][key]]
            axes.plot(at_bins, values, line, label=name, linewidth=2)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    save(figure, "scale")


# --- references


@dataclass(frozen=True)
class Target:
    """Of a target over M references, per dimension and times sigma^2: its bias squared, its variance, its noise."""

    bias: float
    variance: float
    error: float


def targets(truth: Exact, x_t: Tensor, t: Tensor, m: int, draws: int, own: bool) -> Target:
    """At fixed x_t (B, d) over a list: references drawn anew, beside the own point drawn given x_t or without it."""
    law, found = truth.law, []
    assert isinstance(law, FiniteSet)
    points = law.points.double()
    alpha, sigma = like(truth.schedule.alpha(t), x_t), like(truth.schedule.sigma(t), x_t)
    weights = torch.softmax(-(torch.cdist(x_t, alpha[0] * points) ** 2) / (2 * sigma**2), 1)
    noise = generator("references", m)
    for _ in range(draws):
        references = law.references(m, noise).x0
        if own:
            x0 = points[torch.multinomial(weights, 1, generator=noise)[:, 0]]
            found.append(averaged_score(Estimate.from_x0(x_t, alpha, sigma, x0), references))
        else:
            found.append(Exact(truth.schedule, truth.variance, FiniteSet(references))(x_t, t).score)
    scores = float(sigma[0]) * torch.stack(found)
    mean, variance = scores.mean(0), float(scores.var(0).mean())
    off = float((mean - sigma * truth(x_t, t).score).square().mean())
    return Target(off, variance, variance / draws)


def gradient_variance(denoiser: NetworkDenoiser, law: Law, loss: Loss) -> tuple[list[float], list[float]]:
    """The trace of the covariance of one sample's gradient, by log-SNR."""
    found = Gradients(case_of(denoiser, law, loss, 1000))
    levels = [each for each in levels_by_bin(found.card) if -7 < float(found.card.log_snr[each].mean()) < 9.2][::2]
    places = [float(found.card.log_snr[each].mean()) for each in levels]
    return places, [found.bin(number, each, 100, 1).variance for number, each in enumerate(levels)]


def draw_references(denoiser: NetworkDenoiser, law: Law) -> None:
    """The target of M references: its bias, its variance, and what that does to a gradient."""
    source, log_snr, draws = Digits(), -1.0, 300
    truth = Exact(VP(), FixedSmall(), FiniteSet(as_data(source.splits()["train"].values, source.levels).flatten(1)))
    t = at(truth.schedule, log_snr, 48)
    x0 = truth.law.draw(48, generator("x0")).x0.double()
    eps = torch.randn(x0.shape, generator=generator("eps"), dtype=torch.float64)
    x_t = truth.noised(x0, t, eps).x_t
    numbers = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1437]
    by: Mapping[str, list[Target]] = {
        name: [targets(truth, x_t, t, m, draws, own) for m in numbers]
        for name, own in (("own point among them", True), ("own point left out", False))
    }
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    bias, variance, gradient = (figure.add_subplot(1, 3, number) for number in (1, 2, 3))
    for (name, found), colour in zip(by.items(), ("tab:red", "tab:blue"), strict=True):
        bias.plot(numbers[:-1], [each.bias for each in found[:-1]], color=colour, marker=".", label=name)
        bias.plot(numbers[:-1], [each.error for each in found[:-1]], ":", color=colour, linewidth=1)
        variance.plot(numbers[:-1], [each.variance for each in found[:-1]], color=colour, marker=".", label=name)
    floor = math.exp(log_snr) * float(truth.posterior(x_t, t).trace.mean()) / x_t.shape[1]
    variance.axhline(floor, color="0.4", linewidth=1, linestyle="--", label="floor of dsm")
    graph(bias, title="squared distance of its mean from s_t", xlabel="references M", xscale="log", yscale="log")
    graph(variance, title="its variance", xlabel="references M", xscale="log", yscale="log")
    for name, line in zip(SCORE, ("-", "--", "-", "-.", ":"), strict=True):
        gradient.plot(*gradient_variance(denoiser, law, SCORE[name]), line, label=name, linewidth=1.6)
    graph(gradient, title="variance of one sample's gradient", xlabel="log-SNR λ", yscale="log")
    for axes in (bias, variance, gradient):
        axes.title.set_fontsize(9)
        axes.legend(fontsize=7, frameon=False, loc="best")
    save(figure, "references")


def main() -> None:
    """All five."""
    draw_paths()
    draw_mean()
    draw_memory()
    ring = Ring().law()
    network = trained(ring, VP(), 1200)
    draw_scale(network, ring)
    draw_references(network, ring)


if __name__ == "__main__":
    main()
