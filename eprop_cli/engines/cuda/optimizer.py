"""Optimizers' steps on a GPU, with the arithmetic of eprop_cli.optimizers: equal to the bit."""

import math

import numpy as np
from numba import cuda

from eprop_cli.engines.cuda.device import Floats, Ints, device_function, kernel


@kernel
def average(n_in: int, posts: Ints, sparse: bool, factors: Floats, gradient: Floats, finite: Ints) -> None:
    """Multiply each synapse's gradient by its postsynaptic neuron's factor; that of an autapse becomes 0.

    posts: each synapse's postsynaptic neuron, if sparse; or else gradient is (n_pre, n_post), flat.
    n_in: presynaptic neurons before the recurrent ones. finite[0] becomes 0 where a gradient is infinite or NaN.
    """
    n_post = factors.size
    for s in range(cuda.grid(1), gradient.size, cuda.gridsize(1)):
        post = np.int64(posts[s]) if sparse else np.int64(s % n_post)
        autapse = not sparse and s // n_post - n_in == post
        gradient[s] = 0.0 if autapse else gradient[s] * factors[post]
        if not math.isfinite(gradient[s]):
            finite[0] = 0


@device_function
def _move(s: int, step: float, factor: float, w_min: float, w_max: float, weights: Floats, finite: Ints) -> None:
    """Take a synapse's step within the bounds; finite[0] becomes 0 where a weight is infinite or NaN."""
    w = weights[s] - factor * step
    if w < w_min:
        w = w_min
    if w > w_max:
        w = w_max
    weights[s] = w
    if not math.isfinite(w):
        finite[0] = 0


@kernel
def adam(
    alpha: float, beta_1: float, beta_2: float, epsilon: float,
    decay: float, factor: float, w_min: float, w_max: float, clip: float,
    gradient: Floats, m: Floats, v: Floats, weights: Floats, finite: Ints,
) -> None:  # fmt: skip
    """Take a step of Adam. alpha: learning rate with the bias corrections; clip: what gradients are multiplied by."""
    for s in range(cuda.grid(1), gradient.size, cuda.gridsize(1)):
        g = clip * gradient[s]
        m[s] = beta_1 * m[s] + (1.0 - beta_1) * g
        v[s] = beta_2 * v[s] + (1.0 - beta_2) * g * g
        step = alpha * m[s] / (math.sqrt(v[s]) + epsilon) + decay * weights[s]
        _move(s, step, factor, w_min, w_max, weights, finite)


@kernel
def gradient_descent(
    eta: float, decay: float, factor: float, w_min: float, w_max: float, clip: float,
    gradient: Floats, weights: Floats, finite: Ints,
) -> None:  # fmt: skip
    """Take a step of gradient descent."""
    for s in range(cuda.grid(1), gradient.size, cuda.gridsize(1)):
        step = eta * (clip * gradient[s]) + decay * weights[s]
        _move(s, step, factor, w_min, w_max, weights, finite)


@kernel
def remove_autapses(n_in: int, n_rec: int, weights: Floats) -> None:
    """Set the weights from recurrent neurons to themselves to 0, even where that lies outside the bounds."""
    j = cuda.grid(1)
    if j < n_rec:
        weights[np.int64(n_in + j) * n_rec + j] = 0.0


@kernel
def densify(rows: Ints, posts: Ints, n_post: int, synapses: Floats, weights: Floats) -> None:
    """Write the weights of synapses into a matrix (n_pre, n_post), flat, that is 0 elsewhere; a block per row."""
    i = cuda.blockIdx.x
    for s in range(rows[i] + cuda.threadIdx.x, rows[i + 1], cuda.blockDim.x):
        weights[np.int64(i) * n_post + np.int64(posts[s])] = synapses[s]
