"""Losses and accuracy as pure functions of readout and target signals.

Every function takes readout, target: float64 (n_out, n_batch, n_steps), restricted to the learning window.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]


def cross_entropy(readout: Signal, target: Signal) -> float:
    """Mean over batch and time of -sum_k pi*_k log pi_k (NEST's tutorial; Bellec et al. 2020, Methods)."""
    # A softmax can saturate to exactly 0; where the target is 0 too, the term is 0, else the loss is infinite.
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(target == 0, 0.0, target * np.log(readout))
    return float(-np.mean(np.sum(terms, axis=0)))


def mean_squared_error(readout: Signal, target: Signal) -> float:
    """Half the squared error, summed over readouts and time, averaged over the batch (NEST's regression tutorials)."""
    return float(0.5 * np.mean(np.sum((readout - target) ** 2, axis=(0, 2))))


LOSSES: dict[str, Callable[[Signal, Signal], float]] = {
    "cross_entropy": cross_entropy,
    "mean_squared_error": mean_squared_error,
}


def accuracy(readout: Signal, target: Signal) -> float:
    """Fraction of sequences in which the readout that is largest on average is the one that should be."""
    return float(np.mean(readout.mean(axis=2).argmax(axis=0) == target.mean(axis=2).argmax(axis=0)))


def firing_rate(n_spikes: float, n_neurons: int, duration: float) -> float:
    """Mean firing rate in spikes/s of n_neurons that fired n_spikes in duration ms; nan for an empty population."""
    return n_spikes / (n_neurons * duration) * 1000.0 if n_neurons else float("nan")
