"""torchvision's sets: read from its own files, fetched or refused in one line."""

import fcntl
import gzip
import hashlib
import pickle
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, MNIST

from scorelab.data.module import DataModule
from scorelab.data.standard import Cifar10, FashionMnist, Mnist, default_root
from scorelab.errors import Refusal


def idx(array: np.ndarray) -> bytes:
    """A file of LeCun's format: two zeros, the type, how many axes, their lengths, the bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def images(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def mnist_files(n: int = 40) -> dict[str, bytes]:
    labels = np.arange(n, dtype=np.uint8) % 10
    return {
        "train-images-idx3-ubyte": idx(images(n, 0)),
        "train-labels-idx1-ubyte": idx(labels),
        "t10k-images-idx3-ubyte": idx(images(10, 1)),
        "t10k-labels-idx1-ubyte": idx(labels[:10]),
    }


def written(root: Path, folder: str = "MNIST", **changed: bytes) -> Path:
    place = root / folder / "raw"
    place.mkdir(parents=True)
    for name, content in mnist_files().items():
        (place / name).write_bytes(changed.get(name.split("-idx")[0].replace("-", "_"), content))
    return root


@pytest.mark.parametrize(("source", "folder"), [(Mnist, "MNIST"), (FashionMnist, "FashionMNIST")])
def test_idx_files_are_read_into_the_three_splits_val_by_class(tmp_path: Path, source: type, folder: str) -> None:
    made = source(root=str(written(tmp_path, folder)), download=False, val=0.25)
    splits = made.checked_splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 30, "val": 10, "test": 10}
    assert splits["val"].labels.sort().values.tolist() == list(range(10))
    assert torch.equal(splits["test"].values[:, 0], torch.from_numpy(images(10, 1))) and splits["test"].chance == 1
    both = torch.cat([splits["train"].values, splits["val"].values])[:, 0]
    assert {each.numpy().tobytes() for each in both} == {each.tobytes() for each in images(40, 0)}
    for split in (splits["train"], splits["val"]):
        known = {each.tobytes(): k % 10 for k, each in enumerate(images(40, 0))}
        assert [known[each.numpy().tobytes()] for each in split.values[:, 0]] == split.labels.tolist()
        assert split.chance == 0
    records = DataModule(made).records()
    assert records["train"] == 30 and records["val_from"].endswith("val=0.25, split_seed=0")
    assert len(records["fingerprint"]) == 12


def test_which_images_are_held_out_is_the_split_seeds_alone(tmp_path: Path) -> None:
    one, again, other = (Mnist(str(written(tmp_path / str(k))), val=10, split_seed=k // 2).splits() for k in range(3))
    assert torch.equal(one["val"].values, again["val"].values)
    assert not torch.equal(one["val"].values, other["val"].values)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"train_images": b""}, r"/MNIST is damaged \(.*\): remove it, and it is fetched anew$"),
        ({"train_images": mnist_files()["train-images-idx3-ubyte"][:-5]}, r"/MNIST is damaged \(.*\): remove it"),
        ({"t10k_labels": b"<html>no such file</html>"}, r"/MNIST is damaged \(.*\): remove it"),
        ({"train_labels": idx(np.zeros(39, np.uint8))}, r"/MNIST is damaged \(40 images, 39 labels\): remove it"),
        ({"train_images": idx(images(40, 0)[:, :20])}, r"of shape=\(1, 28, 28\)"),
        ({"train_labels": idx(np.full(40, 11, np.uint8))}, r"holds labels 11 \.\.\. 11, and classes=10"),
    ],
    ids=["empty", "truncated", "no idx", "fewer labels", "another size", "labels"],
)
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, changed: dict[str, bytes], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        Mnist(str(written(tmp_path, **changed)), val=10).checked_splits()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("source", [Mnist, FashionMnist, Cifar10])
def test_what_is_not_there_and_may_not_be_fetched_is_told_with_what_to_do(tmp_path: Path, source: type) -> None:
    told = rf"{source.folder} is not there, or not whole: data\.root=DIR names .*, or data\.download=true fetches it$"
    with pytest.raises(Refusal, match=told):
        source(str(tmp_path / "new"), download=False).splits()


class Unreachable(MNIST):
    mirrors = ["http://127.0.0.1:9/"]  # noqa: RUF012


def test_without_a_network_one_line_says_where_to_put_the_files(tmp_path: Path) -> None:
    class Far(Mnist):
        of_torchvision = Unreachable
        folder = "Unreachable"

    with pytest.raises(Refusal, match=r"^Unreachable cannot be fetched \(Connection refused\): data\.root=DIR names"):
        Far(str(tmp_path)).splits()
    assert not [each for each in tmp_path.iterdir() if each.name != ".Unreachable.lock"], "nothing half there"


class Near(MNIST):
    """Fetched from a folder of files, with checksums of its own."""

    files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in mnist_files().items()}  # noqa: RUF012
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]  # noqa: RUF012


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: Any) -> None: ...


def test_what_is_fetched_is_checked_and_put_in_its_place_whole(tmp_path: Path) -> None:
    class Fetched(Mnist):
        of_torchvision = Near
        folder = "Near"

    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, content in Near.files.items():
        (mirror / name).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Near.mirrors = [f"http://127.0.0.1:{server.server_port}/"]
    root = tmp_path / "root"
    try:
        (root / ".Near.1-1.part").mkdir(parents=True)  # of a job that was killed
        assert len(Fetched(str(root), val=10).splits()["train"]) == 30
        assert sorted(each.name for each in root.iterdir()) == [".Near.lock", "Near"]
        (mirror / "t10k-images-idx3-ubyte.gz").write_bytes(b"something else")
        with pytest.raises(Refusal, match=r"^Near cannot be fetched \(.*corrupted.*\): data\.root=DIR"):
            Fetched(str(tmp_path / "other"), val=10).splits()
    finally:
        server.shutdown()
        server.server_close()
    assert not (tmp_path / "other" / "Near").exists()
    assert len(Fetched(str(root), val=10).splits()["train"]) == 30, "and needs no network again"


def test_a_job_waits_while_another_fetches(tmp_path: Path) -> None:
    found: list[int] = []
    source = Mnist(str(written(tmp_path)), val=10)
    reads = threading.Thread(target=lambda: found.append(len(source.splits()["train"])))
    with (tmp_path / ".MNIST.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reads.start()
        reads.join(0.5)
        assert not found
    reads.join(60)
    assert found == [30]


def cifar_files(root: Path) -> type:
    """Six small files in CIFAR's format, and torchvision's class with their checksums in place of the real ones."""
    place = root / "cifar-10-batches-py"
    place.mkdir(parents=True)
    content: dict[str, Any] = {"batches.meta": {"label_names": [str(k) for k in range(10)]}}
    for k, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        data = np.random.default_rng(k).integers(0, 256, (10, 3072), dtype=np.uint8)
        content[name] = {"data": data, "labels": list(range(10))}
    sums = {}
    for name, each in content.items():
        (place / name).write_bytes(pickle.dumps(each))
        sums[name] = hashlib.md5((place / name).read_bytes()).hexdigest()
    parts = [[name, each] for name, each in sums.items()]
    return type(
        "Small",
        (CIFAR10,),
        {"train_list": parts[1:6], "test_list": parts[6:], "meta": CIFAR10.meta | {"md5": parts[0][1]}},
    )


def test_cifars_rows_are_planes_of_red_green_and_blue(tmp_path: Path) -> None:
    class Small(Cifar10):
        of_torchvision = cifar_files(tmp_path)

    splits = Small(str(tmp_path), download=False, val=10).checked_splits()
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "val": 10, "test": 10}
    row = np.random.default_rng(5).integers(0, 256, (10, 3072), dtype=np.uint8)[3]
    assert torch.equal(splits["test"].values[3], torch.from_numpy(row).reshape(3, 32, 32))
    assert splits["test"].labels.tolist() == list(range(10))


def test_cifar_files_of_another_checksum_are_never_unpickled(tmp_path: Path) -> None:
    cifar_files(tmp_path)
    with pytest.raises(Refusal, match=r"cifar-10-batches-py is not there, or not whole: data\.root=DIR"):
        Cifar10(str(tmp_path), download=False).splits()


def test_a_root_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match=r"cannot be written \(.*\): data\.root=DIR names another folder for MNIST$"):
        Mnist(str(tmp_path / "file" / "in")).splits()


def test_the_folder_is_the_one_named_or_a_place_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SCORELAB_DATA", raising=False)
    assert default_root() == tmp_path / ".cache" / "scorelab" / "datasets"
    monkeypatch.setenv("SCORELAB_DATA", "~/sets")
    assert Mnist().root == tmp_path / "sets"
    assert Mnist(root="/named").root == Path("/named")
