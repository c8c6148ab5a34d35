"""Sequences backward in time: the adjoint of each neuron and step first, then the gradient.

Equations are those of kernels._backward. The adjoint mu_j(t) overwrites the surrogate gradients; what
synapse i -> j gets is the sum of mu_j(t) over the steps t in which spikes of i arrive. There are two ways to sum:
- tiled: per tile of postsynaptic neurons and presynaptic neuron, over its spikes; costs spikes x n_rec additions, as
  vectors from the cache, whatever the number of synapses: the faster way where most of them exist
- streamed: step by step, scattered to the synapses of each spike; costs spikes x synapses per neuron

Each gives a value the same sequence of additions whatever part of the synapses a call is for, so that results do not
depend on the number of threads.
"""

import numpy as np

from eprop_cli.engines.compiled.kernels import ALPHA, BETA, RHO, Bools, Floats, Ints, _compiled
from eprop_cli.engines.compiled.synapses import Indices, Synapses

TILE = 64  # postsynaptic neurons whose mu of some thousand steps fits a core's second-level cache


@_compiled
def _feed_back(
    t: int, kappa: float, row: Ints, post: Indices, weights: Floats, error: Floats, learning: Floats
) -> None:
    """Add (1 - kappa) sum_k B_jk E_k(t) to the learning signals; error: (learning_window, n_out)."""
    for k in range(error.shape[1]):
        e_k = (1.0 - kappa) * error[t, k]
        if post.size > 0:
            for s in range(np.uint64(row[k]), np.uint64(row[k + 1])):
                learning[post[s]] += e_k * weights[s]
        else:
            for j in range(learning.size):
                learning[j] += e_k * weights[k * learning.size + j]


@_compiled
def sweep(neurons: Floats, kappa: float, feedback: Synapses, error: Floats, rate_term: Floats, psi: Floats) -> None:
    """Run the adjoint through a sequence.

    error: (learning_window, n_out). rate_term: (n_rec,). psi: (n_steps, n_rec), overwritten with mu.
    """
    row, post, weights = feedback.row, feedback.post, feedback.weights
    n_steps, n_rec = psi.shape
    window = error.shape[0]
    learning, adaptation, g, mu = np.zeros(n_rec), np.zeros(n_rec), np.zeros(n_rec), np.zeros(n_rec)
    for t in range(n_steps - 1, -1, -1):
        for j in range(n_rec):
            learning[j] *= kappa
        if t >= n_steps - window:
            _feed_back(t - n_steps + window, kappa, row, post, weights, error, learning)
        for j in range(n_rec):
            g[j] = psi[t, j] * (learning[j] + rate_term[j] + adaptation[j])
        for j in range(n_rec):
            adaptation[j] = neurons[RHO, j] * adaptation[j] - neurons[BETA, j] * g[j]
        for j in range(n_rec):
            mu[j] = g[j] + neurons[ALPHA, j] * mu[j]
        for j in range(n_rec):
            psi[t, j] = mu[j]


@_compiled
def sort_by_neuron(first: Ints, pre: Indices, start: Ints, steps: Indices) -> None:
    """Sort arriving spikes: steps[start[i] : start[i + 1]] are those of presynaptic neuron i, last step first."""
    n_steps = first.size - 2
    start[:] = 0
    for e in range(first[n_steps]):
        start[pre[e] + 1] += 1
    for i in range(start.size - 1):
        start[i + 1] += start[i]
    fill = start[:-1].copy()
    for t in range(n_steps - 1, -1, -1):
        for e in range(first[t], first[t + 1]):
            steps[fill[pre[e]]] = t
            fill[pre[e]] += 1


@_compiled
def _sum_rows(steps: Indices, begin: int, end: int, columns: Floats, total: Floats) -> None:
    """Sum columns (n_steps, TILE) over steps[begin:end], four at a time so that the total is seldom loaded."""
    for j in range(TILE):
        total[j] = 0.0
    whole = begin + (end - begin) // 4 * 4
    for e in range(begin, whole, 4):
        a, b, c, d = steps[e], steps[e + 1], steps[e + 2], steps[e + 3]
        for j in range(TILE):
            total[j] += (columns[a, j] + columns[b, j]) + (columns[c, j] + columns[d, j])
    for e in range(whole, end):
        a = steps[e]
        for j in range(TILE):
            total[j] += columns[a, j]


