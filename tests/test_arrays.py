"""Arrays of one's own: what their shapes, types and names mean; what they cannot be is refused in one line."""

import json
import logging
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorelab.data.arrays import Arrays
from scorelab.data.module import DataModule
from scorelab.errors import Refusal
from scorelab.lit.pictures import save_grid, save_plane


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCORELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def of_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def of_floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def saved(folder: Path, array: np.ndarray, name: str = "x.npy", labels: np.ndarray | None = None) -> str:
    folder.mkdir(exist_ok=True)
    np.save(folder / name, array)
    if labels is not None:
        np.save(folder / f"{name.removesuffix('.npy')}_labels.npy", labels)
    return str(folder / name)


def zipped(folder: Path, **arrays: np.ndarray) -> str:
    np.savez_compressed(folder / "x.npz", **arrays)
    return str(folder / "x.npz")


def rows(source: Arrays) -> list[bytes]:
    """All items, sorted, to be compared as a set."""
    return sorted(each.numpy().tobytes() for split in source.checked_splits().values() for each in split.values)


IMAGES = of_bytes(20, 4, 6)


@pytest.mark.parametrize(
    ("array", "layout", "shape", "levels", "expected"),
    [
        (IMAGES, None, (1, 4, 6), 256, IMAGES[:, None]),
        (of_bytes(20, 4, 6, 3), None, (3, 4, 6), 256, of_bytes(20, 4, 6, 3).transpose(0, 3, 1, 2)),
        (of_bytes(20, 3, 4, 6), None, (3, 4, 6), 256, of_bytes(20, 3, 4, 6)),
        (of_bytes(20, 24, 40, 5), None, (5, 24, 40), 256, of_bytes(20, 24, 40, 5).transpose(0, 3, 1, 2)),
        (of_bytes(20, 4, 4, 4), "NHWC", (4, 4, 4), 256, of_bytes(20, 4, 4, 4).transpose(0, 3, 1, 2)),
        (of_bytes(20, 24, 8, 20), "NCHW", (24, 8, 20), 256, of_bytes(20, 24, 8, 20)),
        (of_floats(20, 7), None, (7,), None, of_floats(20, 7)),
        (of_floats(20), None, (1,), None, of_floats(20)[:, None]),
        (of_floats(20, 2, 4, 6), None, (2, 4, 6), None, of_floats(20, 2, 4, 6)),
        (of_floats(20, 4, 6, 2), None, (2, 4, 6), None, of_floats(20, 4, 6, 2).transpose(0, 3, 1, 2)),
        (of_floats(20, 7).astype(np.float64), None, (7,), None, of_floats(20, 7)),
        (of_floats(20, 7).astype(">f8"), None, (7,), None, of_floats(20, 7)),
        (of_floats(20, 7).astype(np.float16), None, (7,), None, of_floats(20, 7).astype(np.float16).astype("f4")),
        (np.asfortranarray(of_floats(20, 7)), None, (7,), None, of_floats(20, 7)),
        (np.asfortranarray(of_bytes(20, 4, 6, 3)), None, (3, 4, 6), 256, of_bytes(20, 4, 6, 3).transpose(0, 3, 1, 2)),
    ],
    ids=lambda each: f"{each.dtype}{each.shape}" if isinstance(each, np.ndarray) else None,
)
def test_shapes_and_types_say_what_an_array_is(
    tmp_path: Path, array: np.ndarray, layout: Any, shape: tuple[int, ...], levels: int | None, expected: np.ndarray
) -> None:
    for file in (saved(tmp_path, array), zipped(tmp_path, whatever=array)):
        for resident in (256, 0):
            source = Arrays(file, layout=layout, resident_mb=resident)
            assert (source.shape, source.levels, source.classes) == (shape, levels, None)
            assert rows(source) == sorted(np.ascontiguousarray(each).tobytes() for each in expected)
    assert {name: len(split) for name, split in source.splits().items()} == {"train": 16, "val": 2, "test": 2}


