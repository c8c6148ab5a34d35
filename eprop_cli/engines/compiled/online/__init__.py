"""Continuous simulation of NEST's online e-prop family (eprop_iaf and its relatives) without NEST."""

from .kernels import M, V
from .stream import METHODS, MOST_STEPS, Advanced, Neurons, Optimizer, Projection, Readouts, Stream

__all__ = ["METHODS", "MOST_STEPS", "Advanced", "M", "Neurons", "Optimizer", "Projection", "Readouts", "Stream", "V"]
