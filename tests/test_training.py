"""The main job, whole, on real digits: a small run from the command line, resumed, skipped, evaluated and sampled."""

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
from faults.compare import differences
from PIL import Image

from scorelab.data.images import Digits
from scorelab.metrics.features import DigitsExtractor
from scorelab.metrics.fidelity import Chance, frechet_floor
from scorelab.tensors import to_bytes

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "model.channels=8",
    "trainer.max_steps=30",
    "callbacks.validation.every=10",
    "callbacks.grid.every=20",
    "callbacks.grid.samples=64",
    "callbacks.log.every=10",
    "evaluation.samples=100",
    "evaluation.tolerance=0.5",
    "sampler.steps=5",
    "logger=none",
)


def command(entry: str, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "src" / f"{entry}.py"), *words]


def typed(folder: Path, entry: str, *words: str, status: int = 0) -> str:
    told = subprocess.run(command(entry, *words), cwd=folder, capture_output=True, text=True, timeout=400)
    assert told.returncode == status, told.stdout + told.stderr
    return told.stdout + told.stderr


def left(folder: Path, run: str, name: str = "metrics.json") -> dict:
    return json.loads((folder / "logs" / "train" / run / name).read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def first(folder: Path) -> str:
    """What the first run prints."""
    return typed(folder, "train", "run=a", *SMALL)


def test_a_run_leaves_what_it_promises(folder: Path, first: str) -> None:
    run = folder / "logs" / "train" / "a"
    files = {p.name for p in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "metrics.json", "status.json", "train.log", "checkpoints", "samples"} <= files
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt", "previous.ckpt"}
    assert {p.name for p in (run / "samples").iterdir()} == {"step_0000020.png", "step_0000030.png"}
    content = left(folder, "a")
    assert content["status"] == left(folder, "a", "status.json")["state"] == "finished"
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
    content = left(folder, "a")
    assert content["metrics"]["test/fid_floor"] == pytest.approx(expected.value, rel=1e-6)
    record = content["records"]["fid"]
    assert record["floor"] == "samples' classes drawn, the reference's in proportion"
    assert record["excess_se"] == pytest.approx(math.hypot(*(record[key] for key in PARTS_OF_EXCESS_SE)))
    assert record["excess_se"] == pytest.approx(expected.excess_se, rel=1e-6)


def test_a_run_shows_cost_table_and_paths(first: str) -> None:
    assert re.search(r"evaluating: at least [\d,]+ network evaluations .* about \d+ s", first)
    assert re.search(r"Fréchet distance +[\d.]+   floor [\d.]+, excess -?[\d.]+ ± [\d.]+\n", first)
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
    assert left(folder, "a")["metrics"]["val/simple"] == pytest.approx(simple[30])


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


def test_the_same_command_again_skips_a_finished_run(folder: Path, first: str) -> None:
    before = left(folder, "a")
    told = typed(folder, "train", "run=a", *SMALL)
    assert "logs/train/a is finished" in told and "training:" not in told
    assert left(folder, "a") == before


def test_another_configuration_under_the_same_name_is_refused(folder: Path, first: str) -> None:
    told = typed(folder, "train", "run=a", *SMALL, "loss=vlb", status=2)
    assert told.strip().splitlines()[-1] == (
        "error: run logs/train/a has another configuration: loss._target_ was scorelab.losses.Simple, is now "
        "scorelab.losses.VariationalBound; choose another run=, or overwrite=true"
    )


def test_the_same_seed_gives_the_same_figures(folder: Path, first: str) -> None:
    typed(folder, "train", "run=b", *SMALL)
    assert left(folder, "b")["metrics"] == left(folder, "a")["metrics"]


def test_a_killed_run_is_resumed_by_the_same_command_and_ends_as_if_it_had_not_been(folder: Path, first: str) -> None:
    run = folder / "logs" / "train" / "c"
    job = subprocess.Popen(
        command("train", "run=c", *SMALL), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    last, deadline = run / "checkpoints" / "last.ckpt", time.time() + 200
    while not last.exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    assert last.exists() and not (run / "metrics.json").exists()
    told = typed(folder, "train", "run=c", *SMALL)
    assert re.search(r"resumed at step (10|20)", told)
    assert left(folder, "c")["metrics"] == left(folder, "a")["metrics"]


def test_eval_repeats_the_run_and_never_touches_its_figures(folder: Path, first: str) -> None:
    before = left(folder, "a")
    told = typed(folder, "eval", "run=logs/train/a", "evaluation.samples=100")
    result = json.loads((folder / told.strip().splitlines()[-1]).read_text())
    own = {k: v for k, v in before["metrics"].items() if not k.startswith("val/")}  # which training alone tells
    assert {"test/simple", "train/score_error"} <= own.keys()
    assert result["metrics"] == pytest.approx(own, rel=1e-5, abs=1e-6)
    assert left(folder, "a") == before


def test_eval_takes_another_sampler_and_the_exact_bound(folder: Path, first: str) -> None:
    told = typed(
        folder,
        "eval",
        "run=logs/train/a",
        "sampler=ddpm",
        "sampler.steps=7",
        "evaluation.bound=exact",
        "metrics=[vlb,fid]",
    )
    result = json.loads((folder / told.strip().splitlines()[-1]).read_text())
    assert result["records"]["fid"]["sampler"] == "DDPM"
    assert result["records"]["fid"]["network_evaluations_per_sample"] == 7
    assert result["records"]["vlb"]["evaluations"] == 180 * 1000
    by_step = result["records"]["vlb"]["by_step"]
    assert len(by_step) == 1000 and sum(by_step[1:]) == pytest.approx(result["metrics"]["test/vlb_diffusion"], rel=1e-4)
    own = left(folder, "a")
    se = own["records"]["vlb"]["se_over_times_and_noise"]
    assert abs(result["metrics"]["test/vlb"] - own["metrics"]["test/vlb"]) < 4 * se


def test_eval_has_no_budget_unless_given_and_skips_by_name(folder: Path, first: str) -> None:
    told = typed(folder, "eval", "run=logs/train/a", "evaluation.budget=7000")
    result = json.loads((folder / told.strip().splitlines()[-1]).read_text())
    assert result["metrics"]["test/simple"] is not None
    assert result["metrics"]["test/vlb"] is None and "needs" in result["records"]["vlb"]["skipped"]
    assert "vlb skipped" in told


def test_eval_and_sample_refuse_what_belongs_to_training(folder: Path, first: str) -> None:
    for entry, word in (("eval", "loss=vlb"), ("eval", "optimizer.lr=1"), ("sample", "model.channels=3")):
        told = typed(folder, entry, "run=logs/train/a", word, status=2)
        assert "belongs to training" in told and len(told.strip().splitlines()) == 1


def test_sample_writes_a_picture_and_an_array(folder: Path, first: str) -> None:
    words = ("run=logs/train/a", "n=10", "sampler=ddim", "sampler.steps=4", "seed=1")
    picture, array = (folder / line for line in typed(folder, "sample", *words).strip().splitlines())
    images = np.load(array)["arr_0"]
    assert picture.name == "samples.png" and array.name == "samples.npz"
    assert images.shape == (10, 8, 8, 1) and images.dtype == np.uint8
    assert set(np.unique(images)) <= {round(255 * k / 16) for k in range(17)}
    more = folder / typed(folder, "sample", *words[:1], "n=300", *words[2:]).strip().splitlines()[1]
    assert np.array_equal(np.load(more)["arr_0"][:10], images)


def test_two_steps_end_whole(folder: Path) -> None:
    typed(folder, "train", "run=two", *SMALL, "trainer.max_steps=2")
    run = folder / "logs" / "train" / "two"
    assert (run / "checkpoints" / "best.ckpt").exists() and (run / "checkpoints" / "last.ckpt").exists()
    assert left(folder, "two")["metrics"]["val/simple"] is not None


@pytest.mark.parametrize(
    "choice",
    [
        ("loss=vlb", "schedule=linear", "variance=fixed_large"),
        ("prediction=v", "timesteps=stratified"),
        ("loss=hybrid", "schedule=scaled_linear", "sampler=ddpm"),
        ("loss=likelihood", "schedule=vp", "timesteps=log_snr_uniform"),
    ],
)
def test_other_choices_train_too(folder: Path, choice: tuple[str, ...]) -> None:
    name = choice[0].replace("=", "-")
    told = typed(folder, "train", f"run={name}", *SMALL, *choice, "trainer.accumulate_grad_batches=2")
    results = left(folder, name)
    assert results["status"] == "finished", told
    assert results["metrics"]["test/vlb"] is not None and results["metrics"]["test/vlb_common"] is not None


def test_a_hybrid_run_logs_its_parts_and_its_loss_unnormalised(folder: Path) -> None:
    with (folder / "logs" / "train" / "loss-hybrid" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert rows
    for row in rows:
        whole = float(row["train/simple"]) + 0.001 * float(row["train/vlb"])
        assert float(row["train/loss"]) == pytest.approx(whole, rel=1e-4)


def test_the_history_of_importance_sampling_outlives_a_kill(folder: Path) -> None:
    """With 20 steps the law has learned by the first checkpoint, so a forgotten history would draw other times."""
    words = (*SMALL, "loss=vlb", "timesteps=importance", "schedule.num_steps=20", "metrics=[simple]")
    typed(folder, "train", "run=whole", *words)
    run = folder / "logs" / "train" / "torn"
    job = subprocess.Popen(command("train", "run=torn", *words), cwd=folder, stdout=-3, stderr=-3)
    last, deadline = run / "checkpoints" / "last.ckpt", time.time() + 200
    while not last.exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    state = torch.load(last, weights_only=True)["state_dict"]["times._extra_state"]
    assert state["seen"].min() >= 10
    assert "resumed at step" in typed(folder, "train", "run=torn", *words)
    assert differences(folder / "logs" / "train" / "whole", run) == []


def test_a_run_killed_between_its_verdict_and_its_last_status_is_finished(folder: Path, first: str) -> None:
    run, before = folder / "logs" / "train" / "a", left(folder, "a", "status.json")
    (run / "status.json").write_text(json.dumps(before | {"state": "evaluating"}))
    (run / ".status.json.1-1.part").touch()
    assert "is finished" in typed(folder, "train", "run=a", *SMALL)
    after = left(folder, "a", "status.json")
    assert {key: after[key] for key in ("state", "step")} == {key: before[key] for key in ("state", "step")}
    assert after["seconds"] == pytest.approx(before["seconds"], abs=1) and not list(run.glob(".*"))


def test_two_processes_outlive_a_kill_too_and_leave_nothing_behind(folder: Path) -> None:
    words = (
        *SMALL,
        "trainer=ddp_cpu",
        "timesteps=importance",
        "schedule.num_steps=20",
        "metrics=[simple]",
        "data.workers=1",
    )
    typed(folder, "train", "run=both", *words)
    run = folder / "logs" / "train" / "fallen"
    job = subprocess.Popen(command("train", "run=fallen", *words), cwd=folder, stdout=-3, stderr=-3)
    last, deadline = run / "checkpoints" / "last.ckpt", time.time() + 200
    while not last.exists() and time.time() < deadline:
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert re.search(r"resumed at step \d+", typed(folder, "train", "run=fallen", *words))
    assert differences(folder / "logs" / "train" / "both", run) == []
    assert left(folder, "fallen")["records"]["training"]["processes"] == 2
    assert left(folder, "both")["metrics"] != left(folder, "a")["metrics"]  # twice the batch
    others = subprocess.run(["pgrep", "-f", f"scorelab.app.worker .*{folder}"], capture_output=True, text=True)
    assert others.stdout == ""


def test_a_run_trains_in_bfloat16_with_clipped_gradients(folder: Path) -> None:
    typed(
        folder, "train", "run=bf16", *SMALL, "trainer.max_steps=2", "trainer.precision=bf16-mixed", "metrics=[simple]"
    )
    assert left(folder, "bf16")["metrics"]["test/simple"] is not None


def test_overwriting_spares_the_old_run_until_the_new_one_is_known_to_be_possible(folder: Path, first: str) -> None:
    typed(folder, "train", "run=a", *SMALL, "overwrite=true", "optimizer.lr=-1", status=2)
    assert left(folder, "a")["status"] == "finished"


def test_a_diverged_run_says_so_and_keeps_its_last_good_checkpoint(folder: Path) -> None:
    words = ("run=nan", *SMALL, "optimizer.lr=1e18", "trainer.gradient_clip_val=0", "lr_schedule.warmup=0")
    told = typed(folder, "train", *words, status=2)
    assert re.search(r"error: the loss is (inf|nan) in step \d+ at t = [\d.]+, log-SNR -?[\d.]+ \(\d+ of 128", told)
    assert left(folder, "nan")["status"] == "failed"


def test_a_directory_without_its_config_is_not_resumed(folder: Path, first: str) -> None:
    copy = folder / "logs" / "train" / "lost"
    shutil.copytree(folder / "logs" / "train" / "a", copy)
    (copy / "config.yaml").unlink()
    told = typed(folder, "train", "run=lost", *SMALL, status=2)
    assert "no config.yaml to compare with" in told
    (copy / "checkpoints" / "last.ckpt").write_bytes(b"")
    shutil.copy(folder / "logs" / "train" / "a" / "config.yaml", copy)
    told = typed(folder, "eval", "run=logs/train/lost", status=2)
    assert "cannot be read as a checkpoint" in told


def test_a_failing_run_is_marked_failed_and_can_be_told(folder: Path) -> None:
    told = typed(folder, "train", "run=huge", *SMALL, "evaluation.chunk=1000000000000", status=2)
    assert "error: out of memory: lower evaluation.chunk (tried to allocate 256000000000000 bytes): the same " in told
    assert left(folder, "huge")["status"] == "failed"
    assert left(folder, "huge", "status.json")["state"] == "failed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_trains_in_bf16_on_a_gpu(folder: Path) -> None:
    typed(folder, "train", "run=gpu", *SMALL, "trainer=gpu")
    assert left(folder, "gpu")["metrics"]["test/fid"] is not None