WRONG: dict[str, tuple[np.ndarray, str]] = {
    "whole numbers": (np.arange(12).reshape(4, 3), r"x\.npy is int64 \(4, 3\): save levels 0 \.\.\. 255 as uint8, or"),
    "16 bits": (np.zeros((4, 3, 3), np.uint16), r"x\.npy is uint16 .*: save levels 0 \.\.\. 255 as uint8"),
    "truth": (np.zeros((4, 3, 3), bool), r"x\.npy is bool \(4, 3, 3\): save levels 0 \.\.\. 255 as uint8"),
    "complex": (np.zeros((4, 3), complex), r"x\.npy is complex128 \(4, 3\): save levels"),
    "text": (np.array(["a", "b"]), r"x\.npy is str\d* \(2,\): save levels"),
    "dates": (np.zeros(3, "datetime64[s]"), r"x\.npy is datetime64\[s\] \(3,\): save levels"),
    "fields": (np.zeros(3, [("a", "f4"), ("b", "f4")]), r"x\.npy is void64 \(3,\): save levels"),
    "objects": (np.array([{}, None], object), r"x\.npy holds Python objects, which are never loaded: save numbers"),
    "one number": (np.float32(3.0), r"x\.npy is float32 \(\), a single number: the first axis counts the items$"),
    "one byte": (np.uint8(3), r"x\.npy is uint8 \(\), a single number"),
    "no rows": (np.zeros((0, 7), np.float32), r"x\.npy is float32 \(0, 7\), which holds nothing$"),
    "no columns": (np.zeros((7, 0), np.float32), r"x\.npy is float32 \(7, 0\), which holds nothing$"),
    "one row": (of_floats(1, 7), r"x\.npy: 1 item is too few for train, val and test: 3 are needed$"),
    "bytes of points": (of_bytes(20, 7), r"x\.npy is uint8 \(20, 7\): bytes are images, \(N, H, W\), "),
    "bytes": (of_bytes(20), r"x\.npy is uint8 \(20,\): bytes are images"),
    "films": (of_bytes(20, 2, 3, 4, 5), r"bytes are images, \(N, H, W\), \(N, H, W, C\) or \(N, C, H, W\)$"),
    "signals": (
        of_floats(20, 2, 64),
        r"floats are points \(N, D\) or images \(N, C, H, W\); save x\[:, None\] for ima",
    ),
    "volumes": (of_floats(20, 2, 3, 4, 5), r"floats are points \(N, D\) or .*; save x\.reshape\(len\(x\), -1\) for po"),
    "either": (of_bytes(20, 3, 3, 3), r"x\.npy is uint8 \(20, 3, 3, 3\): data\.layout=NHWC or NCHW says which axis is"),
    "many channels": (of_bytes(20, 24, 8, 20), r"data\.layout=NHWC or NCHW says which axis is the channels$"),
    "NaN": (
        np.array([[0.0], [np.nan], [1], [2]], "f4"),
        r"x\.npy holds NaN or infinity \(as float32\) in row 1: leave",
    ),
    "infinity": (
        np.array([[0.0], [1], [-np.inf], [2]]),
        r"holds NaN or infinity \(as float32\) in row 2: leave such r",
    ),
    "beyond float32": (np.array([[0.0], [1], [2], [1e300]]), r"holds NaN or infinity \(as float32\) in row 3: leave s"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_data_is_refused_in_one_line_that_says_what_to_do(tmp_path: Path, case: str) -> None:
    array, told = WRONG[case]
    with pytest.raises(Refusal, match=told) as caught:
        Arrays(saved(tmp_path, array)).splits()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_objects_of_a_file_are_never_made(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    array = np.array([Trap(), Trap()], object)
    for file in (saved(tmp_path, array), zipped(tmp_path, x=array), zipped(tmp_path, x=of_floats(9, 2), y=array)):
        with pytest.raises(Refusal, match="Python objects, which are never loaded"):
            Arrays(file).splits()
    assert Arrays(zipped(tmp_path, x=of_floats(9, 2), about=array)).shape == (2,), "what is not asked for does no harm"
    assert not (tmp_path / "sprung").exists()


def damaged(folder: Path) -> dict[str, tuple[bytes, str]]:
    npy = Path(saved(folder, of_floats(20, 7))).read_bytes()
    npz = Path(zipped(folder, x=of_floats(20, 7), y=np.arange(20) % 2)).read_bytes()
    flipped = bytearray(npz)
    flipped[150] ^= 255
    return {
        "empty": (b"", r"is no \.npy or \.npz file but empty: np\.save writes one$"),
        "text": (b"1,2,3\n", r"is no \.npy or \.npz file: np\.save writes one$"),
        "short": (npy[:-100], r"cannot be read \(it holds 460 bytes of 560\)$"),
        "header": (npy[:30], r"cannot be read \(.*\)$"),
        "version": (npy[:6] + b"\x09\x00" + npy[8:], r"cannot be read \(.*\)$"),
        "code": (npy.replace(b"'<f4'", b"__a()"), r"cannot be read \(.*\)$"),
        "zip": (npz[:-100], r"cannot be read \(File is not a zip file\)$"),
        "flipped": (bytes(flipped), r"cannot be read \(.*\)$"),
        "sizes": (npy.replace(b"(20, 7)", b"(90000000000, 7)"[:7].ljust(7)), r"cannot be read \(.*\)$"),
    }


@pytest.mark.parametrize("case", ["empty", "text", "short", "header", "version", "code", "zip", "flipped", "sizes"])
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    content, told = damaged(tmp_path)[case]
    (tmp_path / "y.npy").write_bytes(content)
    with pytest.raises(Refusal, match=told) as caught:
        Arrays(str(tmp_path / "y.npy")).splits()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere\.npy is not there: data\.path=FILE names a \.npy or \.npz file$"):
        Arrays(str(tmp_path / "nowhere.npy"))
    with pytest.raises(Refusal, match=r" is a folder: data\.path=FILE"):
        Arrays(str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        (np.arange(20) % 3, 3, ["0", "1", "2"]),
        ((np.arange(20) % 3).astype(np.uint8)[:, None], 3, ["0", "1", "2"]),
        (np.arange(20) % 2 == 0, 2, ["0", "1"]),
        (1 + np.arange(20) % 3, 3, ["1", "2", "3"]),
        (np.array([7, 0, 1, 7] * 5), 3, ["0", "1", "7"]),
        (np.array(["dog", "cat"] * 10), 2, ["cat", "dog"]),
        (np.array([b"dog", b"cat"] * 10), 2, ["cat", "dog"]),
        (np.zeros(20, int), None, None),
    ],
    ids=["numbers", "a column", "truth", "from one on", "with gaps", "names", "bytes", "one class"],
)
def test_labels_beside_a_file(tmp_path: Path, labels: np.ndarray, classes: int | None, names: list[str] | None) -> None:
    source = Arrays(saved(tmp_path, np.arange(20, dtype=np.float32)[:, None], labels=labels))
    assert source.classes == classes and source.told().get("class_names") == names
    expected = np.unique(labels, return_inverse=True)[1]
    for split in source.checked_splits().values():
        assert split.labels.tolist() == [int(expected.ravel()[int(each)]) for each in split.values[:, 0]]
        assert split.chance == 0
    told = source.told()
    assert told["labels_from"] == ("x_labels.npy" if classes else "none: x_labels.npy holds one class")
    assert told["val_from"] == f"drawn {'by class' if classes else 'at random'} out of x.npy, val=0.1, split_seed=0"


def test_a_file_of_labels_is_named_from_here_or_from_beside(tmp_path: Path) -> None:
    file = saved(tmp_path, of_floats(20, 2))
    np.save(tmp_path / "kinds.npy", np.arange(20) % 2)
    assert Arrays(file).classes is None
    assert Arrays(file, labels="kinds.npy").classes == Arrays(file, labels=str(tmp_path / "kinds.npy")).classes == 2
    with pytest.raises(Refusal, match=r"none\.npy is not there"):
        Arrays(file, labels="none.npy")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.arange(19), r"labels x_labels\.npy are int64 \(19,\), one for each of 20 items is needed$"),
        (np.eye(20), r"are float64 \(20, 20\), one for each of 20 items is needed; save x\.argmax\(1\) of one-hot lab"),
        (np.linspace(0, 1, 20), r"are float64 \(20,\): labels are whole numbers or names$"),
        (np.arange(20) - 1, r"labels in x_labels\.npy are -1 \.\.\. 18 for 20 items; classes are 0 \.\.\. K - 1$"),
        (np.arange(20) * 10**6, r"are 0 \.\.\. 19000000 for 20 items; classes are 0 \.\.\. K - 1$"),
        (np.int64(3), r"are int64 \(\), one for each of 20 items is needed$"),
        (np.array([None] * 20, object), r"x_labels\.npy holds Python objects"),
    ],
    ids=["fewer", "one-hot", "floats", "negative", "numbers", "one", "objects"],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: np.ndarray, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        Arrays(saved(tmp_path, of_floats(20, 2), labels=labels))


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_arrays_called_train_and_test_are_the_sets_own_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    train, test = of_bytes(20, 4, 6), of_bytes(5, 4, 6)
    arrays = (train, np.arange(20) % 2, test, np.array([1, 1, 0, 1, 0]))
    source = Arrays(zipped(tmp_path, **dict(zip(names, arrays, strict=True))))
    splits = source.checked_splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "val": 2, "test": 5}
    assert np.array_equal(splits["test"].values[:, 0], test) and splits["test"].labels.tolist() == [1, 1, 0, 1, 0]
    assert splits["val"].labels.tolist() in ([0, 1], [1, 0])
    assert (splits["train"].chance, splits["val"].chance, splits["test"].chance) == (0, 0, 1)
    known = {each.tobytes(): k % 2 for k, each in enumerate(train)}
    assert [known[each.numpy().tobytes()] for each in splits["train"].values[:, 0]] == splits["train"].labels.tolist()
    told = source.told()
    assert told["test_from"] == f"the array {names[2]}" and told["labels_from"] == f"{names[1]}, {names[3]}"


