"""Noise schedules: how much signal and how much noise there is at each time."""

from scorelab.schedules.base import Schedule, Transition, VariancePreserving
from scorelab.schedules.continuous import VP, Cosine, Curve, Sigmoid
from scorelab.schedules.contract import check_contract
from scorelab.schedules.discrete import Linear, ScaledLinear, Table, discretized

__all__ = [
    "VP",
    "Cosine",
    "Curve",
    "Linear",
    "ScaledLinear",
    "Schedule",
    "Sigmoid",
    "Table",
    "Transition",
    "VariancePreserving",
    "check_contract",
    "discretized",
]
