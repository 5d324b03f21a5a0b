"""A tensor that is made once: whole or not there, whoever else makes it, whatever ends who makes it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scorelab.data import cache as module
from scorelab.data.cache import Stored, TensorCache
from scorelab.errors import Refusal
from scorelab.mapped import Reader, file_map, in_chunks, let_go

ROWS = torch.arange(60, dtype=torch.uint8).reshape(10, 1, 2, 3)


class Maker:
    """Gives the same rows in blocks, and counts how often it was asked."""

    def __init__(self, rows: Tensor = ROWS, blocks: int = 3, fail: Exception | None = None) -> None:
        self.rows, self.blocks, self.fail, self.asked = rows, blocks, fail, 0

    def __call__(self, put: Callable[[Tensor], None]) -> dict[str, Any]:
        self.asked += 1
        for block in self.rows.split(self.blocks):
            put(block)
        if self.fail:
            raise self.fail
        return {"labels": [1, 2], "where": "train"}


def taken(folder: Path, make: Maker, key: dict[str, Any] | None = None, **of: Any) -> Stored:
    cache = TensorCache(str(folder), **of)
    return cache.take({"of": "rows"} if key is None else key, tuple(make.rows.shape[1:]), make.rows.dtype, make)


@pytest.mark.parametrize("resident_mb", [256.0, 0.0], ids=["in memory", "mapped"])
@pytest.mark.parametrize("rows", [ROWS, torch.linspace(-1, 1, 14).reshape(7, 2)], ids=["bytes", "floats"])
def test_an_entry_is_made_once_and_is_what_was_put(tmp_path: Path, rows: Tensor, resident_mb: float) -> None:
    make = Maker(rows)
    for _ in range(2):
        stored = taken(tmp_path, make, resident_mb=resident_mb)
        assert torch.equal(stored.values, rows) and stored.values.dtype == rows.dtype
        assert stored.notes == {"labels": [1, 2], "where": "train"}
        assert (file_map(stored.values[3:]) is not None) is (resident_mb == 0)
    assert make.asked == 1


def test_other_content_and_other_preprocessing_are_other_entries(tmp_path: Path) -> None:
    make = Maker()
    for key in ({"of": "rows"}, {"of": "rows", "size": 8}, {"of": "others"}):
        taken(tmp_path, make, key)
    assert make.asked == 3
    taken(tmp_path, make, {"size": 8, "of": "rows"})
    assert make.asked == 3, "the order of a key's names means nothing"
    taken(tmp_path, Maker(ROWS.float()), {"of": "rows"})
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 4


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of my own"):
        taken(tmp_path, Maker(fail=OSError("of my own")))
    assert not list(tmp_path.iterdir())


WRITER = """
import sys, time, torch
from pathlib import Path
from scorelab.data.cache import TensorCache

def make(put):
    with open(sys.argv[2], "a") as asked:
        asked.write("x")
    put(torch.ones(4, 3))
    time.sleep(float(sys.argv[3]))
    put(torch.zeros(4, 3))
    return {}