def test_three_splits_of_its_own_are_taken_in_their_order(tmp_path: Path) -> None:
    arrays = {f"x_{part}": of_floats(n, 2) for part, n in {"train": 5, "valid": 1, "test": 2}.items()}
    splits = Arrays(zipped(tmp_path, **arrays)).checked_splits()
    for name, array in zip(("train", "val", "test"), arrays.values(), strict=True):
        assert np.array_equal(splits[name].values, array) and splits[name].chance == 1


@pytest.mark.parametrize(
    ("arrays", "named", "told"),
    [
        ({"a": of_floats(9, 2), "b": of_floats(9, 2)}, {}, r"x\.npz holds a, b: data\.values=NAME says which is the d"),
        ({"a": of_floats(9, 2)}, {"values": "c"}, r"x\.npz holds no c, but a$"),
        ({"a": of_floats(9, 2)}, {"labels": "c"}, r"x\.npz holds no c, but a$"),
        ({}, {}, r"x\.npz holds no arrays: data\.values=NAME"),
        (
            {"x_train": of_floats(9, 2), "x_test": of_floats(9, 3)},
            {},
            r"x_train is float32 \(9, 2\), and x_test float32 \(9, 3\)$",
        ),
    ],
)
def test_names_that_leave_it_open_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], named: dict[str, str], told: str
) -> None:
    with pytest.raises(Refusal, match=told):
        Arrays(zipped(tmp_path, **arrays), **named)


