"""The U-Nets: the sizes they serve, what they react to, and their parts."""

from functools import partial

import pytest
import torch
from conftest import choose
from exact_cases import normal, shaken
from torch import nn
from torch.nn import functional

from scorelab.errors import Refusal
from scorelab.networks import LightUNet, UNet
from scorelab.networks.layers import Attention, TimeEmbedding, Upsample
from scorelab.networks.light import LightBlock

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]
KINDS = {
    "scale_shift": partial(UNet, conditioning="scale_shift"),
    "add": partial(UNet, conditioning="add"),
    "light": LightUNet,
}
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
BOTH = pytest.mark.parametrize("kind", [UNet, LightUNet])


def tiny(kind=UNet, **more) -> UNet | LightUNet:
    """A small network, none of whose layers is zero."""
    return shaken(kind((1, 8, 8), channels=8, multipliers=[1, 2], **more)).eval()


def image(n: int = 3, shape: tuple[int, ...] = (1, 8, 8)) -> torch.Tensor:
    return normal(n, *shape).float()


@BOTH
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_images_go_in_and_outputs_times_their_channels_come_out(kind, shape, outputs):
    channels, height, width = shape
    network = kind(shape, channels=8, outputs=outputs)
    with torch.no_grad():
        out = network(image(2, shape), torch.tensor([1.0, 1000.0]))
    assert out.shape == (2, outputs * channels, height, width)


