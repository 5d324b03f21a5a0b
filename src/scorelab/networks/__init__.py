"""Neural networks (x_t, time, label) -> output; they know nothing of schedules or losses."""

from scorelab.networks.light import LightUNet
from scorelab.networks.mlp import MLP
from scorelab.networks.transformer import Transformer
from scorelab.networks.unet import UNet

__all__ = ["MLP", "LightUNet", "Transformer", "UNet"]
