"""Levels with uniform noise over their bins: what is trained on, and the likelihood of levels that it gives."""

import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, TINY
from exact_cases import GaussianOracle, normal, seeded
from test_batches import Kept
from test_comparison import run
from test_interruption import differences, once
from torch import Tensor
from torch.distributions import Normal

from scorelab.comparison.like import alike
from scorelab.data.module import DataModule
from scorelab.data.synthetic import Moons
from scorelab.denoisers import Denoiser, Exact, FixedSmall
from scorelab.errors import Refusal
from scorelab.evaluation import (
    EvaluationContext,
    EvaluationSettings,
    ExactGap,
    FlowLikelihood,
    Results,
    Yardstick,
    run_yardsticks,
)
from scorelab.evaluation.flow import weighted
from scorelab.laws.boxes import Boxes
from scorelab.likelihood import bin_gap, bound_term, decoder_nll, prior_kl, uniform_figure
from scorelab.lit.module import DiffusionModule
from scorelab.losses import Simple, Uniform
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine
from scorelab.tensors import as_data, from_levels, nearest_level, spread_over_bins, to_levels

DELTA = 2 / 255  # of bytes


# --- what is trained on


def batches(size: int, rank: int = 0, world: int = 1, step: int = 0, **more) -> Iterator[Tensor]:
    """What a process that has come to this step is shown."""
    data = DataModule(Kept(), size, dequantize=True, **{"seed": 3} | more)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, global_step=step, accumulate_grad_batches=1)
    return (x for x, _ in data.train_dataloader())


