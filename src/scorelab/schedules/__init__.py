"""Noise schedules: how much signal and how much noise there is at each time."""

from scorelab.schedules.base import Schedule, VariancePreserving
from scorelab.schedules.continuous import VP, Cosine, Curve, Sigmoid
from scorelab.schedules.contract import check_contract
from scorelab.schedules.discrete import JSD, Linear, LinearZeroSNR, ScaledLinear, Table, Warmup, discretized
from scorelab.schedules.exploding import EDM, VE, VarianceExploding
from scorelab.schedules.interpolating import Flow, SubVP
from scorelab.schedules.learned import LearnedSchedule
from scorelab.schedules.level import Level, Transition

__all__ = [
    "EDM",
    "JSD",
    "VE",
    "VP",
    "Cosine",
    "Curve",
    "Flow",
    "LearnedSchedule",
    "Level",
    "Linear",
    "LinearZeroSNR",
    "ScaledLinear",
    "Schedule",
    "Sigmoid",
    "SubVP",
    "Table",
    "Transition",
    "VarianceExploding",
    "VariancePreserving",
    "Warmup",
    "check_contract",
    "discretized",
]
