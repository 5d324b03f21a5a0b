"""A run against the true score: its error, its cost in bits, all objectives on one axis, where samples go wrong."""

import math

import pytest
import torch
from exact_cases import Exploding, Offset, Watched, losses_of, normal, seeded, shaken
from torch import Tensor

from scorelab.config.build import exact_denoiser as of_law
from scorelab.data.images import Digits
from scorelab.data.module import DataModule
from scorelab.data.synthetic import Checkerboard, DigitsGaussians, Gaussian, Moons, Ring
from scorelab.denoisers import BestLinear, Denoiser, Estimate, Exact, FixedSmall, Learned, NetworkDenoiser, V
from scorelab.evaluation import (
    Agreement,
    ErrorBudget,
    EvaluationContext,
    EvaluationSettings,
    ExactGap,
    ExactLikelihood,
    Memorization,
    NoiseError,
    Objectives,
    ScoreError,
    run_yardsticks,
)
from scorelab.evaluation.base import draw_samples
from scorelab.evaluation.budget import copied
from scorelab.evaluation.curves import bins_in_range, yardstick_draws
from scorelab.evaluation.noise_error import noise_error
from scorelab.evaluation.score import Score, score_against
from scorelab.log_snr import COMMON, SIMPLE
from scorelab.losses import DSM, ESM, ISM, SSM, Likelihood, Simple, Uniform, VariationalBound, weight_card
from scorelab.metrics.features import Coordinates
from scorelab.metrics.fidelity import frechet, frechet_floor
from scorelab.networks import MLP
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Linear
from scorelab.tensors import from_levels

SCHEDULES = {"vp": VP, "cosine": lambda: Cosine(1000), "exploding": Exploding}
each_schedule = pytest.mark.parametrize("named", SCHEDULES)


class Labelled(Denoiser):
    """Another denoiser whose noise is off by a tenth of the label."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule, inner.variance, inner.levels)
        self.inner = inner

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Estimate:
        said = self.inner(x_t, t, label)
        off = 0.1 * label.reshape(-1, *[1] * (x_t.dim() - 1))
        return Estimate.from_eps(x_t, said.alpha, said.sigma, said.eps + off)


def exact(source, schedule=None, conditional: bool = False) -> Exact:
    return Exact(schedule or VP(), FixedSmall(), source.law(), None, conditional)


def some_network(schedule=None) -> NetworkDenoiser:
    """A smooth function of (x_t, t) that knows nothing of any law, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = shaken(MLP((2,), width=16, blocks=1)).requires_grad_(False)
    return NetworkDenoiser(schedule or VP(), network, V(), FixedSmall())


def case(denoiser: Denoiser, data: DataModule, held: int = 200, conditional: bool = False, **more) -> EvaluationContext:
    """What is evaluated of a run on these data, as runs make it."""
    train, test = data.splits["train"], data.splits["test"]
    truth, law = (of_law(each, denoiser, conditional) for each in (data.training_law(), data.law()))
    given = {
        "denoiser": denoiser,
        "sampler": DDIM(4),
        "settings": EvaluationSettings(chunk=64),
        "train": train.values,
        "train_labels": train.labels,
        "held_out": test.values[:held],
        "labels": test.labels[:held],
        "extractor": Coordinates(math.prod(data.shape)),
        "loss": Simple(),
        "timesteps": Uniform(),
        "exact_train": law if data.endless else truth,
        "exact_held_out": law,
        "mirrored": data.flip,
        "conditional": conditional,
        "chance": data.chance,
    }
    return EvaluationContext(**given | more)


def memory(data: DataModule, schedule=None) -> Exact:
    """The exact denoiser of a training set."""
    return Exact(schedule or Cosine(1000), FixedSmall(), data.training_law(), data.levels)


def standard_error(each: Tensor) -> float:
    return float(each.std()) / math.sqrt(len(each))


# --- the error of the score


