"""The main job, whole, on real digits: a small run, resumed, skipped, evaluated and sampled."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, TINY, type_in
from faults.compare import differences
from PIL import Image

from scorelab.data.images import Digits
from scorelab.lit.loggers import ForLightning
from scorelab.lit.module import DiffusionModule
from scorelab.metrics.features import DigitsExtractor
from scorelab.metrics.fidelity import Chance, frechet_floor
from scorelab.tensors import to_bytes
from scorelab.tracking.history import History

ROOT = Path(__file__).resolve().parent.parent
WHOLE = (
    "model.channels=8",
    "model.multipliers=[1]",
    "trainer.max_steps=30",
    "callbacks.validation.every=10",
    "callbacks.grid.every=20",
    "callbacks.grid.samples=64",
    "callbacks.log.every=10",
    "evaluation.samples=100",
    "evaluation.tolerance=0.5",
    "metrics.gradient_noise.batches=2",
    "sampler.steps=5",
    "logger=none",
)
BRIEF = (*(word for word in WHOLE if "gradient_noise" not in word), "metrics=[simple]")


def left(folder: Path, run: str = "a", name: str = "metrics.json") -> dict:
    return json.loads((folder / "logs" / "train" / run / name).read_text())


def torn_off(run: Path, step: int, copy: Path, patch: pytest.MonkeyPatch) -> None:
    """Keep what stands of a run on the disk as this step begins, once it has a checkpoint: what kill -9 would leave."""
    real = DiffusionModule.training_step

    def stepped(self: DiffusionModule, *args: object) -> object:
        if self.trainer.global_step == step and not copy.exists():
            deadline = time.time() + 60
            while not (run / "checkpoints" / "last.ckpt").exists() and time.time() < deadline:
                time.sleep(0.01)
            shutil.copytree(run, copy, ignore=shutil.ignore_patterns(".*"))  # what is being written may vanish
        return real(self, *args)

    patch.setattr(DiffusionModule, "training_step", stepped)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run that all look at is, logs/train/a, and what stood of it at step 17, torn/logs/train/a."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def first(folder: Path) -> str:
    """What the run prints."""
    with pytest.MonkeyPatch.context() as patch:
        torn_off(folder / "logs" / "train" / "a", 17, folder / "torn" / "logs" / "train" / "a", patch)
        said = type_in(folder, "train", "run=a", *WHOLE, pictures=True)
    assert said.status == 0, said.err
    return said.out + said.err


def test_a_run_leaves_what_it_promises(folder: Path, first: str) -> None:
    run = folder / "logs" / "train" / "a"
    files = {p.name for p in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "metrics.json", "status.json", "train.log", "checkpoints", "samples"} <= files
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt", "previous.ckpt"}
    assert {p.name for p in (run / "samples").iterdir()} == {"step_0000020.png", "step_0000030.png"}
    content = left(folder)
    assert content["status"] == left(folder, name="status.json")["state"] == "finished"
    assert content["config"] == yaml.safe_load((run / "config.yaml").read_text())
    assert {"torch", "lightning", "scorelab"} <= content["versions"].keys()
    metrics = content["metrics"]
    for name in ("simple", "vlb", "fid", "fid_floor", "fid_excess", "memorization", "recognised"):
        assert metrics[f"test/{name}"] is not None
    assert metrics["test/vlb"] == pytest.approx(
        metrics["test/vlb_prior"] + metrics["test/vlb_diffusion"] + metrics["test/vlb_decoder"]
    )
    assert metrics["test/fid_excess"] == pytest.approx(metrics["test/fid"] - metrics["test/fid_floor"])
    record = content["records"]["fid"]
    assert record["n"] == 100 and record["network_evaluations_per_sample"] == 5 and record["extractor_hash"]
    assert content["records"]["vlb"]["se_over_times_and_noise"] <= 0.5
    assert content["records"]["vlb"]["x0_clipped"] is True


PARTS_OF_EXCESS_SE = ("floor_se", "spread_of_samples", "spread_of_references")


def test_the_floor_is_that_of_the_samples_and_the_reference_at_their_own_sizes(folder: Path, first: str) -> None:
    train = Digits().splits()["train"]  # which was split by class, while a sample's class is drawn
    expected = frechet_floor(to_bytes(train.values, 17), DigitsExtractor(), 100, train.labels, Chance(1.0, 0.0))
    content = left(folder)
    assert content["metrics"]["test/fid_floor"] == pytest.approx(expected.value, rel=1e-6)
    record = content["records"]["fid"]
    assert record["floor"] == "samples' classes drawn, the reference's in proportion"
    assert record["excess_se"] == pytest.approx(math.hypot(*(record[key] for key in PARTS_OF_EXCESS_SE)))
    assert record["excess_se"] == pytest.approx(expected.excess_se, rel=1e-6)


def test_a_run_shows_cost_table_and_paths(first: str) -> None:
    assert re.search(r"evaluating: at least [\d,]+ network evaluations .* about \d+ s", first)
    assert re.search(
        r"Fréchet distance +[\d.]+   perfect samples have [\d.]+ \(the floor\); -?[\d.]+ ± [\d.]+ above it\n", first
    )
    assert re.search(r"recognised +[\d.]+   held-out images 0\.978, rarest class", first)
    for word in ("training:", "it/s", "loss", "Fréchet distance", "bound, bits/dim", "memorization", "metrics.json"):
        assert word in first


def test_history_has_losses_and_validation(folder: Path, first: str) -> None:
    with (folder / "logs" / "train" / "a" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    simple = {int(row["step"]): float(row["val/simple"]) for row in rows if row["val/simple"]}
    assert set(losses) == {10, 20, 30} and losses[30] < losses[10]
    norms = [float(row["train/grad_norm"]) for row in rows if row["train/grad_norm"]]
    clipped = [float(row["train/clipped"]) for row in rows if row["train/clipped"]]
    assert len(norms) == 3 and min(norms) > 0
    assert len(clipped) == 3 and all(10 * share == round(10 * share) for share in clipped)
    assert set(simple) == {10, 20, 30} and simple[30] < simple[10]
    assert left(folder)["metrics"]["val/simple"] == pytest.approx(simple[30])


def test_checkpoints_hold_raw_and_averaged_weights_as_plain_values(folder: Path, first: str) -> None:
    path = folder / "logs" / "train" / "a" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    raw = {k.removeprefix("denoiser.") for k in checkpoint["state_dict"] if k.startswith("denoiser.")}
    averaged = {k.removeprefix("averaged.") for k in checkpoint["state_dict"] if k.startswith("averaged.")}
    assert raw == averaged != set()
    assert not any("_orig_mod" in key for key in checkpoint["state_dict"])
    key = "network.enter.weight"
    state = checkpoint["state_dict"]
    assert not torch.equal(state[f"denoiser.{key}"], state[f"averaged.{key}"])


def test_pictures_show_images_on_the_data_lattice(folder: Path, first: str) -> None:
    picture = np.asarray(Image.open(folder / "logs" / "train" / "a" / "samples" / "step_0000030.png"))
    assert picture.shape[0] > 300 and picture.std() > 10


def test_a_run_torn_off_goes_on_by_the_same_command_and_ends_as_if_it_had_not_been(typed, folder, first) -> None:
    """From what was on the disk between two checkpoints; test-slow kills processes."""
    shutil.copytree(folder / "torn" / "logs", "logs")
    assert not Path("logs/train/a/metrics.json").exists()
    said = typed("train", "run=a", *WHOLE, pictures=True)
    assert said.status == 0 and "resumed at step 10 " in said.out
    assert left(Path())["metrics"] == left(folder)["metrics"]
    assert differences(folder / "logs" / "train" / "a", Path("logs/train/a")) == []


@pytest.fixture
def copied(folder: Path, first: str, tmp_path: Path) -> Path:
    """Where a copy of the run is, for a test to do with as it likes."""
    shutil.copytree(folder / "logs", tmp_path / "logs")
    return tmp_path


def test_eval_repeats_the_run_and_never_touches_its_figures(copied: Path) -> None:
    before = left(copied)
    said = type_in(copied, "eval", "run=logs/train/a", "evaluation.samples=100")
    assert said.status == 0, said.err
    result = json.loads((copied / said.out.strip().splitlines()[-1]).read_text())
    own = {k: v for k, v in before["metrics"].items() if not k.startswith("val/")}  # which training alone tells
    assert {"test/simple", "train/score_error"} <= own.keys()
    assert result["metrics"] == pytest.approx(own, rel=1e-5, abs=1e-6)
    assert left(copied) == before


def test_eval_has_no_budget_unless_given_and_skips_by_name(copied: Path) -> None:
    said = type_in(copied, "eval", "run=logs/train/a", "evaluation.budget=7000")
    result = json.loads((copied / said.out.strip().splitlines()[-1]).read_text())
    assert result["metrics"]["test/simple"] is not None
    assert result["metrics"]["test/vlb"] is None and "needs" in result["records"]["vlb"]["skipped"]
    assert "vlb skipped" in said.out


# --- the same command again, and others, on a finished run


def test_the_same_seed_gives_the_same_run(typed, small_run: Path) -> None:
    assert typed("train", "run=a", *SMALL).status == 0
    assert differences(small_run, Path("logs/train/a")) == []


def test_the_same_command_again_skips_a_finished_run(typed, finished: Path) -> None:
    before = (finished / "metrics.json").read_text()
    said = typed("train", "run=a", *SMALL)
    assert said.status == 0 and "logs/train/a is finished" in said.out and "training:" not in said.err
    assert (finished / "metrics.json").read_text() == before


def test_another_configuration_under_the_same_name_is_refused(typed, finished: Path) -> None:
    said = typed("train", "run=a", *SMALL, "loss=vlb")
    assert said.status == 2 and "logs/train/a has another configuration: loss._target_ was " in said.last
    assert "overwrite=true" in said.last


def test_overwriting_spares_the_old_run_until_the_new_one_is_known_to_be_possible(typed, finished: Path) -> None:
    assert typed("train", "run=a", *SMALL, "overwrite=true", "optimizer.lr=-1").status == 2
    assert left(Path())["status"] == "finished"


def test_a_run_killed_between_its_verdict_and_its_last_status_is_finished(typed, finished: Path) -> None:
    before = left(Path(), name="status.json")
    (finished / "status.json").write_text(json.dumps(before | {"state": "evaluating"}))
    (finished / ".status.json.1-1.part").touch()
    assert "is finished" in typed("train", "run=a", *SMALL).out
    after = left(Path(), name="status.json")
    assert {key: after[key] for key in ("state", "step")} == {key: before[key] for key in ("state", "step")}
    assert after["seconds"] == pytest.approx(before["seconds"], abs=1) and not list(finished.glob(".*"))


def test_a_directory_without_its_config_is_not_resumed(typed, finished: Path) -> None:
    (finished / "config.yaml").unlink()
    said = typed("train", "run=a", *SMALL)
    assert said.status == 2 and "no config.yaml to compare with" in said.last


def test_eval_and_sample_refuse_what_belongs_to_training(typed, finished: Path) -> None:
    for entry, word in (("eval", "loss=vlb"), ("eval", "optimizer.lr=1"), ("sample", "model.channels=3")):
        said = typed(entry, "run=logs/train/a", word)
        assert said.status == 2 and "belongs to training" in said.err and len(said.err.strip().splitlines()) == 1


def test_sample_writes_a_picture_and_an_array(typed, finished: Path) -> None:
    words = ("run=logs/train/a", "sampler=ddim", "sampler.steps=4", "seed=1")
    picture, array = map(Path, typed("sample", *words, "n=10").out.strip().splitlines()[-2:])
    images = np.load(array)["arr_0"]
    assert picture.name == "samples.png" and array.name == "samples.npz"
    assert images.shape == (10, 8, 8, 1) and images.dtype == np.uint8
    assert set(np.unique(images)) <= {round(255 * k / 16) for k in range(17)}
    more = typed("sample", *words, "n=300").out.strip().splitlines()[-1]
    assert np.array_equal(np.load(more)["arr_0"][:10], images)


# --- other runs


def test_two_steps_end_whole(typed) -> None:
    assert typed("train", "run=a", *SMALL, "trainer.max_steps=2").status == 0
    assert {file.name for file in Path("logs/train/a/checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
    assert left(Path())["metrics"]["val/simple"] is not None


def test_a_run_trains_in_bfloat16_with_clipped_gradients(typed) -> None:
    assert typed("train", "run=a", *SMALL, "trainer.max_steps=2", "trainer.precision=bf16-mixed").status == 0
    assert left(Path())["metrics"]["test/simple"] is not None


@pytest.mark.parametrize(
    "choice",
    [
        ("loss=vlb", "schedule=scaled_linear", "variance=fixed_large"),
        ("prediction=v", "timesteps=stratified", "schedule=linear"),
        ("loss=likelihood", "schedule=vp", "timesteps=log_snr_uniform"),
    ],
)
def test_other_choices_train_too(typed, choice: tuple[str, ...]) -> None:
    words = (*SMALL, "metrics=[simple,vlb]", "evaluation.tolerance=0.5", "trainer.max_steps=4")
    said = typed("train", "run=a", *words, *choice, "trainer.accumulate_grad_batches=2", pictures=True)
    assert said.status == 0, said.err
    metrics = left(Path())["metrics"]
    assert metrics["test/vlb"] is not None and metrics["test/vlb_common"] is not None


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of the hybrid loss is, of few steps, so that its bound can be summed."""
    folder = tmp_path_factory.mktemp("hybrid")
    words = (
        *SMALL,
        "loss=hybrid",
        "schedule.num_steps=50",
        "sampler=ddpm",
        "metrics=[simple,vlb]",
        "evaluation.tolerance=2",
    )
    said = type_in(folder, "train", "run=a", *words, "trainer.accumulate_grad_batches=2")
    assert said.status == 0, said.err
    return folder


