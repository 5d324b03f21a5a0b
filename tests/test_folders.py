"""A folder of pictures: which files, classes and splits it has; odd ones are named, or one line says what is wrong."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scorelab.data.folders import ImageFolder
from scorelab.data.module import DataModule
from scorelab.errors import Refusal
from scorelab.formats.tree import entries, layout, shown


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCORELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pixels(level: int) -> np.ndarray:
    return np.full((4, 6), level, np.uint8)


def tree(root: Path, *names: str) -> Path:
    """Grey pictures of one level each: 0 for the first, 1 for the second ..."""
    for level, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(level)).save(path, format=Image.registered_extensions()[path.suffix.lower()])
    return root


def classes(root: Path, n: int = 10, *names: str) -> Path:
    return tree(root, *(f"{name}/{k:02}.png" for name in names or ("cat", "dog") for k in range(n)))


def levels(source: ImageFolder) -> dict[str, list[int]]:
    """The level of each picture, by split."""
    return {name: split.values[:, 0, 0, 0].tolist() for name, split in source.checked_splits().items()}


def all_levels(source: ImageFolder) -> list[int]:
    return sorted(level for split in levels(source).values() for level in split)


def test_classes_are_the_folders_and_val_and_test_are_drawn_by_class(tmp_path: Path) -> None:
    source = ImageFolder(str(classes(tmp_path / "set")))
    assert (source.shape, source.levels, source.classes) == ((1, 4, 6), 256, 2)
    splits = source.checked_splits()
    assert {name: split.labels.bincount().tolist() for name, split in splits.items()} == {
        "train": [8, 8],
        "val": [1, 1],
        "test": [1, 1],
    }
    for split in splits.values():
        assert [int(level) // 10 for level in split.values[:, 0, 0, 0]] == split.labels.tolist()
        assert split.chance == 0
        assert (split.values == split.values[:, :, :1, :1]).all()
    assert all_levels(source) == list(range(20))
    told = DataModule(source).records()
    assert told["train"] == 16 and told["class_names"] == ["cat", "dog"] and told["resized"] == 0
    assert told["labels_from"] == "the folders under the root"
    assert told["val_from"] == "drawn by class out of all, val=0.1, split_seed=0"
    assert told["unreadable"] == 0 and told["preprocessing"].startswith("4x6 grey")


def test_the_draw_is_the_split_seeds_and_the_bytes_stay_with_their_labels(tmp_path: Path) -> None:
    root = str(classes(tmp_path / "set"))
    one, again, other = (levels(ImageFolder(root, split_seed=seed)) for seed in (0, 0, 1))
    assert one == again and one != other


def test_the_order_is_that_of_the_names_bytes(tmp_path: Path) -> None:
    names = ["b/x.png", "a/z.png", "a/Z.png", "é/x.png", "a b/x.png", "a/10.png", "a/9.png", "B/x.png"]
    found = [each.name for each in entries(tree(tmp_path, *names))]
    assert found == sorted(names, key=lambda name: name.encode())


@pytest.mark.parametrize(
    ("names", "expected", "why"),
    [
        (["a/1.png", "b/2.png"], ("a", "b"), "the folders under the root"),
        (["1.png", "2.png"], (), "none: not every image lies in exactly one folder under the root"),
        (["a/1.png", "2.png"], (), "none: not every image lies in exactly one folder under the root"),
        (["a/1.png", "b/c/2.png"], (), "none: not every image lies in exactly one folder under the root"),
        (["a/1.png", "a/2.png"], (), "none: all images lie in one folder under the root"),
        (["train/1.png", "car/2.png"], ("car", "train"), "the folders under the root"),
        (["train/a/1.png", "train/b/1.png"], ("a", "b"), "the folders under its split"),
        (["train/a/1.png", "test/b/1.png"], ("a", "b"), "the folders under its split"),
        (["train/a/1.png", "test/1.png"], (), "none: not every image lies in exactly one folder under its split"),
        (["train/1.png", "val/1.png"], (), "none: not every image lies in exactly one folder under its split"),
    ],
)
def test_where_labels_come_from(tmp_path: Path, names: list[str], expected: tuple[str, ...], why: str) -> None:
    found = layout(entries(tree(tmp_path, *names)))
    assert (found.classes, found.why) == (expected, why)


def test_folders_of_train_val_and_test_are_the_sets_own_splits(tmp_path: Path) -> None:
    names = [f"{part}/{name}/{k}.png" for part in ("Train", "valid", "test") for name in "ab" for k in range(2)]
    source = ImageFolder(str(tree(tmp_path / "set", *names, "extra/x.png")))
    assert levels(source) == {"train": [0, 1, 2, 3], "val": [4, 5, 6, 7], "test": [8, 9, 10, 11]}
    assert {name: split.labels.tolist() for name, split in source.splits().items()} == {
        part: [0, 0, 1, 1] for part in ("train", "val", "test")
    }
    assert all(split.chance == 1 for split in source.splits().values())
    told = source.told()
    assert (told["val_from"], told["test_from"], told["left_out"]) == (
        "the folder valid",
        "the folder test",
        {"extra": 1},
    )


def test_what_the_set_lacks_is_drawn_out_of_its_train(tmp_path: Path) -> None:
    names = [f"train/{name}/{k}.png" for name in "ab" for k in range(5)] + ["test/a/1.png"]
    source = ImageFolder(str(tree(tmp_path / "set", *names)), val=2)
    found = levels(source)
    assert found["test"] == [10] and len(found["val"]) == 2 and sorted(found["train"] + found["val"]) == list(range(10))
    assert source.told()["val_from"] == "drawn by class out of train, val=2, split_seed=0"
    assert (source.splits()["val"].chance, source.splits()["test"].chance) == (0, 1)


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "train/1.png", "val/1.png", "validation/1.png")
    with pytest.raises(Refusal, match=r"^folders val and validation are both val splits: leave one$"):
        ImageFolder(str(root))


def odd_files(root: Path) -> dict[str, str]:
    """Files that cannot be read, and what is said of each; one is a link to nothing."""
    content = (root / "cat" / "00.png").read_bytes()
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "dog" / "cut.png").write_bytes(content[:-20])
    (root / "dog" / "page.jpg").write_text("<html>not found</html>")
    (root / "dog" / "gone.gif").symlink_to(root / "nowhere.gif")
    (root / "dog" / "itself.gif").symlink_to(root / "dog" / "itself.gif")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(root / "dog" / "float.tif")
    return {
        "cat/empty.png": "an empty file",
        "dog/cut.png": "Truncated File Read",
        "dog/float.tif": "pixels are floats, whose white is not known",
        "dog/gone.gif": "no such file or directory",
        "dog/itself.gif": "too many levels of symbolic links",
        "dog/page.jpg": "no picture of a kind that is known",
    }


def test_files_that_cannot_be_read_are_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = classes(tmp_path / "set")
    expected = odd_files(root)
    for _ in range(2):  # the second time out of the cache
        source = ImageFolder(str(root))
        with caplog.at_level(logging.WARNING, "scorelab"):
            assert all_levels(source) == list(range(20))
        for split in source.splits().values():
            assert [level // 10 for level in split.values[:, 0, 0, 0].tolist()] == split.labels.tolist()
        told = source.told()
        assert told["unreadable"] == 6 and told["unreadable_files"] == expected
        line = caplog.records[0].getMessage()
        assert line == (
            "6 of 26 images cannot be read and are left out: cat/empty.png (an empty file), "
            "dog/cut.png (Truncated File Read), dog/float.tif (pixels are floats, whose white is not known), ..."
        )
        caplog.clear()


def test_with_strict_the_first_such_file_ends_the_run(tmp_path: Path) -> None:
    root = classes(tmp_path / "set")
    (root / "dog" / "05.png").write_bytes(b"")
    told = r"set: dog/05\.png cannot be read \(an empty file\); data\.strict=false leaves such files out$"
    with pytest.raises(Refusal, match=told):
        ImageFolder(str(root), strict=True).splits()
    ImageFolder(str(root)).splits()
    with pytest.raises(Refusal, match=told):
        ImageFolder(str(root), strict=True).splits()  # out of the cache, too


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], r"set holds no images \(png, jpg, .*\): data\.path=FOLDER names a folder of images$"),
        (["a/.hidden.png", ".git/x.png", "__MACOSX/a/x.png"], "set holds no images"),
        (["a/1.png", "b/2.png"], r"set: 2 items are too few for train, val and test: 3 are needed$"),
        (["a/1.png"], r"set: 1 item is too few for train, val and test: 3 are needed$"),
    ],
)
def test_too_few_images_are_told_in_one_line(tmp_path: Path, names: list[str], told: str) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(Refusal, match=told):
        ImageFolder(str(tree(tmp_path / "set", *names)))


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"/nowhere is not there: data\.path=FOLDER names a folder of images$"):
        ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(Refusal, match=r"/1\.png is no folder: data\.path=FOLDER"):
        ImageFolder(str(tree(tmp_path, "1.png") / "1.png"))


def test_a_folder_of_which_nothing_can_be_read_is_told(tmp_path: Path) -> None:
    root = classes(tmp_path / "set", 5)
    for path in root.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-14])  # the header is whole
    told = r"set: no image of the train split can be read, the first is cat/0\d\.png \(broken PNG file .*\)$"
    with pytest.raises(Refusal, match=told):
        ImageFolder(str(root)).splits()
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(Refusal, match=r"set: no image can be read, the first is cat/00\.png \(an empty file\)$"):
        ImageFolder(str(root))


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_small_split_of_which_nothing_can_be_read_is_told_in_one_line_with_its_first_file(tmp_path, part) -> None:
    root = tmp_path / "set"
    classes(root / "train", 5)
    classes(root / part, 1)
    for path in (root / part).rglob("*.png"):
        path.write_bytes(b"no picture")
    told = rf"set: no image of the {part} split can be read, the first is {part}/cat/00\.png \([^\n]+\)$"
    with pytest.raises(Refusal, match=told):
        ImageFolder(str(root)).splits()


def test_a_class_with_one_image_is_trained_on(tmp_path: Path) -> None:
    source = ImageFolder(str(tree(classes(tmp_path / "set"), "rare/x.png")))
    splits = source.checked_splits()
    assert source.classes == 3 and (splits["train"].labels == 2).sum() == 1


def test_hidden_files_and_others_are_left_out_and_suffixes_are_of_any_case(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "set", "a/1.PNG", "a/2.JpG", "b/3.jpeg", "b/.4.png", "b/5.bmp", ".c/6.png", "__MACOSX/b/7.png"
    )
    (root / "b" / "notes.txt").write_text("")
    (root / "b" / "folder.png").mkdir()
    os.mkfifo(root / "b" / "pipe.png")
    assert [each.name for each in entries(root)] == ["a/1.PNG", "a/2.JpG", "b/3.jpeg", "b/5.bmp"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    tree(tmp_path / "elsewhere", "3.png")
    (root / "a" / "up").symlink_to(root)
    (root / "0 first").symlink_to(root / "b")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "d").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "4.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    assert [each.name for each in entries(root)] == ["a/1.png", "b/2.png", "b/4.png", "c/3.png"]


ODD_NAMES = [
    "with space/a b.png",
    "new\nline/x\ny.png",
    "ünïcode/日本.png",
    os.fsdecode(b"bad\xff/\xfe.png"),
    "quote'\"\\/$(x) %s {x}.png",
    "-dash/--x=y.png",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
def test_whatever_a_file_is_called_it_is_read_and_can_be_told_of(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(classes(tmp_path / "set"), name)
    (root / name).with_name("bad" + (root / name).name).write_bytes(b"")
    source = ImageFolder(str(root))
    assert source.classes == 3
    with caplog.at_level(logging.WARNING, "scorelab"):
        assert all_levels(source) == sorted([0, *range(20)])
    records = json.dumps(DataModule(source).records(), ensure_ascii=False)
    records.encode()
    line = caplog.records[0].getMessage()
    assert line.encode() and "\n" not in line


def test_names_are_shown_with_what_cannot_be_printed_escaped() -> None:
    assert shown(os.fsdecode(b"a\xff\n\x1b[31mb")) == "a\\xff\\n\\x1b[31mb"
    assert shown("日本 é.png") == "日本 é.png"
    assert len(shown("x" * 999)) == 121


def test_pictures_are_resized_to_the_first_ones_size_or_the_one_asked_for(tmp_path: Path) -> None:
    root = classes(tmp_path / "set")
    Image.fromarray(np.full((40, 20, 3), 77, np.uint8)).save(root / "cat" / "99.png")
    source = ImageFolder(str(root))
    assert source.shape == (1, 4, 6) and 77 in all_levels(source) and source.told()["resized"] == 1
    wide = ImageFolder(str(root), size=[2, 8], channels=3)
    assert wide.shape == (3, 2, 8) and wide.checked_splits()["train"].values.shape[1:] == (3, 2, 8)
    assert wide.told()["resized"] == 21
    assert ImageFolder(str(root), size=5).shape == (1, 5, 5)
    (root / "aaa.png").write_bytes(b"")  # what the first that can be read has
    assert ImageFolder(str(root)).shape == (1, 4, 6)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"size": 0}, "size is one number of pixels or two"),
        ({"size": [2, 3, 4]}, "size is one number of pixels or two"),
        ({"size": "32"}, "size is one number of pixels or two"),
        ({"channels": 2}, "channels is 1 for grey or 3 for RGB, got 2"),
        ({"val": 20}, r"set: val=20 and test=2 of 20 items leave none to train on"),
        ({"test": -1}, "set: test is a share below 1 or a whole number"),
        ({"max_pixels": 23}, r"set: no image can be read, the first is cat/00\.png \(6 x 4 pixels, more than max_p"),
    ],
)
def test_what_cannot_be_is_refused_at_once(tmp_path: Path, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told):
        ImageFolder(str(classes(tmp_path / "set")), **asked)


def test_decoding_happens_once_until_a_file_or_a_rule_changes(tmp_path: Path, cached: Path) -> None:
    root = classes(tmp_path / "set")

    def made() -> int:
        return len([each for each in cached.iterdir() if not each.name.startswith(".")])

    first = ImageFolder(str(root)).splits()
    again = ImageFolder(str(root)).splits()
    assert made() == 1 and torch.equal(first["train"].values, again["train"].values)
    moved = root.rename(tmp_path / "moved")
    ImageFolder(str(moved)).splits()
    assert made() == 1, "the same files in another place"
    ImageFolder(str(moved), size=3).splits()
    ImageFolder(str(moved), split_seed=1).splits()
    assert made() == 3
    Image.fromarray(pixels(99)).save(moved / "cat" / "00.png")
    os.utime(moved / "cat" / "00.png", ns=(1, 1))
    assert 99 in all_levels(ImageFolder(str(moved))) and made() == 4


def test_large_sets_are_mapped_and_are_the_same(tmp_path: Path) -> None:
    root = str(classes(tmp_path / "set"))
    held, mapped = ImageFolder(root).splits(), ImageFolder(root, resident_mb=0).splits()
    for name in held:
        assert torch.equal(held[name].values, mapped[name].values)
        assert torch.equal(held[name].labels, mapped[name].labels)
    records = [DataModule(ImageFolder(root, resident_mb=mb)).records() for mb in (0, 256)]
    assert records[0] == records[1]
