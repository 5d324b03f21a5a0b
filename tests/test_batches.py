"""Batches by index: the same whether a split is in memory or mapped, mirror images made when they are asked for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from scorelab.data.base import Source, Split
from scorelab.data.cache import TensorCache
from scorelab.data.module import DataModule, SplitDataset
from scorelab.errors import Refusal
from scorelab.mapped import file_map
from scorelab.tensors import as_data

N, SHAPE = 23, (3, 4, 5)


def images(n: int = N) -> Tensor:
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Kept(Source):
    """Splits of one tensor, which is mapped or not."""

    shape, levels, classes = SHAPE, 256, 5

    def __init__(self, folder: Path | None = None, values: Tensor | None = None) -> None:
        self.values = images() if values is None else values
        if folder is not None:
            self.values = TensorCache(str(folder), resident_mb=0).take({}, SHAPE, torch.uint8, self._put).values

    def _put(self, put) -> dict:
        put(self.values)
        return {}

    def told(self) -> dict:
        return {"val_from": "rows"}

    def splits(self) -> dict[str, Split]:
        rows = {"train": slice(0, N - 8), "val": slice(N - 8, N - 4), "test": slice(N - 4, N)}
        return {name: Split(self.values[each], torch.arange(N)[each] % 5) for name, each in rows.items()}


def some(data: DataModule, batches: int = 9) -> list[tuple[Tensor, Tensor]]:
    return [batch for batch, _ in zip(data.train_dataloader(), range(batches), strict=False)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_of_a_mapped_split_is_the_one_of_a_split_in_memory(tmp_path: Path, flip: bool, workers: int) -> None:
    of = {"batch_size": 7, "flip": flip, "seed": 4}
    mapped = DataModule(Kept(tmp_path), workers=workers, **of)
    assert file_map(mapped.splits["train"].values) is not None
    for (x, label), (y, other) in zip(some(mapped), some(DataModule(Kept(), **of)), strict=True):
        assert torch.equal(x, y) and torch.equal(label, other)


@pytest.mark.parametrize("mapped", [False, True])
def test_mirror_images_by_index_are_those_of_the_set_behind_its_mirror_image(tmp_path: Path, mapped: bool) -> None:
    """Row N + i is row i mirrored: the order of batches is that of a set of 2 N rows."""
    data = DataModule(Kept(tmp_path if mapped else None), flip=True, batch_size=8, seed=1)
    train, n = data.splits["train"], N - 8
    both = torch.cat([train.values, train.values.flip(-1)]), torch.cat([train.labels, train.labels])
    by_index = SplitDataset(train, 256, flip=True)
    assert len(by_index) == 2 * n
    for rows in (torch.arange(2 * n), torch.tensor([3, n + 3, 2 * n - 1, n, 0]), [n - 1, n]):
        x, labels = by_index[rows]
        assert torch.equal(x, as_data(both[0][rows], 256)) and torch.equal(labels, both[1][rows])
    whole = DataModule(Whole(*both), batch_size=8, seed=1)
    for (x, label), (y, other) in zip(some(data), some(whole), strict=True):
        assert torch.equal(x, y) and torch.equal(label, other)


class Whole(Kept):
    """A train split as it is given."""

    def __init__(self, values: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.train = Split(values, labels)

    def splits(self) -> dict[str, Split]:
        return super().splits() | {"train": self.train}


def test_drawing_batches_changes_nothing_of_what_is_held() -> None:
    source = Kept()
    some(DataModule(source, flip=True))
    assert torch.equal(source.values, images())


def test_records_tell_sizes_what_the_source_says_and_a_fingerprint_of_what_is_trained_on(tmp_path: Path) -> None:
    found = DataModule(Kept()).records()
    assert found == {"train": 15, "val": 4, "test": 4, "val_from": "rows", "fingerprint": found["fingerprint"]}
    assert DataModule(Kept(tmp_path)).records() == found
    other = images()
    other[3, 0, 0, 0] += 1
    prints = {DataModule(Kept(values=other)).fingerprint, DataModule(Kept(), limit=9).fingerprint}
    assert len(prints | {found["fingerprint"]}) == 3


def test_a_level_too_high_is_found_wherever_it_lies(tmp_path: Path) -> None:
    values = images().clamp(max=9)
    values[7, 2, 3, 4] = 10
    for folder in (None, tmp_path):
        source = Kept(folder, values)
        source.levels = 10
        with pytest.raises(Refusal, match="the train split holds the level 10, and levels=10"):
            DataModule(source)


def test_the_law_of_a_mapped_mirrored_split_is_that_of_one_in_memory_and_holds_no_copy(tmp_path: Path) -> None:
    laws = [DataModule(Kept(folder), flip=True).training_law() for folder in (tmp_path, None)]
    assert file_map(laws[0].points) is not None and laws[0].size == 2 * (N - 8)
    x, ones = torch.zeros(3, *SHAPE), torch.ones(3, dtype=torch.float64)
    found, expected = (law.posterior(x, ones, ones) for law in laws)
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.log_prob, expected.log_prob)
