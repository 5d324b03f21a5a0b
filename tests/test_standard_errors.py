"""A standard error that is told is the scatter of its number over fresh data: measured over 30 seeds."""

import math
from functools import cache

import pytest
import torch
from exact_cases import Exploding, GaussianOracle, digits_like, seeded
from test_score import Labelled
from torch import Tensor

from scorelab.data.synthetic import Ring
from scorelab.denoisers import Exact, FixedSmall
from scorelab.evaluation import (
    Agreement,
    Distances,
    EvaluationContext,
    EvaluationSettings,
    ExactGap,
    ExactLikelihood,
    FlowLikelihood,
    NoiseError,
    Objectives,
    ScoreError,
    Yardstick,
    noise_error,
)
from scorelab.evaluation.curves import ByBin, Mean, integral, standard_error
from scorelab.evaluation.objectives import Column
from scorelab.evaluation.score import score_against
from scorelab.laws import FiniteSet
from scorelab.likelihood import sampled_bound
from scorelab.log_snr import BINS, COMMON, SIMPLE
from scorelab.losses import Simple, Uniform
from scorelab.metrics.features import Coordinates
from scorelab.metrics.points import energy_distance, sliced_wasserstein
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Linear
from scorelab.tensors import from_levels, generator, to_levels

SEEDS, ITEMS, LEVELS = range(30), 24, 17
LIST = digits_like(120, seed=1, side=4)
GROUPS = torch.arange(120) % 2 * 4  # of the list, as of points: how far the network is off, in tenths


def narrow() -> Exploding:
    """A process that reaches the bins that are told of, and few others."""
    return Exploding(least=0.011, most=11.1)


def scatter(told: list[Mean]) -> float:
    """How far the numbers scatter, by what their standard errors say."""
    values, errors = (torch.tensor([getattr(each, name) for each in told]) for name in ("value", "se"))
    return float(values.std() / errors.square().mean().sqrt())


def case(denoiser, train: Tensor, held_out: Tensor, labels: Tensor, **more) -> EvaluationContext:
    split = (train, GROUPS[: len(train)], held_out, labels)
    return EvaluationContext(
        denoiser, DDIM(4), EvaluationSettings(), *split, Coordinates(2), Simple(), Uniform(), **more
    )


@cache
def of_points(seed: int) -> dict[str, Mean]:
    """Fresh points on a ring, and a network that is off at every other of its eight places."""
    fresh = Ring(split_seed=seed).splits()["test"]
    law = Exact(narrow(), FixedSmall(), Ring().law())
    held = (fresh.values[:ITEMS], fresh.labels[:ITEMS] % 2 * 4)
    evaluated = case(Labelled(law), fresh.values[:2], *held, exact_held_out=law, exact_train=law, other=law)
    stepped = Exact(Linear(100), FixedSmall(), Ring().law())
    of_steps = case(
        Labelled(stepped), fresh.values[:2], *held, exact_held_out=stepped
    )  # some items leave their bin for the grid

    def found(part: Yardstick, of: EvaluationContext = evaluated):
        return part.run(of, None)

    noise, score, same = found(NoiseError()), found(ScoreError()), found(Agreement())
    record = score.records["held_out"]
    likely, flow = found(ExactLikelihood()), found(FlowLikelihood(tolerance=0.1))
    coarse = found(Objectives(None, simple=Simple()), of_steps)
    difference = flow.metrics["ode_nll"] - flow.metrics["ode_nll_exact"]
    return {
        "simple": Mean(noise.metrics["simple"], noise.records["simple_se"]),
        "score_error": Mean(score.metrics["score_error"], record["score_error_se"]),
        "excess": Mean(score.metrics["excess"], record["excess_se"]),
        "agreement": Mean(same.metrics["agreement"], same.records["se"]),
        "exact_nll": Mean(likely.metrics["exact_nll"], likely.records["se"]),
        "ode_nll": Mean(flow.metrics["ode_nll"], flow.records["se"]),
        "ode_nll - ode_nll_exact": Mean(difference, flow.records["difference_se"]),
        "objective_simple": Mean(coarse.metrics["objective_simple"], coarse.records["simple"]["mean_se"]),
    }


