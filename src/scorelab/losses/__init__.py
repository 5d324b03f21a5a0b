"""Objectives, and the laws that draw training times."""

from scorelab.losses.base import Loss, Terms
from scorelab.losses.denoising import Simple
from scorelab.losses.times import Draw, Stratified, Times, Uniform
from scorelab.losses.variational import VariationalBound

__all__ = ["Draw", "Loss", "Simple", "Stratified", "Terms", "Times", "Uniform", "VariationalBound"]
