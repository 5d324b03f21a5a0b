"""Yardsticks: what a denoiser is worth, in figures that do not depend on how it was trained."""

from scorelab.evaluation.agreement import Agreement
from scorelab.evaluation.base import Case, Metric, OverBudget, Part, Result, Unjudged
from scorelab.evaluation.bound import Bound, VariationalBound
from scorelab.evaluation.budget import ErrorBudget
from scorelab.evaluation.curves import Curve
from scorelab.evaluation.distances import Distances
from scorelab.evaluation.flow import FlowLikelihood
from scorelab.evaluation.gradient import GradientNoise
from scorelab.evaluation.noise_error import NoiseError, noise_error
from scorelab.evaluation.objectives import Objectives
from scorelab.evaluation.samples import Frechet, Memorization, Recognition
from scorelab.evaluation.score import ExactLikelihood, ScoreError
from scorelab.evaluation.truth import OracleGap
from scorelab.evaluation.verdict import Verdict, judge

__all__ = [
    "Agreement",
    "Bound",
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
]