@_compiled
def tiled(
    j0: int, j1: int, synapses: Synapses, start: Ints, steps: Indices, rows: Bools, mu: Floats, columns: Floats,
    cursor: Ints, gradient: Floats,
) -> None:  # fmt: skip
    """Add a sequence's gradient of the synapses onto neurons j0 to j1, at most TILE.

    start, steps: as sort_by_neuron fills them. rows: (n_pre,), presynaptic neurons that are meant.
    columns: (n_steps, TILE), room for mu. gradient: (n_synapses,).
    cursor: (n_pre,), the first synapse onto j0 or later; moved on to j1. Unused where synapses are dense.
    """
    row, post = synapses.row, synapses.post
    for t in range(mu.shape[0]):
        for j in range(j1 - j0):
            columns[t, j] = mu[t, j0 + j]
    total = np.zeros(TILE)
    for i in range(start.size - 1):
        begin = cursor[i] if post.size > 0 else row[i] + j0
        end = begin + j1 - j0
        if post.size > 0:
            end = begin
            while end < row[i + 1] and post[end] < j1:
                end += 1
            cursor[i] = end
        if begin == end or start[i] == start[i + 1] or not rows[i]:
            continue
        _sum_rows(steps, start[i], start[i + 1], columns, total)
        for s in range(np.uint64(begin), np.uint64(end)):
            gradient[s] += total[post[s] - np.uint32(j0)] if post.size > 0 else total[s - np.uint64(begin)]


@_compiled
def first_onto(j0: int, synapses: Synapses) -> Ints:
    """First synapse of each row onto neuron j0 or later, (n_pre,)."""
    row, post = synapses.row, synapses.post
    cursor = row[:-1].copy()
    if post.size > 0:
        for i in range(cursor.size):
            cursor[i] += np.searchsorted(post[row[i] : row[i + 1]], j0)
    return cursor


@_compiled
def streamed(
    i0: int, i1: int, synapses: Synapses, first: Ints, pre: Indices, rows: Bools, mu: Floats, gradient: Floats
) -> None:
    """Add a sequence's gradient of the synapses from neurons i0 to i1. rows: (n_pre,), those that are meant."""
    row, post = synapses.row, synapses.post
    for t in range(mu.shape[0]):
        for e in range(first[t], first[t + 1]):
            i = pre[e]
            if i < i0 or i >= i1 or not rows[i]:
                continue
            begin, end = np.uint64(row[i]), np.uint64(row[i + 1])
            for s in range(begin, end):
                gradient[s] += mu[t, post[s] if post.size > 0 else np.uint32(s - begin)]


@_compiled
def read_out(
    j0: int, j1: int, n_in: int, kappa: float, synapses: Synapses, first: Ints, pre: Indices, error: Floats,
    gradient: Floats,
) -> None:  # fmt: skip
    """Add a sequence's gradient of the synapses from recurrent neurons j0 to j1 to the readouts.

    W_kj gets E_k(t) + kappa E_k(t+1) + ... for each spike that j emits in step t.
    """
    row, post = synapses.row, synapses.post
    window, n_out = error.shape
    n_steps, trace = first.size - 2, np.zeros(n_out)
    for t in range(n_steps - 1, -1, -1):
        for k in range(n_out):
            trace[k] *= kappa
            if t >= n_steps - window:
                trace[k] += error[t - n_steps + window, k]
        for e in range(first[t + 1], first[t + 2]):
            j = np.int64(pre[e]) - n_in
            if j < j0 or j >= j1:
                continue
            for s in range(row[j], row[j + 1]):
                gradient[s] += trace[post[s] if post.size > 0 else s - row[j]]
