"""Continuous simulation of NEST's online e-prop family (eprop_iaf and its relatives) without NEST."""

from .stream import METHODS, MODELS, Neurons, Optimizer, Outcome, Projection, Readouts, Stream

__all__ = ["METHODS", "MODELS", "Neurons", "Optimizer", "Outcome", "Projection", "Readouts", "Stream"]
