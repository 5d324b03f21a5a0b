"""A set in one piece is divided by class, by a seed of its own, into parts of the sizes asked for."""

import pytest
import torch
from torch import Tensor

from scorelab.data.division import Division, by_class
from scorelab.errors import Refusal

LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100, generator=torch.Generator().manual_seed(5))]


def counts(labels: Tensor, division: Division) -> dict[str, list[int]]:
    parts = {"train": division.train, "val": division.val, "test": division.test}
    return {name: labels[rows].bincount(minlength=int(labels.max()) + 1).tolist() for name, rows in parts.items()}


def test_every_class_is_in_every_part_in_proportion() -> None:
    assert counts(LABELS, by_class(LABELS, 100, 0.1, 20, seed=0)) == {
        "train": [42, 21, 7],
        "val": [6, 3, 1],
        "test": [12, 6, 2],
    }


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (13, 7), (0.33, 0), (0, 1), (1, 0.5), (0.45, 0.45)])
@pytest.mark.parametrize("labels", [LABELS, torch.arange(100) % 37, torch.arange(100), None], ids=str)
def test_each_row_is_in_one_part_and_the_parts_have_the_sizes_asked_for(
    labels: Tensor | None, val: float, test: float
) -> None:
    division = by_class(labels, 100, val, test, seed=1)
    parts = [division.train, division.val, division.test]
    assert torch.cat(parts).sort().values.tolist() == list(range(100))
    assert all(part.dtype == torch.int64 and torch.equal(part, part.sort().values) for part in parts)
    assert [len(division.val), len(division.test)] == [round(each * 100) if each < 1 else each for each in (val, test)]


def test_a_share_of_a_class_that_is_no_whole_number_is_rounded_by_less_than_one() -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([11, 13, 17, 23]))
    found = counts(labels, by_class(labels, 64, 9, 8, seed=0))
    for c, size in enumerate((11, 13, 17, 23)):
        assert abs(found["train"][c] - size * 47 / 64) < 1
        assert abs(found["val"][c] - size * 9 / 64) < 1.5, "rounded twice"


def test_which_rows_are_drawn_is_the_seeds_alone() -> None:
    one, again, other = (by_class(LABELS, 100, 0.2, 0.2, seed) for seed in (0, 0, 1))
    assert torch.equal(one.val, again.val) and torch.equal(one.test, again.test)
    assert not torch.equal(one.val, other.val)
    without = [by_class(None, 100, 0.2, 0.2, seed).val.tolist() for seed in (0, 1)]
    assert without[0] != without[1]
    assert without[0] != list(range(20)), "not the first ones"


def test_a_class_with_one_item_is_trained_on() -> None:
    labels = torch.tensor([0] * 5 + [1] + [2] * 5)
    for seed in range(20):
        assert counts(labels, by_class(labels, 11, 0.2, 0.2, seed))["train"][1] == 1


def test_where_every_class_has_one_item_some_are_held_out_all_the_same() -> None:
    division = by_class(torch.arange(5), 5, 1, 1, seed=0)
    assert [len(division.train), len(division.val), len(division.test)] == [3, 1, 1]


def test_classes_too_small_for_a_whole_item_give_one_by_chance() -> None:
    labels = torch.arange(100).repeat(3)
    drawn = [labels[by_class(labels, 300, 10, 0, seed).val].sort().values.tolist() for seed in (0, 1)]
    assert drawn[0] != drawn[1] != list(range(10))
    assert all(len(set(each)) == 10 for each in drawn)


def test_three_items_are_enough_and_fewer_are_refused_in_one_line() -> None:
    division = by_class(torch.tensor([0, 0, 1]), 3, 0.1, 0.1, seed=0)
    assert [len(division.train), len(division.val), len(division.test)] == [1, 1, 1]
    with pytest.raises(Refusal, match=r"^2 items are too few for train, val and test: 3 are needed$"):
        by_class(torch.tensor([0, 1]), 2, 0.1, 0.1, seed=0)
    with pytest.raises(Refusal, match=r"^1 item is too few for 2 parts: 2 are needed$"):
        by_class(None, 1, 0.1, 0, seed=0)
    with pytest.raises(Refusal, match=r"^0 items are too few"):
        by_class(None, 0, 0.1, 0.1, seed=0)


@pytest.mark.parametrize(
    ("val", "test", "told"),
    [
        (0.5, 0.5, "val=50 and test=50 of 100 items leave none to train on"),
        (5000, 0, "val=5,000 of 100 items leave none to train on"),
        (-0.1, 0.1, "val is a share below 1 or a whole number of items, got -0.1"),
        (1.5, 0.1, "val is a share below 1"),
        (0.1, float("nan"), "test is a share below 1"),
        (0.1, float("inf"), "test is a share below 1"),
    ],
)
def test_what_leaves_a_part_empty_or_is_no_size_is_refused(val: float, test: float, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        by_class(LABELS, 100, val, test, seed=0)