@each_schedule
def test_the_noise_error_of_any_network_is_its_score_error_and_a_floor_that_is_the_laws_in_every_bin(named):
    """E||eps^ - eps||^2 = E||eps^ - eps*||^2 + S E tr Var(x_0 | x_t)."""
    denoiser, source = some_network(SCHEDULES[named]()), Ring()
    x0 = source.splits()["test"].values[:1000]
    oracle = exact(source, denoiser.schedule)
    gaps, reached = [], bins_in_range(denoiser)
    found, noise = score_against(denoiser, oracle, x0, None), noise_error(denoiser, x0, None)
    assert torch.equal(found.noise.each[reached], noise.errors.each[reached]), "the yardstick's own noise"
    for bin in reached:
        gap = found.noise.each[bin] - found.error.each[bin] - found.floor.each[bin]
        assert len(gap) == len(x0) and gap.dtype == torch.float64
        assert abs(float(gap.mean())) < 5 * standard_error(gap) + 1e-6, bin
        gaps.append(gap)
    assert len(reached) > 30
    over = torch.stack(gaps[reached.index(SIMPLE.start) : reached.index(SIMPLE.stop)])
    se = standard_error(over.mean(0))
    assert abs(float(over.mean())) < 5 * se
    whole = case(denoiser, DataModule(source), held=len(x0))
    told, record = NoiseError().run(whole, None).metrics["simple"], ScoreError().run(whole, None)
    floor = record.records["held_out"]["floor_simple"]
    assert abs(told - floor - record.metrics["score_error"]) < 5 * se + 1e-4
    assert floor > 30 * se and record.metrics["score_error"] > 30 * se, "both are seen"


@each_schedule
def test_the_floor_of_a_gaussian_is_its_posterior_variance_in_units_of_the_noise(named):
    """mean_i alpha^2 v_i / (alpha^2 v_i + sigma^2) = mean_i v_i S / (v_i S + 1), v the eigenvalues."""
    source = Gaussian()
    oracle = exact(source, SCHEDULES[named]())
    found = ScoreError().run(case(oracle, DataModule(source), held=1000), None).records["held_out"]
    variances = torch.linalg.eigvalsh(source.covariance)
    for bin in bins_in_range(oracle):
        snr = torch.exp(-12 + 0.6 * (bin + torch.linspace(0, 1, 101, dtype=torch.float64)))[:, None]
        by_place = (variances * snr / (variances * snr + 1)).mean(1)
        se = float(by_place.std()) / math.sqrt(1000)
        assert found["floor"][bin] == pytest.approx(float(by_place.mean()), abs=6 * se + 1e-5)
    assert found["floor_simple"] == pytest.approx(sum(found["floor"][SIMPLE]) / 19, rel=1e-4)


@pytest.mark.parametrize(
    "source", [Gaussian(), Moons(), Checkerboard(), DigitsGaussians()], ids=lambda s: type(s).__name__
)
def test_a_network_that_is_the_oracle_has_no_error(source):
    found = ScoreError().run(case(exact(source, Cosine(1000)), DataModule(source), held=20), None)
    assert set(found.metrics) == {"score_error", "excess", "score_error_linear"}
    assert max(found.metrics["score_error"], found.metrics["excess"]) < 1e-8
    assert (found.metrics["score_error_linear"] < 1e-8) is isinstance(source, Gaussian), "no other law is linear"
    assert found.records["held_out"]["floor_simple"] > 0.01


@each_schedule
def test_an_offset_of_the_noise_costs_its_square_and_half_its_integral_in_bits(named):
    source = Ring()
    found = ScoreError().run(case(Offset(exact(source, SCHEDULES[named]()), 0.3), DataModule(source), 30), None)
    assert found.metrics["score_error"] == pytest.approx(0.09, rel=1e-4)
    assert found.metrics["excess"] == pytest.approx(0.09 * (9.0 + 4.8) / (2 * math.log(2)), rel=1e-4)


def test_the_excess_is_half_the_integral_of_the_curve_over_ln_2_and_the_number_its_mean():
    denoiser = some_network()
    found = ScoreError().run(case(denoiser, DataModule(Ring())), None)
    record = found.records["held_out"]
    inside = [e for e, at in zip(record["error"], record["log_snr"], strict=True) if -4.8 < at < 9.0]
    assert len(inside) == 23
    assert found.metrics["excess"] == pytest.approx(0.5 * sum(inside) * 0.6 / math.log(2), rel=1e-4)
    inside = [e for e, at in zip(record["error"], record["log_snr"], strict=True) if -4.8 < at < 6.6]
    assert found.metrics["score_error"] == pytest.approx(sum(inside) / 19, rel=1e-4)
    x0 = Ring().splits()["test"].values[:200]
    error = score_against(denoiser, exact(Ring()), x0, None).error.each
    each = error[COMMON]
    assert record["score_error_se"] == pytest.approx(standard_error(each[:19].mean(0)), rel=1e-9)
    assert record["excess_se"] == pytest.approx(standard_error(each.sum(0)) * 0.3 / math.log(2), rel=1e-9)
    for bin in (12, 20, 34):
        assert record["error"][bin] == pytest.approx(float(error[bin].mean()), rel=1e-4)
        assert record["se"][bin] == pytest.approx(standard_error(error[bin]), rel=1e-4)


