"""Sets in the hub's layout: small real parquet and arrow files, read without a network, divided by stated rules."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY
from PIL import Image

from scorelab.data.hub import HuggingFace
from scorelab.data.module import DataModule
from scorelab.errors import Refusal

SHARED = Path(os.environ.get("SCORELAB_SHARED") or Path(__file__).resolve().parents[2] / "shared")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SCORELAB_CACHE", str(folder))
    return folder


def pixels(n: int, seed: int = 0, size: tuple[int, ...] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size), dtype=np.uint8)


def file_of(array: np.ndarray, kind: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.fromarray(array).save(held, kind)
    return held.getvalue()


def write(file: Path, contents: Sequence[bytes | None], name: str = "image", **columns: Any) -> Path:
    """Parquet as the hub has it where nobody has said what the columns are: a struct of bytes and path, and more."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [None if each is None else {"bytes": each, "path": None} for each in contents]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({name: pa.array(rows, kind), **columns}), file)
    return file.parent


def told(file: Path, columns: dict[str, Any], features: datasets.Features) -> Path:
    """Parquet that says itself what its columns are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
    return file.parent


def plain(folder: Path, n: int = 40, test: int = 7) -> Path:
    write(folder / "train-00000-of-00001.parquet", [file_of(each) for each in pixels(n)], label=np.arange(n) % 4)
    return write(folder / "test-0.parquet", [file_of(each) for each in pixels(test, 1)], label=np.arange(test) % 4)


def row_of(values: torch.Tensor, array: np.ndarray) -> list[int]:
    """Which row of the array each of these images is."""
    known = {each.tobytes(): number for number, each in enumerate(array)}
    return [known[each.permute(1, 2, 0).numpy().reshape(array.shape[1:]).tobytes()] for each in values]


def test_png_bytes_come_out_to_the_bit_with_their_classes_in_three_splits(tmp_path: Path) -> None:
    source = HuggingFace(str(plain(tmp_path)))
    assert (source.shape, source.classes, source.levels) == ((1, 6, 5), 4, 256)
    splits = source.checked_splits()
    rows = {name: row_of(splits[name].values, pixels(40)) for name in ("train", "val")}
    assert sorted(rows["train"] + rows["val"]) == list(range(40)) and len(rows["val"]) == 4
    for name, found in rows.items():
        assert found == sorted(found), "in the order of the file"
        assert splits[name].labels.tolist() == [row % 4 for row in found]
        assert splits[name].chance == 0
    assert splits["val"].labels.sort().values.tolist() == [0, 1, 2, 3]
    assert row_of(splits["test"].values, pixels(7, 1)) == list(range(7)) and splits["test"].chance == 1
    records = DataModule(HuggingFace(str(tmp_path))).records()
    assert records["test_from"] == "the set's own test"
    assert records["val_from"] == "drawn by class out of train, val=0.1, split_seed=0"
    assert records["labels_from"] == "column label: whole numbers under a usual name"
    assert (records["train"], records["unreadable"], records["resized"]) == (36, 0, 0)


def test_numbers_with_gaps_are_as_many_classes_as_are_there_and_keep_their_names(tmp_path: Path) -> None:
    numbers = np.array([7, 0, 1, 7] * 5)
    write(tmp_path / "train.parquet", [file_of(each) for each in pixels(20)], label=numbers)
    source = HuggingFace(str(tmp_path), val=4, test=4)
    assert source.classes == 3
    for split in source.checked_splits().values():
        rows = row_of(split.values, pixels(20))
        assert [int(source.told()["class_names"][label]) for label in split.labels] == numbers[rows].tolist()


def test_a_split_of_which_no_picture_can_be_read_is_told_by_its_first(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [file_of(each) for each in pixels(20)], label=np.arange(20) % 2)
    write(tmp_path / "test.parquet", [b"none", file_of(pixels(1)[0])[:40]], label=[0, 1])
    told = r"no picture of the test split can be read, the first is test row 0 \(.+\)$"
    with pytest.raises(Refusal, match=told):
        HuggingFace(str(tmp_path)).splits()


def test_jpegs_in_colour_are_what_pillow_decodes(tmp_path: Path) -> None:
    arrays = [np.full((8, 8, 3), 20 * k, np.uint8) for k in range(9)]
    write(tmp_path / "train.parquet", [file_of(each, "JPEG") for each in arrays], name="img", label=[0] * 9)
    splits = HuggingFace(str(tmp_path), val=1, test=1).checked_splits()
    found = sorted(float(each.float().mean()) for split in splits.values() for each in split.values)
    assert found == pytest.approx([20.0 * k for k in range(9)], abs=1)
    assert splits["train"].values.shape == (7, 3, 8, 8)


def test_columns_are_found_by_what_the_file_says_they_are(tmp_path: Path) -> None:
    kinds = datasets.Features(
        {
            "thumbnail_of": datasets.Value("string"),
            "picture": datasets.Image(),
            "id": datasets.Value("int64"),
            "kind": datasets.ClassLabel(names=["cat", "dog", "no example"]),
        }
    )
    images = [Image.fromarray(each) for each in pixels(12)]
    columns = {"thumbnail_of": ["x"] * 12, "picture": images, "id": [7] * 12, "kind": [k % 2 for k in range(12)]}
    source = HuggingFace(str(told(tmp_path / "a" / "train.parquet", columns, kinds)))
    assert source.classes == 3, "as the feature says, whatever occurs"
    assert source.told()["images_from"] == "column picture: its feature is Image"
    assert source.told()["labels_from"] == "column kind: its feature is ClassLabel"
    assert {len(split) for split in source.checked_splits().values()} == {10, 1}


def test_of_two_columns_of_classes_the_usual_name_counts_and_another_can_be_asked_for(tmp_path: Path) -> None:
    contents = [file_of(each) for each in pixels(20)]
    classes = {"coarse_label": np.arange(20) % 2, "fine_label": np.arange(20) % 5, "number": np.arange(20) % 3}
    write(tmp_path / "train.parquet", contents, **classes)
    found = {asked: HuggingFace(str(tmp_path), label=asked) for asked in (None, "coarse_label", "number")}
    assert [each.classes for each in found.values()] == [5, 2, 3]
    rows = row_of(found["number"].splits()["train"].values, pixels(20))
    assert found["number"].splits()["train"].labels.tolist() == [row % 3 for row in rows]


def test_without_classes_the_parts_are_drawn_at_random(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [file_of(each) for each in pixels(30)], caption=["a"] * 30)
    one, other = (HuggingFace(str(tmp_path), split_seed=seed) for seed in (0, 1))
    assert one.classes is None
    assert torch.equal(one.checked_splits()["val"].labels, torch.zeros(3, dtype=torch.int64))
    assert not torch.equal(one.splits()["val"].values, other.splits()["val"].values)
    assert one.told()["val_from"] == "drawn at random out of train, val=0.1, split_seed=0"
    assert DataModule(one).chance is None


def test_the_sets_own_splits_are_taken_and_what_it_lacks_is_drawn(tmp_path: Path) -> None:
    for seed, (name, n) in enumerate({"train": 20, "validation": 5, "test": 6}.items()):
        write(tmp_path / f"{name}.parquet", [file_of(e) for e in pixels(n, seed)], label=np.arange(n) % 2)
    source = HuggingFace(str(tmp_path))
    assert [len(each) for each in source.checked_splits().values()] == [20, 5, 6]
    assert [each.chance for each in source.splits().values()] == [1, 1, 1]
    assert source.told()["val_from"] == "the set's own validation"
    swapped = HuggingFace(str(tmp_path), split="test", test=2)
    assert {name: len(each) for name, each in swapped.checked_splits().items()} == {"train": 4, "val": 5, "test": 2}
    with pytest.raises(Refusal, match=r"has no split tran: type data\.split=train\|validation\|test$"):
        HuggingFace(str(tmp_path), split="tran")


def test_a_test_split_whose_classes_are_hidden_is_not_used(tmp_path: Path) -> None:
    plain(tmp_path)
    write(tmp_path / "test-0.parquet", [file_of(each) for each in pixels(7, 1)], label=[-1] * 7)
    source = HuggingFace(str(tmp_path), val=4, test=4)
    assert [len(each) for each in source.checked_splits().values()] == [32, 4, 4]
    assert source.told()["test_from"].startswith("drawn by class out of train")


def test_the_only_split_is_trained_on_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", [file_of(each) for each in pixels(20)], label=np.arange(20) % 2)
    assert [len(each) for each in HuggingFace(str(tmp_path)).checked_splits().values()] == [16, 2, 2]


def test_unreadable_pictures_are_named_and_left_out_or_end_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    contents: list[bytes | None] = [file_of(each) for each in pixels(40)]
    contents[0], contents[3], contents[7], contents[9] = None, b"", b"no picture", (contents[9] or b"")[:-30]
    write(tmp_path / "train.parquet", contents, label=np.arange(40) % 4)
    source = HuggingFace(str(tmp_path), val=8, test=8)
    for _ in range(2):  # made, then found
        caplog.clear()
        splits = source.checked_splits()
        found = [row for name in splits for row in row_of(splits[name].values, pixels(40))]
        assert sorted(found) == [row for row in range(40) if row not in (0, 3, 7, 9)]
        labels = [label for split in splits.values() for label in split.labels.tolist()]
        assert labels == [row % 4 for row in found]
        assert source.told()["unreadable"] == 4
        assert set(source.told()["unreadable_files"]) == {f"train row {row}" for row in (0, 3, 7, 9)}
        assert "4 pictures cannot be read and are left out: train row" in caplog.text
    for strict in (HuggingFace(str(tmp_path), val=8, test=8, strict=True), HuggingFace(str(tmp_path), strict=True)):
        with pytest.raises(Refusal, match=r"train row \d cannot be read \(.*\); data\.strict=false leaves such"):
            strict.splits()


def test_sizes_and_channels_are_those_asked_for(tmp_path: Path) -> None:
    plain(tmp_path)
    assert HuggingFace(str(tmp_path), size=4, channels=3).checked_splits()["train"].values.shape[1:] == (3, 4, 4)
    source = HuggingFace(str(tmp_path), size=[3, 5])
    assert source.shape == (1, 3, 5) and source.checked_splits()["val"].values.shape[1:] == (1, 3, 5)
    assert source.told()["resized"] == 47
    for size in (0, [2, 3, 4], ["a", "b"], "32"):
        with pytest.raises(Refusal, match=r"size is one number of pixels or two"):
            HuggingFace(str(tmp_path), size=size)
    with pytest.raises(Refusal, match="size=20000 is more pixels than max_pixels"):
        HuggingFace(str(tmp_path), size=20000)


def test_what_is_decoded_is_found_again_until_a_file_changes(tmp_path: Path, own_cache: Path) -> None:
    plain(tmp_path)
    for size in (4, 4, 5):
        HuggingFace(str(tmp_path), size=size).splits()
    assert len(list(own_cache.iterdir())) == 2
    os.utime(tmp_path / "test-0.parquet", (1, 1))
    HuggingFace(str(tmp_path), size=5).splits()
    assert len(list(own_cache.iterdir())) == 3


@pytest.mark.parametrize("kind", ["saved", "saved dict", "one file", "arrow folder"])
def test_every_form_of_a_local_set_gives_the_same(tmp_path: Path, kind: str) -> None:
    n = 30
    columns = {"image": [Image.fromarray(each) for each in pixels(n)], "label": [k % 3 for k in range(n)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=3)})
    made = datasets.Dataset.from_dict(columns, features=features)
    place = tmp_path / "my own sét"
    if kind == "saved":
        made.save_to_disk(place)
    elif kind == "saved dict":
        datasets.DatasetDict({"train": made}).save_to_disk(place)
    elif kind == "one file":
        place = place.with_suffix(".parquet")
        made.to_parquet(place)
    else:
        made.save_to_disk(tmp_path / "saved")
        place.mkdir()
        (next((tmp_path / "saved").glob("*.arrow"))).rename(place / "train.arrow")
    source = HuggingFace(str(place))
    assert source.classes == 3
    rows = sorted(row for split in source.checked_splits().values() for row in row_of(split.values, pixels(n)))
    assert rows == list(range(n))


UNREACHED = """
import socket, sys

