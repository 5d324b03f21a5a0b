"""The killer kills where it is told to, and the comparison sees what differs: quick, so part of every `make test`."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch

from faults.compare import differences
from faults.jobs import KILLER
from faults.killer import code_of
from faults.places import PLACES, dealt

CALLED = [place for place in PLACES if place.spec.startswith("call=")]


@pytest.mark.parametrize("place", CALLED, ids=lambda place: place.name)
def test_every_function_that_is_watched_exists(place) -> None:
    assert code_of(place.spec.removeprefix("call=")).co_name == place.spec.rpartition(":")[2].rpartition(".")[2]


def test_as_cards_are_dealt_no_place_is_seen_three_times_before_all_are_seen_once() -> None:
    everything = {place.needs for place in PLACES}
    hands = dealt([everything] * 30, 3, Random(0))
    seen = [place.name for hand in hands for place in hand]
    assert {place.name for place in PLACES} == set(seen)
    assert max(map(seen.count, seen)) <= len(seen) // len(PLACES) + 2
    assert all(place.needs == "" for hand in dealt([set()] * 5, 9, Random(0)) for place in hand)


SCRIPT = """
import json, os, sys, threading
from pathlib import Path
for number in range(6):
    def write():
        Path(f".{number}").write_text(json.dumps(number))
        os.replace(f".{number}", f"{number}.json")
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize(
    ("place", "whom", "left"),
    [
        (r"write=\.\d$", "main", {"0.json", "1.json"}),
        (r"rename=\d\.json$", "group", {"0.json", "1.json", ".2"}),
        ("call=json:dumps", "main", {"0.json", "1.json"}),
        (r"write=/never$", "main", {f"{number}.json" for number in range(6)}),
        (r"write=\.\d$", "worker", {f"{number}.json" for number in range(6)}),
    ],
)
def test_a_script_is_killed_at_the_third_time_of_being_at_a_place(
    tmp_path: Path, place: str, whom: str, left: set[str]
) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "in"
    script.write_text(SCRIPT)
    folder.mkdir()
    command = [sys.executable, str(KILLER), place, "3", "0", whom, "--", str(script), "a word"]
    ended = subprocess.run(command, cwd=folder, start_new_session=True, capture_output=True, text=True, timeout=60)
    assert ended.returncode == (0 if len(left) == 6 else -9), ended.stderr
    assert {path.name for path in folder.iterdir()} >= left
    assert {path.name for path in folder.glob("*.json")} == {name for name in left if name.endswith("json")}


def write_run(folder: Path) -> Path:
    """A small directory of the files that a run leaves."""
    for name in ("checkpoints", "samples"):
        (folder / name).mkdir(parents=True)
    history = {"losses": torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    state = {"w": torch.tensor([1.0, float("nan")]), "timesteps._extra_state": history}
    moments = {"state": {0: {"exp_avg": torch.zeros(2)}}}
    content = {"global_step": 6, "loops": {"started": 2}, "state_dict": state, "optimizer_states": [moments]}
    for name in ("last", "best"):
        torch.save(content, folder / "checkpoints" / f"{name}.ckpt")
    (folder / "samples" / "step_6.png").write_bytes(b"picture")
    write_rows(folder, [{"step": 3, "train/loss": 0.5, "train/it_per_s": 7.1}, {"step": 6, "train/loss": 0.25}])
    (folder / "metrics.json").write_text(json.dumps({"status": "finished", "metrics": {"a": 1.0}, "seconds": 3}))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "step": 6, "time": 5}))
    return folder


def write_rows(folder: Path, rows: list[dict[str, float]]) -> None:
    """A history."""
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", "train/it_per_s"])
        writer.writeheader()
        writer.writerows(rows)


def changed(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """What changes a checkpoint's content."""

    def deed(folder: Path) -> None:
        content = torch.load(folder / "checkpoints" / name, weights_only=True)
        change(content)
        torch.save(content, folder / "checkpoints" / name)

    return deed


def one_bit_more(content: dict) -> None:
    """Change a weight as little as it can be."""
    content["state_dict"]["w"].nextafter_(torch.tensor(2.0))


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (lambda folder: None, None),
        (changed("last.ckpt", lambda c: c["loops"].update(started=1)), None),
        (lambda folder: (folder / "lock").write_text("me"), "lock should not be there"),
        (
            changed("last.ckpt", one_bit_more),
            "last.ckpt: state_dict.w is float32",
        ),
        (
            changed("best.ckpt", one_bit_more),
            "best.ckpt: state_dict.w is float32",
        ),
        (
            changed("last.ckpt", lambda c: c["state_dict"]["timesteps._extra_state"]["losses"][2, 1].mul_(2)),
            "last.ckpt: state_dict.timesteps._extra_state.losses is float64",
        ),
        (
            changed("last.ckpt", lambda c: c["optimizer_states"][0]["state"][0]["exp_avg"].add_(1)),
            "last.ckpt: optimizer_states[0].state.0.exp_avg is float32",
        ),
        (changed("last.ckpt", lambda c: c.pop("optimizer_states")), "last.ckpt: optimizer_states[0].state.0.exp_avg"),
        (changed("last.ckpt", lambda c: c.update(more=1)), "last.ckpt: more is 1, not None"),
        (lambda folder: (folder / "samples" / "step_6.png").write_bytes(b"another"), "samples/step_6.png: other bytes"),
        (lambda folder: (folder / "samples" / "step_6.png").unlink(), "samples/step_6.png is missing"),
        (lambda folder: (folder / ".status.json.5").touch(), ".status.json.5 should not be there"),
        (lambda folder: write_rows(folder, [{"step": 6, "train/loss": 0.25}]), "metrics.csv: row 0 is"),
        (
            lambda folder: write_rows(folder, [{"step": 3, "train/loss": 0.5}, *[{"step": 6, "train/loss": 0.25}] * 2]),
            "metrics.csv: row 2 is",
        ),
        (
            lambda folder: write_rows(folder, [{"step": 3, "train/loss": 0.5}, {"step": 6, "train/loss": 0.25}]),
            None,  # speeds may differ
        ),
        (
            lambda folder: (folder / "metrics.json").write_text('{"status": "finished", "metrics": {"a": 1.1}}'),
            "metrics.json: metrics.a is 1.1, not 1.0",
        ),
        (
            lambda folder: (folder / "status.json").write_text('{"state": "evaluating", "step": 6}'),
            "status.json: state is 'evaluating', not 'finished'",
        ),
    ],
)
def test_the_comparison_names_what_differs_and_leaves_clocks_aside(
    tmp_path: Path, deed: Callable[[Path], object], told: str | None
) -> None:
    whole, torn = write_run(tmp_path / "whole"), write_run(tmp_path / "torn")
    deed(torn)
    found = differences(whole, torn)
    assert (found == []) if told is None else (len(found) == 1 and told in found[0]), found


def test_a_temporary_file_that_both_runs_leave_is_told_too(tmp_path: Path) -> None:
    whole, torn = write_run(tmp_path / "whole"), write_run(tmp_path / "torn")
    for folder in (whole, torn):
        (folder / "metrics.csv.part").touch()
    assert differences(whole, torn) == ["metrics.csv.part is temporary"]