def test_the_excess_is_what_the_bound_loses_to_the_score():
    """Of the diffusion part, the integral of the noise error: that of the network less that of the oracle."""
    source, items = Gaussian(), 1500
    worse = Offset(exact(source), 0.2)
    data = DataModule(source)
    excess = ScoreError().run(case(worse, data, items), None).metrics["excess"]
    found = [noise_error(each, data.splits["test"].values, None).errors.each[COMMON] for each in (worse, exact(source))]
    lost = 0.6 / (2 * math.log(2)) * (found[0] - found[1]).sum(0)
    assert abs(float(lost.mean()) - excess) < 5 * standard_error(lost)
    assert excess > 20 * standard_error(lost)


class EndsEarly(VP):
    """Trained to less than a common bound asks for."""

    log_snr_ends = (-20.0, 7.0)


def test_what_the_schedule_does_not_reach_is_missing_and_said_so():
    source = Ring()
    found = ScoreError().run(case(exact(source, Linear(30)), DataModule(source), 20), None)
    assert found.metrics == dict.fromkeys(("score_error", "excess", "score_error_linear"))
    assert "does not contain [-4.8, 6.6]" in found.records["missing"]
    record = found.records["held_out"]
    assert record["floor_simple"] is None and not [key for key in record if key.endswith("_se")]
    assert record["error"][30] is None and record["error"][10] is not None
    part = ScoreError().run(case(exact(source, EndsEarly()), DataModule(source), 20), None)
    assert part.metrics["score_error"] < 1e-8 and part.metrics["excess"] is None, "to 6.6, not to 9"
    assert "missing" in part.records


def test_names_tell_which_law_x_t_follows_and_there_is_no_other():
    endless, listed, real = DataModule(Moons()), DataModule(Moons(), limit=40), DataModule(Digits(), limit=60)
    of_test, of_train = {"score_error", "excess", "score_error_linear"}, {"train/score_error", "train/excess"}
    for data, names, records in (
        (endless, of_test, {"held_out"}),
        (listed, of_test | of_train, {"held_out", "train"}),
        (real, of_train, {"train"}),
    ):
        denoiser = memory(data)
        found = ScoreError().run(case(denoiser, data, 20), None)
        assert set(found.metrics) == names and set(found.records) == records
        assert set(found.metrics) <= set(ScoreError.names)
    results = run_yardsticks({"score": ScoreError()}, case(memory(listed), listed, 20), lambda line: None)
    assert set(results.metrics) == {f"test/{name}" for name in of_test} | of_train
    assert ScoreError().inapplicable(case(memory(real), real, 20, exact_train=None)) == "this data has no exact score"


def test_beside_it_stands_the_error_of_the_best_linear_denoiser_of_the_law_at_the_same_noise():
    source = Ring()
    linear = BestLinear(VP(), FixedSmall(), source.law())
    of_network, of_itself = (
        ScoreError().run(case(each, DataModule(source), 60), None) for each in (some_network(), linear)
    )
    assert of_network.metrics["score_error_linear"] == of_itself.metrics["score_error"] > 0.05
    simple = noise_error(linear, DataModule(source).splits["test"].values[:60], None).errors.mean
    assert of_network.records["held_out"]["linear"][20] == pytest.approx(float(simple[20]), rel=1e-4)


def test_the_list_is_known_by_heart_and_the_law_is_not():
    """The exact denoiser of a training set has no error on it, and one on fresh draws; that of the law the reverse."""
    data = DataModule(Moons(), limit=40)
    by_heart = ScoreError().run(case(memory(data), data), None).metrics
    wise = ScoreError().run(case(exact(Moons(), Cosine(1000)), data), None).metrics
    assert by_heart["train/score_error"] < 1e-8 < 0.05 < by_heart["score_error"]
    assert wise["score_error"] < 1e-8 < 0.01 < wise["train/score_error"]
    assert wise["train/excess"] > 0.05


@pytest.mark.parametrize("flip", [False, True])
def test_training_items_are_drawn_as_training_draws_them_each_once_mirror_images_among_them(flip):
    data = DataModule(Digits(), limit=60, flip=flip)
    evaluated = case(memory(data), data, 50)
    x0, labels = ScoreError().training_items(evaluated)
    assert len(x0) == ScoreError().items(evaluated) == 50 and x0.dtype == torch.float32
    train = data.splits["train"]
    values = torch.cat([train.values, train.values.flip(3)]) if flip else train.values
    row_of = {tuple(row): k for k, row in enumerate(from_levels(values, 17).flatten(1).tolist())}
    rows = torch.tensor([row_of[tuple(row)] for row in x0.flatten(1).tolist()])
    assert len(rows.unique()) == 50
    assert bool((rows >= 60).any()) is flip and (rows < 60).any()
    assert torch.equal(labels, train.labels[rows % 60])
    assert ScoreError().items(case(memory(data), data, 180)) == 60, "as many as are held out, or as there are"
    assert ScoreError().run(evaluated, None).metrics["train/score_error"] < 1e-8


