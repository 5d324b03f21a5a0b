"""Evaluation as a whole: one part's trouble is its own, what is spent is counted, and a budget is kept in one order."""

import inspect
import json
import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY, choices, choose
from exact_cases import GaussianOracle, Watched, digits_like, network, normal, seeded

from scorelab import evaluation as parts
from scorelab.denoisers import Exact, FixedSmall, NetworkDenoiser, V
from scorelab.errors import Refusal, Unavailable
from scorelab.evaluation import (
    EvaluationContext,
    EvaluationSettings,
    HeldOutBound,
    NoiseError,
    Result,
    TableRow,
    Yardstick,
    run_yardsticks,
)
from scorelab.evaluation.results import fastest
from scorelab.laws import FiniteSet
from scorelab.losses import Simple, Uniform
from scorelab.metrics.features import Coordinates
from scorelab.networks import UNet
from scorelab.report.table import table
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine
from scorelab.tensors import to_levels

SHAPE, LEVELS = (1, 4, 4), 17


OF_CHOICES = {
    "objectives": partial(parts.Objectives, simple=Simple()),
    "samplers": partial(parts.SamplerComparison, ddim=DDIM()),
}


def part_of(name: str) -> parts.Yardstick:
    """The yardstick a choice stands for; of those that have all choices of a group, one with one of them."""
    return OF_CHOICES[name]() if name in OF_CHOICES else choose("metrics", name)


def oracle() -> GaussianOracle:
    return GaussianOracle(Cosine(100), FixedSmall(), 0.3 * normal(*SHAPE, seed=1), 0.4, LEVELS)


def case(denoiser, metric: EvaluationSettings | None = None, **more) -> EvaluationContext:
    train, held_out = (to_levels(oracle().draw(n, seeded(n)), LEVELS) for n in (40, 20))
    labels = torch.arange(40) % 2
    split = (train, labels, held_out, labels[:20])
    return EvaluationContext(
        denoiser, DDIM(5), metric or EvaluationSettings(), *split, Coordinates(16), Simple(), Uniform(), **more
    )


class Says(Yardstick):
    """Shows the network ``images`` images, then raises what it is given, or tells that number."""

    names = ("said",)

    def __init__(self, error: BaseException | None = None, images: int = 0, early: bool = False) -> None:
        self.error, self.images, self.early = error, images, early

    def cost(self, case: EvaluationContext) -> int:
        if self.early and self.error:
            raise self.error
        return 0

    def run(self, case: EvaluationContext, left: int | None) -> Result:
        for _ in range(self.images):
            case.denoiser(torch.zeros(1, *SHAPE), torch.full((1,), 0.5))
        if self.error is not None:
            raise self.error
        return Result({"said": float(self.images)}, {}, self.images)


class Samples(Says):
    """Looks at the samples first."""

    of_samples = True

    def run(self, case: EvaluationContext, left: int | None) -> Result:
        spent, _ = case.sampling_cost, case.samples
        return Result(super().run(case, left).metrics, {}, spent)


# --- what fails


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("of any\n origin"), RuntimeError("torch"), AssertionError(), KeyError("k")]
)
def test_a_part_that_fails_in_any_way_is_told_as_failed_and_the_others_go_on(error, early):
    lines: list[str] = []
    named = {"mine": Says(error, early=early), "simple": NoiseError()}
    results = run_yardsticks(named, case(oracle()), lines.append)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert results.metrics["test/said"] is None and results.metrics["test/simple"] > 0
    assert results.failed == {"mine": reason} and "skipped" not in results.records["mine"]
    assert f"mine failed, a fault of the program: {reason}" in lines
    assert any("test_results.py" in line for line in results.records["mine"]["traceback"])
    assert f"failed: {reason}" in next(
        line for line in table(results.metrics, results.records).splitlines() if "mine" in line
    )
    assert list(results.records) == list(named)


def test_a_failure_stands_in_the_rows_of_its_part():
    class Fails(NoiseError):
        def run(self, case, left):
            raise ZeroDivisionError("nothing")

    results = run_yardsticks({"simple": Fails()}, case(oracle()), lambda line: None)
    lines = table(results.metrics, results.records).splitlines()
    assert [line.split()[0] for line in lines] == ["simple", "common"]
    assert all("failed: ZeroDivisionError: nothing" in line for line in lines)