def refused(*_):
    raise AssertionError("a connection")

socket.socket.connect = socket.getaddrinfo = refused
from scorelab.data.hub import HuggingFace
print([len(each) for each in HuggingFace(sys.argv[1], cache=sys.argv[2]).splits().values()])
"""


def test_a_local_folder_asks_no_network_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    plain(tmp_path / "set")
    (tmp_path / "home").mkdir()
    before = sorted(each.name for each in (tmp_path / "set").iterdir())
    words = [sys.executable, "-c", UNREACHED, str(tmp_path / "set"), str(tmp_path / "cache")]
    own = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.stdout == "[36, 4, 7]\n", done.stderr
    assert sorted(each.name for each in (tmp_path / "set").iterdir()) == before
    assert not [each for each in (tmp_path / "home").rglob("*") if each.is_file()]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def nothing(folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "no where")}


def a_name(folder: Path) -> dict[str, Any]:
    return {"path": "someone/something"}


def empty(folder: Path) -> dict[str, Any]:
    return {"path": str(folder)}


def broken(folder: Path) -> dict[str, Any]:
    (folder / "train.parquet").write_bytes(b"PAR1 and no more")
    return {"path": str(folder)}


def one_broken(folder: Path) -> dict[str, Any]:
    plain(folder)
    (folder / "train-00001-of-00002.parquet").write_bytes((folder / "test-0.parquet").read_bytes()[:-99])
    return {"path": str(folder)}


def text(folder: Path) -> dict[str, Any]:
    (folder / "a.txt").write_text("hello")
    return {"path": str(folder)}


def another_file(folder: Path) -> dict[str, Any]:
    (folder / "a.csv").write_text("hello")
    return {"path": str(folder / "a.csv")}


def no_images(folder: Path) -> dict[str, Any]:
    pq.write_table(pa.table({"x": [1, 2], "label": [0, 1]}), folder / "train.parquet")
    return {"path": str(folder)}


def two_images(folder: Path) -> dict[str, Any]:
    content = [{"bytes": file_of(each), "path": None} for each in pixels(3)]
    write(folder / "train.parquet", [each["bytes"] for each in content], mask=content)
    return {"path": str(folder)}


def nothing_readable(folder: Path) -> dict[str, Any]:
    return {"path": str(write(folder / "train.parquet", [b"x", b"y"], label=[0, 1]))}


def two_in_all(folder: Path) -> dict[str, Any]:
    return {"path": str(write(folder / "train.parquet", [file_of(each) for each in pixels(2)], label=[0, 1]))}


def hidden(folder: Path) -> dict[str, Any]:
    return {"path": str(write(folder / "train.parquet", [file_of(e) for e in pixels(5)], label=[0, 1, 0, -1, 1]))}


def numbers(folder: Path) -> dict[str, Any]:
    return {"path": str(write(folder / "train.parquet", [file_of(e) for e in pixels(5)], label=[9, 99, 999, 0, 1]))}


@pytest.mark.parametrize(
    ("made", "more", "words"),
    [
        (nothing, {}, r"no such folder, and no name of a set on the hub$"),
        (a_name, {}, r"^data\.path=someone/something cannot be reached on the hub \(no network, .*: type the folder"),
        (empty, {}, r"cannot be read \(.*doesn't contain any data files\)$"),
        (broken, {}, r"cannot be read \(Parquet magic bytes not found"),
        (one_broken, {}, r"cannot be read \(.*Parquet magic bytes not found"),
        (text, {}, r"(is no table of images|has no column of images; its columns: text|are no table of images)$"),
        (another_file, {}, r"a file is \.parquet or \.arrow$"),
        (no_images, {}, r"has no column of images; its columns: x, label$"),
        (two_images, {}, r"has several columns of images: type data\.image=image\|mask$"),
        (nothing_readable, {}, r"its split train holds no picture that can be read$"),
        (two_in_all, {}, r"2 items are too few for train, val and test: 3 are needed$"),
        (hidden, {}, r"1 rows of train have no class in column label: data\.label=NAME names another$"),
        (numbers, {}, r"numbers up to 999 in 5 rows, which are no classes: data\.label=NAME names another column$"),
        (two_in_all, {"name": "other"}, r"BuilderConfig 'other' not found"),
        (two_in_all, {"image": "picture"}, r"^data\.image=picture: .* no such column; columns: image, label$"),
        (two_in_all, {"image": "label"}, r"^data\.image=label: a column of images, bytes or files is needed$"),
        (two_in_all, {"label": "image"}, r"^data\.label=image: a column of classes or whole numbers is needed$"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_what_cannot_be_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, more: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the library tries for 20 seconds
    with pytest.raises(Refusal, match=words) as caught:
        HuggingFace(**made(tmp_path), **more).checked_splits()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


# --- as a command


HUB = ("data=huggingface", "data.size=8", "trainer.max_steps=2", "model.channels=8", "model.multipliers=[1]")
HUB += ("metrics=[simple]", "evaluation.samples=8", "sampler.steps=2", "logger=none", "callbacks=minimal")


def test_a_set_is_trained_on_wherever_its_cache_lies(typed, tmp_path: Path) -> None:
    plain(tmp_path / "my set, 1")
    said = typed("train", "run=a", "data.path=my set, 1", "data.cache=one", *HUB)
    assert said.status == 0, said.err
    results = json.loads((tmp_path / "logs/train/a/metrics.json").read_text())
    assert results["records"]["data"]["set"] == "my set, 1" and results["records"]["data"]["train"] == 36
    assert results["config"]["data"]["source"]["path"] == "my set, 1"
    again = typed(
        "train", "run=a", "data.path=my set, 1", "data.cache=two", "data.cache_gb=1", "data.resident_mb=0", *HUB
    )
    assert again.status == 0 and "is finished" in again.err + again.out
    mapped = ("data.cache=two", "data.resident_mb=0", "data.source.cache_gb=1")
    other = typed("train", "run=b", "data.source.path=my set, 1", *mapped, *HUB)
    assert other.status == 0, other.err
    found = json.loads((tmp_path / "logs/train/b/metrics.json").read_text())
    assert found["metrics"] == results["metrics"], "not one bit"
    evaluated = typed("eval", "run=logs/train/a", "metrics=[simple]")
    assert evaluated.status == 0, evaluated.err
    fixed = typed("eval", "run=logs/train/a", "data.path=x")
    assert fixed.status == 2 and "data.path belongs to training" in fixed.last


def test_a_set_that_is_not_named_is_asked_for_in_one_line(typed) -> None:
    said = typed("train", "data=huggingface", *TINY[1:])
    assert said.status == 2
    assert said.last == "error: data.path has no value: type data.path=..."


@pytest.mark.parametrize(("name", "shape", "n"), [("mnist", (1, 28, 28), 60_000), ("cifar10", (3, 32, 32), 50_000)])
def test_the_real_sets_open_by_their_folder(name: str, shape: tuple[int, ...], n: int) -> None:
    if not (SHARED / "data" / name).is_dir():
        pytest.skip(f"{SHARED / 'data' / name} is not there: SCORELAB_SHARED=DIR names the folder above data/")
    source = HuggingFace(str(SHARED / "data" / name))
    assert (source.shape, source.classes) == (shape, 10)
    parts = source._parts()
    assert [len(part.rows) if part.rows is not None else None for part in parts.values()] == [
        n * 9 // 10,
        n // 10,
        None,
    ]