def test_labels_reach_the_network_and_the_truth_that_knows_them():
    data = DataModule(Ring(), limit=80)
    told = exact(Ring(), Cosine(1000), conditional=True)
    knowing = ScoreError().run(case(told, data, 40, conditional=True), None).metrics
    assert knowing["score_error"] < 1e-8
    assert ScoreError().run(case(told, data, 40), None).metrics["score_error"] > 1e-3
    found = ScoreError().run(case(Labelled(exact(Ring(), Cosine(1000))), data, 40), None)
    labels = data.splits["test"].labels[:40]
    assert found.metrics["score_error"] == pytest.approx(float((0.1 * labels).square().mean()), rel=1e-3)
    of_list = Labelled(memory(data))
    labels = ScoreError().training_items(case(of_list, data, 40))[1]
    found = ScoreError().run(case(of_list, data, 40), None)
    assert found.metrics["train/score_error"] == pytest.approx(float((0.1 * labels).square().mean()), rel=1e-3)


@pytest.mark.parametrize("limit", [None, 30])
def test_the_score_error_costs_what_it_says(limit):
    data = DataModule(Moons(), limit=limit)
    watched = Watched(exact(Moons()))
    evaluated = case(watched, data, 40)
    said = ScoreError().cost(evaluated)
    found = ScoreError().run(evaluated, None)
    assert watched.images == said == found.evaluations == len(bins_in_range(watched)) * (40 + (limit or 0))


def test_errors_do_not_depend_on_the_chunk():
    x0, oracle = Moons().splits()["test"].values[:50], exact(Moons())
    whole, cut = (score_against(some_network(), oracle, x0, None, chunk, [20]) for chunk in (256, 7))
    for name in Score.__dataclass_fields__:
        assert torch.allclose(getattr(whole, name).each[20], getattr(cut, name).each[20], rtol=1e-4, atol=1e-7)


# --- the exact likelihood


def test_the_exact_likelihood_of_a_gaussian_is_its_entropy_and_what_torch_says():
    source = Gaussian()
    evaluated = case(exact(source), DataModule(source), 1500)
    found = ExactLikelihood().run(evaluated, None)
    law = torch.distributions.MultivariateNormal(source.mean, source.covariance)
    bits = -law.log_prob(evaluated.held_out.double()) / (2 * math.log(2))
    assert found.metrics["exact_nll"] == pytest.approx(float(bits.mean()), rel=1e-9)
    assert found.records["se"] == pytest.approx(standard_error(bits), rel=1e-9)
    entropy = float(law.entropy()) / (2 * math.log(2))
    assert abs(found.metrics["exact_nll"] - entropy) < 5 * found.records["se"]
    assert found.evaluations == ExactLikelihood().cost(evaluated) == 0


def test_the_exact_likelihood_of_a_checkerboard_is_half_a_bit_per_dimension():
    """Half of the board's area of 4."""
    source = Checkerboard()
    found = ExactLikelihood().run(case(exact(source), DataModule(source)), None)
    assert found.metrics["exact_nll"] == pytest.approx(0.5, rel=1e-9) and found.records["se"] < 1e-9


def test_labels_are_told_to_the_likelihood_only_where_the_denoiser_is_conditional():
    """Eight components far apart: the label is worth three bits."""
    source = Ring(std=0.02)
    blind, knowing = (
        ExactLikelihood().run(case(exact(source), DataModule(source), 300, conditional=told), None).metrics["exact_nll"]
        for told in (False, True)
    )
    assert blind - knowing == pytest.approx(3 / 2, abs=1e-3)


def test_without_a_density_there_is_no_likelihood():
    data = DataModule(Digits(), limit=60)
    assert ExactLikelihood().inapplicable(case(memory(data), data)) == "the law of this data is not known"
    assert (
        ExactLikelihood().inapplicable(case(memory(data), data, exact_held_out=memory(data)))
        == "its law has no density"
    )
    with pytest.raises(ValueError, match="FiniteSet has no density"):
        data.training_law().log_prob(torch.zeros(1, 64))


def test_endless_draws_have_no_list_to_be_measured_against():
    data = DataModule(Moons())
    evaluated = case(exact(Moons()), data, 20)
    assert not evaluated.finite and case(exact(Moons()), DataModule(Moons(), limit=9)).finite
    for part in (ExactGap(), Memorization()):
        assert "training draws are endless" in part.inapplicable(evaluated)


