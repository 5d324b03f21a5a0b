"""What a figure in bits/dim is of: its lattice, its dequantisation, its decoder, checked against its numbers."""

import json
import math

import pytest
import torch
from conftest import choose, each
from exact_cases import GaussianOracle, Watched, normal, seeded
from torch import Tensor

from scorelab.data.synthetic import Moons
from scorelab.denoisers import Exact, FixedSmall
from scorelab.evaluation import (
    EvaluationContext,
    EvaluationSettings,
    ExactLikelihood,
    FlowLikelihood,
    HeldOutBound,
    NoiseError,
    ScoreError,
    Yardstick,
    expected_cost,
    run_yardsticks,
)
from scorelab.evaluation.curves import Mean, standard_error
from scorelab.evaluation.results import forecast
from scorelab.laws import FiniteSet
from scorelab.likelihood import bound_figure, decoder_nll, lattice, level_decoder_nll, repeated
from scorelab.losses import Simple, Uniform
from scorelab.report.table import table
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Linear
from scorelab.tensors import from_levels, to_levels

SHAPE = (1, 4, 4)
KEYS = {"of", "lattice", "dequantisation", "decoder", "decoder_std"}
FIGURES = {"vlb": HeldOutBound, "ode_nll": lambda: FlowLikelihood(items=4, tolerance=1e-2)}


def oracle(levels: int | None, schedule=None, variance=None) -> GaussianOracle:
    chosen = schedule or Cosine(1000)
    return GaussianOracle(chosen, variance or FixedSmall(), 0.3 * normal(*SHAPE, seed=1), 0.4, levels)


def case(denoiser, held_out: Tensor | None = None, law: Exact | None = None, **more) -> EvaluationContext:
    if held_out is None:
        drawn = 0.3 * normal(20, *SHAPE, seed=2)
        held_out = drawn.float() if denoiser.levels is None else to_levels(drawn, denoiser.levels)
    labels = torch.zeros(len(held_out), dtype=torch.long)
    split = (held_out, labels, held_out, labels)
    settings = EvaluationSettings(tolerance=0.1)
    return EvaluationContext(
        denoiser, DDIM(2), settings, *split, None, Simple(), Uniform(), exact_held_out=law, exact_train=law, **more
    )


def told(part: Yardstick, context: EvaluationContext) -> dict:
    return part.run(context, None).records


# --- what is told


@pytest.mark.parametrize("levels", [17, 256, None])
@pytest.mark.parametrize("schedule", [Cosine(40), VP()], ids=["grid", "continuous"])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_in_bits_tells_its_lattice_dequantisation_and_decoder_in_plain_values(name, schedule, levels):
    record = told(FIGURES[name](), case(oracle(levels, schedule)))
    assert record.keys() >= KEYS and json.loads(json.dumps(record)).keys() == record.keys()
    if levels is None:
        assert (
            record["lattice"].startswith("none")
            and "of a density" in record["of"]
            and "data's own units" in record["of"]
        )
        assert "levels" not in record["decoder"] and record["dequantisation"] == "none"
    else:
        assert record["lattice"] == f"{levels} levels 2/{levels - 1} apart on [-1, 1]"
        assert "P(x_0) / d of levels, at most" in record["of"] and "levels" in record["decoder"]


def test_the_common_bound_tells_the_same_beside_the_curve_and_only_where_there_are_levels():
    record = told(NoiseError(), case(oracle(17)))["vlb_common"]
    assert record.keys() == KEYS and record["lattice"].startswith("17 levels")
    assert record["decoder_std"] == pytest.approx([math.exp(-4.5)] * 2, rel=1e-5)
    assert "vlb_common" not in told(NoiseError(), case(oracle(None)))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_lattice_is_where_the_levels_lie(levels):
    points = from_levels(torch.arange(levels), levels)
    count, rest = lattice(levels).split(" levels ")
    above, below = rest.split(" apart on ")[0].split("/")
    assert int(count) == len(points) and rest.endswith("[-1, 1]") and points.aminmax() == (-1.0, 1.0)
    assert points.diff().tolist() == pytest.approx([int(above) / int(below)] * (levels - 1), abs=1e-6)


def test_of_a_known_law_the_density_is_told_as_one_and_shown_as_one():
    law = Exact(VP(), FixedSmall(), Moons().law())
    context = case(law, Moons().drawn(30, "held out").values, law)
    parts = {"vlb": HeldOutBound(), "exact_nll": ExactLikelihood(), "ode_nll": FIGURES["ode_nll"]()}
    results = run_yardsticks(parts, context, lambda line: None)
    for name in parts:
        assert "of a density" in results.records[name]["of"] and results.records[name]["lattice"].startswith("none")
    shown = table(results.metrics, results.records)
    assert "bound of a density" in shown and "bound, bits/dim" not in shown
    assert all("in the data's units" in line for line in shown.splitlines())


