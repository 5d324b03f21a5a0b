"""Objectives, and the laws that draw training times."""

from scorelab.losses.base import Example, Loss, Terms, WeightedError
from scorelab.losses.card import Card, weight_card
from scorelab.losses.denoising import Simple
from scorelab.losses.exact_score import ESM
from scorelab.losses.implicit import ISM, SSM
from scorelab.losses.score_matching import DSM, Likelihood, ScoreLoss
from scorelab.losses.timesteps import Importance, LogSNRUniform, Stratified, Timesteps, TimestepSampler, Uniform
from scorelab.losses.variational import Hybrid, VariationalBound

__all__ = [
    "DSM",
    "ESM",
    "ISM",
    "SSM",
    "Card",
    "Example",
    "Hybrid",
    "Importance",
    "Likelihood",
    "LogSNRUniform",
    "Loss",
    "ScoreLoss",
    "Simple",
    "Stratified",
    "Terms",
    "TimestepSampler",
    "Timesteps",
    "Uniform",
    "VariationalBound",
    "WeightedError",
    "weight_card",
]
