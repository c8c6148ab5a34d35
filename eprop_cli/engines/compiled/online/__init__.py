"""Continuous simulation of NEST's online e-prop family (eprop_iaf and its relatives) without NEST."""

from .kernels import M, V
from .stream import METHODS, MOST_STEPS, Neurons, Optimizer, Outcome, Projection, Readouts, Stream

__all__ = ["METHODS", "MOST_STEPS", "M", "Neurons", "Optimizer", "Outcome", "Projection", "Readouts", "Stream", "V"]
