"""The parts under the roof: averaging, rates, order of data, history, identity."""

import copy
import csv
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import CONFIGS
from lightning import Trainer

from scorelab.config.check import checked, instantiate, nearest
from scorelab.config.stored import of_today, slug
from scorelab.data.base import Split
from scorelab.data.images import Digits
from scorelab.data.module import Batches, DataModule
from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.errors import CheckpointError, Refusal, UserError
from scorelab.files import plain
from scorelab.lit.actions import EverySteps, RunContext, affordable
from scorelab.lit.callbacks import TrainingLog, Validation
from scorelab.lit.checkpoint_io import Checkpoints
from scorelab.lit.checkpointing import Checkpointing
from scorelab.lit.ema import AveragedWeights, Following, make_ema
from scorelab.lit.guard import DivergenceGuard
from scorelab.lit.module import DiffusionModule
from scorelab.lit.optim import Constant, WarmupCosine
from scorelab.lit.record import StepRecord
from scorelab.losses import Simple, Uniform
from scorelab.networks import UNet
from scorelab.run.checkpoints import read_checkpoint
from scorelab.run.directory import RunDir
from scorelab.run.identity import first_difference
from scorelab.samplers import DDIM
from scorelab.schedules import Cosine
from scorelab.tracking.history import History, flat
from scorelab.tracking.logger import Loggers, RunLogger


def small() -> NetworkDenoiser:
    return NetworkDenoiser(Cosine(), UNet((1, 8, 8), channels=8, multipliers=[1, 1]), Eps(), FixedSmall(), 17)


def test_averaged_weights_follow_by_the_decay() -> None:
    denoiser = small()
    averaged = make_ema(denoiser)
    start = [p.clone() for p in denoiser.parameters()]
    with torch.no_grad():
        for p in denoiser.parameters():
            p.add_(1.0)
    Following(averaged, denoiser).follow(0.75)
    for a, s in zip(averaged.parameters(), start, strict=True):
        torch.testing.assert_close(a, s + 0.25)
        assert not a.requires_grad


def module_of(denoiser: NetworkDenoiser) -> DiffusionModule:
    module = DiffusionModule(denoiser, Simple(), Uniform(), DDIM(2), None, None, seed=0)
    module.trainer = SimpleNamespace(max_steps=10, accumulate_grad_batches=1, world_size=1)
    return module


class FakeStep:
    """Just the two numbers AveragedWeights reads of a trainer."""

    global_step = 0


def test_averaging_warms_up_once_per_optimiser_step_and_never_trains() -> None:
    module = module_of(small())
    callback, trainer = AveragedWeights(decay=0.9), FakeStep()
    callback.setup(trainer, module, "fit")
    callback.on_train_start(trainer, module)
    value, expected = 1.0, float(next(module.averaged.parameters()).flatten()[0])
    for step in range(1, 200):
        trainer.global_step = step
        with torch.no_grad():
            next(module.denoiser.parameters()).fill_(value)
        callback.on_train_batch_end(trainer, module)
        callback.on_train_batch_end(trainer, module)  # an accumulated batch: no step was taken
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        value += 0.01
    got = float(next(module.averaged.parameters()).flatten()[0])
    assert got == pytest.approx(expected, rel=1e-4)
    module.train()
    callback.on_train_epoch_start(trainer, module)
    assert not module.averaged.training


def test_the_first_averages_are_short_however_slow_the_decay() -> None:
    module = module_of(small())
    callback, trainer = AveragedWeights(decay=0.9999), FakeStep()
    callback.setup(trainer, module, "fit")
    callback.on_train_start(trainer, module)
    start = float(next(module.averaged.parameters()).detach().flatten()[0])
    with torch.no_grad():
        next(module.denoiser.parameters()).fill_(start + 1)
    rest = 1.0
    for trainer.global_step in (1, 2, 3):
        callback.on_train_batch_end(trainer, module)
        rest *= (1 + trainer.global_step) / (10 + trainer.global_step)
        moved = float(next(module.averaged.parameters()).detach().flatten()[0]) - start
        assert moved == pytest.approx(1 - rest, abs=1e-5)