@pytest.mark.parametrize("word", [Refusal("no"), Unavailable("no")])
def test_a_word_to_the_person_is_no_failure(word):
    results = run_yardsticks({"mine": Says(word)}, case(oracle()), lambda line: None)
    assert results.failed == {} and results.records["mine"]["skipped"] == "no"
    assert results.metrics == {"test/said": None}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 1 byte")],
)
def test_memory_that_is_short_is_the_machines_and_ends_the_judging(error):
    with pytest.raises(type(error)):
        run_yardsticks({"mine": Says(error), "simple": NoiseError()}, case(oracle()), lambda line: None)


def test_ctrl_c_is_no_failure_of_a_part():
    with pytest.raises(KeyboardInterrupt):
        run_yardsticks({"mine": Says(KeyboardInterrupt())}, case(oracle()), lambda line: None)


# --- how it is shown


def test_a_part_brings_the_words_of_its_row_and_its_record_keeps_them_for_a_table_without_objects():
    class Mine(Says):
        names = ("said", "beside")
        rows = (TableRow("said", "what I said", "beside {beside:.1f}, from {source}, no {absent}", 1),)

        def run(self, case: EvaluationContext, left: int | None) -> Result:
            return Result({"said": 0.5, "beside": 2.0}, {"source": 3.0})

    results = run_yardsticks({"simple": NoiseError(), "mine": Mine()}, case(oracle()), lambda line: None)
    stored = json.loads(json.dumps(results.records))
    lines = table(results.metrics, stored).splitlines()
    assert lines[0] == f"  {'what I said':<20}{'0.500':>9}   beside 2.0, from 3.000, no –"
    assert [line.split()[0] for line in lines] == ["what", "simple", "common"], "by place, not in the order asked for"


def test_every_number_that_a_part_shows_is_one_of_its_own_and_has_a_place():
    shown = [choose("metrics", name) for name in choices("metrics") if name not in OF_CHOICES]
    assert all({row.number for row in part.rows} <= set(part.names) and part.rows for part in shown)
    places = [row.place for part in shown for row in part.rows]
    assert sorted(places) == list(range(len(places)))


# --- what is spent


@pytest.mark.parametrize("error", [Refusal("no"), ValueError("of any origin"), Unavailable("no")])
def test_what_a_part_spent_before_it_gave_up_is_told_and_taken_from_the_budget(error):
    cost = NoiseError().cost(case(oracle()))
    for budget, told in ((cost + 7, True), (cost + 6, False)):
        results = run_yardsticks(
            {"mine": Says(error, 7), "simple": NoiseError()}, case(oracle(), EvaluationSettings(budget=budget)), print
        )
        assert results.records["mine"]["evaluations"] == 7
        assert (results.metrics["test/simple"] is not None) is told


def test_samples_belong_to_the_first_part_that_drew_them_even_if_it_fails():
    watched = Watched(oracle())
    named = {"first": Samples(ValueError("no")), "second": Samples()}
    results = run_yardsticks(named, case(watched, EvaluationSettings(chunk=16)), lambda line: None)
    assert [results.records[name]["evaluations"] for name in named] == [40 * 5, 0]
    assert watched.images == 3 * 16 + 40 * 5
    assert results.metrics["test/said"] == 0


def test_a_gradient_counts_three_times_where_the_measurement_fails_too():
    class Fails(Simple):
        asked = 0

        def forward(self, *given, **more):
            Fails.asked += 1
            if Fails.asked > 4:
                raise FloatingPointError("the fifth")
            return super().forward(*given, **more)

    told = case(network("cosine", steps=20))
    told.train, told.train_labels = to_levels(digits_like(12), LEVELS), torch.zeros(12, dtype=torch.long)
    told.loss = Fails()
    results = run_yardsticks({"gradient_noise": parts.GradientNoise(2, 3)}, told, lambda line: None)
    assert "the fifth" in results.failed["gradient_noise"]
    assert results.records["gradient_noise"]["evaluations"] == 3 * 3 * 4


# --- in what order