def test_the_noise_of_an_item_depends_on_its_place_alone_whoever_serves_it_and_from_where():
    torch.manual_seed(1)
    whole = torch.cat(list(islice(batches(12), 4)))
    torch.manual_seed(2)
    shares = [batches(4, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([next(share) for _ in range(4) for share in shares]), whole), "processes"
    assert torch.equal(torch.cat(list(islice(batches(6, step=3), 5))), whole[18:]), "a run that goes on"
    assert torch.equal(torch.cat(list(islice(batches(12, workers=2), 4))), whole), "workers"
    assert (next(batches(12, seed=4)) == whole[:12]).double().mean() < 0.01


@pytest.mark.parametrize("flip", [False, True])
def test_a_level_has_uniform_noise_over_its_bin_another_each_time_and_rounding_undoes_it(flip):
    bare = DataModule(Kept(), 30, seed=3, flip=flip)
    levels = torch.cat([x for x, _ in islice(bare.train_dataloader(), 4)])
    noised = torch.cat(list(islice(batches(30, flip=flip), 4)))
    assert torch.equal(as_data(to_levels(noised, 256), 256), levels)
    u = (noised - levels).double() / DELTA + 0.5
    assert -1e-4 < u.min() < 0.001 and 0.999 < u.max() < 1 + 1e-4
    n = u.numel()
    assert abs(float(u.mean()) - 1 / 2) < 5 * math.sqrt(1 / 12 / n)
    assert abs(float(u.var()) - 1 / 12) < 5 * math.sqrt(1 / 180 / n)
    assert len(u.flatten(1).round(decimals=4).unique(dim=0)) == 120, "15 images, 8 times each"


def test_records_say_so_and_held_out_data_stay_levels():
    data = DataModule(Kept(), dequantize=True)
    assert data.records() == DataModule(Kept()).records() | {"trained_on": "levels + 2/255 (u - 1/2), u uniform"}
    assert all(split.values.dtype == torch.uint8 for split in data.splits.values())


def test_points_have_no_bins():
    with pytest.raises(Refusal, match="dequantize spreads levels over their bins; this data has none"):
        DataModule(Moons(), dequantize=True)


@pytest.mark.slow
def test_a_dequantised_run_that_was_interrupted_ends_as_one_that_was_not(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another number of workers, too; the bound is its objective, and so its levels are rounded."""
    words = (*SMALL, "data.dequantize=true", "loss=vlb")
    assert typed("train", "run=whole", *words).status == 0
    with monkeypatch.context() as patch:
        once(patch, DiffusionModule, "training_step", 6, signal.SIGTERM)
        assert typed("train", "run=a", *words).status == 143
    said = typed("train", "run=a", *words, "data.workers=1")
    assert said.status == 0 and "resumed at step 6 " in said.err + said.out
    assert differences(tmp_path / "logs" / "train" / "whole", tmp_path / "logs" / "train" / "a") == []


def test_an_objective_that_asks_for_the_exact_score_of_a_list_is_refused(typed):
    own = [word for word in TINY if not word.startswith(("data", "model"))]
    said = typed("train", "data.dequantize=true", "data.limit=20", "loss=esm", *own)
    assert said.status == 2 and "of dequantised levels none is computed: leave data.dequantize=true out" in said.last


def test_what_compares_with_the_list_says_that_there_is_none():
    assert DataModule(Kept(), dequantize=True).training_law() is None
    told = ExactGap().inapplicable(case(GaussianOracle(Cosine(40), FixedSmall(), 0.0, 1.0, 256), Kept().values))
    assert told == "no exact score is computed of dequantised levels (data.dequantize=true)"


# --- the bound as an objective


def test_the_decoder_takes_a_level_with_noise_over_its_bin_for_the_level():
    denoiser = GaussianOracle(Cosine(40), FixedSmall(), torch.zeros(1, 4, 4), 0.4, 17)
    levels = from_levels(torch.randint(0, 17, (6, 1, 4, 4), generator=seeded()), 17)
    t = torch.full((6,), 1 / 40, dtype=torch.float64)
    estimate = denoiser(denoiser.noised(levels.double(), t, normal(6, 1, 4, 4)).x_t, t)
    near = spread_over_bins(levels, 0.001 + 0.998 * torch.rand(levels.shape, generator=seeded(1)), 17)
    assert torch.equal(nearest_level(levels, 17), levels), "those on the lattice stay, to the bit"
    assert torch.equal(decoder_nll(denoiser, estimate, near), decoder_nll(denoiser, estimate, levels))


def test_from_any_point_of_a_bin_the_bound_lies_above_the_chains_own_nll_of_its_level():
    """P(k) = E P(k | x_1) by quadrature, x_1 from the chain's own steps, which are affine."""
    denoiser = GaussianOracle(Cosine(4), FixedSmall(), [0.2], [0.6], 5)
    schedule, grid = denoiser.schedule, denoiser.schedule.grid()
    mean, variance = torch.zeros(1).double(), torch.ones(1).double()
    for i in (4, 3, 2):
        step, t = schedule.transition(grid[i - 1 : i], grid[i : i + 1]), grid[i : i + 1]
        low, high = (denoiser(torch.full((1, 1), x).double(), t).x0[0] for x in (0.0, 1.0))
        slope = step.mean_of_xt + step.mean_of_x0 * (high - low)
        mean, variance = slope * mean + step.mean_of_x0 * low, slope**2 * variance + step.posterior_variance
    x1 = torch.linspace(-6, 6, 2001, dtype=torch.float64)[:, None]
    estimate = denoiser(x1, grid[1:2].expand(2001))
    weight = torch.softmax(Normal(mean, variance.sqrt()).log_prob(x1), 0)[:, 0]
    eps = torch.linspace(-6, 6, 601, dtype=torch.float64)[:, None]
    normal_weight = torch.softmax(-0.5 * eps[:, 0] ** 2, 0)
    for k in range(5):
        level = from_levels(torch.tensor([[k]]), 5).double()
        nll = -math.log(float(weight @ torch.exp(-decoder_nll(denoiser, estimate, level.expand(2001, 1)))))
        for u in (0.01, 0.5, 0.99):
            x0 = spread_over_bins(level, torch.tensor(u), 5).expand(601, 1)
            bound = float(prior_kl(schedule, x0[:1]))
            for i in range(1, 5):
                t = grid[i : i + 1].expand(601)
                term = bound_term(denoiser, denoiser(denoiser.noised(x0, t, eps).x_t, t), x0, t)
                bound += float(normal_weight @ term)
            assert bound > nll


# --- the likelihood of levels by the flow


def case(denoiser: Denoiser, held_out: Tensor, law: Exact | None = None, trained: bool = True) -> EvaluationContext:
    labels = torch.zeros(len(held_out)).long()
    split = (held_out, labels, held_out, labels)
    return EvaluationContext(
        denoiser,
        DDIM(2),
        EvaluationSettings(),
        *split,
        None,
        Simple(),
        Uniform(),
        exact_held_out=law,
        dequantized=trained,
    )


def look(part: Yardstick, context: EvaluationContext) -> tuple[Results, list[str]]:
    lines: list[str] = []
    return run_yardsticks({"ode_nll": part}, context, lines.append), lines


def cells(levels: int, values: Tensor) -> Boxes:
    """The law of these levels with uniform noise over their bins."""
    middle, half = from_levels(values, levels).double(), 1 / (levels - 1)
    return Boxes(middle - half, middle + half)


def test_dequantised_levels_whose_law_is_known_have_its_likelihood_of_levels():
    """3 of 25 cells: log2(3) / 2 bits/dim. The density at the least noise, less log2 of alpha and of the spacing."""
    values = torch.tensor([[0, 1], [2, 2], [4, 1]], dtype=torch.uint8)
    denoiser = Exact(VP(), FixedSmall(), cells(5, values), 5)
    results, lines = look(FlowLikelihood(dequantize=True), case(denoiser, values.repeat(8, 1), denoiser))
    found, record = results.metrics, results.records["ode_nll"]
    assert found["test/ode_nll"] == pytest.approx(math.log2(3) / 2, abs=0.02)
    alpha = float(denoiser.schedule.alpha(torch.tensor([denoiser.schedule.t_min]).double()))
    offset = -math.log2(0.5) - math.log2(alpha)
    assert found["test/ode_nll"] - found["test/ode_nll_exact"] == pytest.approx(offset, abs=1e-2)
    assert record["offset"] == 1.0 and record["log_snr"] == denoiser.log_snr_range()[1]
    assert not [line for line in lines if "warning" in line] and "warning" not in record


def test_what_the_bin_adds_is_the_difference_of_two_gaussians_and_its_width():
    made = GaussianOracle(VP(), FixedSmall(), [0.0], [1.0]).noised(normal(5, 3), torch.full((5,), 0.4), normal(5, 3))
    q, p = Normal(made.alpha * made.x0, made.sigma), Normal(made.x_t / made.alpha, made.sigma / made.alpha)
    expected = (q.log_prob(made.x_t) - p.log_prob(made.x0)).sum(1) - 3 * math.log(2 / 16)
    assert float(made.alpha[0]) < 0.6
    assert torch.allclose(bin_gap(made, torch.zeros(5), 17), expected, rtol=1e-6)


def nll_of_levels(values: Tensor, std: float, dequantize: bool) -> float:
    """-log2 P(level) / d of N(0, std^2), by quadrature: of 5 levels' bins, or of the softmax at a quarter of a bin."""
    levels = from_levels(torch.arange(5), 5).double()
    noise = 0.0 if dequantize else 0.125
    x = torch.linspace(-3, 3, 60_001, dtype=torch.float64)[:, None]
    weight = torch.softmax(-(x[:, 0] ** 2) / (2 * (std**2 + noise**2)), 0)
    if dequantize:
        share = ((x - levels).abs() < 0.25).double()
    else:
        share = torch.softmax(-((x - levels) ** 2) / (2 * noise**2), 1)
    return -float(torch.log2(weight @ share)[values.long()].mean())


@pytest.mark.parametrize("dequantize", [True, False])
def test_the_mean_likelihood_of_several_draws_is_nearer_from_above_than_the_mean_of_their_bounds(dequantize):
    """Of a Gaussian that is narrow for its bins."""
    denoiser = GaussianOracle(VP(), FixedSmall(), torch.zeros(2), 0.3, 5)
    values, found = torch.tensor([[1, 2], [2, 3]], dtype=torch.uint8).repeat(40, 1), {}
    for by_weight in (False, True):
        part = FlowLikelihood(tolerance=1e-2, dequantize=dequantize, draws=4, weighted=by_weight)
        found[by_weight] = part.run(case(denoiser, values), None)
    plain, near = found[False].metrics["ode_nll"], found[True].metrics["ode_nll"]
    truth, records = nll_of_levels(values, 0.3, dequantize), found[True].records
    se = records["se"]
    assert records["mean_of_draws"] == pytest.approx(plain, rel=1e-9) and records["draws"] == 4
    assert truth - 4 * se < near < plain - 2 * se and plain < truth + 0.5
    assert abs(near - truth) < 0.5 * abs(plain - truth) + 4 * se
    assert "over 4 draws" in records["dequantisation"] and "draws" not in found[False].records["dequantisation"]


def test_weights_are_those_of_likelihoods():
    nats = torch.tensor([[1.0, 3.0], [2.0, 3.0], [800.0, 3.0]], dtype=torch.float64)
    expected = -math.log((math.exp(-1) + math.exp(-2)) / 3)
    assert weighted(nats).tolist() == pytest.approx([expected, 3.0], rel=1e-12)


def test_weights_of_an_estimated_divergence_are_not_told():
    part = FlowLikelihood(draws=2, weighted=True, exact_dims=3)
    context = case(GaussianOracle(VP(), FixedSmall(), torch.zeros(4), 0.5, 17), torch.zeros(6, 4, dtype=torch.uint8))
    assert "set metrics.ode_nll.exact_dims=4, 4 backward passes each, or weighted=false" in part.inapplicable(context)
    assert FlowLikelihood(draws=2, weighted=True, exact_dims=4).inapplicable(context) is None


@pytest.mark.parametrize("more", [{"draws": 0}, {"weighted": True}, {"draws": 1, "weighted": True}])
def test_draws_that_cannot_be_are_refused(more):
    with pytest.raises(Refusal, match="draws must be at least 1, and 2 to be weighted"):
        FlowLikelihood(**more)


@pytest.mark.parametrize("more", [{"dequantize": True}, {"draws": 2, "weighted": True}])
def test_what_is_of_levels_is_refused_of_points(more):
    denoiser = GaussianOracle(VP(), FixedSmall(), [0.0], [0.5])
    with pytest.raises(Refusal, match="is of data with levels, and these have none"):
        FlowLikelihood(**more).check(denoiser, EvaluationSettings())
    FlowLikelihood(**more).check(GaussianOracle(VP(), FixedSmall(), [0.0], [0.5], 17), EvaluationSettings())


@pytest.mark.parametrize(("dequantize", "trained"), [(True, False), (True, True), (False, False)])
def test_noise_over_bins_that_the_network_never_saw_is_warned_of(dequantize, trained):
    """In a line, and in the records; the bound without uniform noise holds of any network and needs no warning."""
    denoiser = GaussianOracle(VP(), FixedSmall(), torch.zeros(2), 0.5, 17)
    context = case(denoiser, torch.full((4, 2), 8, dtype=torch.uint8), trained=trained)
    results, lines = look(FlowLikelihood(tolerance=1e-2, dequantize=dequantize), context)
    said = [line for line in lines if line.startswith("ode_nll, a warning: trained on bare levels")]
    warned = dequantize and not trained
    assert len(said) == warned and ("warning" in results.records["ode_nll"]) == warned


@pytest.mark.parametrize(("levels", "own", "published"), [(256, "6.994", "7.000"), (17, "3.000", "3.087")])
def test_both_offsets_are_told_and_are_of_one_and_the_same_likelihood(levels, own, published):
    """In published units, (k + u) / levels * 2 - 1, the bins are narrower by what their offset has more."""
    told = uniform_figure(levels, 9.0).dequantisation
    assert f"= {own} bits/dim" in told and told.endswith(f"= {published})")
    narrower = math.log2((levels - 1) / levels)
    assert float(own) == pytest.approx(float(published) + narrower, abs=1e-3)


def test_figures_of_other_noise_or_of_weighted_draws_are_not_ranked_together():
    figures = [uniform_figure(17, 9.0), uniform_figure(17, 9.0, 20), uniform_figure(17, 9.0, 50)]
    figures.append(replace(figures[0], dequantisation="Gaussian noise"))
    for place, other in enumerate(figures[1:], 1):
        runs = [
            run("simple", number, {"test/ode_nll": 1.0}, records={"ode_nll": figure.record()})
            for number, figure in enumerate((figures[0], other))
        ]
        ranked, (why,) = alike(runs, "test/ode_nll")
        assert len(ranked) == 1 and why.why.startswith("dequantisation is"), place
    wider = [replace(figures[0], decoder=uniform_figure(17, 7.0).decoder), figures[0]]
    runs = [run("vlb", k, {"test/ode_nll": 1.0}, records={"ode_nll": each.record()}) for k, each in enumerate(wider)]
    assert len(alike(runs, "test/ode_nll")[0]) == 2, "how little noise there is, is the schedule's choice"