def test_mirror_images_are_known_images_too():
    """A sample that is a training image mirrored is a copy only where training mirrors."""
    data = DataModule(Digits(), limit=60, flip=True)
    copies = data.splits["train"].values.flip(3)
    for mirrored in (True, False):
        evaluated = case(memory(data), data, 20, mirrored=mirrored)
        evaluated.sample_sets = [copies[:20]]
        found = Memorization().run(evaluated, None).metrics
        assert (found["memorization"] > 0.9) if mirrored else (found["memorization"] < 0.3)


# --- every objective on one axis

LOSSES = {
    "simple": Simple(),
    "x0": Simple("x0"),
    "dsm": DSM(),
    "likelihood": Likelihood(),
    "vlb": VariationalBound(),
    "esm": ESM(),
    "esm_one": ESM("one"),
    "ism": ISM(),
    "ssm": SSM(slices="gaussian", reduced=False),
}


@pytest.mark.parametrize(("named", "known"), [("vp", False), ("cosine", True), ("exploding", False)])
def test_all_objectives_tell_one_curve_of_the_noise_error(named, known):
    """Of a network that knows nothing, and of one that is off by a tenth."""
    source, schedule = Ring(), SCHEDULES[named]()
    denoiser = Offset(exact(source, schedule), 0.1) if known else some_network(schedule)
    data = DataModule(source)
    found = Objectives(200, **LOSSES).run(case(denoiser, data, 200), None)
    assert found.records["refused"] == {} and found.records["items"] == 200
    x0 = data.splits["test"].values[:200]
    bins = [bin for bin in bins_in_range(denoiser)[1:-1] if found.records["ism"]["value"][bin] is not None]
    assert len(bins) > 25 and (schedule.num_steps or len(bins) == len(bins_in_range(denoiser)) - 2)
    errors = noise_error(denoiser, x0, None).errors.each
    for bin in bins:
        noise = errors[bin]
        for name in LOSSES:
            row = found.records[name]
            told, se = row["noise_error"][bin], row["se"][bin]
            if name in ("simple", "x0", "dsm", "likelihood", "vlb") and schedule.num_steps is None:
                assert told == pytest.approx(float(noise.mean()), rel=2e-3), (name, bin)
            else:
                assert abs(told - float(noise.mean())) < 5 * (se + standard_error(noise)) + 1e-3, (name, bin)
    for name, constant in (("ism", 1.0), ("ssm", 1.0), ("simple", 0.0), ("dsm", 0.0)):
        for value, implied in zip(found.records[name]["value"], found.records[name]["noise_error"], strict=True):
            assert value is None or implied == pytest.approx(value + constant, rel=1e-4, abs=1e-5)
    true, row = ScoreError().run(case(denoiser, data, 200), None).records["held_out"], found.records["esm"]
    for bin in bins:
        assert row["noise_error"][bin] - row["value"][bin] == pytest.approx(true["floor"][bin], abs=2e-5)
        if schedule.num_steps is None:
            assert row["value"][bin] == pytest.approx(true["error"][bin], rel=1e-2, abs=1e-5)


class Late(Uniform):
    """A law of times that is part of the objective: more noise, more often."""

    def density(self, schedule, t: Tensor) -> Tensor:
        return 2 * t.double()


@pytest.mark.parametrize("times", [Uniform(), Late()])
@pytest.mark.parametrize("named", ["vp", "cosine"])
def test_the_number_weighs_the_row_by_the_objectives_own_card_at_uniform_times_whatever_the_runs(named, times):
    denoiser = some_network(SCHEDULES[named]())
    evaluated = case(denoiser, DataModule(Ring()), 64, timesteps=times)
    part = Objectives(64, simple=Simple(), dsm=DSM(), vlb=VariationalBound())
    found = part.run(evaluated, None)
    assert set(found.metrics) == set(part.names) == {"objective_simple", "objective_dsm", "objective_vlb"}
    for name, loss in part.losses.items():
        card = weight_card(denoiser, loss, Uniform())
        total = mass_told = 0.0
        values = found.records[name]["value"]
        for at, mass in zip(card.log_snr.tolist(), card.mass.tolist(), strict=True):
            bin = math.floor((at + 12) / 0.6)
            if 0 <= bin < 40 and not math.isnan(mass) and values[bin] is not None:
                total, mass_told = total + mass * values[bin], mass_told + mass
        assert found.metrics[f"objective_{name}"] == pytest.approx(total / mass_told, rel=1e-4)