def test_arrays_of_a_npz_are_found_by_usual_names_or_those_given(tmp_path: Path) -> None:
    file = zipped(tmp_path, images=IMAGES, Targets=np.arange(20) % 2, other=of_floats(20, 3), kinds=np.arange(20) % 4)
    usual = Arrays(file)
    assert (usual.shape, usual.classes) == ((1, 4, 6), 2)
    given = Arrays(file, values="other", labels="kinds")
    assert (given.shape, given.classes) == ((3,), 4)
    with zipfile.ZipFile(file, "a") as whole:
        whole.writestr("readme.txt", "not an array")
    assert Arrays(file).shape == (1, 4, 6)


def test_large_arrays_are_mapped_in_the_order_of_the_splits(tmp_path: Path, cached: Path) -> None:
    file = saved(tmp_path, of_floats(50, 3), labels=np.arange(50) % 5)
    held, mapped = Arrays(file).splits(), Arrays(file, resident_mb=0).splits()
    assert len(list(cached.glob("[!.]*"))) == 1, "only what is mapped is written"
    for name in held:
        assert torch.equal(held[name].values, mapped[name].values)
        assert torch.equal(held[name].labels, mapped[name].labels)
    records = [DataModule(Arrays(file, resident_mb=mb)).records() for mb in (0, 256)]
    assert records[0] == records[1] and json.dumps(records[0])
    np.save(file, of_floats(50, 3) + 1)
    assert not torch.equal(Arrays(file, resident_mb=0).splits()["val"].values, mapped["val"].values)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_read_a_few_rows_at_a_time_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any
) -> None:
    array, labels = of_floats(50, 3), np.arange(50) % 5
    file = saved(tmp_path, np.asarray(array, order=order), labels=labels)
    monkeypatch.setattr("scorelab.formats.arrays.CHUNK", 7 * 12)
    number = {each.tobytes(): k for k, each in enumerate(array)}
    for split in Arrays(file).checked_splits().values():
        rows = [number[each.numpy().tobytes()] for each in split.values]
        assert rows == sorted(rows) and split.labels.tolist() == [k % 5 for k in rows]


