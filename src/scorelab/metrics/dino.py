"""DINOv2's vision transformer out of torchvision's, from Meta's own file of weights."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64  # dimensions of each head of attention
OFFSET = 0.1  # of a patch, by which the square of positions is stretched, as in Meta's code
BLOCK = {  # torchvision's names and Meta's
    "ln_1": "norm1",
    "self_attention.in_proj_": "attn.qkv",
    "self_attention.out_proj": "attn.proj",
    "ln_2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
SCALED = {"attn.proj": "ls1.gamma", "mlp.fc2": "ls2.gamma"}  # after which layer a branch is scaled, by what


def vision_transformer(weights: dict[str, Tensor], size: int) -> nn.Module:
    r"""Images (N, 3, size, size), normalised, to the class token (N, width), as in Oquab et al. 2024.

    It is torchvision's transformer but for two things. Each branch of a block is scaled before it is added, which its
    last layer can do as well:

    .. math:: x + \gamma \odot (W h + b) = x + (\operatorname{diag}(\gamma) W) h + \gamma \odot b

    and positions were learnt on a larger square: they are interpolated, once.

    Args:
        weights: what Meta's file holds, for the sizes S, B and L without registers.
        size: pixels across an image.

    Raises:
        KeyError, ValueError, RuntimeError ...: for weights of something else.
    """
    from torchvision.models.vision_transformer import VisionTransformer

    rest = {name: value.float() for name, value in weights.items()}
    width, _, _, patch = rest["patch_embed.proj.weight"].shape
    depth = 1 + max(int(name.split(".")[1]) for name in rest if name.startswith("blocks."))
    hidden = len(rest["blocks.0.mlp.fc1.weight"])
    with torch.device("meta"):  # no random initial values
        made = VisionTransformer(size, patch, depth, width // HEAD, width, hidden)
    made.heads = nn.Identity()
    rest.pop("mask_token", None)  # of training alone
    named = {"class_token": rest.pop("cls_token")}
    named["encoder.pos_embedding"] = positions(rest.pop("pos_embed"), size // patch)
    for end in ("weight", "bias"):
        named[f"conv_proj.{end}"] = rest.pop(f"patch_embed.proj.{end}")
        named[f"encoder.ln.{end}"] = rest.pop(f"norm.{end}")
        for block in range(depth):
            for ours, theirs in BLOCK.items():
                value = rest.pop(f"blocks.{block}.{theirs}.{end}")
                if scale := SCALED.get(theirs):
                    value = (rest[f"blocks.{block}.{scale}"] * value.T).T
                dot = "" if ours.endswith("_") else "."
                named[f"encoder.layers.encoder_layer_{block}.{ours}{dot}{end}"] = value
    if unknown := [name for name in rest if name.rpartition(".")[2] != "gamma"]:
        raise KeyError(unknown[0])
    made.load_state_dict(named, assign=True)
    return made


def positions(learnt: Tensor, across: int) -> Tensor:
    """Those of a square of so many patches across (1, 1 + across^2, width), between the learnt ones."""
    places = math.isqrt(learnt.shape[1] - 1)
    if across == places:
        return learnt
    square = learnt[:, 1:].unflatten(1, (places, places)).permute(0, 3, 1, 2)
    scale = (across + OFFSET) / places
    between = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([learnt[:, :1], between.flatten(2).transpose(1, 2)], 1)
