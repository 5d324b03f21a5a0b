"""What a hostile folder or file of arrays says: one line, or a set that is read as its owner meant it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scorelab.data.array_parts import parts_of
from scorelab.data.arrays import Arrays, axes_of
from scorelab.data.folders import ImageFolder
from scorelab.errors import Refusal
from scorelab.formats.arrays import held


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


@pytest.mark.parametrize(
    ("item", "axes"),
    [
        ((16, 8, 8), "NCHW"),  # more channels than a side, as latents have them
        ((32, 8, 8), "NCHW"),
        ((8, 8, 16), "NHWC"),
        ((5, 24, 40), "NCHW"),
        ((24, 40, 5), "NHWC"),
        ((4, 6, 3), "NHWC"),
        ((3, 4, 6), "NCHW"),
        ((1, 28, 28), "NCHW"),
        ((28, 28, 1), "NHWC"),
    ],
)
def test_channels_are_the_axis_beside_two_equal_ones_or_the_shortest_of_few(
    tmp_path: Path, item: tuple[int, ...], axes: str
) -> None:
    array = held(saved(tmp_path, floats(4, *item)))[""]
    assert axes_of(array, None) == axes


@pytest.mark.parametrize("item", [(3, 8, 3), (3, 3, 3), (16, 8, 12), (6, 10, 14)])
def test_channels_that_the_shape_does_not_tell_are_asked_for(tmp_path: Path, item: tuple[int, ...]) -> None:
    array = held(saved(tmp_path, floats(4, *item)))[""]
    with pytest.raises(Refusal, match=r"data\.layout=NHWC or NCHW says"):
        axes_of(array, None)
    assert axes_of(array, "NHWC") == "NHWC"


def test_labels_of_two_arrays_without_names_are_the_second_where_it_holds_whole_numbers(tmp_path: Path) -> None:
    values, labels = floats(12, 2), np.arange(12) % 3
    np.savez(tmp_path / "labels.npz", values, labels)
    np.savez(tmp_path / "other.npz", values, floats(12, 2))
    assert Arrays(str(tmp_path / "labels.npz")).classes == 3
    assert parts_of(tmp_path / "other.npz", None, None)["train"].labels is None


def test_a_train_part_alone_is_the_set_in_one_piece(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=floats(20, 2), y_train=np.arange(20) % 2)
    source = Arrays(str(tmp_path / "a.npz"))
    splits = source.checked_splits()
    assert source.classes == 2 and sum(map(len, splits.values())) == 20
    assert {split.chance for split in splits.values()} == {0.0}


def test_black_and_white_as_0_and_1_is_two_levels_where_it_is_told_and_spoken_of_where_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path, (floats(20, 4, 4) > 0).astype(np.uint8))
    assert Arrays(str(path), levels=2).checked_splits() and not caplog.records
    Arrays(str(path)).splits()
    told = "a.npy holds no byte above 1, and levels=256: data.levels=2 spreads them over black to white"
    assert caplog.messages == [told]
    with pytest.raises(Refusal, match=r"holds the level 1[0-9]*, and levels=3"):
        Arrays(str(saved(tmp_path, np.full((20, 4, 4), 17, np.uint8))), levels=3).checked_splits()
    with pytest.raises(Refusal, match=r"levels lie in 2 \.\.\. 256, got 1"):
        Arrays(str(path), levels=1)


@pytest.mark.parametrize(
    ("shape", "fortran", "told"),
    [
        ("(-5, 3)", False, r"cannot be read \(a shape of \(-5, 3\)\)"),
        ("(1000000000000, 3)", False, r"cannot be read \(it holds 0 bytes of 12,000,000,000,000\)"),
        ("(1000000000000, 3)", True, r"cannot be read \(it holds 0 bytes of 12,000,000,000,000\)"),
    ],
)
def test_a_header_that_lies_about_its_size_is_refused_before_memory_is_asked_for(
    tmp_path: Path, shape: str, fortran: bool, told: str
) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode())
    with pytest.raises(Refusal, match=told):
        Arrays(str(path))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"val": 0}, "^val=0 leaves no val split: ask for one image at least$"),
        ({"test": 0}, "^test=0 leaves no test split: ask for one image at least$"),
        ({"size": 20000}, "^size=20000 is more pixels than max_pixels=100000000$"),
        ({"path": ""}, r"^data\.path=FOLDER names a folder of images, and no name was given$"),
        ({"path": " "}, r"^data\.path=FOLDER names a folder of images, and no name was given$"),
    ],
)
def test_what_is_asked_of_a_folder_and_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], told: str
) -> None:
    for k in range(10):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal, match=told):
        ImageFolder(**{"path": str(tmp_path)} | more)


@pytest.mark.parametrize("part", ["val", "test"])
def test_arrays_without_a_held_out_part_are_refused(tmp_path: Path, part: str) -> None:
    path = saved(tmp_path, floats(10, 2))
    with pytest.raises(Refusal, match=f"^{part}=0 leaves no {part} split"):
        Arrays(str(path), **{part: 0})


def test_a_mapped_array_is_the_one_in_memory(tmp_path: Path) -> None:
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), dtype=np.uint8))
    kept = Arrays(str(path)).splits()
    mapped = Arrays(str(path), cache=str(tmp_path / "cache"), resident_mb=0).splits()
    assert all(torch.equal(kept[name].values, mapped[name].values) for name in kept)
