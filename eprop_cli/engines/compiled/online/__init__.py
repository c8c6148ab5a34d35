"""Continuous simulation of NEST's online e-prop family (eprop_iaf and its relatives) without NEST."""

from .kernels import M, V
from .stream import METHODS, Neurons, Optimizer, Outcome, Projection, Readouts, Stream

__all__ = ["METHODS", "M", "Neurons", "Optimizer", "Outcome", "Projection", "Readouts", "Stream", "V"]
