"""Judging at the size of real image sets: memory, so many held-out items, and what it costs, told first."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from exact_cases import seeded
from test_score import case, some_network
from torch import Tensor

from scorelab.config.build import Experiment
from scorelab.data.base import Split
from scorelab.data.module import DataModule
from scorelab.data.synthetic import Ring
from scorelab.denoisers import Exact, FixedSmall
from scorelab.errors import Refusal
from scorelab.evaluation import (
    ErrorBudget,
    EvaluationSettings,
    ExactGap,
    GradientNoise,
    Objectives,
    ScoreError,
    expected_cost,
    noise_error,
    run_yardsticks,
)
from scorelab.evaluation.curves import bins_in_range
from scorelab.laws import FiniteSet
from scorelab.lit.actions import RunContext
from scorelab.lit.callbacks import Validation
from scorelab.losses import ESM, Simple, Uniform
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine
from scorelab.tracking.logger import RunLogger

# --- memory


def grown(work) -> float:
    """By how many MB this process was larger at most while it worked."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        pytest.skip("only Linux tells the most memory a process had")

    def kilobytes(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    reset.write_text("5")
    before = kilobytes("VmRSS")
    work()
    return (kilobytes("VmHWM") - before) / 1024


@pytest.mark.parametrize("sigma", [0.05, 1.0, 10.0, 80.0])
def test_a_large_set_of_bytes_is_asked_in_the_memory_of_a_few_chunks(sigma):
    """In float32 it would be 154 MB, in float64 twice that."""
    points = torch.randint(0, 256, (25_000, 1536), generator=seeded(), dtype=torch.uint8)
    x = torch.randn(4, 1536, generator=seeded(1), dtype=torch.float64)
    one, noise = torch.ones(4, dtype=torch.float64), torch.full((4,), sigma, dtype=torch.float64)
    FiniteSet(points[:3000], levels=256).posterior(x, one, noise)  # what is loaded on first use is not its memory
    assert grown(lambda: FiniteSet(points, levels=256).posterior(x, one, noise)) < 120


@pytest.mark.parametrize("dims", [1, 64, 3072, 200_000])
def test_a_chunk_is_below_a_hundred_megabytes_in_float64_whatever_the_dimensions(dims):
    law = FiniteSet(torch.zeros(20, dims, dtype=torch.uint8), levels=256)
    assert 1 <= law.chunk <= 8192 and law.chunk * dims * 8 < 100 * 2**20


# --- so many held-out items


def experiment(seed: int, held_out: int | None) -> Experiment:
    data = DataModule(Ring(), seed=seed)
    return Experiment(
        data,
        SimpleNamespace(loss=Simple(), timesteps=Uniform()),
        DDIM(2),
        {},
        EvaluationSettings(held_out=held_out),
        None,
        False,
        seed,
    )


def test_the_held_out_items_that_are_looked_at_are_the_same_for_every_seed_and_nested():
    denoiser = some_network()
    few, again = (experiment(seed, 30).context(denoiser) for seed in (0, 1))
    assert len(few.held_out) == len(few.labels) == 30
    assert torch.equal(few.held_out, again.held_out) and torch.equal(few.labels, again.labels)
    more = experiment(0, 60).context(denoiser)
    assert torch.equal(more.held_out[:30], few.held_out)
    test = experiment(0, None).data.splits["test"]
    rows = [int((test.values == item).flatten(1).all(1).nonzero()) for item in few.held_out]
    assert rows != sorted(rows), "of a split that is sorted by class they are of all classes"
    assert torch.equal(test.labels[rows], few.labels)


@pytest.mark.parametrize("held_out", [None, 10**6])
def test_all_held_out_items_are_looked_at_in_their_own_order_where_no_fewer_are_asked_for(held_out):
    data = experiment(0, held_out)
    assert torch.equal(data.context(some_network()).held_out, data.data.splits["test"].values)
    with pytest.raises(Refusal, match="held_out must be at least 2, got 1"):
        EvaluationSettings(held_out=1)


def test_validation_looks_at_so_many_items_and_at_its_own_bins_which_changes_no_number():
    data = DataModule(Ring())
    asked: list[int] = []
    denoiser = some_network(Cosine(1000))
    denoiser.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))

    def found(items: int, val: Split) -> float:
        asked.clear()
        trainer = SimpleNamespace(max_steps=10**6, accumulate_grad_batches=1, world_size=1)
        module = SimpleNamespace(evaluated=denoiser, device=torch.device("cpu"), known=None, trainer=trainer)
        validation = Validation(10**6, items)
        held = SimpleNamespace(splits={"val": val}, levels=None, batch_size=64)
        validation.act(RunContext(module, held, RunLogger(), Path()), 1)
        return validation.simple

    val = data.splits["val"]
    assert found(512, val) == noise_error(denoiser, val.values, val.labels).simple
    found(512, val)
    assert sum(asked) == 19 * len(val) == 19 * 500
    few = found(40, val)
    assert sum(asked) == 19 * 40
    assert found(40, val) == few
    with pytest.raises(Refusal, match="items must be at least 1, got 0"):
        Validation(1, 0)