def test_the_simple_objective_is_the_mean_training_loss_and_the_others_over_their_mean_weight():
    """Of a continuous process: times uniform over the bins that are told, by training's own loss."""
    denoiser, data = some_network(), DataModule(Ring())
    part = Objectives(1500, simple=Simple(), dsm=DSM(), ism=ISM())
    found = part.run(case(denoiser, data, 1500), None)
    reached = bins_in_range(denoiser)
    ends = -12 + 0.6 * torch.tensor([reached[-1] + 1, reached[0]], dtype=torch.float64)
    first, last = denoiser.schedule.inverse(ends)
    n = 60_000
    t = torch.lerp(first, last, (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    x0, eps = Ring().drawn(n, "check").values, normal(n, 2, seed=5).float()
    with torch.no_grad():
        for name, loss in part.losses.items():
            each = losses_of(loss, denoiser, x0, t, eps, generator=seeded()).double()
            mean, weight = float(each.mean()), float(loss.noise_weight(denoiser, t).mean())
            row = found.records[name]
            se = max(se for se in row["se"] if se is not None) + standard_error(each) / weight
            assert abs(found.metrics[f"objective_{name}"] - mean / weight) < 5 * se + 0.02 * abs(mean / weight), name


def test_objectives_that_ask_for_the_score_are_told_of_a_known_law_only_and_say_why():
    data = DataModule(Digits(), limit=60)
    part = Objectives(8, simple=Simple(), esm=ESM(), stf=ESM(references=8), one=ESM(references=1))
    found = part.run(case(memory(data), data, 20), None)
    reason = "the law of held-out data is not known"
    assert found.records["inapplicable"] == {"esm": reason, "stf": reason} and found.records["refused"] == {}
    assert set(found.metrics) == {"objective_simple", "objective_one"} and found.metrics["objective_simple"] > 0
    assert "esm" not in found.records
    for name in ("value", "noise_error"):
        both = zip(found.records["one"][name], found.records["simple"][name], strict=True)
        assert all(one == simple or one == pytest.approx(simple, rel=1e-3) for one, simple in both)
    known = Objectives(8, stf=ESM(references=8)).run(case(exact(Ring()), DataModule(Ring()), 20), None)
    assert known.records["refused"] == {} and known.metrics["objective_stf"] > 0
    assert set(known.records["stf"]["noise_error"]) == {None}, "its constant is not known"
    assert "missing" not in known.records


def test_an_objective_that_cannot_judge_a_denoiser_says_why_and_leaves_the_others_be():
    unsaid = Exact(Cosine(100), Learned(), Ring().law())
    found = Objectives(8, vlb=VariationalBound(), simple=Simple()).run(case(unsaid, DataModule(Ring()), 8), None)
    assert found.records["refused"] == {"vlb": "a learned variance needs a denoiser that says one"}
    assert found.metrics["objective_vlb"] is None and found.metrics["objective_simple"] > 0


def test_a_grid_is_looked_at_where_it_is_and_a_coarse_one_has_gaps():
    source = Ring()
    denoiser = Watched(exact(source, Linear(1000)))
    found = Objectives(16, simple=Simple()).run(case(denoiser, DataModule(source), 16, exact_held_out=None), None)
    times = torch.cat(denoiser.times)
    assert torch.allclose(times * 1000, (times * 1000).round(), atol=1e-6) and times.min() > 0
    told = [value is not None for value in found.records["simple"]["value"]]
    reached = bins_in_range(denoiser)
    assert not any(told[k] for k in range(40) if k not in reached) and sum(told) > 20


@pytest.mark.parametrize("steps", [60, 1000])
def test_on_a_grid_a_bin_tells_of_the_times_that_lie_in_it_and_of_no_others(steps):
    """The yardstick's times go to the nearest grid time; where fewer than two stay, there is nothing to tell."""
    source, schedule = Ring(), Linear(steps)
    denoiser, data = Offset(exact(source, schedule), 0.1), DataModule(source)
    row = Objectives(64, simple=Simple()).run(case(denoiser, data, 64), None).records["simple"]
    x0, told = data.splits["test"].values[:64], 0
    for bin in bins_in_range(denoiser):
        draws = yardstick_draws(denoiser, x0, bin)
        t = (draws.t * steps).round() / steps
        log_snr = schedule.log_snr(t)
        inside = (log_snr >= -12 + 0.6 * bin) & (log_snr <= -12 + 0.6 * (bin + 1))
        if int(inside.sum()) < 2:
            assert row["value"][bin] is None and row["se"][bin] is None
            continue
        told += 1
        each = losses_of(Simple(), denoiser, x0[inside], t[inside], draws.eps[inside]).double()
        assert row["value"][bin] == pytest.approx(float(each.mean()), rel=1e-4)
        assert row["se"][bin] == pytest.approx(standard_error(each), rel=1e-3)
    assert told > 8 and (steps > 60 or told < len(bins_in_range(denoiser)))


def test_objectives_cost_what_each_costs_and_one_for_the_floor():
    part = Objectives(16, simple=Simple(), ism=ISM(), ssm=SSM())
    evaluated = case(exact(Ring()), DataModule(Ring()), 20)
    assert part.cost(evaluated) == (1 + (1 + 2 * 2) + 3 + 1) * 16 * len(bins_in_range(evaluated.denoiser))
    assert Objectives(None, simple=Simple()).count(evaluated) == 20
    assert Objectives(64, simple=Simple()).count(evaluated) == 20


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"items": 1, "simple": Simple()}, "at least 2 items and 1 objective are needed, got 1 and 1"),
        ({"items": 4}, "at least 2 items and 1 objective are needed, got 4 and 0"),
        ({"simple": None}, "at least 2 items and 1 objective are needed, got 64 and 0"),
        ({"simple": Simple(), "mine": 3}, "mine is no objective: give it a _target_, or null to leave it out"),
    ],
)
def test_too_few_items_and_what_is_no_objective_are_refused(words, told):
    with pytest.raises(ValueError, match=told):
        Objectives(**words)


