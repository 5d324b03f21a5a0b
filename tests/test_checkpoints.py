"""Checkpoints: whole under every name at any moment; what is damaged is named, and the newest whole one used."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from scorelab.errors import DamagedCheckpoint, UserError
from scorelab.files import remove_temporary, temporary
from scorelab.lit.checkpoint_io import Checkpoints
from scorelab.run import checkpoints
from scorelab.run.checkpoints import FORMAT, digest, newest_checkpoint, read_checkpoint, write_checkpoint


def content(step: int, size: int = 1000) -> dict[str, Any]:
    values = torch.arange(size, dtype=torch.float32) + step
    return {
        "global_step": step,
        "state_dict": {"w": values, "b": values.bfloat16(), "n": torch.tensor(step), "none": torch.zeros(0, 3)},
        "callbacks": {"a": {"best": float("inf"), "first": None, "sums": [1.0, 2]}},
    }


def write(folder: Path, step: int, best: bool = False) -> Path:
    path = folder / "last.ckpt"
    write_checkpoint(content(step), path, best)
    return path


def spoil(path: Path) -> None:
    """Turn one bit of a tensor over, in the file, where its zip directory does not see it."""
    raw = bytearray(path.read_bytes())
    place = raw.find(torch.arange(1000, dtype=torch.float32).numpy().tobytes()[2000:2100]) + 50
    assert place > 50
    raw[place] ^= 1
    path.write_bytes(raw)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    read = read_checkpoint(write(tmp_path, 7))
    assert digest(read) == digest(content(7)) != digest(content(8))
    assert read.keys() == content(7).keys()
    assert torch.equal(read["state_dict"]["w"], content(7)["state_dict"]["w"])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["state_dict"]["w"].add_(1e-3),
        lambda c: c["state_dict"].update(b=c["state_dict"]["b"].float()),
        lambda c: c["state_dict"].update(w=c["state_dict"]["w"].view(10, 100)),
        lambda c: c["callbacks"]["a"].update(best=1.0),
        lambda c: c["callbacks"].update(b=None),
        lambda c: c.update(global_step=8),
        lambda c: c["state_dict"].update(v=c["state_dict"].pop("w")),
    ],
)
def test_the_checksum_sees_every_name_value_type_and_shape(change: Any) -> None:
    changed = content(7)
    change(changed)
    assert digest(changed) != digest(content(7))


def test_best_is_another_name_of_last_where_they_are_equal_and_previous_never(tmp_path: Path) -> None:
    write(tmp_path, 10, best=True)
    inode = {name: (tmp_path / f"{name}.ckpt").stat().st_ino for name in ("last", "best")}
    assert inode["last"] == inode["best"]
    for step, best in ((20, True), (30, False), (40, True), (50, True)):
        write(tmp_path, step, best)
        files = {name: tmp_path / f"{name}.ckpt" for name in ("last", "best", "previous")}
        steps = {name: read_checkpoint(file)["global_step"] for name, file in files.items()}
        assert steps == {"last": step, "best": step if best else 20, "previous": step - 10}
        assert files["last"].stat().st_ino != files["previous"].stat().st_ino
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_where_there_are_no_hard_links_best_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path, 10, best=True)
    write(tmp_path, 20, best=True)
    assert [read_checkpoint(tmp_path / f"{name}.ckpt")["global_step"] for name in ("last", "best", "previous")] == [
        20,
        20,
        10,
    ]


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_a_write_that_fails_anywhere_leaves_the_old_ones_whole_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write(tmp_path, 10, best=True)
    failed = 0
    for nth in range(1, 4):
        calls, real = [], getattr(os, call)

        def fail(*args: Any, calls: list = calls, real: Any = real, nth: int = nth, **kwargs: Any) -> Any:
            calls.append(args)
            if len(calls) == nth:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                write(tmp_path, 20, best=True)
            except OSError as error:
                assert error.errno == 28
                failed += 1
        assert not list(tmp_path.glob(".*"))
        for name in ("last", "best"):
            assert read_checkpoint(tmp_path / f"{name}.ckpt")["global_step"] in (10, 20)
    assert failed >= (0 if call == "link" else 1)  # a failing link is made up for by a copy


def test_one_bit_turned_over_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, 0)
    spoil(path)
    torch.load(path, weights_only=True)  # which notices nothing
    with pytest.raises(DamagedCheckpoint, match="is damaged: its content is not what its checksum says"):
        read_checkpoint(path)


@pytest.mark.parametrize("size", [0, 100, 0.5, 0.99])
def test_a_truncated_one_is_named_and_the_newest_whole_one_used(tmp_path: Path, size: float) -> None:
    write(tmp_path, 10, best=True)
    write(tmp_path, 20)
    path = write(tmp_path, 30)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(size if size >= 1 else size * len(raw))])
    found = newest_checkpoint(tmp_path)
    assert found is not None and (found.path.name, found.step) == ("previous.ckpt", 20)
    assert found.damaged.keys() == {path}
    assert found.damaged[path].startswith(f"{path} cannot be read as a checkpoint (")


def test_where_the_newest_has_another_name_it_is_used(tmp_path: Path) -> None:
    """As a kill between two renames leaves it."""
    write(tmp_path, 10, best=True)
    write_checkpoint(content(20), tmp_path / "best.ckpt", False)
    (tmp_path / "previous.ckpt").unlink(missing_ok=True)
    found = newest_checkpoint(tmp_path)
    assert found is not None and (found.path.name, found.step, found.damaged) == ("best.ckpt", 20, {})


def test_after_damage_the_next_write_keeps_the_whole_one(tmp_path: Path) -> None:
    """Last and best one file, both hurt: were it rotated into previous, a kill a moment later would cost the run."""
    write(tmp_path, 10, best=True)
    write(tmp_path, 20, best=True)
    os.truncate(tmp_path / "last.ckpt", 100)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 10 and len(found.damaged) == 2
    found.put_in_order()
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 10
    assert (tmp_path / "last.ckpt.damaged").exists() and (tmp_path / "best.ckpt.damaged").exists()
    write(tmp_path, 20, best=True)
    steps = {name: read_checkpoint(tmp_path / f"{name}.ckpt")["global_step"] for name in ("last", "best", "previous")}
    assert steps == {"last": 20, "best": 20, "previous": 10}


def test_a_disk_that_cannot_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, 10)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        newest_checkpoint(tmp_path)


def test_where_none_is_whole_all_are_named(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, 10)
    spoiled = write(tmp_path, 0)
    spoil(spoiled)
    (tmp_path / "previous.ckpt").write_bytes(b"")
    with pytest.raises(UserError) as told:
        newest_checkpoint(tmp_path)
    assert "last.ckpt is damaged" in str(told.value) and "previous.ckpt cannot be read" in str(told.value)
    assert "overwrite=true starts anew" in str(told.value)


def test_one_from_the_future_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)
    monkeypatch.setattr(checkpoints, "FORMAT", FORMAT + 1)
    path = write(tmp_path, 20)
    monkeypatch.undo()
    told = rf"was written by a newer scorelab \(format {FORMAT + 1}; this one reads up to {FORMAT}\): update scorelab"
    with pytest.raises(UserError, match=told):
        read_checkpoint(path)
    with pytest.raises(UserError, match="update scorelab"):  # the older one beside it is no way out
        newest_checkpoint(tmp_path)


def test_nothing_but_tensors_and_plain_values_is_ever_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "mine"),)

    torch.save({"global_step": 1, "state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "mine").exists()


def test_what_is_written_is_what_was_there_when_saving_began(tmp_path: Path) -> None:
    writer, changing = Checkpoints(), content(10, 1_000_000)
    writer.save_checkpoint(changing, tmp_path / "last.ckpt")
    changing["state_dict"]["w"].zero_()
    writer.wait()
    assert torch.equal(read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["w"][:3], torch.tensor([10.0, 11.0, 12.0]))
    writer.teardown()


def test_a_write_that_fails_is_told_by_the_next_check_and_once(tmp_path: Path) -> None:
    writer = Checkpoints()
    (tmp_path / "file").touch()
    writer.save_checkpoint(content(10), tmp_path / "file" / "last.ckpt")
    deadline = time.monotonic() + 30
    with pytest.raises(OSError):
        while time.monotonic() < deadline:
            writer.check()
    writer.check()
    writer.save_checkpoint(content(20), tmp_path / "last.ckpt")
    writer.wait()
    writer.teardown()
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 20


def test_what_a_killed_job_left_half_written_is_swept(tmp_path: Path) -> None:
    part = temporary(tmp_path / "last.ckpt")
    part.write_bytes(b"half")
    (tmp_path / ".hidden").touch()
    remove_temporary(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".hidden"]
    remove_temporary(tmp_path / "nowhere")