# --- what it costs


class Noting(FiniteSet):
    """Notes how many items it is asked about; takes ``seconds`` for each."""

    asked, seconds = 0, 0.0

    def posterior(self, x: Tensor, *more):
        self.asked += len(x)
        time.sleep(self.seconds * len(x))
        return super().posterior(x, *more)


def noted(data: DataModule) -> Noting:
    return Noting(data.training_law().points)


@pytest.mark.parametrize(
    "yardstick",
    [ExactGap(), ScoreError(), ErrorBudget(2), GradientNoise(2, 3), Objectives(5, simple=Simple(), esm=ESM())],
    ids=lambda each: type(each).__name__,
)
def test_a_yardstick_says_how_many_items_exact_denoisers_are_asked_about(yardstick):
    data, denoiser = DataModule(Ring(), limit=20), some_network().requires_grad_(True)
    laws = noted(data), noted(data)
    of_list, of_law = (Exact(denoiser.schedule, FixedSmall(), law) for law in laws)
    known = isinstance(yardstick, (ScoreError, Objectives))
    evaluated = case(
        denoiser,
        data,
        held=12,
        loss=ESM(),
        exact_train=of_list,
        exact_held_out=of_law if known else None,
        settings=EvaluationSettings(samples=6, chunk=4),
    )
    said = yardstick.questions(evaluated)
    with torch.no_grad():
        yardstick.run(evaluated, None)
    assert {exact: exact.law.asked for exact in said} == said
    assert sum(law.asked for law in laws) == sum(said.values()) > 0


def test_the_seconds_of_exact_scores_are_in_the_forecast():
    data, denoiser = DataModule(Ring(), limit=20), some_network()
    law = noted(data)
    law.seconds = 2e-3
    exact = Exact(denoiser.schedule, FixedSmall(), law)
    evaluated = case(denoiser, data, held=6, exact_train=exact, exact_held_out=None)
    yardsticks, lines = {"exact_gap": ExactGap()}, []
    cost = expected_cost(yardsticks, evaluated)
    asked = 6 * len(bins_in_range(denoiser))
    assert cost.exact == asked and 2e-3 * asked <= cost.seconds < 4e-3 * asked
    started = time.perf_counter()
    run_yardsticks(yardsticks, evaluated, lines.append)
    assert cost.seconds == pytest.approx(time.perf_counter() - started, rel=0.5)
    assert f"network evaluations (exact_gap {2 * asked}; no limit) and {asked} of exact scores, about" in lines[0]


def test_exact_figures_of_so_many_items_say_how_many_and_their_error():
    data = DataModule(Ring(), limit=40)
    evaluated = case(some_network(), data, held=30)
    gap = ExactGap().run(evaluated, None).records
    train = ScoreError().run(evaluated, None).records["train"]
    assert gap["n"] == train["n"] == 30
    assert gap["se"] > 0 and train["score_error_se"] > 0