def test_an_objective_that_is_none_is_left_out():
    part = Objectives(8, simple=Simple(), ism=None)
    assert part.names == ("objective_simple",) and set(part.losses) == {"simple"}


# --- two runs


def test_a_run_agrees_with_itself():
    found = Agreement().run(case(some_network(), DataModule(Ring()), 20, other=some_network()), None)
    assert found.metrics == {"agreement": 0.0} and found.records["se"] == 0


@pytest.mark.parametrize("other", ["vp", "cosine", "exploding"])
def test_an_offset_is_its_square_whatever_the_other_runs_schedule(other):
    source = Ring()
    mine, its = exact(source), exact(source, SCHEDULES[other]())
    same = Agreement().run(case(mine, DataModule(source), 30, other=its), None)
    assert same.metrics["agreement"] < 1e-6
    off = Agreement().run(case(mine, DataModule(source), 30, other=Offset(its, 0.2)), None)
    assert off.metrics["agreement"] == pytest.approx(0.04, rel=1e-3)
    assert off.records["difference"][20] == pytest.approx(0.04, rel=1e-3)


def test_the_agreement_is_the_mean_over_bins_of_the_mean_square_with_its_error_over_items():
    one, other = some_network(), exact(Moons())
    data = DataModule(Moons())
    found = Agreement().run(case(one, data, 100, other=other), None)
    x0 = data.splits["test"].values[:100]
    # the other being the oracle, it is the score's error
    each = score_against(one, other, x0, None).error.each[SIMPLE]
    assert found.metrics["agreement"] == pytest.approx(float(each.mean()), rel=1e-4)
    assert found.records["se"] == pytest.approx(standard_error(each.mean(0)), rel=1e-3)
    assert found.records["difference_se"][15] == pytest.approx(standard_error(each[3]), rel=1e-3)


def test_both_runs_are_told_the_label():
    data = DataModule(Ring())
    other = Labelled(exact(Ring()))
    labels = data.splits["test"].labels[:40].double()
    found = Agreement().run(case(exact(Ring()), data, 40, other=other), None)
    assert found.metrics["agreement"] == pytest.approx(float((0.1 * labels).square().mean()), rel=1e-3)
    found = Agreement().run(case(other, data, 40, other=other), None)
    assert found.metrics["agreement"] == 0


def test_without_another_run_there_is_no_agreement_and_without_the_range_no_number():
    data = DataModule(Ring())
    assert "no other run to compare with" in Agreement().inapplicable(case(some_network(), data, 20))
    short = exact(Ring(), Linear(30))
    for one, other in ((short, some_network()), (some_network(), short)):
        found = Agreement().run(case(one, data, 20, other=other), None)
        assert found.metrics == {"agreement": None} and "both schedules'" in found.records["missing"]
        assert found.records["difference"][10] is not None and found.records["difference"][32] is None
    evaluated = case(some_network(), data, 20, other=some_network())
    assert Agreement().cost(evaluated) == 2 * 20 * len(bins_in_range(evaluated.denoiser))


# --- what samples owe to the network, and what to the sampler


def few(metric: EvaluationSettings | None = None, source=None, denoiser=None, **more) -> EvaluationContext:
    source = source or Gaussian()
    return case(
        denoiser or exact(source),
        DataModule(source),
        settings=metric or EvaluationSettings(samples=300, chunk=100),
        **more,
    )


