"""Levels, shapes and random streams."""

import pytest
import torch
from exact_cases import normal

from scorelab.tensors import from_levels, generator, like, mean_except_batch, sum_except_batch, to_bytes, to_levels


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_spread_evenly_over_minus_one_to_one_and_return(levels):
    k = torch.arange(levels, dtype=torch.uint8)
    x = from_levels(k, levels)
    assert x.dtype == torch.float32
    assert x.tolist() == pytest.approx([-1 + 2 * i / (levels - 1) for i in range(levels)], abs=1e-6)
    assert (x[0], x[-1]) == (-1, 1)
    assert to_levels(x, levels).tolist() == list(range(levels))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_data_go_to_the_nearest_level_and_the_outside_to_the_ends(levels):
    k = torch.arange(levels)
    for shift in (-0.45, 0.45):
        x = from_levels(k, levels) + shift * 2 / (levels - 1)
        assert to_levels(x, levels).tolist() == k.tolist()
    assert to_levels(torch.tensor([-7.0, 7.0]), levels).tolist() == [0, levels - 1]


def test_bytes_run_from_black_to_white_whatever_the_levels():
    assert to_bytes(torch.arange(2), 2).tolist() == [0, 255]
    assert to_bytes(torch.tensor([0, 8, 16]), 17).tolist() == [0, 128, 255]
    assert to_bytes(torch.arange(256), 256).tolist() == list(range(256))


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4, 5)])
def test_a_coefficient_multiplies_its_own_sample_in_the_samples_precision(shape):
    coefficient, x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.ones(shape)
    product = like(coefficient, x) * x
    assert product.dtype == torch.float32
    assert product.shape == shape
    assert [float(row.max()) for row in product] == [float(row.min()) for row in product] == [1, 2, 3]


def test_sums_and_means_run_over_all_but_the_batch():
    x = normal(3, 2, 4, 5)
    assert sum_except_batch(x).tolist() == pytest.approx([float(row.sum()) for row in x])
    assert mean_except_batch(x).tolist() == pytest.approx([float(row.sum()) / 40 for row in x])


def test_a_stream_depends_on_its_whole_key_and_on_nothing_else():
    keys = [("a", 0, 1), ("a", 1, 0), ("a", 0), ("a", "0", 1), ("b", 0, 1), ("a", 0, 11)]
    streams = [tuple(torch.rand(4, generator=generator(*key)).tolist()) for key in keys]
    assert len(set(streams)) == len(keys)
    torch.rand(10)
    assert [tuple(torch.rand(4, generator=generator(*key)).tolist()) for key in keys] == streams


def test_neighbouring_seeds_give_unrelated_streams():
    n = 2000
    x = torch.stack([torch.randn(n, generator=generator("seed", seed)) for seed in range(20)]).double()
    correlation = torch.corrcoef(x) - torch.eye(20, dtype=torch.float64)
    assert correlation.abs().max() < 5 / n**0.5
