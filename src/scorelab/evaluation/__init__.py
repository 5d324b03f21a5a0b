"""Yardsticks: what a denoiser is worth, in figures that do not depend on how it was trained."""

from scorelab.evaluation.agreement import Agreement
from scorelab.evaluation.base import EvaluationContext, EvaluationSettings, Result, TableRow, Yardstick
from scorelab.evaluation.borrowed import FrechetDino, InceptionScore
from scorelab.evaluation.bound import HeldOutBound
from scorelab.evaluation.budget import ErrorBudget
from scorelab.evaluation.distances import Distances
from scorelab.evaluation.exact_gap import ExactGap
from scorelab.evaluation.flow import FlowLikelihood
from scorelab.evaluation.gradient import GradientNoise
from scorelab.evaluation.gradient_part import GradientPart
from scorelab.evaluation.guidance import GuidanceScales
from scorelab.evaluation.more_samples import Colour, KernelDistance, PrecisionRecall
from scorelab.evaluation.noise_error import NoiseError, NoiseErrorCurve, noise_error
from scorelab.evaluation.noise_profile import NoiseProfile
from scorelab.evaluation.objectives import Objectives
from scorelab.evaluation.own_path import OwnPath
from scorelab.evaluation.results import Results, expected_cost, run_yardsticks
from scorelab.evaluation.samplers import SamplerComparison
from scorelab.evaluation.samples import Frechet, Memorization, Recognition
from scorelab.evaluation.score import ExactLikelihood, ScoreError

__all__ = [
    "Agreement",
    "Colour",
    "Distances",
    "ErrorBudget",
    "EvaluationContext",
    "EvaluationSettings",
    "ExactGap",
    "ExactLikelihood",
    "FlowLikelihood",
    "Frechet",
    "FrechetDino",
    "GradientNoise",
    "GradientPart",
    "GuidanceScales",
    "HeldOutBound",
    "InceptionScore",
    "KernelDistance",
    "Memorization",
    "NoiseError",
    "NoiseErrorCurve",
    "NoiseProfile",
    "Objectives",
    "OwnPath",
    "PrecisionRecall",
    "Recognition",
    "Result",
    "Results",
    "SamplerComparison",
    "ScoreError",
    "TableRow",
    "Yardstick",
    "expected_cost",
    "noise_error",
    "run_yardsticks",
]
