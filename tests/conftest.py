"""What all tests share: a home of their own, and the choices that configs/ offers."""

import inspect
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

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


def head_for(schedule: Any, prediction: str) -> Any:
    """The head a choice stands for; the test is skipped where it refuses the schedule."""
    head = choose("prediction", prediction)
    try:
        head.check(schedule)
    except ValueError as refusal:
        pytest.skip(str(refusal))
    return head


def takes(schedule: str, steps: int | None) -> bool:
    """Whether a schedule has a process of so many steps (None: a continuous one) that keeps some signal to its end.

    A grid that ends without signal is what the tests of ``exact_cases.Straight`` are about.
    """
    try:
        made = choose("schedule", schedule, num_steps=steps)
    except (TypeError, ValueError):
        return False
    return made.num_steps == steps and (steps is None or bool(made.alpha(torch.ones(1)) > 0))


CONTINUOUS = [name for name in choices("schedule") if takes(name, None)]
STEPPED = [name for name in choices("schedule") if takes(name, 100)]


def each_form(*steps: int) -> pytest.MarkDecorator:
    """Run a test for every schedule at each number of steps, and continuous, where it has that form.

    The arguments are ``schedule`` and ``steps``, which is None for the continuous form.
    """
    return pytest.mark.parametrize(("schedule", "steps"), forms(*steps))


def each_kind(*steps: int) -> pytest.MarkDecorator:
    """As ``each_form``, for one schedule of each kind: where a test goes over other groups as well."""
    return pytest.mark.parametrize(("schedule", "steps"), kinds(*steps))


def kinds(*steps: int) -> list[tuple[str, int | None]]:
    """A schedule of each kind at each number of steps, and continuous."""
    grids = [(name, number) for name in ("linear", "cosine", "subvp", "ve") for number in steps]
    return grids + [(name, None) for name in ("cosine", "vp", "subvp", "edm", "flow")]


def forms(*steps: int) -> list[tuple[str, int | None]]:
    """Every schedule at each number of steps, and continuous, where it has that form."""
    return [(name, number) for name in STEPPED for number in steps] + [(name, None) for name in CONTINUOUS]


each_grid = pytest.mark.parametrize("schedule", STEPPED)
PRESERVING = [name for name in STEPPED if hasattr(choose("schedule", name), "at_log_alpha_bar")]
each_preserving_grid = pytest.mark.parametrize("schedule", PRESERVING)  # for what is written in DDPM's letters
each_continuous = pytest.mark.parametrize("schedule", CONTINUOUS)


LONG = ("test_training", "test_interruption", "test_wandb", "test_evaluation", "test_configs", "test_run", "test_sweep")


def pytest_addoption(parser: pytest.Parser) -> None:
    """An order of chance, the same for the same number: nothing may depend on another test."""
    parser.addoption("--shuffle", type=int, default=None, metavar="SEED", help="run tests in a random order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first, so that what workers share out at the end is short; or an order of chance."""
    seed = config.getoption("--shuffle")
    if seed is not None:  # files among each other, and tests within each: a file's fixtures are made once
        chance = random.Random(seed)
        files = {path: chance.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: (files[item.path], chance.random()))
        return
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


@contextmanager
def captured() -> Iterator[tuple[IO[str], IO[str]]]:
    """What this process and its children write to the terminal, in two files; pytest's own capture waits meanwhile."""
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        for number, file in enumerate((out, err), 1):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        try:
            yield out, err
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = streams
            for number, file in enumerate(kept, 1):
                os.dup2(file, number)
                os.close(file)


def blank(figure: Any, file: Any, **_: Any) -> None:
    """A picture that takes no time."""
    file.write(b"no picture")


def type_in(folder: Path, name: str, *words: str, pictures: bool = False) -> Said:
    """Type a command in this process, in a folder. Matplotlib's pictures are blank unless they are asked for."""
    from matplotlib.figure import Figure

    from scorelab.app.entry import entry

    job = {"train": "train:train", "eval": "evaluate:evaluate", "sample": "sample:sample"}[name]
    status: object = 0
    root, threads = logging.getLogger(), torch.get_num_threads()
    before = root.handlers[:]
    with pytest.MonkeyPatch.context() as patch, captured() as (out, err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"{name}.py", *words])
        patch.setenv("HYDRA_FULL_ERROR", "0")
        if not pictures:
            patch.setattr(Figure, "savefig", blank)
        try:
            entry(CONFIGS, name, f"scorelab.app.{job}")
        except SystemExit as end:
            status = end.code
        finally:
            torch.set_num_threads(threads)
            root.handlers[:] = before  # Hydra's writes to this command's terminal, which is gone after it
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        for file in (out, err):
            file.seek(0)
        return Said(status, out.read(), err.read())


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Said]:
    """Type a command in this process, in this test's own directory, where the test then stands."""
    monkeypatch.chdir(tmp_path)
    return partial(type_in, tmp_path)


# Where any run will do, this one of points takes a third of a second; pictures and figures are seen in SMALL.
TINY = ("data=moons", "model.width=8", "trainer.max_steps=2", "metrics=[simple]", "logger=none", "callbacks=minimal")
SMALL = (
    "model.channels=8",
    "model.multipliers=[1]",
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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the run of SMALL that nothing interrupts, made once for all tests: read it, do not touch it."""
    folder = tmp_path_factory.mktemp("small")
    said = type_in(folder, "train", "run=a", *SMALL)
    assert said.status == 0, said.err
    return folder / "logs" / "train" / "a"


@pytest.fixture
def finished(small_run: Path, tmp_path: Path) -> Path:
    """A finished run of SMALL that a test may do with as it likes: logs/train/a where it types."""
    place = tmp_path / "logs" / "train" / "a"
    shutil.copytree(small_run, place)
    return place
