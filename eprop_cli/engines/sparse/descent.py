"""Optimizers' steps in place, on flat values, without temporary arrays of their size.

Operations and their order are those of eprop_cli.optimizers, and with it NEST's, and so are the results, bit for bit.
Each value is worked on by itself: threads may share values out by ranges.
"""

import numpy as np

from eprop_cli.engines.kernels import Floats, _compiled
from eprop_cli.engines.sparse.synapses import Indices

BLOCK = 4096  # squares that are added up at a time


@_compiled
def _bounded(weight: float, low: float, high: float) -> float:
    """NumPy's clip: what is not a number stays so."""
    if weight < low:
        return low
    return high if weight > high else weight


@_compiled
def adam(
    begin: int, end: int, alpha: float, beta_1: float, beta_2: float, epsilon: float, decay: float,
    low: float, high: float, gradient: Floats, weights: Floats, m: Floats, v: Floats,
) -> None:  # fmt: skip
    """Kingma & Ba (2015), values begin to end.

    alpha: learning rate with the bias corrections. decay: learning rate times weight decay (Loshchilov & Hutter 2019).
    low, high: bounds of the weights.
    """
    for s in range(np.uint64(begin), np.uint64(end)):
        g = gradient[s]
        m[s] = beta_1 * m[s] + (1.0 - beta_1) * g
        v[s] = beta_2 * v[s] + (1.0 - beta_2) * g * g
        step = alpha * m[s] / (np.sqrt(v[s]) + epsilon)
        if decay != 0.0:
            step = step + decay * weights[s]
        weights[s] = _bounded(weights[s] - step, low, high)


@_compiled
def gradient_descent(
    begin: int, end: int, eta: float, decay: float, low: float, high: float, gradient: Floats, weights: Floats
) -> None:
    """Plain gradient descent, values begin to end; arguments as in adam."""
    for s in range(np.uint64(begin), np.uint64(end)):
        step = eta * gradient[s]
        if decay != 0.0:
            step = step + decay * weights[s]
        weights[s] = _bounded(weights[s] - step, low, high)


@_compiled
def scale(begin: int, end: int, factor: float, values: Floats) -> None:
    """Multiply values begin to end by a factor, as where gradients are clipped."""
    for s in range(np.uint64(begin), np.uint64(end)):
        values[s] *= factor


@_compiled
def square_sum(values: Floats) -> float:
    """Sum of the squares, in an order that depends on their number only."""
    total = 0.0
    for begin in range(0, values.size, BLOCK):
        part = 0.0
        for s in range(begin, min(begin + BLOCK, values.size)):
            part += values[s] * values[s]
        total += part
    return total


@_compiled
def scale_by_target(begin: int, end: int, post: Indices, factor: Floats, values: Floats) -> None:
    """Multiply the values begin to end of sparse synapses by their target's factor."""
    for s in range(np.uint64(begin), np.uint64(end)):
        values[s] *= factor[post[s]]