@cache
def of_pixels(seed: int) -> dict[str, Mean]:
    """Images of another contrast each, and a network that takes them for middling ones."""
    draws = seeded(seed)
    contrast = torch.rand(ITEMS, 1, 1, 1, generator=draws) ** 2
    images = to_levels(contrast * torch.randn(ITEMS, 1, 4, 4, generator=draws).sign(), LEVELS)
    denoiser = GaussianOracle(Cosine(1000), FixedSmall(), torch.zeros(1, 4, 4), 0.4, LEVELS)
    none = torch.zeros(ITEMS, dtype=torch.long)
    found = NoiseError().run(case(denoiser, images, images, none), None)
    return {name: Mean(found.metrics[name], found.records[f"{name}_se"]) for name in ("simple", "vlb_common")}


@cache
def of_a_list(seed: int) -> dict[str, Mean]:
    """Other images of one training set, and as many held out, and a network that is off at every other."""
    order = torch.randperm(len(LIST), generator=seeded(seed))
    truth = Exact(narrow(), FixedSmall(), FiniteSet(LIST[order], GROUPS[order]), LEVELS, conditional=True)
    held = to_levels(digits_like(ITEMS, seed=100 + seed, side=4), LEVELS)
    labels = torch.randint(2, (ITEMS,), generator=seeded(seed)) * 4
    network = Labelled(GaussianOracle(truth.schedule, FixedSmall(), torch.zeros(1, 4, 4), 0.6, LEVELS))
    evaluated = case(network, to_levels(LIST[order], LEVELS), held, labels, exact_train=truth)
    score, gap = ScoreError().run(evaluated, None), ExactGap().run(evaluated, None)
    record = score.records["train"]
    return {
        "train/score_error": Mean(score.metrics["train/score_error"], record["score_error_se"]),
        "train/excess": Mean(score.metrics["train/excess"], record["excess_se"]),
        "floor_simple": Mean(record["floor_simple"], record["floor_simple_se"]),
        "exact_gap": Mean(gap.metrics["exact_gap"], gap.records["se"]),
    }


NAMES = [(family, name) for family in (of_points, of_pixels, of_a_list) for name in family(0)]


@pytest.mark.parametrize(("family", "name"), NAMES, ids=[f"{f.__name__}-{name}" for f, name in NAMES])
def test_the_error_told_is_the_scatter_over_fresh_images(family, name):
    """Of 30 numbers the scatter is known to a factor of 0.7 to 1.4; with bins for independent it would be 2 to 4."""
    assert 0.7 < scatter([family(seed)[name] for seed in SEEDS]) < 1.4


def test_the_error_told_covers_the_noise_as_well():
    """Of one image alone, at other places each time: noise is all that scatters."""
    image = from_levels(torch.tensor([[[[3, 8], [12, 5]]]]), LEVELS)
    denoiser = GaussianOracle(VP(), FixedSmall(), torch.zeros(1, 2, 2), 0.6, LEVELS)
    curve = noise_error(denoiser, image.expand(len(SEEDS) * ITEMS, -1, -1, -1), None)
    blocks = [ByBin(each, curve.errors.reached) for each in curve.errors.each.split(ITEMS, 1)]
    assert 0.7 < scatter([block.over(SIMPLE) for block in blocks]) < 1.4


def test_items_that_leave_their_bin_for_the_grid_take_nothing_from_its_error():
    """What each of 24 items adds has the mean of the few that stay, and the error of that mean."""
    fresh, simple = Ring().splits()["test"], Simple()
    law = Exact(Linear(30), FixedSmall(), Ring().law())
    values, labels = fresh.values[:ITEMS], fresh.labels[:ITEMS] % 2 * 4
    evaluated = case(Labelled(law), fresh.values[:2], values, labels, exact_held_out=law)
    row = Column(torch.full((BINS, ITEMS), math.nan, dtype=torch.float64))
    staying = {}
    for bin in range(SIMPLE.start, SIMPLE.stop):
        Objectives(None, simple=simple)._look(evaluated, simple, row, values, labels, bin, torch.zeros(()))
        staying[bin] = int((row.each[bin] != row.value[bin]).sum())
    thinned = {bin: stay for bin, stay in staying.items() if 2 <= stay < ITEMS}
    assert len(thinned) > 5
    for bin, stay in thinned.items():
        assert float(row.each[bin].mean()) == pytest.approx(float(row.value[bin]))
        known = math.sqrt(ITEMS * (stay - 1) / (stay * (ITEMS - 1)))  # both divide by one less than there are
        assert standard_error(row.each[bin]) == pytest.approx(known * float(row.se[bin]))


