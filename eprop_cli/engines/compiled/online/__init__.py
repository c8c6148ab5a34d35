"""Continuous simulation of NEST's online e-prop family (eprop_iaf and its relatives) without NEST."""

from .kernels import M, V
from .network import (
    METHODS,
    MOST_STEPS,
    Advanced,
    ListedSynapses,
    Neurons,
    OnlineNetwork,
    OptimizerParameters,
    Readouts,
)

__all__ = [
    "METHODS",
    "MOST_STEPS",
    "Advanced",
    "ListedSynapses",
    "M",
    "Neurons",
    "OnlineNetwork",
    "OptimizerParameters",
    "Readouts",
    "V",
]