@BOTH
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 64, 64), (3, 256, 256)])
def test_the_size_rule_builds_a_network_for_every_size_up_to_256(kind, shape):
    with torch.device("meta"):
        network = kind(shape)
        assert network(torch.zeros(2, *shape), torch.zeros(2)).shape == (2, *shape)
    attention = kind.sizes(shape)["attention"]
    assert attention
    assert all(4 <= height <= 16 for height in attention)
    found = sum(isinstance(layer, Attention) for layer in network.modules())
    lowest = -(-shape[1] // 2 ** (len(network.sizes(shape)["multipliers"]) - 1))
    if kind is LightUNet:
        assert found == 2 * len(attention) - (lowest in attention)
    else:
        assert found > 1


@BOTH
def test_images_need_not_be_square(kind):
    with torch.no_grad():
        assert kind((1, 8, 16), channels=8)(image(2, (1, 8, 16)), torch.ones(2)).shape == (2, 1, 8, 16)


@pytest.mark.parametrize(("model", "parameters"), [("unet_cifar", 35_746_307)])
def test_the_cifar_network_has_the_published_35_7_million_parameters(model, parameters):
    with torch.device("meta"):
        network = choose("model", model, shape=(3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@EACH
def test_a_fresh_network_answers_zero_and_is_trained_by_its_first_steps(kind):
    network = kind((1, 8, 8), channels=8)
    out = network(image(), torch.tensor([1.0, 500.0, 1000.0]))
    assert torch.equal(out, torch.zeros_like(out))
    (out - 1).square().sum().backward()
    assert network.leave[-1].weight.grad.abs().sum() > 0


@EACH
def test_every_conditioning_reacts_to_time_and_to_its_fractions(kind):
    network = tiny(kind)
    x = image(1).expand(4, -1, -1, -1)
    with torch.no_grad():
        out = network(x, torch.tensor([3.0, 3.0, 3.25, 900.0]))
    assert torch.allclose(out[0], out[1], rtol=0, atol=1e-5)
    assert (out[2] - out[0]).abs().max() > 1e-3
    assert (out[3] - out[0]).abs().max() > 1e-2


@EACH
def test_a_conditional_network_reacts_to_the_label_and_refuses_to_go_without(kind):
    network, time = tiny(kind, conditional=True, classes=3), torch.full((4,), 300.0)
    x = image(1).expand(4, -1, -1, -1)
    with torch.no_grad():
        out = network(x, time, torch.arange(4) % 3)
    for one in range(3):
        for other in range(one):
            assert (out[one] - out[other]).abs().max() > 1e-3
    with pytest.raises(Refusal, match="never trained without labels: give labels"):
        network(x, time)


def test_an_unconditional_network_does_not_see_labels():
    network, time = tiny(classes=3), torch.full((3,), 300.0)
    with torch.no_grad():
        assert torch.equal(network(image(), time, torch.arange(3)), network(image(), time))


@BOTH
def test_an_image_is_judged_without_its_neighbours_in_the_batch(kind):
    network, time = tiny(kind), torch.tensor([1.0, 400.0, 1000.0])
    with torch.no_grad():
        together = network(image(), time)
        alone = torch.cat([network(image()[b : b + 1], time[b : b + 1]) for b in range(3)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


@BOTH
def test_every_weight_has_a_part_in_the_answer(kind):
    network = tiny(kind, conditional=True, classes=2)
    network(image(3), torch.tensor([1.0, 400.0, 1000.0]), torch.arange(3)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@BOTH
def test_every_output_pixel_sees_every_input_pixel(kind):
    network, x = tiny(kind), image(1).requires_grad_()
    network(x, torch.tensor([500.0]))[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()


@BOTH
@pytest.mark.parametrize(
    ("sides", "padded", "place"),
    [((28, 28), (32, 32), (2, 2)), ((9, 5), (16, 8), (3, 1)), ((1, 1), (8, 8), (3, 3)), ((8, 21), (8, 24), (0, 1))],
)
def test_sizes_that_cannot_be_halved_have_zeros_around_them_inside_the_network(kind, sides, padded, place):
    network = shaken(kind((2, *sides), channels=8, multipliers=[1, 1, 2, 2], attention=[padded[0] // 2]))
    x, whole = image(2, (2, *sides)), torch.zeros(2, 2, *padded)
    here = (..., slice(place[0], place[0] + sides[0]), slice(place[1], place[1] + sides[1]))
    whole[here] = x
    time = torch.tensor([3.0, 700.0])
    with torch.no_grad():
        assert torch.equal(network(x, time), network(whole, time)[here])


@BOTH
def test_a_cpu_gets_a_network_of_less_work_and_a_gpu_the_wide_one(kind):
    for shape in ((1, 9, 9), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 128), (3, 256, 256)):
        wide, small = (kind.sizes(shape, small=small) for small in (False, True))
        assert small["channels"] * max(small["multipliers"]) < wide["channels"] * max(wide["multipliers"])
        assert len(small["multipliers"]) == len(wide["multipliers"])
    assert kind.sizes((1, 8, 8), small=True) == kind.sizes((1, 8, 8))


def test_a_light_block_adds_two_convolutions_of_one_norm_that_the_condition_scales_and_shifts():
    block, x, condition = shaken(LightBlock(8, 6, 0.0)).double().eval(), normal(3, 8, 4, 5), normal(3, 6)
    groups = x.reshape(3, 2, 4 * 4 * 5)
    even = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    scale, shift = (block.condition.weight @ condition.T).T.add(block.condition.bias)[..., None, None].chunk(2, 1)
    inner = block.conv1((1 + scale) * even.reshape(x.shape) + shift)
    assert torch.allclose(block(x, condition), x + block.conv2(inner * torch.sigmoid(inner)), rtol=1e-9)


def test_what_a_light_network_kept_on_the_way_down_is_added_on_the_way_up():
    network, x = tiny(LightUNet), image()
    for blocks in (*network.down[1:], *network.up[1:]):
        for weights in blocks.parameters():
            nn.init.zeros_(weights)  # the identity
    for weights in (*network.grow.parameters(), *network.up[0].parameters()):
        nn.init.zeros_(weights)
    time = torch.tensor([1.0, 400.0, 1000.0])
    with torch.no_grad():
        kept = network.down[0](network.enter(x), network.condition(time, None))
        assert torch.allclose(network(x, time), network.leave(kept), rtol=0, atol=1e-6)


def test_upsampling_is_nearest_neighbour_doubling_then_a_3x3_convolution():
    layer, x = Upsample(5), image(2, (5, 4, 6))
    doubled = functional.interpolate(x, scale_factor=2, mode="nearest")
    expected = functional.conv2d(doubled, layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-5)


def test_attention_is_softmax_attention_over_pixels_head_by_head():
    layer = shaken(Attention(128)).double()
    x = normal(2, 128, 3, 2)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, 1)
    heads = []
    for part in range(2):
        rows = slice(64 * part, 64 * (part + 1))
        weights = torch.softmax(q[:, rows].transpose(1, 2) @ k[:, rows] / 8, 2)
        heads.append(v[:, rows] @ weights.transpose(1, 2))
    expected = x + layer.out(torch.cat(heads, 1).reshape(x.shape))
    assert torch.allclose(layer(x), expected, rtol=1e-9)


def test_time_is_embedded_in_sines_and_cosines_of_frequencies_1_to_1e_4():
    time = torch.tensor([0.0, 0.5, 999.0])
    frequencies = 1e-4 ** (torch.arange(4).double() / 3)
    phase = time.double()[:, None] * frequencies
    expected = torch.cat([phase.sin(), phase.cos()], 1).float()
    assert torch.allclose(TimeEmbedding(8)(time), expected, rtol=0, atol=1e-4)


@BOTH
def test_dropout_acts_in_training_alone(kind):
    network, time = tiny(kind, dropout=0.5), torch.full((3,), 10.0)
    with torch.no_grad():
        assert torch.equal(network(image(), time), network(image(), time))
        network.train()
        torch.manual_seed(0)
        assert not torch.equal(network(image(), time), network(image(), time))
    assert any(isinstance(layer, nn.Dropout) and layer.p == 0.5 for layer in network.modules())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shape": (3, 32, 32), "attention": [15]}, r"attention=\[15\].*\[32, 16, 8, 4\]"),
        ({"shape": (3, 32, 32), "attention": [16, 64]}, r"attention=\[64\]"),
        ({"shape": (2,)}, r"is for images, and the data are of shape \(2,\): set model=mlp"),
        ({"shape": (1, 8, 8), "channels": 2}, "channels must be even and at least 4"),
        ({"shape": (1, 8, 8), "channels": 9}, "channels must be even"),
        ({"shape": (1, 8, 8), "blocks": 0}, "blocks must be at least 1"),
        ({"shape": (1, 8, 8), "multipliers": [1, 0]}, "multipliers"),
        ({"shape": (1, 8, 8), "dropout": 1.0}, "dropout"),
        ({"shape": (1, 8, 8), "conditional": True}, "conditional=true needs data with labels"),
    ],
)
def test_what_no_network_can_be_built_from_is_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal, torch.device("meta"):
        UNet(**arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"attention": [16]}, r"attention=\[16\].*\[8, 4\]"),
        ({"shape": (2,)}, "is for images"),
        ({"channels": 9}, "channels must be even"),
        ({"blocks": [1]}, r"blocks must say for each of 2 resolutions .* got \[1\]"),
        ({"blocks": [1, 0]}, "at least 1"),
        ({"multipliers": [1, 0], "blocks": [1, 1]}, "multipliers"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_no_light_network_can_be_built_from_is_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(Refusal, match=sentence) as refusal, torch.device("meta"):
        LightUNet(**({"shape": (1, 8, 8)} | arguments))
    assert "\n" not in str(refusal.value)


def test_the_weights_depend_on_the_seed_alone():
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(UNet((1, 8, 8), channels=8).parameters())

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
