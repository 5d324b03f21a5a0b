"""Objectives, and the laws that draw training times."""

from scorelab.losses.base import Example, Loss, Terms, WeightedError
from scorelab.losses.card import Card, weight_card
from scorelab.losses.denoising import FlowMatching, Simple
from scorelab.losses.entropy import EDGES, Entropy
from scorelab.losses.exact_score import ESM
from scorelab.losses.implicit import ISM, SSM
from scorelab.losses.noise_laws import Cauchy, Laplace, LogitNormal, LogNormal, NoiseLaw, SplitLogNormal
from scorelab.losses.score_matching import DSM, Likelihood, ScoreLoss
from scorelab.losses.timesteps import Importance, LogSNRUniform, Stratified, Timesteps, TimestepSampler, Uniform
from scorelab.losses.uncertainty import Uncertainty
from scorelab.losses.variational import Hybrid, VariationalBound

__all__ = [
    "DSM",
    "EDGES",
    "ESM",
    "ISM",
    "SSM",
    "Card",
    "Cauchy",
    "Entropy",
    "Example",
    "FlowMatching",
    "Hybrid",
    "Importance",
    "Laplace",
    "Likelihood",
    "LogNormal",
    "LogSNRUniform",
    "LogitNormal",
    "Loss",
    "NoiseLaw",
    "ScoreLoss",
    "Simple",
    "SplitLogNormal",
    "Stratified",
    "Terms",
    "TimestepSampler",
    "Timesteps",
    "Uncertainty",
    "Uniform",
    "VariationalBound",
    "WeightedError",
    "weight_card",
]
