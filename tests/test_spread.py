"""What several processes compute together is what one computes alone."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, type_in
from torch import Tensor, distributed, multiprocessing, nn

from scorelab.denoisers import Eps, FixedSmall, NetworkDenoiser
from scorelab.errors import short_of_memory
from scorelab.lit.spread import Spread, serve, spread
from scorelab.run.processes import free_port
from scorelab.schedules import Cosine

SIZES = (1, 2, 3, 4, 7, 64)
WORLD = 3
BAD = 13  # what the network does not take


class Counting(nn.Module):
    """A network that counts the images it is shown, and says other things of other labels."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.shown = 0

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None = None) -> Tensor:
        self.shown += len(x)
        if (x == BAD).any():
            raise MemoryError
        return self.scale * x + condition[:, None] + (0 if label is None else label[:, None])


def denoiser_of(scale: float) -> NetworkDenoiser:
    return NetworkDenoiser(Cosine(10), Counting(scale), Eps(), FixedSmall()).eval()


def calls() -> list[tuple[Tensor, Tensor, Tensor | None]]:
    chance = torch.Generator().manual_seed(1)
    found = []
    for n in SIZES:
        x, t = torch.randn(n, 2, generator=chance), torch.rand(n, generator=chance, dtype=torch.float64)
        found += [(x, t, None), (x, t, torch.arange(n) % 3)]
    return found


def work(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD)
    denoiser = denoiser_of(2.0 if rank == 0 else 5.0)  # the others' weights become the first one's
    network: Any = denoiser.network
    if rank:
        serve(denoiser)
        serve(denoiser)
    else:
        with torch.no_grad(), spread(denoiser):
            found = [denoiser.network(*call) for call in calls()]
        with torch.no_grad(), spread(denoiser):
            failed = [failure(denoiser, rows) for rows in ([0], [5], [0, 5])]
            after = denoiser.network(torch.ones(4, 2), torch.zeros(4))
        torch.save((found, failed, after), Path(folder) / "found.pt")
        assert denoiser.network is network
    (Path(folder) / f"{rank}.json").write_text(json.dumps(network.shown))
    distributed.destroy_process_group()


def failure(denoiser: NetworkDenoiser, rows: list[int]) -> str:
    """What a shared call of six images, two by each process, says where some are bad."""
    x = torch.ones(2 * WORLD, 2)
    x[rows] = BAD
    with pytest.raises((MemoryError, RuntimeError)) as told:
        denoiser.network(x, torch.zeros(len(x)))
    assert short_of_memory(told.value)
    return f"{told.type.__name__}: {told.value}"


def test_a_call_that_is_shared_says_what_it_would_alone_whoever_fails_in_between(tmp_path: Path) -> None:
    port = free_port()
    processes = [
        multiprocessing.get_context("spawn").Process(target=work, args=(rank, port, str(tmp_path)))
        for rank in range(WORLD)
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join(100)
    assert [each.exitcode for each in processes] == [0] * WORLD
    found, failed, after = torch.load(tmp_path / "found.pt")
    network = Counting(2.0)
    for said, call in zip(found, calls(), strict=True):
        assert torch.equal(said, network(*call))
    own, others = (
        "MemoryError: ",
        "OtherProcessError: out of memory: MemoryError:  (in rank2.log, or what rank 2 printed)",
    )
    assert failed == [own, others, own]
    assert torch.equal(after, torch.full((4, 2), 2.0))
    # 64 images are 22 for each; with those of the failed calls, and of the last, two of each for each
    assert json.loads((tmp_path / "2.json").read_text()) == 2 * (1 + 2 + 3 + 22) + 3 * 2 + 2


def test_of_one_process_and_without_a_network_nothing_is_shared() -> None:
    denoiser = denoiser_of(1.0)
    with spread(denoiser):
        assert not isinstance(denoiser.network, Spread)


RUN = (*SMALL, "callbacks.log.every=5", "metrics=[simple]")


def trained(folder: Path, name: str, *words: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and records of a run."""
    said = type_in(folder, "train", f"run={name}", *RUN, *words)
    assert said.status == 0, said.last
    left = json.loads((folder / "logs" / "train" / name / "metrics.json").read_text())
    return left["metrics"], left["records"]


def agree(one: dict[str, float], other: dict[str, float]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_accumulated_batches_train_as_the_larger_batch_does(tmp_path: Path) -> None:
    words = ("loss=ssm", "timesteps=stratified", "data.flip=true")  # a loss with noise of its own
    whole, _ = trained(tmp_path, "whole", *words, "data.batch_size=16")
    parts, _ = trained(tmp_path, "parts", *words, "data.batch_size=4", "trainer.accumulate_grad_batches=4")
    agree(whole, parts)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does_with_the_same_global_batch(tmp_path: Path) -> None:
    words = ("trainer.max_steps=20", "metrics=[fid,simple,vlb]", "evaluation.samples=30")
    one, of_one = trained(tmp_path, "one", *words, "data.batch_size=16")
    two, of_two = trained(tmp_path, "two", *words, "data.batch_size=8", "trainer=ddp_cpu")
    agree(one, two)
    assert of_two["training"]["processes"] == 2
    assert of_one["training"]["global_batch"] == of_two["training"]["global_batch"] == 16
    for name in ("simple", "vlb", "fid"):  # in number, too
        assert of_two[name]["evaluations"] == of_one[name]["evaluations"]
    here, there = (tmp_path / "logs" / "train" / name / "samples" for name in ("one", "two"))
    assert sorted(each.name for each in here.iterdir()) == sorted(each.name for each in there.iterdir())


@pytest.mark.slow
def test_a_stored_run_is_evaluated_and_sampled_by_two_processes_as_by_one(tmp_path: Path) -> None:
    trained(tmp_path, "a")
    run = tmp_path / "logs" / "train" / "a"
    found = []
    for devices in (1, 2):
        words = (f"run={run}", f"devices={devices}")
        said = type_in(tmp_path, "eval", *words, "metrics=[fid,simple]", "evaluation.samples=30")
        assert said.status == 0, said.last
        (evaluated,) = (run / "eval").glob("*/metrics.json")  # one folder: devices are no part of what is asked
        figures = json.loads(evaluated.read_text())["metrics"]
        said = type_in(tmp_path, "sample", *words, "n=37", "evaluation.chunk=16")
        assert said.status == 0, said.last
        (drawn,) = (run / "sample").glob("*/samples.npz")
        found.append((figures, np.load(drawn)["arr_0"].astype(int)))
        shutil.rmtree(drawn.parent)
    (one, images), (two, others) = found
    agree(one, two)
    assert abs(images - others).max() <= 255 // 16 + 1 and (images != others).mean() < 0.01


def test_as_many_devices_as_cannot_be_are_refused_in_a_line(tmp_path: Path) -> None:
    trained(tmp_path, "a", "trainer.max_steps=2")
    said = type_in(tmp_path, "sample", f"run={tmp_path / 'logs' / 'train' / 'a'}", "devices=0")
    assert said.status == 2 and said.last.startswith("error: devices=0: possible: 1")
