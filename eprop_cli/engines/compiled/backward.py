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

from eprop_cli.engines.compiled.compiling import compiled
from eprop_cli.engines.compiled.neurons import ALPHA, BETA, RHO, Bools, Floats, Ints
from eprop_cli.engines.compiled.prefetch import ask_for_row
from eprop_cli.engines.compiled.synapses import Indices, Synapses

BLOCK = 1024  # neurons whose adjoint fits a core's caches while it runs through all steps
TILE = 128  # postsynaptic neurons whose mu of some thousand steps fits a core's second-level cache


@compiled
def first_onto(j0: int, synapses: Synapses) -> Ints:
    """First synapse of each row onto neuron j0 or later, (n_pre,)."""
    row, post = synapses.row, synapses.post
    cursor = row[:-1].copy()
    for i in range(cursor.size):
        if post.size > 0:
            cursor[i] += np.searchsorted(post[row[i] : row[i + 1]], j0)
        else:
            cursor[i] += min(j0, row[i + 1] - row[i])
    return cursor


@compiled
def _feed_back(
    t: int, kappa: float, begin: Ints, end: Ints, j0: int, post: Indices, weights: Floats, error: Floats,
    learning: Floats,
) -> None:  # fmt: skip
    """Add (1 - kappa) sum_k B_jk E_k(t) to the learning signals of the neurons from j0 on.

    begin, end: (n_out,), synapses of each readout onto these neurons. error: (learning_window, n_out).
    """
    n_out, n = error.shape[1], np.uint64(end[0] - begin[0]) if error.shape[1] > 0 else np.uint64(0)
    if post.size > 0:
        for k in range(n_out):
            e_k = (1.0 - kappa) * error[t, k]
            for s in range(np.uint64(begin[k]), np.uint64(end[k])):
                learning[post[s] - np.uint32(j0)] += e_k * weights[s]
        return
    whole = n_out // 4 * 4
    for k in range(0, whole, 4):  # four at a time so that the signals are seldom loaded
        a, b, c, d = np.uint64(begin[k]), np.uint64(begin[k + 1]), np.uint64(begin[k + 2]), np.uint64(begin[k + 3])
        e_a, e_b = (1.0 - kappa) * error[t, k], (1.0 - kappa) * error[t, k + 1]
        e_c, e_d = (1.0 - kappa) * error[t, k + 2], (1.0 - kappa) * error[t, k + 3]
        for j in range(n):
            two = (learning[j] + e_a * weights[a + j]) + e_b * weights[b + j]
            learning[j] = (two + e_c * weights[c + j]) + e_d * weights[d + j]
    for k in range(whole, n_out):
        a, e_a = np.uint64(begin[k]), (1.0 - kappa) * error[t, k]
        for j in range(n):
            learning[j] += e_a * weights[a + j]


@compiled
def sweep(neurons: Floats, kappa: float, feedback: Synapses, error: Floats, rate_term: Floats, psi: Floats) -> None:
    """Run the adjoint through a sequence, some neurons after the others: it does not connect them.

    error: (learning_window, n_out). rate_term: (n_rec,). psi: (n_steps, n_rec), overwritten with mu.
    """
    post, weights = feedback.post, feedback.weights
    n_steps, n_rec = psi.shape
    window = error.shape[0]
    most = min(BLOCK, n_rec)
    learning, adaptation, mu = np.empty(most), np.empty(most), np.empty(most)
    for j0 in range(0, n_rec, BLOCK):
        size = min(BLOCK, n_rec - j0)
        n, s = np.uint64(size), np.uint64(j0)  # unsigned: no test for negative indices
        begin, end = first_onto(j0, feedback), first_onto(j0 + size, feedback)
        learning[:], adaptation[:], mu[:] = 0.0, 0.0, 0.0
        for t in range(n_steps - 1, -1, -1):
            for j in range(n):
                learning[j] *= kappa
            if t >= n_steps - window:
                _feed_back(t - n_steps + window, kappa, begin, end, j0, post, weights, error, learning)
            for j in range(n):  # g
                psi[t, s + j] = psi[t, s + j] * (learning[j] + rate_term[s + j] + adaptation[j])
            for j in range(n):
                adaptation[j] = neurons[RHO, s + j] * adaptation[j] - neurons[BETA, s + j] * psi[t, s + j]
            for j in range(n):
                mu[j] = psi[t, s + j] + neurons[ALPHA, s + j] * mu[j]
            for j in range(n):
                psi[t, s + j] = mu[j]


@compiled
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


@compiled
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


@compiled
def tiled(
    j0: int, j1: int, synapses: Synapses, start: Ints, steps: Indices, rows: Bools, mu: Floats, columns: Floats,
    cursor: Ints, gradient: Floats,
) -> None:  # fmt: skip
    """Add a sequence's gradient of the synapses onto neurons j0 to j1, at most TILE.

    start, steps: as sort_by_neuron fills them. rows: (n_pre,), presynaptic neurons that are meant.
    columns: (n_steps, TILE), room for mu. gradient: (n_synapses,).
    cursor: (n_pre,), the first synapse onto j0 or later; moved on to j1.
    """
    row, post = synapses.row, synapses.post
    for t in range(mu.shape[0]):
        for j in range(j1 - j0):
            columns[t, j] = mu[t, j0 + j]
    total = np.zeros(TILE)
    for i in range(start.size - 1):
        begin = cursor[i]
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


@compiled
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
            ask_for_row(e + 1, first[t + 1], pre, row, post, gradient)
            begin, end = np.uint64(row[i]), np.uint64(row[i + 1])
            if end - begin == np.uint64(mu.shape[1]):  # all targets
                for j in range(end - begin):
                    gradient[begin + j] += mu[t, j]
            else:
                for s in range(begin, end):
                    gradient[s] += mu[t, post[s]]


@compiled
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
            begin, end = np.uint64(row[j]), np.uint64(row[j + 1])
            if end - begin == np.uint64(n_out):  # all readouts
                for k in range(end - begin):
                    gradient[begin + k] += trace[k]
            else:
                for s in range(begin, end):
                    gradient[s] += trace[post[s]]
