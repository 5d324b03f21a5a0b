"""Samplers: from noise to data through any denoiser."""

from scorelab.samplers.ancestral import DDPM
from scorelab.samplers.base import Ask, Sampler
from scorelab.samplers.draw import draw_chunk, draw_samples
from scorelab.samplers.ode import DDIM

__all__ = ["DDIM", "DDPM", "Ask", "Sampler", "draw_chunk", "draw_samples"]
