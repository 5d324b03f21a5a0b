"""Noise schedules: how much signal and how much noise there is at each time."""

from scorelab.schedules.base import Schedule, Transition
from scorelab.schedules.discrete import Cosine, Linear, Table

__all__ = ["Cosine", "Linear", "Schedule", "Table", "Transition"]