def test_with_the_exact_denoiser_the_whole_error_is_the_samplers():
    found = ErrorBudget(steps=100).run(few(sampler=DDIM(3)), None)
    assert set(found.metrics) == set(ErrorBudget.names)
    assert found.metrics["budget_run"] == found.metrics["budget_sampler"]
    assert found.metrics["budget_run"] > 2 * found.metrics["budget_network"], "three steps are too few"


def test_with_many_steps_the_whole_error_is_the_networks():
    worse = Offset(exact(Gaussian()), 0.3)
    found = ErrorBudget(steps=40).run(few(denoiser=worse, sampler=DDIM(40)), None).metrics
    assert found["budget_run"] == found["budget_network"]
    assert found["budget_run"] > 3 * found["budget_sampler"]


def test_each_part_of_the_budget_is_the_frechet_distance_of_its_own_samples_from_the_same_noise():
    worse, source = Offset(exact(Gaussian()), 0.3), Gaussian()
    evaluated = few(denoiser=worse, seed=5)
    found = ErrorBudget(steps=20).run(evaluated, None)
    labels = torch.zeros(300, dtype=torch.long)
    for name, denoiser, steps in (
        ("budget_run", worse, 4),
        ("budget_sampler", exact(source), 4),
        ("budget_network", worse, 20),
    ):
        drawn = draw_samples(denoiser, DDIM(steps), (2,), labels, 5, 100)
        assert found.metrics[name] == pytest.approx(frechet(evaluated.train, drawn, Coordinates(2)), rel=1e-9), name
    floor = frechet_floor(evaluated.train, Coordinates(2), n=300)
    assert found.metrics["budget_floor"] == pytest.approx(floor.value)
    assert found.records["floor_se"] == pytest.approx(floor.se)
    assert found.records["excess_se"] == pytest.approx(floor.excess_se)
    assert (found.records["n"], found.records["evaluations_per_sample"]) == (300, 4)
    assert found.records["evaluations_per_sample_of_network"] == 20
    assert evaluated.sampler.steps == 4, "the run's sampler is left alone"


def test_the_budget_costs_the_samples_and_as_many_at_many_steps():
    watched = Watched(exact(Gaussian()))
    evaluated = few(EvaluationSettings(samples=250, chunk=100), denoiser=watched)
    said = ErrorBudget(steps=10).cost(evaluated)
    assert said == 250 * 4 + 250 * 10
    found = ErrorBudget(steps=10).run(evaluated, None)
    assert watched.images == found.evaluations == said
    assert ErrorBudget(steps=10).cost(evaluated) == 250 * 10, "samples are drawn once"


def test_where_only_the_list_is_known_the_samplers_floor_is_copies_of_it():
    data = DataModule(Moons(), limit=200)
    listed = Exact(VP(), FixedSmall(), data.training_law())
    evaluated = case(
        listed, data, settings=EvaluationSettings(samples=200, chunk=100), exact_held_out=None, sampler=DDIM(60)
    )
    found = ErrorBudget(steps=60).run(evaluated, None)
    assert "copies" in found.records["sampler_floor"]
    assert found.metrics["budget_run"] == found.metrics["budget_sampler"]
    assert 1e-4 < found.metrics["budget_copies"] < 0.2, "drawn with replacement, so no copy of the whole"
    assert found.metrics["budget_sampler"] < 10 * found.metrics["budget_copies"] + 0.05
    known = ErrorBudget(steps=5).run(case(listed, data, settings=EvaluationSettings(samples=50, chunk=50)), None)
    assert "budget_copies" not in known.metrics and "sampler_floor" not in known.records
    assert known.metrics["budget_run"] != known.metrics["budget_sampler"], "the law's own denoiser is another"


def test_copies_have_the_labels_of_conditional_samples_and_else_classes_by_chance():
    data = DataModule(Ring(), limit=90)
    listed = Exact(VP(), FixedSmall(), data.training_law(), None, True)
    told, drawn = (
        case(listed, data, settings=EvaluationSettings(samples=200), conditional=conditional)
        for conditional in (True, False)
    )
    labels = told.train_labels[copied(told)]
    assert torch.equal(labels, told.train_labels.repeat(3)[:200])
    assert len(copied(told).unique()) > 50, "any image of its label"
    assert not torch.equal(drawn.train_labels[copied(drawn)].bincount(), labels.bincount())


def test_a_budget_needs_a_truth_and_a_step():
    assert ErrorBudget().inapplicable(few(exact_train=None, exact_held_out=None)) == "this data has no exact score"
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        ErrorBudget(steps=0)
