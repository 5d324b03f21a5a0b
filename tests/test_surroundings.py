"""Nothing that a command did not ask for changes what it does: launchers, streams, homes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, TINY
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from scorelab.lit.environment import ProcessEnvironment

ROOT = Path(__file__).resolve().parent.parent
TRAIN = f"{sys.executable} {ROOT / 'src' / 'train.py'}"
POINTS = "data=moons model.width=16 metrics=[simple] trainer.max_steps=4 callbacks.grid=null evaluation.samples=64"
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}
TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "x",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
OTHERS = {"OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "JSM_NAMESPACE_RANK": "1", "KUBERNETES_PORT": "1"}


def shell(line: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """What bash makes of a line: the status is that of the first command that failed."""
    line = f"set -o pipefail; {line}"
    words = ["bash", "-c", line]
    return subprocess.run(words, cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=300)


def left(folder: Path, name: str = "metrics.json") -> dict[str, Any]:
    return json.loads((folder / "logs" / "train" / "a" / name).read_text())


def test_no_launcher_says_which_process_this_is_or_how_many_there_are(
    typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SLURM | TORCHRUN | OTHERS | {"SLURM_NTASKS": "4"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PL_TRAINER_FAST_DEV_RUN", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # what Lightning makes of them when it is imported
    assert typed("train", "run=a", *SMALL).status == 0
    with (tmp_path / "logs" / "train" / "a" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == "12"
    assert (
        left(tmp_path)["records"]["training"] | {"steps": 12, "processes": 1} == left(tmp_path)["records"]["training"]
    )


@pytest.mark.slow
def test_in_a_launchers_job_without_a_home_two_processes_train_and_no_line_is_added(tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/proc/nowhere")
    line = f"env -u WANDB_CACHE_DIR -u WANDB_CONFIG_DIR {TRAIN} run=a {POINTS} trainer=ddp_cpu"
    told = shell(f"{line} logger=wandb", tmp_path, PYTHONIOENCODING="ascii", **SLURM, **TORCHRUN, **OTHERS, **nowhere)
    assert told.returncode == 0, told.stderr
    assert left(tmp_path)["status"] == "finished" and left(tmp_path)["records"]["training"]["processes"] == 2
    assert all(line.startswith(("training:", "evaluating:")) for line in told.stderr.splitlines() if line), told.stderr
    beginnings = (
        "logs/train/a: ",
        "one thread, ",
        "log-SNR from ",
        "evaluating: ",
        "W&B: offline (no login)",
        "  simple",
        "weight card: ",
    )
    assert all(line.startswith(beginnings) for line in told.stdout.splitlines()), told.stdout


def test_fewer_processes_than_asked_for_never_finish(typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ProcessEnvironment, "set_world_size", lambda self, size: None
    )  # as where a launcher's word counts
    said = typed("train", "run=a", *TINY, "trainer=ddp_cpu")
    assert said.status == 1
    assert "trainer.devices=2 asks for 2 processes, and 1 of them trains here" in said.last
    assert left(tmp_path)["status"] == "failed" and "2 processes" in left(tmp_path, "status.json")["reason"]


HELP, REFUSED = ("--help", 0), ("loss=foo", 2)


@pytest.mark.parametrize(
    ("words", "status", "streams"),
    [
        (*HELP, ">&-"),
        (*HELP, "<&- >&- 2>&-"),
        (*HELP, ">/dev/full"),
        (*HELP, "| true"),
        (*REFUSED, "2>&-"),
        (*REFUSED, ">/dev/full 2>&1"),
        (*REFUSED, "2>&1 | true"),
    ],
)
def test_streams_that_take_nothing_change_no_exit_status(tmp_path: Path, words: str, status: int, streams: str) -> None:
    told = shell(f"{TRAIN} {words} {streams}", tmp_path)
    assert told.returncode == status
    assert "Traceback" not in told.stderr and "BrokenPipe" not in told.stderr


@pytest.mark.slow
def test_a_sweep_whose_reader_is_gone_and_whose_errors_go_nowhere_finishes(tmp_path: Path) -> None:
    told = shell(f"{TRAIN} -m seed=0 name=s {POINTS} logger=csv 2>&- | head -1", tmp_path)
    assert told.returncode == 0 and len(told.stdout.splitlines()) == 1
    found = list((tmp_path / "logs" / "sweeps" / "s").glob("*/metrics.json"))
    assert [json.loads(each.read_text())["status"] for each in found] == ["finished"]
    assert not [file for file in found[0].parent.glob("*.csv") if b"training:" in file.read_bytes()]


def test_what_a_stream_cannot_spell_is_written_another_way_and_what_cannot_be_written_is_let_go(
    tmp_path: Path,
) -> None:
    lines = [
        "from scorelab.run.surroundings import settle",
        "import sys, os",
        "settle(); settle()",
        "print('log-SNR λ')",
        "sys.stderr.writelines(['a', 'b'])",
        "sys.stdout.flush()",
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
        "print('x' * 100_000, flush=True)",
        "sys.stdin.read()",
    ]
    (tmp_path / "said.py").write_text("\n".join(lines))
    env = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT / "src")}
    told = shell(f"{sys.executable} said.py <&-", tmp_path, **env)
    assert (told.returncode, told.stdout, told.stderr) == (0, "log-SNR \\u03bb\n", "ab")


def test_the_last_line_names_what_there_is(typed, tmp_path: Path) -> None:
    said = typed("train", "run=a", *POINTS.split(), "logger=none")
    place, _, names = said.out.strip().splitlines()[-1].partition(": ")
    assert place == "logs/train/a" and "samples/" not in names and "metrics.json" in names
    assert all((tmp_path / place / name).exists() for name in names.split(", "))
