"""Samplers: from noise to data through any denoiser."""

from scorelab.samplers.adaptive import RK45
from scorelab.samplers.ancestral import DDPM
from scorelab.samplers.base import Ask, Sampler
from scorelab.samplers.draw import draw_chunk, draw_samples
from scorelab.samplers.karras import Euler, Heun
from scorelab.samplers.ode import DDIM, DPMpp2M
from scorelab.samplers.sde import EulerMaruyama, PredictorCorrector
from scorelab.samplers.spacing import SPACINGS

__all__ = [
    "DDIM",
    "DDPM",
    "RK45",
    "SPACINGS",
    "Ask",
    "DPMpp2M",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "PredictorCorrector",
    "Sampler",
    "draw_chunk",
    "draw_samples",
]