def test_the_range_of_floats_is_told_and_a_strange_one_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    array = np.linspace(0, 1, 20, dtype=np.float32)
    for scale, warned in [(1, False), (255, True), (0.01, True)]:
        source = Arrays(saved(tmp_path, array * np.float32(scale)))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "scorelab"):
            source.splits()
        assert source.told()["range"] == pytest.approx([0, scale]) and len(caplog.records) == warned
    assert "data without levels should lie about [-1, 1]" in caplog.text


def test_a_member_that_holds_more_or_less_than_its_header_is_damaged(tmp_path: Path) -> None:
    content = Path(saved(tmp_path, of_floats(20, 7))).read_bytes()
    for changed in (content + b"more", content[:-4]):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as whole:
            whole.writestr("x.npy", changed)
        with pytest.raises(Refusal, match=r"x\.npz cannot be read"):
            Arrays(str(tmp_path / "x.npz")).splits()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_channels_can_be_looked_at(tmp_path: Path, channels: int) -> None:
    from PIL import Image

    images = torch.full((1, channels, 48, 48), 200, dtype=torch.uint8)
    save_grid(images, tmp_path / "x.png")
    seen = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))[20, 20].tolist()
    assert seen == ([200, 200, 0] if channels == 2 else [200, 200, 200])


@pytest.mark.parametrize("dims", [1, 2, 7])
def test_points_of_any_dimension_can_be_looked_at(tmp_path: Path, dims: int) -> None:
    save_plane(torch.randn(9, dims), torch.zeros(5, dims), tmp_path / "x.png")
    assert struct.unpack(">II", (tmp_path / "x.png").read_bytes()[16:24])[0] > 100
