"""Yardsticks: what a denoiser is worth, in figures that do not depend on how it was trained."""

from scorelab.judge.agreement import Agreement
from scorelab.judge.base import Case, Metric, OverBudget, Part, Result, Unjudged
from scorelab.judge.bound import Bound, VariationalBound
from scorelab.judge.budget import ErrorBudget
from scorelab.judge.card import Card, weight_card
from scorelab.judge.distances import Distances
from scorelab.judge.flow import FlowLikelihood
from scorelab.judge.gradient import GradientNoise
from scorelab.judge.objectives import Objectives
from scorelab.judge.samples import Frechet, Memorization, Recognition
from scorelab.judge.score import ExactLikelihood, ScoreError
from scorelab.judge.truth import OracleGap
from scorelab.judge.verdict import Verdict, judge
from scorelab.judge.yardsticks import Curve, NoiseError, noise_error

__all__ = [
    "Agreement",
    "Bound",
    "Card",
    "Case",
    "Curve",
    "Distances",
    "ErrorBudget",
    "ExactLikelihood",
    "FlowLikelihood",
    "Frechet",
    "GradientNoise",
    "Memorization",
    "Metric",
    "NoiseError",
    "Objectives",
    "OracleGap",
    "OverBudget",
    "Part",
    "Recognition",
    "Result",
    "ScoreError",
    "Unjudged",
    "VariationalBound",
    "Verdict",
    "judge",
    "noise_error",
    "weight_card",
]
