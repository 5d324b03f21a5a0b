"""Sets that everybody compares on, as torchvision fetches and reads them."""

import fcntl
import os
import re
import shutil
import socket
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorelab.data.base import Source, Split
from scorelab.data.division import by_class
from scorelab.errors import Refusal
from scorelab.files import temporary

PATIENCE = 30  # seconds without a byte after which a download is given up
DAMAGED = (RuntimeError, ValueError, AssertionError, KeyError, IndexError, EOFError, UnpicklingError)


class Standard(Source):
    """A set of torchvision's: its own test, and val taken by class out of its own train.

    Args:
        root: the folder that torchvision keeps it in; null is $SCORELAB_DATA, else ~/.cache/scorelab/datasets.
        download: whether it may be fetched where it is not there. torchvision compares its checksum.
        val: how many of the set's own train images are the val split: a share below 1, or a count.
        split_seed: of that choice.
    """

    levels = 256
    classes = 10
    folder: ClassVar[str]  # in root
    holds: ClassVar[str]  # a file of it, as an example

    def __init__(self, root: str | None = None, download: bool = True, val: float = 5000, split_seed: int = 0) -> None:
        self.root = default_root() if root is None else Path(root).expanduser()
        self.download, self.val, self.split_seed = download, val, split_seed

    @property
    @abstractmethod
    def of_torchvision(self) -> Any:
        """Torchvision's class, which takes root, train and download."""

    def splits(self) -> dict[str, Split]:
        """The splits by name, fetched if they have to be.

        Raises:
            Refusal: where the set is neither there nor can be fetched, or is damaged, or smaller than ``val``.
        """
        with self._own():
            if not (self.root / self.folder).exists() and self.download:
                self._fetch()
            train, test = (self._read(part) for part in (True, False))
        division = by_class(train.labels, len(train), self.val, 0, self.split_seed)
        parts = {"train": division.train, "val": division.val}
        return {name: Split(train.values[rows], train.labels[rows], 0.0) for name, rows in parts.items()} | {
            "test": test
        }

    def told(self) -> dict[str, Any]:
        """Where val and test come from."""
        return {
            "val_from": f"the set's own train images, by class, val={self.val:g}, split_seed={self.split_seed}",
            "test_from": "the set's own test images",
        }

    @contextmanager
    def _own(self) -> Iterator[None]:
        """That no other job fetches what this one reads; where nothing can be written, none can."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / f".{self.folder}.lock").open("a")
        except OSError as error:
            if not (self.root / self.folder).exists():
                told = f"{self.root} cannot be written ({(error.strerror or str(error)).lower()})"
                raise Refusal(f"{told}: data.root=DIR names another folder for {self.folder}") from error
            yield
            return
        with lock:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fetch(self) -> None:
        """Have the set fetched beside its place and then put there, whole or not at all."""
        remove_folders(self.root, self.folder)
        part = temporary(self.root / self.folder)
        try:
            self._asked(part, train=True, download=True)
            (part / self.folder).rename(self.root / self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _read(self, train: bool) -> Split:
        found = self._asked(self.root, train, self.download)
        values, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets, dtype=torch.int64)
        if len(values) != len(labels):
            told = f"{self.root / self.folder} is damaged ({len(values):,} images, {len(labels):,} labels)"
            raise Refusal(f"{told}: {self._mended()}")
        return Split(_planes(values), labels)

    def _mended(self) -> str:
        """What is to be done about a damaged set."""
        return "remove it, and it is fetched anew" if self.download else self._elsewhere()

    def _elsewhere(self) -> str:
        return f"data.root=DIR names a folder that holds {self.holds} and the others"

    def _asked(self, root: Path, train: bool, download: bool) -> Any:
        """Torchvision's own object.

        Raises:
            Refusal: in one line, for what it finds missing, damaged, or out of reach.
        """
        place = root / self.folder
        elsewhere = self._elsewhere()
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)
        try:
            return self.of_torchvision(root, train=train, download=download)
        except OSError as error:  # of the network, too
            raise Refusal(f"{self.folder} cannot be fetched ({_reason(error)}): {elsewhere}") from error
        except DAMAGED as error:
            if "rror downloading" in str(error):
                raise Refusal(f"{self.folder} cannot be fetched ({_reason(error)}): {elsewhere}") from error
            if not place.exists() or (not download and "not found" in str(error)):
                told = "" if download else ", or data.download=true fetches it"
                raise Refusal(f"{place} is not there, or not whole: {elsewhere}{told}") from error
            raise Refusal(f"{place} is damaged ({_reason(error)}): {self._mended()}") from error
        finally:
            socket.setdefaulttimeout(before)


class Mnist(Standard):
    """MNIST: 60,000 and 10,000 handwritten digits, 28x28, grey. LeCun, Bottou, Bengio & Haffner 1998."""

    shape = (1, 28, 28)
    folder = "MNIST"
    holds = "MNIST/raw/train-images-idx3-ubyte"

    @property
    def of_torchvision(self) -> Any:
        """MNIST."""
        from torchvision.datasets import MNIST

        return MNIST


class FashionMnist(Standard):
    """Fashion-MNIST: 60,000 and 10,000 articles of clothing, 28x28, grey. Xiao, Rasul & Vollgraf 2017."""

    shape = (1, 28, 28)
    folder = "FashionMNIST"
    holds = "FashionMNIST/raw/train-images-idx3-ubyte"

    @property
    def of_torchvision(self) -> Any:
        """FashionMNIST."""
        from torchvision.datasets import FashionMNIST

        return FashionMNIST


class Cifar10(Standard):
    """CIFAR-10: 50,000 and 10,000 photographs of ten kinds of things, 32x32, RGB. Krizhevsky 2009."""

    shape = (3, 32, 32)
    folder = "cifar-10-batches-py"
    holds = "cifar-10-batches-py/data_batch_1"

    @property
    def of_torchvision(self) -> Any:
        """CIFAR10, which compares the checksum of each file before it unpickles any."""
        from torchvision.datasets import CIFAR10

        return CIFAR10


def _planes(data: Tensor) -> Tensor:
    """Of torchvision's array (N, H, W) or (N, H, W, C): (N, C, H, W)."""
    images = data[..., None] if data.dim() == 3 else data
    return images.permute(0, 3, 1, 2).contiguous()


def default_root() -> Path:
    """$SCORELAB_DATA, else ~/.cache/scorelab/datasets."""
    return Path(os.environ.get("SCORELAB_DATA") or "~/.cache/scorelab/datasets").expanduser()


def remove_folders(root: Path, name: str) -> None:
    """Remove what killed jobs left of what they fetched."""
    for left in root.glob(f".{name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """What a library says, in a few words: of a network, what went wrong last."""
    found = re.findall(r"<urlopen error (?:\[.*?\] )?(.*?)>", str(error))
    return found[-1] if found else " ".join(str(error).split())[:200] or type(error).__name__