def test_of_levels_the_tables_words_are_what_they_were():
    results = run_yardsticks({"vlb": HeldOutBound()}, case(oracle(17)), lambda line: None)
    (line,) = table(results.metrics, results.records).splitlines()
    assert line.startswith("  bound, bits/dim ") and line.endswith(f"{results.metrics['test/vlb_decoder']:.3f}")


# --- the decoder's words against its numbers


def probabilities(denoiser: GaussianOracle, levels: int) -> Tensor:
    """What the decoder of a grid gives each level of one pixel, from one estimate at t_1."""
    x = torch.full((levels, 1, 1, 1), 0.11, dtype=torch.float64)
    t = torch.full((levels,), 1 / denoiser.schedule.num_steps, dtype=torch.float64)
    estimate = denoiser(x, t)
    each = from_levels(torch.arange(levels), levels).double().reshape(-1, 1, 1, 1)
    return torch.exp(-decoder_nll(denoiser, estimate, each))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_decoder_of_a_grid_is_a_law_over_the_levels(levels):
    one = GaussianOracle(Linear(30), FixedSmall(), torch.zeros(1, 1, 1), torch.tensor(0.4), levels)
    assert float(probabilities(one, levels).sum()) == pytest.approx(1, abs=1e-6)


def test_the_decoder_of_an_integral_is_a_law_over_the_levels():
    """Each level in turn, with the noise that makes one and the same x_t of it."""
    points = from_levels(torch.arange(17), 17).double().reshape(-1, 1)
    log_snr = torch.full((17,), 5.0, dtype=torch.float64)
    eps = math.exp(2.5) * (0.2 - points)  # x_t / alpha = 0.2
    assert float(torch.exp(-level_decoder_nll(log_snr, points, eps, 17)).sum()) == pytest.approx(1)


@each("variance")
@pytest.mark.parametrize("levels", [17, None])
def test_the_told_width_of_a_grids_decoder_is_the_one_it_computes_with(variance, levels):
    """By the density at the mean of a point's Gaussian, or the mass of the bin about it; of learned ones both ends."""
    denoiser = oracle(levels, Linear(30), choose("variance", variance))
    figure = bound_figure(denoiser, torch.zeros(3, *SHAPE))
    if not denoiser.variance.bounded:
        assert figure.decoder_std is None and "what the network says" in figure.decoder
        return
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    found = []
    for fraction in (0.0, 1.0):
        estimate = denoiser.noised(x, torch.full((1,), 1 / 30).double(), x)
        object.__setattr__(estimate, "variance_fraction", x + fraction)
        nats = float(decoder_nll(denoiser, estimate, x)) / 16
        if levels is None:
            found.append(math.exp(nats) / math.sqrt(2 * math.pi))
        else:
            found.append((1 / 16) / (math.sqrt(2) * float(torch.erfinv(torch.tensor(math.exp(-nats)).double()))))
    assert figure.decoder_std == pytest.approx(found, rel=1e-4)
    assert ("between" in figure.decoder) is (found[0] != pytest.approx(found[1], rel=1e-3))


@pytest.mark.parametrize(("levels", "word"), [(17, "s^2 = beta~_2"), (None, "s^2 = sigma^2_{1|0}")])
def test_a_fixed_variance_is_named_by_which_of_the_process_it_is(levels, word):
    schedule = Linear(30)
    figure = bound_figure(oracle(levels, schedule), torch.zeros(1, *SHAPE))
    zero, one, two = (torch.tensor([k / 30], dtype=torch.float64) for k in range(3))
    variance = schedule.transition(one, two).posterior_variance
    if levels is None:
        variance = schedule.transition(zero, one).forward_variance
    assert word in figure.decoder and figure.decoder_std == pytest.approx([float(variance) ** 0.5] * 2)


@pytest.mark.parametrize("schedule", [Cosine(None), VP()])
def test_a_continuous_decoder_stands_where_the_integral_ends(schedule):
    figure = bound_figure(oracle(17, schedule), torch.zeros(1, *SHAPE))
    assert "softmax" in figure.decoder
    assert figure.decoder_std == pytest.approx([math.exp(-schedule.log_snr_range()[1] / 2)] * 2)


# --- the dequantisation's words against what is drawn