def test_a_bound_that_stops_at_its_tolerance_scatters_as_it_says():
    """About 24 rounds would do: where it may stop at the first few that scatter little, it scatters 1.29 times that."""
    denoiser = GaussianOracle(VP(), FixedSmall(), torch.zeros(1), 0.5)
    x0 = denoiser.draw(8, seeded(3)).float()
    found = [sampled_bound(denoiser, x0, None, 1.17, seed=seed) for seed in range(100)]
    told = [Mean(bound.total, bound.se) for bound in found]
    assert max(each.se for each in told) <= 1.17
    assert 0.85 < scatter(told) < 1.12


def test_a_decoder_that_counts_is_asked_as_often_as_the_steps_before_a_bound_stops():
    """Two steps under a narrow decoder: nearly all that scatters is the decoder's."""
    denoiser = GaussianOracle(Cosine(2), FixedSmall(), torch.zeros(1), 0.5)
    told = sampled_bound(denoiser, denoiser.draw(8, seeded(3)).float(), None, 1e9)
    assert told.evaluations == 8 * (32 + 32)


def test_the_excess_on_pixels_is_what_the_common_bounds_integral_has_above_the_floor():
    """Both cut x^_0, which a network that is far off sends out of [-1, 1]; the curve of the score error does not."""
    truth = Exact(Cosine(1000), FixedSmall(), FiniteSet(LIST[:40]), LEVELS)
    far = GaussianOracle(Cosine(1000), FixedSmall(), torch.full((1, 4, 4), 1.5), 1.5, LEVELS)
    evaluated = case(
        far, to_levels(LIST[:40], LEVELS), to_levels(LIST[40:80], LEVELS), GROUPS[40:80], exact_train=truth
    )
    found = ScoreError().run(evaluated, None)
    x0, labels = ScoreError().training_items(evaluated)
    above = integral(noise_error(far, x0, labels).cut.each)
    seen = score_against(far, truth, x0, labels)
    floor = 0.3 * seen.floor.each[COMMON].sum(0) / math.log(2)
    uncut = 0.3 * float(seen.error.each[COMMON].sum(0).mean()) / math.log(2)
    gap = above - floor
    assert abs(float(gap.mean()) - found.metrics["train/excess"]) < 4 * float(gap.std()) / math.sqrt(40)
    assert abs(uncut - float(gap.mean())) > 8 * float(gap.std()) / math.sqrt(40)
    assert found.metrics["train/score_error"] == pytest.approx(float(seen.error.each[SIMPLE].mean()), rel=1e-9)
    told, curve = (
        NoiseError().run(evaluated, None).records["vlb_common_se"],
        noise_error(far, *evaluated.held_out_data()),
    )
    cut, whole = (standard_error(integral(each.each)) for each in (curve.cut, curve.errors))
    assert told == pytest.approx(cut, rel=0.01) and whole > 1.03 * cut, "the bound's ends hardly scatter"


def test_one_set_of_perfect_samples_differs_from_the_next_by_the_spread_told_beside_the_floor():
    held = Ring().splits()["test"]
    law = Exact(VP(), FixedSmall(), Ring().law())
    evaluated = case(law, held.values[:80], held.values[80:160], held.labels[:80], exact_held_out=law, exact_train=law)
    found = Distances(floors=30).run(evaluated, None)
    perfect = [law.law.draw(80, seeded(seed)).x0.float() for seed in SEEDS]
    measured = [
        [energy_distance(each, evaluated.held_out) for each in perfect],
        [sliced_wasserstein(each, evaluated.held_out, generator("directions")) for each in perfect],
    ]
    spread = torch.tensor(found.records["floor_spread"])
    ratio = torch.tensor(measured).std(1) / spread
    assert (ratio > 0.6).all() and (ratio < 1.6).all()
    assert found.records["floor_se"] == pytest.approx((spread / math.sqrt(30)).tolist(), rel=1e-6)
