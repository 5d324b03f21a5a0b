"""What all tests share: a home of their own, and the choices that configs/ offers."""

import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

CONFIGS = Path(__file__).parents[1] / "configs"


def choices(group: str) -> list[str]:
    """The names in a config group, so that a new choice is tested the day it is added."""
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def each(group: str) -> pytest.MarkDecorator:
    """Run a test once for every choice of a group, as the argument of the group's name."""
    return pytest.mark.parametrize(group, choices(group))


def choose(group: str, name: str, **more: Any) -> Any:
    """The object a choice stands for: its ``_target_`` with its other keys, and more; no None for a key it lacks."""
    keys = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
    keys.pop("defaults", None)
    module, _, target = keys.pop("_target_").rpartition(".")
    made = getattr(import_module(module), target)
    known = inspect.signature(made).parameters
    return made(**keys | {key: value for key, value in more.items() if key in known or value is not None})


def takes(schedule: str, steps: int | None) -> bool:
    """Whether a schedule has a process of so many steps (None: a continuous one) that keeps some signal to its end.

    A grid that ends without signal is what the tests of ``oracles.Straight`` are about.
    """
    try:
        made = choose("schedule", schedule, num_steps=steps)
    except (TypeError, ValueError):
        return False
    return made.num_steps == steps and (steps is None or float(made.alpha(torch.ones(1))) > 0)


CONTINUOUS = [name for name in choices("schedule") if takes(name, None)]
STEPPED = [name for name in choices("schedule") if takes(name, 100)]


def each_form(*steps: int) -> pytest.MarkDecorator:
    """Run a test for every schedule at each number of steps, and continuous, where it has that form.

    The arguments are ``schedule`` and ``steps``, which is None for the continuous form.
    """
    forms = [(name, number) for name in STEPPED for number in steps]
    return pytest.mark.parametrize(("schedule", "steps"), forms + [(name, None) for name in CONTINUOUS])


each_grid = pytest.mark.parametrize("schedule", STEPPED)
each_continuous = pytest.mark.parametrize("schedule", CONTINUOUS)


LONG = (
    "test_training",
    "test_interruption",
    "test_wandb",
    "test_sweep",
    "test_configs",
    "test_truth_runs",
    "test_judge",
    "test_entry",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: workers take whole files, and the last one should be short."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def no_real_account(tmp_path_factory: pytest.TempPathFactory):
    """A home of the tests' own, empty keys and offline hubs: nothing reaches a real account."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"):
            patch.setenv(name, str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        for name in ("WANDB_BASE_URL", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        for name in ("WANDB_API_KEY", "HF_TOKEN"):
            patch.setenv(name, "")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # of the runs that tests start, one beside another
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors on few cores: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def double():
    """New tensors are float64, where a test looks below float32's rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@dataclass(frozen=True)
class Said:
    """What a command, typed in the tests' own process, ended with and said."""

    status: object
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line, as the terminal shows it."""
        return self.err.strip().splitlines()[-1].split("\r")[-1]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., Said]:
    """Type a command in this process, in an empty directory."""
    from scorelab.app.entry import entry

    def type_(name: str, *words: str) -> Said:
        job = {"train": "train:train", "eval": "evaluate:evaluate", "sample": "sample:sample"}[name]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        status: object = 0
        root = logging.getLogger()
        before = root.handlers[:]
        try:
            entry(CONFIGS, name, f"scorelab.app.{job}")
        except SystemExit as end:
            status = end.code
        finally:
            root.handlers[:] = before  # Hydra's writes to this test's terminal, which is gone after it
        told = capfd.readouterr()
        return Said(status, told.out, told.err)

    return type_


SMALL = (
    "model.channels=8",
    "model.multipliers=[1,1]",
    "trainer.max_steps=12",
    "data.batch_size=16",
    "callbacks.validation.every=4",
    "callbacks.grid.every=6",
    "callbacks.grid.samples=8",
    "callbacks.grid.shown=8",
    "callbacks.log.every=3",
    "sampler.steps=2",
    "evaluation.samples=100",
    "metrics=[simple]",
    "logger=none",
)