@pytest.mark.parametrize("levels", [17, 256])
def test_the_noise_that_the_flows_likelihood_tells_of_is_the_noise_it_adds(levels):
    """What the network is shown first is the data and that noise, a quarter of the spacing: none of it is uniform."""
    watched, seen = Watched(oracle(levels, VP())), []
    watched.register_forward_pre_hook(lambda _, given: seen.append((given[0].detach().clone(), given[1].clone())))
    context = case(watched)
    record = told(FlowLikelihood(items=20, tolerance=1e-2), context)
    x, t = seen[0]
    added = x.double() / watched.schedule.alpha(t).reshape(-1, 1, 1, 1) - context.held_out_data()[0]
    (std, _) = record["decoder_std"]
    assert float(added.std()) == pytest.approx(std, rel=0.15)
    assert std == pytest.approx(2 / (levels - 1) / 4, rel=1e-4)
    assert f"Gaussian noise of {std:.4g} = 0.25 of the spacing" in record["dequantisation"]


# --- where it means nothing


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("levels kept as floats", from_levels(to_levels(0.3 * normal(40, *SHAPE, seed=2), 256), 256)),
        ("black borders", torch.nn.functional.pad(0.3 * normal(40, 1, 3, 4, seed=2), (0, 0, 1, 0))),
        ("every item twice", (0.3 * normal(20, *SHAPE, seed=2)).repeat(2, 1, 1, 1)),
        ("cut at a bound", normal(40, *SHAPE, seed=2).clamp(-1, 1)),
    ],
)
@pytest.mark.parametrize("part", FIGURES)
def test_floats_without_a_density_have_no_bits_and_one_line_says_why(part, name, held_out):
    lines: list[str] = []
    context = case(oracle(None), held_out.float())
    results = run_yardsticks({part: FIGURES[part](), "simple": NoiseError()}, context, lines.append)
    assert not [key for key in results.metrics if part in key] and results.metrics["test/simple"] > 0
    (said,) = [line for line in lines if "does not apply" in line]
    assert "have no density" in said and "uint8" in said and results.records[part]["inapplicable"] in said


@pytest.mark.parametrize(
    "values",
    [
        lambda n: torch.rand(n, 3, generator=seeded()),
        lambda n: normal(n, 64, seed=1).float(),
        lambda n: 1 + 0.01 * normal(n, 2, seed=1).float(),
        lambda n: Moons().drawn(n, "held out").values,
    ],
)
@pytest.mark.parametrize("n", [2, 5000])
def test_draws_of_a_density_hardly_repeat_a_number(values, n):
    assert repeated(values(n)) < 0.02


def test_the_share_of_repeated_numbers_is_counted():
    assert repeated(torch.tensor([[1.0, 2.0], [3.0, 1.0]])) == 0.5
    assert repeated(torch.tensor([[1.0]])) == 0.0
    assert repeated(torch.arange(4.0).repeat(2500).reshape(100, 100)) == 1.0


def test_a_known_law_without_a_density_has_no_bound_either():
    law = Exact(Cosine(40), FixedSmall(), FiniteSet(normal(5, *SHAPE, seed=3).float()))
    assert "no density" in HeldOutBound().inapplicable(case(oracle(None), law=law))
    assert HeldOutBound().inapplicable(case(oracle(17), law=law)) is None


# --- what they cost


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (None, "vlb may take more, without a limit"),
        (10**6, "vlb may take more, all together at most 1,000,000"),
        (9, ""),
    ],
)
def test_a_bound_that_goes_on_until_its_error_is_small_says_beforehand_how_far(budget, told):
    context = case(oracle(17))
    context.settings = EvaluationSettings(budget=budget)
    parts = {"simple": NoiseError(), "vlb": HeldOutBound()}
    cost = expected_cost(parts, context)
    said = forecast(cost, budget)
    assert said.startswith("evaluating: at least ") and (told in said if told else "may take more" not in said)
    assert cost.most_seconds >= cost.seconds and (cost.most is None) is (budget is None)
    context.settings = EvaluationSettings(budget=budget, bound="exact")
    fixed = expected_cost(parts, context)
    assert "may take more" not in forecast(fixed, budget) and fixed.most == fixed.evaluations


# --- one item


def test_one_item_has_a_mean_and_no_standard_error():
    """No number rather than one that is none: records are JSON, where NaN is no word."""
    assert standard_error(torch.tensor([3.0])) is None
    assert standard_error(torch.tensor([1.0, 3.0])) == pytest.approx(1.0)
    assert Mean(2.0, None).scaled(lambda mean: 3 * mean) == Mean(6.0, None)
    record = told(NoiseError(), case(oracle(17), torch.zeros(1, *SHAPE, dtype=torch.uint8)))
    assert record["simple_se"] is None and record["vlb_common_se"] is None
    json.dumps(record, allow_nan=False)
    law = Exact(VP(), FixedSmall(), Moons().law())
    one = case(law, Moons().drawn(1, "held out").values, law)
    assert told(ExactLikelihood(), one)["se"] is None
    record = told(ScoreError(), one)
    json.dumps(record, allow_nan=False)
