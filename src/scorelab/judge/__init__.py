"""Yardsticks: what a denoiser is worth, in figures that do not depend on how it was trained."""

from scorelab.judge.base import Case, Metric, OverBudget, Part, Result, Unjudged, Verdict, judge
from scorelab.judge.bound import Bound, VariationalBound
from scorelab.judge.card import Card, weight_card
from scorelab.judge.gradient import GradientNoise
from scorelab.judge.samples import Frechet, Memorization, Recognition
from scorelab.judge.truth import OracleGap
from scorelab.judge.yardsticks import Curve, NoiseError, noise_error

__all__ = [
    "Bound",
    "Card",
    "Case",
    "Curve",
    "Frechet",
    "GradientNoise",
    "Memorization",
    "Metric",
    "NoiseError",
    "OracleGap",
    "OverBudget",
    "Part",
    "Recognition",
    "Result",
    "Unjudged",
    "VariationalBound",
    "Verdict",
    "judge",
    "noise_error",
    "weight_card",
]