def test_a_hybrid_run_logs_its_parts_and_its_loss_unnormalised(hybrid: Path) -> None:
    with (hybrid / "logs" / "train" / "a" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert rows
    for row in rows:
        whole = float(row["train/simple"]) + 0.001 * float(row["train/vlb"])
        assert float(row["train/loss"]) == pytest.approx(whole, rel=1e-4)


def test_eval_takes_another_sampler_and_the_exact_bound(hybrid: Path) -> None:
    words = ("sampler=ddim", "sampler.steps=7", "evaluation.bound=exact", "metrics=[vlb,fid]")
    said = type_in(hybrid, "eval", "run=logs/train/a", *words)
    assert said.status == 0, said.err
    result = json.loads((hybrid / said.out.strip().splitlines()[-1]).read_text())
    assert result["records"]["fid"]["sampler"] == "DDIM"
    assert result["records"]["fid"]["network_evaluations_per_sample"] == 7
    assert result["records"]["vlb"]["evaluations"] == 180 * 50
    by_step = result["records"]["vlb"]["by_step"]
    assert len(by_step) == 50 and sum(by_step[1:]) == pytest.approx(result["metrics"]["test/vlb_diffusion"], rel=1e-4)
    own = left(hybrid)
    se = own["records"]["vlb"]["se_over_times_and_noise"]
    assert abs(result["metrics"]["test/vlb"] - own["metrics"]["test/vlb"]) < 4 * se


def test_a_diverged_run_says_so_and_keeps_its_last_good_checkpoint(typed) -> None:
    said = typed("train", "run=a", *SMALL, "optimizer.lr=1e18", "trainer.gradient_clip_val=0", "lr_schedule.warmup=0")
    told = r"error: the loss is (inf|nan) in step \d+ at t = [\d.]+, log-SNR -?[\d.]+ \(\d+ of 16"
    assert said.status == 2 and re.match(told, said.last), said.last
    assert left(Path())["status"] == "failed"


# With 20 steps the law has learned by the first checkpoint, so a forgotten history would draw other times.
IMPORTANCE = ("loss=vlb", "timesteps=importance", "schedule.num_steps=20")


def test_the_history_of_importance_sampling_is_in_the_checkpoint(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run=a", *TINY, *IMPORTANCE, "callbacks=default", "trainer.max_steps=16", "evaluation.every=10")
    words += ("callbacks.grid.every=10",)
    run, torn = (tmp_path / name / "logs" / "train" / "a" for name in ("whole", "torn"))
    for folder in ("whole", "torn"):
        (tmp_path / folder).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        torn_off(run, 13, torn, patch)
        assert type_in(tmp_path / "whole", "train", *words).status == 0
    state = torch.load(torn / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["timesteps._extra_state"]
    assert state["seen"].min() >= 10
    assert "resumed at step 10 " in type_in(tmp_path / "torn", "train", *words).out
    assert differences(run, torn) == []


# --- processes that are killed


def killed(folder: Path, *words: str) -> Path:
    """The directory of a run whose process is killed once it has a checkpoint."""
    command = [sys.executable, str(ROOT / "src" / "train.py"), "run=a", *words]
    job = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = folder / "logs" / "train" / "a"
    deadline = time.time() + 200
    while not (run / "checkpoints" / "last.ckpt").exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert (run / "checkpoints" / "last.ckpt").exists() and not (run / "metrics.json").exists()
    return run


@pytest.mark.slow
def test_a_killed_run_is_resumed_by_the_same_command_and_ends_as_if_it_had_not_been(typed, folder, first) -> None:
    run = killed(Path().absolute(), *WHOLE)
    said = typed("train", "run=a", *WHOLE, pictures=True)
    assert re.search(r"resumed at step (10|20)", said.out)
    assert differences(folder / "logs" / "train" / "a", run) == []


@pytest.mark.slow
def test_the_history_of_importance_sampling_outlives_a_kill(typed, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    assert type_in(tmp_path / "whole", "train", "run=a", *BRIEF, *IMPORTANCE).status == 0
    run = killed(tmp_path, *BRIEF, *IMPORTANCE)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["timesteps._extra_state"]
    assert state["seen"].min() >= 10
    assert "resumed at step" in typed("train", "run=a", *BRIEF, *IMPORTANCE).out
    assert differences(tmp_path / "whole" / "logs" / "train" / "a", run) == []


@pytest.mark.slow
def test_two_processes_outlive_a_kill_too_and_leave_nothing_behind(tmp_path: Path) -> None:
    words = (*BRIEF, *IMPORTANCE[1:], "trainer=ddp_cpu", "data.workers=1")
    command = [sys.executable, str(ROOT / "src" / "train.py"), "run=a", *words]
    for name in ("whole", "fallen", "alone"):
        (tmp_path / name).mkdir()
    subprocess.run(command, cwd=tmp_path / "whole", check=True, capture_output=True, timeout=400)
    run = killed(tmp_path / "fallen", *words)
    told = subprocess.run(command, cwd=tmp_path / "fallen", check=True, capture_output=True, text=True, timeout=400)
    assert "resumed at step " in told.stdout
    assert differences(tmp_path / "whole" / "logs" / "train" / "a", run) == []
    assert left(tmp_path / "fallen")["records"]["training"]["processes"] == 2
    assert type_in(tmp_path / "alone", "train", "run=a", *words, "trainer=cpu").status == 0
    last = (tmp_path / name / "logs/train/a/checkpoints/last.ckpt" for name in ("whole", "alone"))
    both, one = (torch.load(file, weights_only=True)["state_dict"]["denoiser.network.enter.weight"] for file in last)
    assert not torch.equal(both, one), "twice the batch"
    others = subprocess.run(["pgrep", "-f", f"scorelab.app.worker .*{tmp_path}"], capture_output=True, text=True)
    assert others.stdout == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_trains_in_bf16_on_a_gpu(typed) -> None:
    assert typed("train", "run=a", *WHOLE, "trainer=gpu").status == 0
    assert left(Path())["metrics"]["test/fid"] is not None


def test_a_callback_of_lightnings_own_that_wants_a_logger_has_one(typed) -> None:
    monitor = "+callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor"
    assert typed("train", "run=a", *TINY, monitor).status == 0


def test_what_such_a_callback_logs_goes_into_the_history(tmp_path: Path) -> None:
    ForLightning(History(tmp_path)).log_metrics({"theirs": 0.5}, 3)
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,theirs", "3,0.5"]