@pytest.mark.parametrize("batch", [32, 256])
def test_after_a_half_life_in_images_what_was_averaged_counts_for_half_at_any_batch_size(batch: int) -> None:
    averaging, images = AveragedWeights(half_life=4096), 4096
    after = range(400_000 // batch, 400_000 // batch + images // batch)  # long after the warm-up
    assert math.prod(averaging.decay_at(step, batch) for step in after) == pytest.approx(0.5)
    early = AveragedWeights(half_life=1e9)
    assert early.decay_at(100, batch) == pytest.approx(0.5 ** (1 / (0.05 * 100)))
    assert AveragedWeights(half_life=1e9).decay_at(1, batch) < 1e-5, "the random start is forgotten"


@pytest.mark.parametrize(("more", "told"), [({"decay": 1.0}, "decay must lie"), ({"half_life": 0.0}, "half_life must")])
def test_an_average_of_no_length_is_refused(more: dict, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        AveragedWeights(**more)


@pytest.mark.parametrize("schedule", [WarmupCosine, Constant])
def test_the_warm_up_is_at_most_a_tenth_of_the_steps(schedule: type) -> None:
    def rates(total: int, warmup: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule_ = schedule(optimizer, total_steps=total, warmup=warmup)
        found = []
        for _ in range(total):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule_.step()
        return found

    found = rates(200, 1000)
    assert found[0] == pytest.approx(1 / 20, rel=1e-3)
    assert found[19] == max(found)
    assert found[19] == pytest.approx(1.0, abs=1e-2)
    assert found[-1] == pytest.approx(0.0 if schedule is WarmupCosine else 1.0, abs=1e-3)
    if schedule is WarmupCosine:
        assert found[110] == pytest.approx(0.5, abs=0.01)
    assert all(rate > 0 for rate in rates(2, 100)[:1])


def test_every_image_is_seen_once_an_epoch_whatever_the_batch() -> None:
    batches = Batches(rows=10, batch_size=4, seed=0)
    stream = iter(batches)
    seen = torch.cat([next(stream) for _ in range(5)])
    assert seen[:10].sort().values.tolist() == list(range(10))
    assert seen[10:].sort().values.tolist() == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_a_stream_continued_at_a_step_is_the_same_stream() -> None:
    whole, late = Batches(10, 4, seed=3), Batches(10, 4, seed=3, start=3)
    stream = iter(whole)
    for _ in range(3):
        next(stream)
    rest = iter(late)
    for _ in range(4):
        assert torch.equal(next(stream), next(rest))


def test_a_batch_larger_than_the_data_is_served() -> None:
    rows = next(iter(Batches(rows=3, batch_size=8, seed=0)))
    assert rows.shape == (8,)
    assert rows[:3].sort().values.tolist() == [0, 1, 2]
    assert rows[3:6].sort().values.tolist() == [0, 1, 2]


def test_ranks_share_an_epoch_without_overlap() -> None:
    streams = [iter(Batches(12, 3, seed=0, rank=rank, world=2)) for rank in range(2)]
    seen = torch.cat([next(stream) for _ in range(2) for stream in streams])
    assert seen.sort().values.tolist() == list(range(12))


def test_the_digits_are_split_by_class_by_a_seed_of_their_own() -> None:
    torch.manual_seed(5)
    one = Digits().splits()
    torch.manual_seed(6)
    two, other = Digits().splits(), Digits(split_seed=1).splits()
    assert {name: len(split) for name, split in one.items()} == {"train": 1437, "val": 180, "test": 180}
    for name in one:
        assert torch.equal(one[name].values, two[name].values)
        share = one[name].labels.bincount(minlength=10) / len(one[name])
        assert share.min() > 0.09 and share.max() < 0.11
    assert not torch.equal(one["test"].values, other["test"].values)
    everything = torch.cat([split.values for split in one.values()])
    assert len(everything.flatten(1).unique(dim=0)) == 1797
    assert everything.max() == 16


def test_averaged_weights_take_the_buffers_as_they_are() -> None:
    denoiser = small()
    denoiser.network.register_buffer("seen", torch.zeros(2))
    averaged = make_ema(denoiser)
    denoiser.network.seen += 3
    Following(averaged, denoiser).follow(0.75)
    assert averaged.network.seen.tolist() == [3, 3]


def test_a_line_of_the_log_is_the_mean_of_what_was_finite_whenever_the_run_was_interrupted() -> None:
    """Steps of losses 1, nan, 3 and 5, and of gradients 0.5, 2, none (left out) and 4, cut at 1."""
    data, lines = SimpleNamespace(endless=False), []
    run = SimpleNamespace(logger=SimpleNamespace(log_metrics=lambda found, step: lines.append(found)))
    trainer = SimpleNamespace(datamodule=data, is_global_zero=True, global_step=0, max_steps=4, gradient_clip_val=1.0)
    module: Any = SimpleNamespace(known=None, device=torch.device("cpu"))
    log = TrainingLog(4, bar=False)
    log.on_train_start(trainer, module)
    for step, (loss, norm) in enumerate([(1.0, 0.5), (math.nan, 2.0), (3.0, 0.0), (5.0, 4.0)], start=1):
        trainer.global_step = step
        one = torch.tensor(loss)
        module.record = StepRecord(one, {}, torch.zeros(1), one[None], gradient_norm=torch.tensor(norm))
        log.on_train_batch_end(trainer, module, None, None, 0)
        if step == 2:
            kept, log = log.state_dict(), TrainingLog(4, bar=False)
            log.load_state_dict(kept)
            log.on_train_start(trainer, module)
    log.act(run, 4)
    assert lines[0]["train/loss"] == pytest.approx(3)
    assert lines[0]["train/grad_norm"] == pytest.approx(6.5 / 3)
    assert lines[0]["train/clipped"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", [0, 1, 1234])
def test_the_digits_are_those_of_scikit_learn_split_as_it_splits(seed: int) -> None:
    """Every run so far was trained on its split: ours must be the same, row by row."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    rows, rest = train_test_split(range(len(labels)), test_size=360, random_state=seed, stratify=labels)
    val, test = train_test_split(rest, test_size=180, random_state=seed, stratify=labels[rest])
    found = Digits(seed).splits()
    for name, theirs in (("train", rows), ("val", val), ("test", test)):
        assert torch.equal(found[name].values.flatten(1), torch.from_numpy(images[theirs]).byte())
        assert torch.equal(found[name].labels, torch.from_numpy(labels[theirs]))


def test_the_digits_come_without_the_import_of_scikit_learn() -> None:
    told = "import sys; from scorelab.data.images import Digits; Digits().splits(); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "False\n"


def test_data_come_in_minus_one_to_one() -> None:
    data = DataModule(Digits(), batch_size=200)
    x0, labels = next(iter(data.train_dataloader()))
    assert x0.shape == (200, 1, 8, 8) and labels.shape == (200,)
    assert x0.min() == -1 and x0.max() == 1
    assert set(((x0 + 1) * 8).flatten().tolist()) <= set(range(17))


def test_history_keeps_every_row_and_takes_new_columns(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.log_metrics({"a": 1.0}, 1)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a", "1,1.0"]
    history.log_metrics({"b": 2.0}, 2)
    history.log_metrics({"a": 3.0}, 3)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "1,1.0,", "2,,2.0", "3,3.0,"]
    again = History(tmp_path)
    again.truncate_after(2)
    again.log_metrics({"b": 5.0}, 3)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "1,1.0,", "2,,2.0", "3,,5.0"]


def test_every_logger_is_told_and_passes_over_what_it_does_not_care_for(tmp_path: Path) -> None:
    loggers = Loggers()
    for name in "ab":
        (tmp_path / name).mkdir()
        loggers.add(History(tmp_path / name))
        loggers.add(RunLogger())
    loggers.log_metrics({"a": 1.0}, 1)
    loggers.log_metrics({"a": 2.0}, 2)
    loggers.log_image("samples", tmp_path / "none.png", 2)
    loggers.truncate_after(1)
    loggers.summarize({"a": None})
    loggers.close(0)
    for name in "ab":
        assert (tmp_path / name / "metrics.csv").read_text().splitlines() == ["step,a", "1,1.0"]


def test_a_torn_last_line_is_forgotten_and_a_row_written_twice_stands_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    for step in (100, 110, 120):
        history.log_metrics({"a": step / 10}, step)
        history.log_metrics({"b": step / 20}, step)
    whole = (tmp_path / "metrics.csv").read_bytes()
    for torn in range(1, len(b"120,,6.0\r\n")):
        (tmp_path / "metrics.csv").write_bytes(whole[:-torn])
        again = History(tmp_path)
        again.truncate_after(120)
        again.log_metrics({"b": 6.0}, 120)
        assert (tmp_path / "metrics.csv").read_bytes() == whole
    again = History(tmp_path)
    again.truncate_after(110)
    for key, value in (("b", 5.5), ("a", 11.0)):
        again.log_metrics({key: value}, 110)
    again.log_metrics({"a": 12.0}, 120)
    again.log_metrics({"b": 6.0}, 120)
    assert (tmp_path / "metrics.csv").read_bytes() == whole


def tensors(value: object) -> list[torch.Tensor]:
    """All tensors in an object's attributes, in dictionaries there too."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [found for each in value.values() for found in tensors(each)] if isinstance(value, dict) else []


@pytest.mark.parametrize("name", ["averaging", "log", "validation", "grid", "guard"])
def test_what_a_callback_kept_goes_on_where_the_run_is(name: str) -> None:
    """A checkpoint is read on the CPU, in whatever type it was written; a run may go on elsewhere."""
    node = yaml.safe_load((CONFIGS / "callbacks" / "default.yaml").read_text())[name]
    callback = instantiate(checked({name: {"_target_": node["_target_"]}}, "callbacks")[name], f"callbacks.{name}")
    state = callback.state_dict()
    if name == "log":
        state["sums"] = {"loss": torch.ones(2, dtype=torch.float64)}
    callback.load_state_dict(state)
    module, trainer = module_of(small()), Trainer(max_steps=10, logger=False, enable_checkpointing=False)
    module._device = torch.device("meta")
    module.average()
    if name == "guard":
        callback.begin(module, 0)
    callback.on_train_start(trainer, module)
    assert {each.device.type for each in tensors(vars(callback))} <= {"meta"}


@pytest.mark.parametrize("name", ["log", "validation", "grid", "guard"])
def test_a_checkpoint_that_lacks_what_a_callback_kept_is_refused_by_name(name: str) -> None:
    node = yaml.safe_load((CONFIGS / "callbacks" / "default.yaml").read_text())[name]
    callback = instantiate(checked({name: {"_target_": node["_target_"]}}, "callbacks")[name], f"callbacks.{name}")
    state = callback.state_dict()
    assert state
    for key in state:
        with pytest.raises(CheckpointError, match=rf"\.{key}: overwrite=true starts anew"):
            callback.load_state_dict({each: value for each, value in state.items() if each != key})


class Noted(EverySteps):
    """Notes the steps it was done at; says once that the next checkpoint is the best."""

    def __init__(self, best: bool) -> None:
        super().__init__(1)
        self.best, self.aside = best, 0.0

    def act(self, run: RunContext, step: int) -> None:
        """Nothing."""

    def take_best(self) -> bool:
        best, self.best = self.best, False
        return best

    def leave_out(self, seconds: float) -> None:
        self.aside += seconds

    def figures(self) -> dict[str, float]:
        return {f"best {self.best}": 1.0}


def test_each_action_is_asked_for_the_best_and_told_of_time_that_is_not_training(tmp_path: Path) -> None:
    saved = []
    actions = [Noted(True), Noted(True), Noted(False)]
    keeper = Checkpointing(actions, DivergenceGuard(), RunLogger(), Checkpoints())
    trainer = Trainer(max_steps=10, logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.save_checkpoint = lambda path, **given: saved.append(given["storage_options"])
    keeper.save(trainer, 1, again=False)
    keeper.save(trainer, 2, again=False)
    assert saved == [{"best": True}, {"best": False}]
    assert all(each.aside > 0 for each in actions)
    assert keeper.figures() == {"best False": 1.0}


def found_in_turn(monkeypatch: pytest.MonkeyPatch, *values: float | None) -> list[Any]:
    """Validation finds these values one after the other; what it has looked at."""
    left, looked_at = list(values), []

    def found(denoiser: Any, *_: Any) -> SimpleNamespace:
        looked_at.append(denoiser)
        return SimpleNamespace(simple=left.pop(0))

    monkeypatch.setattr("scorelab.lit.callbacks.noise_error", found)
    return looked_at


DATA = SimpleNamespace(
    splits={"val": Split(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long))}, levels=None, batch_size=64
)


def test_validation_looks_at_the_averaged_weights_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = found_in_turn(monkeypatch, 1.0, 1.0)
    module, validation = module_of(small()), Validation(1)
    validation.act(RunContext(module, DATA, RunLogger(), Path()), 1)
    module.average()
    validation.act(RunContext(module, DATA, RunLogger(), Path()), 2)
    assert looked_at == [module.denoiser, module.averaged]


def test_what_is_the_least_so_far_makes_one_checkpoint_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    found_in_turn(monkeypatch, 1.0)
    validation = Validation(1)
    assert not validation.take_best()
    validation.act(RunContext(module_of(small()), DATA, RunLogger(), Path()), 1)
    assert [validation.take_best(), validation.take_best()] == [True, False]


def test_best_is_written_where_validation_is_the_least_so_far_or_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = 3.0, 2.0, 2.5, 2.0, 1.0, None
    found_in_turn(monkeypatch, *values)
    checkpoints, module = Checkpoints(), module_of(small())
    keeper = Checkpointing([Validation(1)], DivergenceGuard(), RunLogger(), checkpoints)
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=tmp_path, datamodule=DATA, global_step=0)

    def save(path: Path, weights_only: bool, storage_options: dict[str, bool]) -> None:
        checkpoints.save_checkpoint({"global_step": trainer.global_step}, path, storage_options)

    trainer.save_checkpoint = save
    best = []
    for trainer.global_step in range(1, 1 + len(values)):
        keeper.end_of_step(trainer, module, last=False)
        checkpoints.wait()
        kept = [read_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt")["global_step"] for name in ("last", "best")]
        assert kept[0] == trainer.global_step
        best.append(kept[1])
    checkpoints.teardown()
    assert best == [1, 2, 2, 2, 5, 6]


def test_a_checkpoint_is_due_when_so_many_minutes_have_passed_since_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saved = [1000.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0])
    monkeypatch.setattr("scorelab.lit.checkpointing.time", clock)
    keeper = Checkpointing([], DivergenceGuard(), RunLogger(), Checkpoints(), minutes=2)
    trainer = SimpleNamespace(default_root_dir=tmp_path, datamodule=None, global_step=0, is_global_zero=True)
    trainer.save_checkpoint = lambda *_, **__: saved.append(trainer.global_step)
    for trainer.global_step, now[0] in enumerate((1001, 1119, 1121, 1240, 1242), 1):
        keeper.end_of_step(trainer, None, last=False)
    assert saved == [3, 5]


def test_each_step_logs_the_rate_it_was_taken_with_and_a_speed_without_what_is_done_between(typed) -> None:
    said = typed(
        "train",
        "run=a",
        "data=moons",
        "model.width=8",
        "metrics=[simple]",
        "logger=none",
        "trainer.max_steps=6",
        "callbacks.log.every=1",
        "callbacks.log.bar=false",
        "+callbacks.dawdler={_target_:dawdler.Dawdler,every:2}",
    )
    assert said.status == 0, said.err
    with Path("logs/train/a/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/lr"]]
    rates = [0.006 * 0.5 * (1 + math.cos(math.pi * done / 5)) for done in (0, 0, 1, 2, 3, 4)]
    assert [float(row["train/lr"]) for row in rows] == pytest.approx(rates, rel=1e-6)
    assert min(float(row["train/it_per_s"]) for row in rows[3:]) > 5, (
        "0.2 s between steps would be less than 5 a second"
    )


def test_the_first_differing_key_is_named_and_the_machine_does_not_count() -> None:
    old = {"run": "a", "loss": {"_target_": "x", "w": 1}, "trainer": {"devices": 1, "max_steps": 5}}
    assert first_difference(old, copy.deepcopy(old) | {"run": "b"}) is None
    assert first_difference(old, old | {"trainer": {"devices": 1, "max_steps": 5, "accelerator": "gpu"}}) is None
    assert first_difference(old, old | {"data": {"workers": 4}}) is None
    told = first_difference(old, old | {"trainer": {"devices": 1, "max_steps": 6}})
    assert told == "trainer.max_steps was 5, is now 6"
    assert "devices" in first_difference(old, old | {"trainer": {"devices": 4, "max_steps": 5}})  # another batch
    assert first_difference(old, old | {"loss": {"_target_": "x"}}) == "loss.w was 1, is now nothing"


def test_a_second_job_is_told_who_works_in_the_directory(tmp_path: Path) -> None:
    """Locks are a process's own: another is forked off, which inherits none."""
    run = RunDir(tmp_path / "r")
    run.lock()
    (run.path / "train.log").touch()
    child = os.fork()
    if child == 0:
        told = ""
        try:
            RunDir(run.path).discard()
            RunDir(run.path).lock()
        except UserError as error:
            told = str(error)
        finally:
            (tmp_path / "told").write_text(told)
            os._exit(0)
    os.waitpid(child, 0)
    assert f"is being worked on by {socket.gethostname()}, pid {os.getpid()}" in (tmp_path / "told").read_text()
    assert (run.path / "train.log").exists()


def test_json_has_no_nan() -> None:
    assert plain({"a": [float("nan"), 1.0], "b": float("inf")}) == {"a": [None, 1.0], "b": None}


def test_a_set_of_overrides_has_one_name_in_any_order() -> None:
    assert slug(["a=1", "b=2"]) == slug(["b=2", "a=1"]) != slug(["a=1"])


def test_the_nearest_word_is_suggested_or_all_are_listed() -> None:
    assert nearest("chanels", ["channels", "blocks"]) == "; did you mean channels?"
    assert nearest("xyz", ["channels", "blocks"]) == "; possible: blocks, channels"


def test_w_and_b_config_is_flat_with_the_choice_under_its_group() -> None:
    config = {"loss": {"_target_": "a.B", "w": 1}, "seed": 0, "model": {"m": [1, 2]}}
    found = flat(config, {"loss": "simple", "hydra/launcher": "basic"})
    assert found == {"loss": "simple", "loss.w": 1, "seed": 0, "model.m": "[1, 2]"}


def test_a_finished_run_is_one_whose_metrics_say_so(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not run.finished and run.newest() is None
    run.close("failed", {})
    assert not run.finished
    run.close("finished", {"seed": 0}, {"test/fid": float("nan")}, {}, 7)
    assert run.finished
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["metrics"] == {"test/fid": None}
    assert content["versions"]["torch"] and content["config"] == {"seed": 0}
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "finished"


def test_a_run_of_another_config_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.check({"loss": "a"}, of_today)
    run.claim({"loss": "a"})
    run.check({"loss": "a"}, of_today)
    with pytest.raises(UserError, match="loss was a, is now b; choose another run=, or overwrite=true"):
        run.check({"loss": "b"}, of_today)


def test_a_cleared_directory_holds_no_run_any_more(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.claim({"loss": "a"})
    (tmp_path / "checkpoints").mkdir()
    (run.checkpoints / "last.ckpt").touch()
    run.clear()
    run.check({"loss": "b"}, of_today)
    assert run.newest() is None


def test_a_run_refused_before_it_began_leaves_no_directory(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    run.lock()
    (run.path / "config.yaml").touch()
    run.discard()
    assert run.path.exists()
    (run.path / "config.yaml").unlink()
    run.discard()
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("every", "batch", "parts", "world", "cost", "steps"),
    [
        (50, 64, 1, 1, 20, 50),
        (50, 64, 1, 1, 50, 50),
        (7, 5, 3, 2, 9, 7),
        (10**6, 16, 1, 1, 3, 10),
        (None, 16, 1, 1, 3, 10),
    ],
)
def test_what_is_done_between_steps_takes_as_much_as_fits_into_a_tenth_of_their_work(
    every: int | None, batch: int, parts: int, world: int, cost: int, steps: int
) -> None:
    """A step shows the network every image three times, there and back."""
    module = module_of(small())
    module.trainer = SimpleNamespace(max_steps=max(10, steps), accumulate_grad_batches=parts, world_size=world)
    run = RunContext(module, SimpleNamespace(batch_size=batch), RunLogger(), Path())
    found = affordable(run, every, cost)
    assert found * cost <= 3 * steps * batch * parts * world / 10 < (found + 1) * cost