@pytest.mark.parametrize("tolerance", [0.1, 0.02])
@pytest.mark.parametrize(("more", "told"), [(0.1, False), (0.3, False), (0.9, False), (1000, True)])
def test_the_bound_takes_what_is_left_and_so_decides_of_no_other_part(more, told, tolerance):
    """Its draws cost more at a smaller tolerance, and the other figures stay the same, whatever is left for them."""
    named = {"vlb": HeldOutBound(), "simple": NoiseError()}
    fixed, least = (part.cost(case(oracle())) for part in (NoiseError(), HeldOutBound()))
    metric = EvaluationSettings(tolerance=tolerance, budget=int(fixed + more * least))
    results = run_yardsticks(named, case(oracle(), metric), lambda line: None)
    assert results.metrics["test/simple"] > 0
    assert (results.metrics["test/vlb"] is not None) is told
    assert list(results.records) == ["vlb", "simple"]
    assert next(iter(results.metrics)) == "test/vlb"


def test_parts_of_fixed_cost_come_first_then_the_solver_then_the_bound():
    turns = {name: part_of(name).turn(EvaluationSettings()) for name in choices("metrics")}
    assert {name for name, turn in turns.items() if turn} == {"ode_nll", "vlb"} and turns["ode_nll"] < turns["vlb"]
    assert HeldOutBound().turn(EvaluationSettings(bound="exact")) == 0


# --- what makes it cheaper


@pytest.mark.parametrize("name", choices("metrics"))
def test_the_hint_beside_a_part_that_does_not_fit_names_keys_there_are(name):
    part = part_of(name)
    for metric in (EvaluationSettings(), EvaluationSettings(bound="exact")):
        hint = part.cheaper(metric)
        for key in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", hint):
            *group, argument = key.split(".")
            owner = {"evaluation": EvaluationSettings, "sampler": DDIM}.get(group[0], type(part))
            assert group in (["evaluation"], ["sampler"], ["metrics", name])
            assert argument in inspect.signature(owner).parameters
        costly = part.of_samples or name in (
            "vlb",
            "gradient_noise",
            "ode_nll",
            "guidance",
            "gradient_part",
            *OF_CHOICES,
        )
        assert bool(hint) is costly, "the others look at all that is held out, or ask no network"


def test_the_hint_stands_beside_the_budget():
    results = run_yardsticks(
        {"ode_nll": parts.FlowLikelihood()}, case(oracle(), EvaluationSettings(budget=10)), lambda line: None
    )
    told = results.records["ode_nll"]["skipped"]
    assert told.endswith(
        "10 are left: lower metrics.ode_nll.items or draws, raise metrics.ode_nll.tolerance, or raise "
        "evaluation.budget (null is no limit)"
    )


# --- what does not apply


def test_a_part_that_does_not_apply_has_no_row_no_number_and_no_cost_and_says_why_in_one_line():
    lines: list[str] = []
    names = ("memorization", "recognised", "exact_gap", "score_error", "exact_nll", "distances", "budget", "agreement")
    named = {name: choose("metrics", name) for name in names if name != "memorization"}
    results = run_yardsticks(named, case(oracle(), EvaluationSettings(budget=0)), lines.append)
    assert results.metrics == {} and table(results.metrics, results.records) == ""
    assert all(results.records[name]["evaluations"] == 0 for name in named)
    for name in named:
        assert f"{name} does not apply: {results.records[name]['inapplicable']}" in lines
    assert "at least 0 network evaluations (budget 0)" in lines[-1]
    assert "against=B" in results.records["agreement"]["inapplicable"]


def test_only_the_numbers_that_apply_are_missed_where_a_part_does_not_fit():
    """Of a finite set of images: no score of held-out data, no distance of points' levels."""
    listed = Exact(Cosine(100), FixedSmall(), FiniteSet(normal(40, *SHAPE).float()), LEVELS)
    told = case(oracle(), EvaluationSettings(budget=0), exact_train=listed)
    results = run_yardsticks(
        {"score_error": parts.ScoreError(), "ode_nll": parts.FlowLikelihood()}, told, lambda line: None
    )
    assert set(results.metrics) == {"train/score_error", "train/excess", "test/ode_nll"}
    rows = table(results.metrics, results.records)
    assert "to memorising" in rows and "score error" not in rows


