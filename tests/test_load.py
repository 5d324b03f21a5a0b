"""A stored run in a notebook: scorelab.load."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import scorelab
from scorelab.denoisers import Estimate
from scorelab.errors import Refusal, UserError


@pytest.fixture(scope="module")
def run(small_run: Path) -> "scorelab.app.load.Loaded":
    return scorelab.load(str(small_run))


def test_it_is_the_runs_own_denoiser_with_averaged_weights(run, small_run: Path) -> None:
    state = torch.load(small_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in run.denoiser.state_dict().items():
        assert torch.equal(value, state[f"averaged.{name}"]), name
    assert not run.denoiser.training and run.schedule is run.denoiser.schedule
    assert run.config["run"] == "a" and run.sampler.steps == 2 and len(run.data.splits["train"]) == 1437
    estimate = run.denoiser(torch.zeros(2, 1, 8, 8), torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert isinstance(estimate, Estimate)


def test_samples_are_those_of_sample_py(run, small_run: Path, typed, finished: Path) -> None:
    said = typed("sample", "run=logs/train/a", "n=5", "seed=3")
    drawn = np.load(said.out.strip().splitlines()[-1])["arr_0"]
    values = run.samples(5, seed=3)
    assert values.dtype == torch.uint8 and values.shape == (5, 1, 8, 8) and int(values.max()) <= 16
    assert np.array_equal((values.float() * 255 / 16).round().permute(0, 2, 3, 1).numpy().astype(np.uint8), drawn)
    assert torch.equal(run.samples(3, seed=3), values[:3])


def test_the_noise_error_at_a_log_snr_is_the_mean_over_held_out_items(run) -> None:
    found, few = run.noise_error(log_snr=0.0), run.noise_error(log_snr=0.0, items=20)
    assert 0 < found.value < 2 and 0 < found.se < few.se
    with pytest.raises(Refusal, match="log_snr must lie in"):
        run.noise_error(log_snr=100.0)


def test_values_are_shown_as_one_picture(run) -> None:
    picture = run.picture(run.samples(4))
    assert picture.size == (2 * (48 + 2) + 2, 2 * (48 + 2) + 2)
    with pytest.raises(Refusal, match="of images"):
        run.picture(torch.zeros(3, 2))


def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, small_run: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        scorelab.load(str(tmp_path / "none"))
    with pytest.raises(UserError, match="no such checkpoint; possible"):
        scorelab.load(str(small_run), checkpoint="first")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, scorelab; scorelab.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
