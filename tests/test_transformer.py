"""The transformer: how data become tokens, what its blocks compute, what it reacts to, its sizes."""

import math

import pytest
import torch
from exact_cases import losses_of, normal, shaken
from torch import Tensor
from torch.nn import functional

from scorelab.denoisers import Eps, Learned, NetworkDenoiser
from scorelab.errors import Refusal
from scorelab.losses import Hybrid
from scorelab.networks import Transformer
from scorelab.networks.transformer import Apart, Block, Patches
from scorelab.schedules import Cosine

TIME = torch.tensor([1.0, 250.0, 600.0, 999.0])
KINDS = [(1, 8, 8), (3, 5, 8), (2,), (7,)]  # images and points that patches of 2 divide, and that they do not
each_kind_of_data = pytest.mark.parametrize("shape", KINDS, ids=str)


def made(shape: tuple[int, ...], **words) -> Transformer:
    """A small network, none of whose layers is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return shaken(Transformer(shape, **({"channels": 16, "blocks": 2, "patch": 2} | words))).eval()


def x(shape: tuple[int, ...], n: int = 4, seed: int = 0) -> Tensor:
    return normal(n, *shape, seed=seed).float()


@pytest.mark.parametrize(
    ("sides", "size", "grid", "margin"),
    [
        ((6, 6), 2, (3, 3), (0, 0)),
        ((4, 9), 3, (2, 3), (1, 0)),
        ((5, 8), 4, (2, 2), (1, 0)),
        ((1, 1), 4, (1, 1), (1, 1)),
        ((7,), 3, (3,), (1,)),
        ((6,), 1, (6,), (0,)),
    ],
)
def test_patches_are_read_like_a_page_with_zeros_around_and_joined_again_they_are_the_image(sides, size, grid, margin):
    patches, image = Patches(sides, size), x((3, *sides), 2)
    tokens = patches.cut(image)
    whole = torch.zeros(2, 3, *(n * size for n in grid))
    whole[(..., *(slice(first, first + side) for first, side in zip(margin, sides, strict=True)))] = image
    assert patches.grid == grid and tokens.shape == (2, math.prod(grid), 3 * size ** len(sides))
    for number, corner in enumerate(torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(sides)).tolist()):
        place = (..., *(slice(k * size, (k + 1) * size) for k in corner))
        assert torch.equal(tokens[:, number], whole[place].flatten(1))
    assert torch.equal(patches.joined(tokens), image)


@pytest.mark.parametrize("outputs", [1, 2])
@each_kind_of_data
def test_a_fresh_network_answers_zero_its_blocks_the_identity_and_its_first_steps_train_it(shape, outputs):
    network = Transformer(shape, channels=16, blocks=2, patch=2, outputs=outputs)
    answer = network(x(shape), TIME)
    assert answer.shape == (4, outputs * shape[0], *shape[1:]) and not answer.any()
    h = normal(4, 5, 16).float()
    for block in network.blocks:
        assert torch.equal(block(h, normal(4, 16, seed=1).float()), h)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(3):  # the last layer, then the norm before it and the gates, then what they let through
        optimizer.zero_grad()
        (network(x(shape), TIME) - 1).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_a_block_adds_attention_and_two_layers_of_what_the_condition_scales_shifts_and_gates():
    block = shaken(Block(64)).double()
    h, condition = normal(3, 5, 64), normal(3, 64, seed=1)
    a, b, c, d, e, f = (block.condition.weight.view(6, 64, 64) @ condition.T).mT + block.condition.bias.view(6, 1, 64)

    def norm(h: Tensor) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-6)

    assert block.heads == 2, "of 32 channels each"
    q, k, v = block.qkv(norm(h) * (1 + b[:, None]) + a[:, None]).chunk(3, -1)
    heads = []
    for part in (slice(0, 32), slice(32, 64)):
        weights = torch.softmax(q[..., part] @ k[..., part].mT / math.sqrt(32), -1)
        heads.append(weights @ v[..., part])
    middle = h + c[:, None] * block.out(torch.cat(heads, -1))
    inner = block.first(norm(middle) * (1 + e[:, None]) + d[:, None])
    expected = middle + f[:, None] * block.second(functional.gelu(inner, approximate="tanh"))
    assert torch.allclose(block(h, condition), expected, rtol=1e-9)


def test_blocks_know_no_order_of_tokens_and_only_their_places_tell_patches_apart():
    network, image = made((2, 8, 8)), x((2, 8, 8), 2)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    h, condition = normal(2, 16, 16).float(), normal(2, 16, seed=1).float()
    block = network.blocks[0]
    assert torch.allclose(block(h, condition)[:, order], block(h[:, order], condition), atol=1e-5)

    def moved(image: Tensor) -> Tensor:
        return network.patches.joined(network.patches.cut(image)[:, order])

    with torch.no_grad():
        assert not torch.allclose(moved(network(image, TIME[:2])), network(moved(image), TIME[:2]), atol=1e-2)
        network.enter.places.zero_()
        assert torch.allclose(moved(network(image, TIME[:2])), network(moved(image), TIME[:2]), atol=1e-5)


def test_each_patch_has_the_sines_and_cosines_of_its_row_and_then_of_its_column():
    places = Transformer((1, 3, 5), channels=8, blocks=1, patch=1).enter.places
    assert places.shape == (15, 8)
    for row in range(3):
        for column in range(5):
            phases = [at * speed for at in (row, column) for speed in (1, 1e-4)]
            waves = [f(p) for pair in (phases[:2], phases[2:]) for f in (math.sin, math.cos) for p in pair]
            assert places[5 * row + column].tolist() == pytest.approx(waves, abs=1e-6)


def test_each_token_of_a_point_has_a_layer_of_its_own():
    layer, tokens = Apart(3, 2, 5), normal(4, 3, 2).float()
    for number in range(3):
        expected = tokens[:, number] @ layer.weight[number] + layer.bias[number]
        assert torch.allclose(layer(tokens)[:, number], expected, atol=1e-6)
    assert len(layer.weight.unique()) == 30


@each_kind_of_data
def test_every_weight_and_every_number_that_goes_in_has_a_part_in_every_number_that_comes_out(shape):
    network, given = made(shape, conditional=True, classes=4), x(shape, 1).requires_grad_()
    answer = network(given, TIME[:1], torch.tensor([2])).flatten()
    for number in (0, len(answer) // 2, -1):
        (slope,) = torch.autograd.grad(answer[number], given, retain_graph=True)
        assert (slope != 0).all()
    network(x(shape), TIME, torch.arange(4)).square().sum().backward()
    for name, parameter in network.named_parameters():
        if name != "label.weight":
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert network.label.weight.grad[:4].any(1).all()


@each_kind_of_data
def test_time_and_label_matter_and_samples_do_not_see_each_other(shape):
    network, same, label = made(shape, conditional=True, classes=4), x(shape, 1).expand(4, *shape), torch.arange(4)
    with torch.no_grad():
        assert (torch.pdist(network(same, TIME, label[:1].expand(4)).flatten(1)) > 1e-3).all()
        assert (torch.pdist(network(same, TIME[:1].expand(4), label).flatten(1)) > 1e-3).all()
        together = network(x(shape), TIME, label)
        for k in range(4):
            alone = network(x(shape)[k : k + 1], TIME[k : k + 1], label[k : k + 1])
            assert torch.allclose(alone[0], together[k], rtol=1e-4, atol=1e-5)
    with pytest.raises(Refusal, match="never trained without labels: give labels"):
        network(same, TIME)


@each_kind_of_data
def test_a_learned_variance_is_read_from_the_second_half_of_what_comes_out(shape):
    denoiser = NetworkDenoiser(Cosine(100), made(shape, outputs=2), Eps(), Learned())
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    said, raw = denoiser(x(shape), t), denoiser.network(x(shape), 1000 * t.float())
    assert torch.equal(said.eps, raw[:, : shape[0]])
    assert torch.equal(said.variance_fraction, (raw[:, shape[0] :] + 1) / 2)
    assert losses_of(Hybrid(), denoiser, x(shape), t, x(shape, seed=1)).isfinite().all()


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 4, 4), (1, 8, 8), (1, 28, 28), (12, 20, 9), (3, 64, 64), (3, 256, 256), (1,), (16,), (512,), (5000,)]
)
def test_the_size_rule_builds_a_network_whose_tokens_are_few_and_smaller_than_its_width(shape, small):
    sizes = Transformer.sizes(shape, small=small)
    with torch.device("meta"):
        network = Transformer(shape, **sizes)
        assert network(torch.zeros(2, *shape), torch.zeros(2)).shape == (2, *shape)
    tokens = math.prod(network.patches.grid)
    assert min(math.prod(shape[-2:]), 9) <= tokens <= 256
    if max(shape[1:] or shape) <= 64:
        numbers = sizes["patch"] ** len(network.patches.sides) * (shape[0] if len(shape) == 3 else 1)
        assert numbers <= 2 * sizes["channels"]


def test_a_cpu_gets_a_network_of_less_work_and_a_gpu_the_wide_one_of_the_paper():
    for shape in ((1, 9, 9), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 256, 256), (1000,)):
        wide, small = (Transformer.sizes(shape, small=small) for small in (False, True))
        assert small["channels"] < wide["channels"] and small["blocks"] < wide["blocks"]
        assert small["patch"] >= wide["patch"]
    assert Transformer.sizes((3, 32, 32)) == {"channels": 384, "blocks": 12, "patch": 2}
    for shape in ((1, 8, 8), (2,), (512,)):
        assert Transformer.sizes(shape, small=True) == Transformer.sizes(shape)
    assert Transformer.sizes((1, 8, 8), blocks=2, patch=4) == {"channels": 64, "blocks": 2, "patch": 4}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"shape": (2, 3)}, r"for images and points, and the data are of shape \(2, 3\)"),
        ({"channels": 6}, "channels must be a multiple of 4, blocks and patch at least 1, got 6, 4 and 1"),
        ({"channels": 0}, "got 0, 4 and 1"),
        ({"blocks": 0}, "got 64, 0 and 1"),
        ({"patch": 0}, "got 64, 4 and 0"),
        ({"conditional": True}, "model.conditional=true needs data with labels"),
    ],
)
def test_what_it_cannot_be_is_refused_in_one_line(words, told):
    with pytest.raises(Refusal, match=told) as refused:
        Transformer(**({"shape": (2,)} | words))
    assert "\n" not in str(refused.value)