# --- a conditional network


def test_a_conditional_network_is_judged_with_its_labels_wherever_it_is_asked():
    net = UNet((1, 8, 8), channels=4, multipliers=[1, 2], conditional=True, classes=2)
    denoiser = NetworkDenoiser(Cosine(20), net, V(), FixedSmall(), LEVELS)
    labels, values, lines = torch.arange(12) % 2, to_levels(digits_like(12), LEVELS), []
    told = EvaluationContext(
        denoiser,
        DDIM(2),
        EvaluationSettings(tolerance=5.0, chunk=5),
        values,
        labels,
        values,
        labels,
        Coordinates(64),
        Simple(),
        Uniform(),
    )
    named = {"simple": NoiseError(), "vlb": HeldOutBound(), "gradient_noise": parts.GradientNoise(2, 2)}
    named |= {
        "ode_nll": parts.FlowLikelihood(4, 0.1),
        "fid": Samples(),
        "objectives": parts.Objectives(4, simple=Simple()),
    }
    results = run_yardsticks(named, told, lines.append)
    assert results.failed == {} and not any("skipped" in record for record in results.records.values())
    assert re.search(r"about \d+ s; vlb, ode_nll may take more, without a limit$", lines[0])


# --- runs


def read(folder: Path, name: str = "metrics.json") -> dict:
    return json.loads((folder / name).read_text())


def test_a_run_with_a_failed_part_keeps_its_figures_says_so_and_the_same_command_judges_again(typed, tmp_path: Path):
    words = ["run=a", *TINY, "metrics.mine._target_=breaking.Breaks"]
    (tmp_path / "broken").touch()
    said, run = typed("train", *words), tmp_path / "logs" / "train" / "a"
    assert said.status == 1
    assert "mine failed (RuntimeError: a fault of its own)" in said.last and "logs/train/a/train.log" in said.last
    assert "Traceback" not in said.out + said.err
    assert "failed: RuntimeError: a fault of its own" in said.out and "noise error over log-SNR" in said.out
    told = read(run)
    assert told["status"] == "failed" and told["reason"] in said.last
    assert told["metrics"]["test/simple"] > 0 and told["metrics"]["test/mine"] is None
    assert told["records"]["mine"]["evaluations"] == 3
    assert "breaking.py" in (run / "train.log").read_text() and "Traceback" in (run / "train.log").read_text()
    assert read(run, "status.json")["state"] == "failed"
    again = typed("eval", "run=logs/train/a")
    assert again.status == 1 and "its traceback is in logs/train/a/eval/" in again.last
    (tmp_path / "broken").unlink()
    said = typed("train", *words)
    assert said.status == 0 and "resumed at step 2" in said.out + said.err
    now = read(run)
    assert now["status"] == "finished" and "reason" not in now
    assert now["metrics"] == told["metrics"] | {"test/mine": 3.0, "test/mine_too": 4.0}
    assert typed("eval", "run=logs/train/a").status == 0
    assert math.isfinite(now["metrics"]["val/simple"])


def test_a_sweep_tells_which_run_has_a_failed_part(typed, tmp_path: Path):
    (tmp_path / "broken").touch()
    words = ["-m", "name=s", *TINY, "seed=0,1", "metrics.mine._target_=breaking.Breaks"]
    said = typed("train", *words)
    assert said.status == 1
    assert said.out.count("failed: mine failed (RuntimeError: a fault of its own)") >= 2


def test_a_call_is_as_long_as_the_fastest_of_three_and_a_long_one_is_not_repeated(monkeypatch) -> None:
    for lasts, expected in (([1.5, 0.5, 1.0], (0.5, 3)), ([5.0], (5.0, 1)), ([1.0, 3.0, 2.0], (1.0, 3))):
        clock, left = [0.0], list(lasts)

        def call(clock: list[float] = clock, left: list[float] = left) -> None:
            clock[0] += left.pop(0)

        monkeypatch.setattr("scorelab.evaluation.results.time.perf_counter", lambda clock=clock: clock[0])
        assert (fastest(call), len(lasts) - len(left)) == expected
