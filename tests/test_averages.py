"""Averages under a power of time: their profiles, several at once, and one of any length made from snapshots."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, type_in
from faults.compare import differences
from test_training import torn_off
from torch import Tensor, nn

import scorelab
from scorelab.comparison.drawn import evaluations
from scorelab.comparison.runs import read_run
from scorelab.errors import CheckpointError, Refusal, UserError
from scorelab.lit.posthoc import PowerAverages
from scorelab.lit.profile import LONGEST, Profile, fit, inner, spanned
from scorelab.lit.snapshots import MOST_MISSED, take_average, write_snapshot

LENGTHS = (0.02, 0.05, 0.1, 0.2, 0.28)
KEPT = [Profile(step, length) for step in range(100, 801, 100) for length in (0.05, 0.1)]  # eight snapshots of two


# --- profiles


@pytest.mark.parametrize("length", LENGTHS)
def test_what_steps_count_for_sums_to_1_and_spreads_by_the_length_that_was_asked_for(length: float) -> None:
    n = 20_000
    weights, when = Profile(n, length).weights(), (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    mean = float(weights @ when)
    assert math.sqrt(float(weights @ (when - mean) ** 2)) == pytest.approx(length, rel=1e-5)
    gamma = Profile(n, length).gamma
    assert mean == pytest.approx((gamma + 1) / (gamma + 2), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 6.94, 16.97, 300.0])
def test_the_exponent_is_found_again_from_its_relative_standard_deviation(gamma: float) -> None:
    length = math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)
    assert Profile(7, length).gamma == pytest.approx(gamma, rel=1e-6, abs=1e-6)


def test_the_two_published_lengths_have_the_published_exponents() -> None:
    assert [round(Profile(1, each).gamma, 2) for each in (0.05, 0.1)] == [16.97, 6.94]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_decays_of_all_steps_together_are_the_profile(length: float) -> None:
    n, counts = 50, torch.zeros(0, dtype=torch.float64)
    for step in range(1, n + 1):
        decay = Profile(step, length).decay
        counts = torch.cat([decay * counts, torch.tensor([1 - decay], dtype=torch.float64)])
    assert torch.allclose(counts, Profile(n, length).weights(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("one", "other"), [((40, 0.05), (100, 0.2)), ((100, 0.1), (100, 0.1)), ((100, 0.28), (70, 0.05))]
)
def test_the_inner_product_is_the_integral(one: tuple[int, float], other: tuple[int, float]) -> None:
    t = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 4000  # until 100

    def density(step: int, length: float) -> Tensor:
        gamma = Profile(step, length).gamma
        return torch.where(t <= step, (gamma + 1) * (t / step) ** gamma / step, 0.0)

    found = float(inner([Profile(*one)], [Profile(*other)]))
    assert found == pytest.approx(float((density(*one) * density(*other)).sum()) / 4000)


@pytest.mark.parametrize("length", [0.0, -0.1, LONGEST + 1e-6, math.nan])
def test_a_length_that_no_profile_has_is_refused(length: float) -> None:
    with pytest.raises(Refusal, match="sigma_rel must lie in"):
        Profile(10, length)


# --- one from others


@pytest.mark.parametrize("length", [0.05, 0.1])
def test_a_profile_that_is_there_is_itself(length: float) -> None:
    made = fit(KEPT, Profile(800, length))
    assert made.error < 1e-6
    assert float(made.coefficients[KEPT.index(Profile(800, length))]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("length", [0.03, 0.04, 0.08, 0.15, 0.2, 0.25])
def test_what_is_missed_is_the_error_that_is_told(length: float) -> None:
    """sum_i x_i p_i sums to 1; of independent weights it is off by the told part of the average's own deviation."""
    wanted = Profile(800, length)
    made = fit(KEPT, wanted)
    counts = sum(
        x * nn.functional.pad(each.weights(), (0, 800 - each.step))
        for x, each in zip(made.coefficients, KEPT, strict=True)
    )
    assert isinstance(counts, Tensor) and float(counts.sum()) == pytest.approx(1, abs=1e-9)
    off = counts - wanted.weights()
    assert float(off.norm() / wanted.weights().norm()) == pytest.approx(made.error, rel=0.03)
    moved = torch.randn(len(KEPT), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs, told, own = inner(KEPT, KEPT), inner(KEPT, [wanted])[:, 0], float(inner([wanted], [wanted]))

    def missed(x: Tensor) -> float:
        return math.sqrt(float(x @ pairs @ x - 2 * x @ told) / own + 1)

    for far in (1e-3, -1e-3):  # any other that sums to 1 is further away
        assert missed(made.coefficients + far * (moved - moved.mean())) > made.error


def test_of_many_snapshots_close_to_each_other_rounding_is_not_made_much_of() -> None:
    close = [Profile(step, length) for step in range(1, 301) for length in (0.05, 0.1)]
    made = fit(close, Profile(300, 0.08))
    assert made.error < 1e-4 and float(made.coefficients.abs().sum()) < 100


def test_between_which_lengths_is_told_as_far_as_it_is_so() -> None:
    ((low, high),) = spanned(KEPT, 800, MOST_MISSED)
    assert low < 0.05 < 0.1 < high
    for inside, outside in ((low, low - 0.001), (high, high + 0.001)):
        assert fit(KEPT, Profile(800, inside)).error <= MOST_MISSED < fit(KEPT, Profile(800, outside)).error


# --- followed while training, made afterwards


class Module:
    """As much of a DiffusionModule as averages look at: a denoiser, its copy, the device."""

    def __init__(self) -> None:
        self.denoiser: nn.Module = nn.Linear(3, 2)
        self.averaged: nn.Module | None = None
        self.device = torch.device("cpu")

    def average(self) -> None:
        self.averaged = nn.Linear(3, 2).requires_grad_(False)


def walk(run: Path, steps: int = 240, every: int = 30) -> list[Tensor]:
    """Have averages of 0.1 and 0.05 follow weights that wander about, snapshots of them in ``run``; the weights."""
    callback, module, trainer = PowerAverages(every), Module(), SimpleNamespace(global_step=0)
    callback.setup(trainer, module, "fit")
    callback.on_train_start(trainer, module)
    draw, path = torch.Generator().manual_seed(1), []
    place = torch.randn(8, generator=draw, dtype=torch.float64)
    for step in range(1, steps + 1):
        place = place + 0.1 * torch.randn(8, generator=draw, dtype=torch.float64)
        nn.utils.vector_to_parameters(place.float(), module.denoiser.parameters())
        path.append(place)
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module)
        callback.on_train_batch_end(trainer, module)  # an accumulated batch: no step was taken
        if callback.due(step, step == steps):
            callback.act(SimpleNamespace(module=module, directory=run), step)
            callback.done = step
    return path


