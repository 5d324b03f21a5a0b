"""How networks are laid out and compiled for what computes them. None of it has run on a GPU yet."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import choose
from exact_cases import normal, tiny_unet

from scorelab.config.device import LONG, as_written, fit_to
from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.errors import UserError
from scorelab.schedules import Cosine

SHAPE = (1, 8, 8)


def denoiser() -> NetworkDenoiser:
    return NetworkDenoiser(Cosine(30), tiny_unet(), Eps(), FixedSmall(), levels=17)


@pytest.mark.parametrize(
    ("asked", "on_gpu", "steps", "loss", "compiled"),
    [
        (None, True, LONG, "simple", True),
        (None, True, LONG - 1, "simple", False),
        (None, False, LONG, "simple", False),
        (None, True, LONG, "ssm", False),
        (True, False, 1, "simple", True),
        (False, True, LONG, "simple", False),
    ],
)
def test_long_runs_on_a_gpu_are_compiled_unless_something_else_is_said(asked, on_gpu, steps, loss, compiled):
    config = {"compile": asked, "trainer": {"max_steps": steps}}
    assert fit_to(on_gpu, denoiser(), choose("loss", loss), config, SHAPE) == compiled


def test_what_differentiates_the_network_along_its_input_is_not_compiled():
    with pytest.raises(UserError, match="compile=true: this loss differentiates the network twice"):
        fit_to(False, denoiser(), choose("loss", "ssm"), {"compile": True, "trainer": {"max_steps": 9}}, SHAPE)


def test_laid_out_for_a_gpu_a_network_keeps_its_names_and_its_answers():
    plain = denoiser()
    other = copy.deepcopy(plain)
    fit_to(True, other, choose("loss", "simple"), {"compile": True, "trainer": {"max_steps": 9}}, SHAPE)
    assert other.network.enter.weight.is_contiguous(memory_format=torch.channels_last)
    assert list(other.state_dict()) == list(plain.state_dict())
    x, t = normal(3, *SHAPE).float(), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    with torch.no_grad():
        copied = copy.deepcopy(other)(x, t).eps  # as averaged weights are: not compiled
        with as_written(True):
            written = other(x, t).eps
        expected = plain(x, t).eps
    assert torch.allclose(copied, expected, rtol=0, atol=1e-5)
    assert torch.allclose(written, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_compiled_a_network_answers_and_learns_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing that a killed process has half written
    plain = denoiser()
    other = copy.deepcopy(plain)
    fit_to(False, other, choose("loss", "simple"), {"compile": True, "trainer": {"max_steps": 9}}, SHAPE)
    x, t = normal(3, *SHAPE).float(), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    try:
        told = other(x, t).eps
    except torch._inductor.exc.InductorError as error:  # type: ignore[attr-defined]
        pytest.skip(f"no compiler here: {str(error)[:60]}")
    expected = plain(x, t).eps
    assert torch.allclose(told, expected, rtol=0, atol=1e-4)
    for one in (told, expected):
        one.square().sum().backward()
    for mine, its in zip(other.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine.grad, its.grad, rtol=1e-3, atol=1e-3)
