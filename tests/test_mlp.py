"""The network for points."""

import pytest
import torch
from exact_cases import losses_of, normal, shaken
from torch import Tensor
from torch.nn import functional

from scorelab.denoisers import Eps, Learned, NetworkDenoiser
from scorelab.errors import Refusal
from scorelab.losses import Hybrid
from scorelab.networks import MLP
from scorelab.networks.mlp import Block
from scorelab.schedules import Cosine

TIME = torch.tensor([1.0, 250.0, 600.0, 999.0])


def made(**words) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return shaken(MLP((3,), **({"width": 16, "blocks": 2} | words)))


def x(n: int = 4, seed: int = 0) -> Tensor:
    return normal(n, 3, seed=seed).float()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 5])
def test_points_of_any_dimension_go_in_and_as_many_numbers_per_dimension_as_asked_come_out(dims, outputs):
    network = shaken(MLP((dims,), width=8, blocks=1, outputs=outputs))
    answer = network(normal(4, dims).float(), TIME)
    assert answer.shape == (4, outputs * dims) and answer.dtype == torch.float32
    assert len(answer.flatten().unique()) == answer.numel()


@pytest.mark.parametrize("conditional", [False, True])
def test_it_starts_at_zero_and_its_blocks_as_the_identity(conditional):
    network = MLP((3,), width=16, blocks=2, conditional=conditional, classes=4)
    assert torch.equal(network(x(), TIME, torch.arange(4)), torch.zeros(4, 3))
    h, condition = normal(4, 16).float(), normal(4, 16, seed=1).float()
    for block in network.blocks:
        assert torch.equal(block(h, condition), h)
    assert len(network.blocks) == 2
    assert network.enter(x()).abs().max() > 0


def test_every_parameter_learns():
    network = made(conditional=True, classes=4)
    network(x(5), torch.cat([TIME, TIME[:1]]), torch.arange(5)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_a_block_is_norm_then_scale_and_shift_by_the_condition_then_two_layers_beside_the_identity():
    block = shaken(Block(6))
    h, condition = normal(4, 6).float(), normal(4, 6, seed=1).float()
    scale, shift = (condition @ block.condition.weight.T + block.condition.bias).split(6, 1)
    centred = h - h.mean(1, keepdim=True)
    normed = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    inner = block.first(functional.silu(normed * (1 + scale) + shift))
    assert torch.allclose(block(h, condition), h + block.second(functional.silu(inner)), atol=1e-5)


def test_time_matters_and_each_sample_has_its_own():
    network = made()
    answer = network(x(1).expand(4, -1), TIME)
    assert (torch.pdist(answer) > 1e-3).all()
    for k in range(4):
        assert torch.allclose(network(x(1), TIME[k : k + 1])[0], answer[k], atol=1e-5)


def test_samples_do_not_see_each_other():
    network = made(conditional=True, classes=4)
    whole = network(x(4), TIME, torch.arange(4))
    for k in range(4):
        alone = network(x(4)[k : k + 1], TIME[k : k + 1], torch.arange(4)[k : k + 1])
        assert torch.allclose(whole[k], alone[0], atol=1e-5)


def test_labels_matter_and_a_conditional_network_refuses_to_go_without():
    network = made(conditional=True, classes=4)
    same, time = x(1).expand(4, -1), torch.full((4,), 400.0)
    assert (torch.pdist(network(same, time, torch.arange(4))) > 1e-3).all()
    with pytest.raises(Refusal, match="never trained without labels: give labels"):
        network(same, time)


def test_without_conditioning_labels_are_ignored():
    network = made(classes=4)
    assert network.label is None
    assert torch.equal(network(x(), TIME, torch.arange(4)), network(x(), TIME))


def test_x_matters_in_every_dimension():
    network, point = made(), x(1)
    for k in range(3):
        moved = point.clone()
        moved[0, k] += 1
        assert (network(moved, TIME[:1]) - network(point, TIME[:1])).abs().max() > 1e-3


def test_a_learned_variance_is_read_from_its_second_half():
    law = Learned()
    denoiser = NetworkDenoiser(Cosine(100), made(outputs=2), Eps(), law)
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    said = denoiser(x(), t)
    raw = denoiser.network(x(), 1000 * t.float())
    assert torch.equal(said.eps, raw[:, :3])
    assert torch.equal(said.variance_fraction, (raw[:, 3:] + 1) / 2)
    assert losses_of(Hybrid(), denoiser, x(), t, x(seed=1)).isfinite().all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"shape": (1, 8, 8)}, r"this network is for points, and the data are of shape \(1, 8, 8\): set model=unet"),
        ({"width": 7}, "width must be even and blocks at least 1, got 7 and 3"),
        ({"width": 0}, "width must be even and blocks at least 1, got 0 and 3"),
        ({"blocks": 0}, "width must be even and blocks at least 1, got 128 and 0"),
        ({"conditional": True}, "model.conditional=true needs data with labels"),
    ],
)
def test_what_it_cannot_be_is_refused_in_one_line(words, told):
    with pytest.raises(ValueError, match=told) as refused:
        MLP(**({"shape": (2,)} | words))
    assert "\n" not in str(refused.value)