def test_a_snapshot_names_the_weights_as_the_denoiser_does_while_its_copy_is_spread_over_processes(
    tmp_path: Path,
) -> None:
    callback, module, trainer = PowerAverages(1), Module(), SimpleNamespace(global_step=0)
    callback.setup(trainer, module, "fit")
    callback.on_train_start(trainer, module)
    trainer.global_step = 1
    callback.on_train_batch_end(trainer, module)
    module.averaged = nn.Sequential(module.averaged)  # other names, as scorelab.lit.spread gives them meanwhile
    callback.act(SimpleNamespace(module=module, directory=tmp_path), 1)
    take_average(module.denoiser, tmp_path, 0.1)


def test_of_a_known_path_the_average_made_afterwards_is_the_one_that_would_have_been_followed(tmp_path: Path) -> None:
    """To rounding where its length was followed, else to the told error: |sum e_k theta_k| <= ||e|| ||theta - c||."""
    path = torch.stack(walk(tmp_path))
    spread = (path - path.mean(0)).norm(dim=0)
    for length in (0.05, 0.1, 0.04, 0.07, 0.15, 0.2):
        made, wanted = nn.Linear(3, 2), Profile(240, length)
        told = take_average(made, tmp_path, length)
        assert told.snapshots == 8 and told.step == 240 and list(told.tracked) == [0.05, 0.1]
        off = (nn.utils.parameters_to_vector(made.parameters()).detach() - wanted.weights() @ path).abs()
        allowed = told.profile_error * math.sqrt(inner([wanted], [wanted])) * spread + 1e-6
        assert (off <= allowed).all(), length
        if length in (0.05, 0.1):
            assert off.max() < 2e-6


def test_snapshots_that_are_missing_damaged_or_of_another_network_are_told_in_one_line(tmp_path: Path) -> None:
    walk(tmp_path, steps=40, every=10)
    with pytest.raises(UserError, match="of another network"):
        take_average(nn.Linear(2, 2), tmp_path, 0.1)
    with pytest.raises(UserError, match=r"average=0\.28: the snapshots miss \d+% of this profile; possible: 0\.0"):
        take_average(nn.Linear(3, 2), tmp_path, 0.28)
    file = tmp_path / "averages" / "step_0000020.ckpt"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="without that file the other snapshots are used"):
        take_average(nn.Linear(3, 2), tmp_path, 0.1)
    file.unlink()
    assert take_average(nn.Linear(3, 2), tmp_path, 0.1).snapshots == 3