stored = TensorCache(sys.argv[1], resident_mb=0).take({"a": 1}, (3,), torch.float32, make)
print(float(stored.values.sum()), len(stored.values), flush=True)
time.sleep(float(sys.argv[4]))
"""


def writer(folder: Path, pause: float, after: float = 0) -> subprocess.Popen:
    words = [sys.executable, "-c", WRITER, str(folder / "cache"), str(folder / "asked"), str(pause), str(after)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def awaited(there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_at_once_make_an_entry_once_and_a_killed_one_leaves_no_half_of_it(tmp_path: Path) -> None:
    killed = writer(tmp_path, 60)
    awaited(lambda: (tmp_path / "asked").exists() and list((tmp_path / "cache").glob(".*.part")))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / "cache").glob(".*.part")), "what it had begun"
    assert not [each for each in (tmp_path / "cache").glob("[!.]*") if each.is_dir()]
    both = [writer(tmp_path, 0.3) for _ in range(2)]
    assert [each.communicate()[0] for each in both] == ["12.0 8\n"] * 2
    assert (tmp_path / "asked").read_text() == "xx", "the killed one, and one of the two"
    (entry,) = (tmp_path / "cache").iterdir()
    assert sorted(each.name for each in entry.iterdir()) == ["entry.json", "values"]


def damage_nothing(entry: Path) -> None: ...


def truncate(entry: Path) -> None:
    os.truncate(entry / "values", 59)


def break_json(entry: Path) -> None:
    (entry / "entry.json").write_text('{"rows": 10')


def another_json(entry: Path) -> None:
    (entry / "entry.json").write_text("[1]")


def fewer_rows(entry: Path) -> None:
    said = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps(said | {"rows": 9}))


def no_values(entry: Path) -> None:
    (entry / "values").unlink()


@pytest.mark.parametrize("damage", [damage_nothing, truncate, break_json, another_json, fewer_rows, no_values])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make = Maker()
    taken(tmp_path, make)
    (entry,) = tmp_path.iterdir()
    damage(entry)
    for _ in range(2):
        assert torch.equal(taken(tmp_path, make).values, ROWS)
    assert make.asked == (1 if damage is damage_nothing else 2)
    assert list(tmp_path.iterdir()) == [entry]


BOUND = 130e-9  # GB: two entries of ROWS


def keys_left(folder: Path) -> set[str]:
    return {json.loads(file.read_text())["key"].get("name") for file in folder.glob("*/entry.json")}


def aged(folder: Path, name: str, seconds: float, make: Maker, **of: Any) -> Stored:
    """An entry that was used so long ago."""
    stored = taken(folder, make, {"name": name}, **of)
    (entry,) = (file.parent for file in folder.glob("*/entry.json") if f'"{name}"' in file.read_text())
    os.utime(entry / "values", (time.time() - seconds,) * 2)
    return stored


def test_what_was_not_used_for_longest_goes_first_and_never_the_one_just_made(tmp_path: Path) -> None:
    make = Maker()
    aged(tmp_path, "old", 200, make)
    aged(tmp_path, "older", 300, make)
    taken(tmp_path, make, {"name": "older"})  # used again
    taken(tmp_path, make, {"name": "new"}, most_gb=BOUND)
    assert keys_left(tmp_path) == {"older", "new"}
    taken(tmp_path, make, {"name": "alone"}, most_gb=61e-9)
    assert keys_left(tmp_path) == {"alone"}


def test_what_is_not_the_caches_own_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "values").write_bytes(bytes(1000))
    for name in ("one", "two"):
        taken(tmp_path, Maker(), {"name": name}, most_gb=61e-9)
    assert (tmp_path / "mine" / "values").exists() and keys_left(tmp_path) == {"two"}


def test_what_is_mapped_stays_until_it_is_let_go(tmp_path: Path) -> None:
    make = Maker()
    held = aged(tmp_path, "old", 200, make, resident_mb=0)
    part = held.values[2:5]
    del held
    taken(tmp_path, make, {"name": "new"}, most_gb=61e-9)
    assert keys_left(tmp_path) == {"old", "new"}, "a part of it still holds it"
    assert torch.equal(part, ROWS[2:5])
    del part
    taken(tmp_path, make, {"name": "third"}, most_gb=61e-9)
    assert keys_left(tmp_path) == {"third"}


def test_what_another_process_has_mapped_stays_as_well(tmp_path: Path) -> None:
    other = writer(tmp_path, 0, after=60)
    assert other.stdout is not None and other.stdout.readline() == "12.0 8\n"
    taken(tmp_path / "cache", Maker(), {"name": "new"}, most_gb=61e-9)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    other.kill()
    other.communicate()
    taken(tmp_path / "cache", Maker(), {"name": "third"}, most_gb=61e-9)
    assert keys_left(tmp_path / "cache") == {"third"}


def test_what_killed_jobs_left_goes_when_room_is_made_and_what_is_being_made_stays(tmp_path: Path) -> None:
    dead, busy = "d" * 32, "b" * 32
    for name in (dead, busy, "notes"):
        (tmp_path / f".{name}.1-1.part").mkdir()
        (tmp_path / f".{name}.1-1.part" / "values").write_bytes(b"half")
    with (tmp_path / f"{busy}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        taken(tmp_path, Maker())
    assert {each.name for each in tmp_path.glob(".*")} == {f".{busy}.1-1.part", ".notes.1-1.part"}


def test_more_than_the_cache_may_hold_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"^this data takes more than cache_gb=5e-08, .*: set data\.cache_gb higher$"):
        taken(tmp_path, Maker(), most_gb=50e-9)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_in_one_line_that_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match=r"^the cache .*/file/in cannot be written \(not a directory\): data\.cache=DIR"):
        taken(tmp_path / "file" / "in", Maker())
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("needs /dev/full")
    cache = TensorCache(str(tmp_path / "full"))
    with pytest.raises(Refusal, match=r"cannot be written \(no space left on device\): data\.cache=DIR"):  # noqa: SIM117
        with cache._told(), open("/dev/full", "wb", buffering=0) as full:
            module._write(full, ROWS)


@pytest.mark.parametrize("of", [{"most_gb": 0.0}, {"most_gb": float("nan")}, {"resident_mb": -1.0}], ids=str)
def test_sizes_that_are_none_are_refused(of: dict[str, float]) -> None:
    with pytest.raises(Refusal, match="must be"):
        TensorCache(None, **of)


def test_the_folder_is_the_one_named_or_a_place_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SCORELAB_CACHE", raising=False)
    assert TensorCache().folder == tmp_path / ".cache" / "scorelab"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert TensorCache().folder == Path("/x/scorelab")
    monkeypatch.setenv("SCORELAB_CACHE", "~/own")
    assert TensorCache().folder == tmp_path / "own"
    assert TensorCache("/named").folder == Path("/named")


def resident_kb() -> int:
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))


def test_a_mapped_tensor_is_read_in_any_order_without_staying_in_memory(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (6000, 2**14), dtype=torch.uint8, generator=chance)  # 98 MB
    stored = taken(tmp_path, Maker(rows, 1000), resident_mb=1)
    sums = rows.sum(1, dtype=torch.int64)
    order = torch.randperm(len(rows), generator=chance)
    del rows
    before = resident_kb()
    found, reader, most = torch.zeros_like(sums), Reader(stored.values[1000:]), 0
    for part in order[order >= 1000].split(64):
        found[part] = reader[part - 1000].sum(1, dtype=torch.int64)
        most = max(most, resident_kb() - before)
    assert torch.equal(found[1000:], sums[1000:])
    for chunk, part in zip(in_chunks(stored.values), sums.split(1024), strict=True):
        assert torch.equal(chunk.sum(1, dtype=torch.int64), part)
        most = max(most, resident_kb() - before)
    assert most < 70_000, "kB"
    assert torch.equal(stored.values.sum(1, dtype=torch.int64), sums)
    looked_at = resident_kb()
    let_go(stored.values[5:])
    assert looked_at - resident_kb() > 80_000, "what was looked at as any tensor had stayed"
    assert torch.equal(stored.values[1000:][-1], reader[[-1]][0])