def test_a_snapshot_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(content: object, file: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("scorelab.lit.snapshots.save", torn)
    with pytest.raises(OSError, match="disk full"):
        write_snapshot(tmp_path, 5, {0.1: {"a": torch.ones(1)}})
    assert list((tmp_path / "averages").iterdir()) == []


@pytest.mark.parametrize("lengths", [(), (0.1, 0.2, 0.1), (0.05, 0.051), (0.05, 0.4)])
def test_lengths_that_are_none_or_nearly_the_same_are_refused(lengths: tuple[float, ...]) -> None:
    with pytest.raises(Refusal, match="sigma_rel must"):
        PowerAverages(sigma_rel=lengths)


# --- as one types it

SEVERAL = (
    *(word for word in TINY if word not in ("callbacks=minimal", "trainer.max_steps=2")),
    "callbacks=posthoc",
    "callbacks.grid=null",
    "trainer.max_steps=24",
    "callbacks.validation.every=6",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run that kept several averages is, logs/train/a, and what stood of it at step 14, torn/logs/train/a."""
    place = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        torn_off(place / "logs" / "train" / "a", 14, place / "torn" / "logs" / "train" / "a", patch)
        said = type_in(place, "train", "run=a", *SEVERAL)
    assert said.status == 0, said.err
    return place


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """That run where a test types."""
    shutil.copytree(folder / "logs", tmp_path / "logs")
    return tmp_path / "logs" / "train" / "a"


def test_a_run_keeps_few_snapshots_and_goes_on_bit_by_bit_where_it_was_torn_off(typed: Callable, folder: Path) -> None:
    whole = folder / "logs" / "train" / "a"
    names = sorted(file.name for file in (whole / "averages").iterdir())
    assert names == [f"step_{step:07d}.ckpt" for step in range(3, 25, 3)]
    shutil.copytree(folder / "torn" / "logs", "logs")
    torn = Path("logs/train/a")
    assert len(list((torn / "averages").iterdir())) == 4
    (torn / "averages" / ".step_0000015.ckpt.1-1.part").touch()
    said = typed("train", "run=a", *SEVERAL)
    assert said.status == 0 and re.search(r"resumed at step (6|9|12) ", said.out), "the last that was on the disk"
    assert differences(whole, torn) == []


def test_the_first_length_is_the_one_that_a_run_evaluates(run: Path) -> None:
    own, made = (scorelab.load(run, average=average).denoiser for average in (None, 0.1))
    for mine, its in zip(own.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)
    other = scorelab.load(run, average=0.05).denoiser
    kept = torch.load(run / "averages" / "step_0000024.ckpt", weights_only=True)
    for name, value in other.named_parameters():
        torch.testing.assert_close(value.detach(), kept["averages"][1][name], rtol=1e-5, atol=1e-6)


def test_an_evaluation_of_another_average_is_recorded_and_told_apart(typed: Callable, run: Path) -> None:
    said = typed("eval", "run=logs/train/a", "average=0.08")
    assert said.status == 0 and "average 0.08, made of 8 snapshots of 0.05 and 0.1 up to step 24: " in said.out, (
        said.err
    )
    (file,) = run.glob("eval/*/metrics.json")
    content = json.loads(file.read_text())
    record = content["records"]["average"]
    assert record["sigma_rel"] == 0.08 and record["step"] == 24 and 0 < record["profile_error"] < MOST_MISSED
    own = json.loads((run / "metrics.json").read_text())["metrics"]["test/simple"]
    assert content["metrics"]["test/simple"] != own
    assert read_run(file.parent).config["average"] == "0.08" and "average" not in read_run(run).config
    fid = {"test/fid": 1.0}, {"fid": {"network_evaluations_per_sample": 2}}
    for path in (file, run / "metrics.json"):
        held = json.loads(path.read_text())
        path.write_text(json.dumps(held | {"metrics": fid[0], "records": fid[1]}))
    file.write_text(file.read_text().replace('"test/fid": 1.0', '"test/fid": 9.0'))
    assert evaluations(read_run(run)) == [{"evaluations": 2.0, "fid": 1.0}]


def test_samples_of_another_average_lie_beside_the_runs_own(typed: Callable, run: Path) -> None:
    for words in ((), ("average=0.05",)):
        assert typed("sample", "run=logs/train/a", "n=4", "sampler.steps=2", *words).status == 0
    about = [json.loads(file.read_text())["average"] for file in run.glob("sample/*/samples.json")]
    assert sorted(map(str, about)) == ["0.05", "None"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("average=0.01",), "average=0.01: the snapshots miss"),
        (("average=0.4",), "average=0.4: a length in (0, 0.2887] is needed"),
        (("average=0.08", "checkpoint=previous"), "leave out checkpoint=previous"),
        (("average=long",), "average='long': expected float | None"),
    ],
)
def test_an_average_that_cannot_be_made_is_refused_in_one_line(typed: Callable, run: Path, words, told: str) -> None:
    said = typed("eval", "run=logs/train/a", *words)
    assert said.status == 2 and told in said.last and len(said.err.strip().splitlines()) == 1


def test_a_run_of_one_average_keeps_no_snapshots_and_says_so(typed: Callable, finished: Path) -> None:
    assert not (finished / "averages").exists()
    said = typed("sample", "run=logs/train/a", "average=0.1")
    assert said.status == 2 and "holds no snapshots of averages; train with callbacks=posthoc" in said.last
