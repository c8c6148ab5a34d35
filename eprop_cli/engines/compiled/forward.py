"""Sequences forward in time, with synapses in rows of presynaptic neurons.

What a neuron does in a step is in neurons, equations in kernels, and sums are taken in the order of its dense matrices:
the same potentials, bit for bit.
"""

import numpy as np

from eprop_cli.engines.compiled.compiling import compiled
from eprop_cli.engines.compiled.kernels import _deliver
from eprop_cli.engines.compiled.neurons import (
    ALPHA,
    DRIVE,
    SCALE,
    V_MIN,
    Bools,
    Counts,
    Floats,
    Ints,
    advance,
    at_rest,
    blocks,
    keep,
    parameters,
    places,
)
from eprop_cli.engines.compiled.prefetch import ask_for_row
from eprop_cli.engines.compiled.synapses import Indices, Synapses


@compiled
def _arrive(
    t: int, input_first: Ints, neuron: Indices, n_in: int, n_emitted: int, emitted: Ints,
    first: Ints, pre: Indices, times: Counts,
) -> None:  # fmt: skip
    """List the spikes that arrive in step t. NEST drops those that arrive in the first step of a sequence."""
    n = first[t]
    if t > 0:
        for e in range(input_first[t], input_first[t + 1]):
            if e > input_first[t] and neuron[e] == neuron[e - 1]:  # several spikes make one trace
                times[n - 1] += 1
            else:
                pre[n] = neuron[e]
                times[n] = 1
                n += 1
        for e in range(n_emitted):
            pre[n] = n_in + emitted[e]
            times[n] = 1
            n += 1
    first[t + 1] = n


@compiled
def _scatter(
    t: int, first: Ints, pre: Indices, times: Counts, row: Ints, post: Indices, weights: Floats, current: Floats
) -> None:
    """Add up the weights of arriving spikes in NEST's order: input before recurrent neurons, by index."""
    for e in range(first[t], first[t + 1]):
        i = pre[e]
        ask_for_row(e + 1, first[t + 1], pre, row, post, weights)
        begin, end = np.uint64(row[i]), np.uint64(row[i + 1])  # unsigned: no test for negative indices
        for _ in range(times[e]):
            if end - begin == np.uint64(current.size):  # all targets
                for j in range(end - begin):
                    current[j] += weights[begin + j]
            else:
                for s in range(begin, end):
                    current[post[s]] += weights[s]


@compiled
def _read_out(
    t: int, readouts: Floats, row: Ints, post: Indices, weights: Floats, n_emitted: int, emitted: Ints,
    current: Floats, potential: Floats,
) -> None:  # fmt: skip
    """Advance the readouts' potential y(t) = zeta sum_j W_kj z_j(t) + kappa y(t-1), at least V_min."""
    for k in range(current.size):
        current[k] = 0.0
    for e in range(n_emitted):
        begin, end = np.uint64(row[emitted[e]]), np.uint64(row[emitted[e] + 1])
        if end - begin == np.uint64(current.size):  # all readouts
            for k in range(end - begin):
                current[k] += weights[begin + k]
        else:
            for s in range(begin, end):
                current[post[s]] += weights[s]
    for k in range(current.size):
        before = potential[t - 1, k] if t > 0 else 0.0
        y = readouts[DRIVE] + readouts[SCALE] * current[k] + readouts[ALPHA] * before
        potential[t, k] = max(y, readouts[V_MIN])


@compiled
def forward(
    neurons: Floats, surrogates: Ints, readouts: Floats, rec: Synapses, out: Synapses,
    input_first: Ints, neuron: Indices, n_in: int, recorded: Ints,
    first: Ints, pre: Indices, psi: Floats, potential: Floats, dynamics: Floats,
) -> None:  # fmt: skip
    """Simulate a sequence from rest; fills first, pre, psi, potential and dynamics.

    neurons, surrogates, readouts, recorded, potential, dynamics: a sequence's part of those of kernels.run.
    rec: synapses from input and recurrent neurons to recurrent ones; out: from these to readouts.
    input_first, neuron, n_in: the sequence's InputSpikes.
    first: (n_steps + 2,), pre: presynaptic neurons pre[first[t] : first[t + 1]] have a spike that arrives in step t.
    Those emitted in the last step reach the readouts only, and stand under step n_steps.
    psi: (n_steps, n_rec); with fewer rows, the last step's is all that is left of it.
    """
    row, post, weights = rec.row, rec.post, rec.weights
    row_out, post_out, weights_out = out.row, out.post, out.weights
    n_steps, n_rec = potential.shape[0], neurons.shape[1]
    matrix = weights[: 0 if post.size > 0 else weights.size].reshape(-1, n_rec)  # if dense
    current, current_out = np.zeros(n_rec), np.zeros(potential.shape[1])
    emitted, n_emitted = np.empty(n_rec + 1, np.int64), 0
    times = np.empty(pre.size, np.uint8)
    parts = blocks(neurons, surrogates)
    values, state, place = parameters(neurons, parts), at_rest(parts), places(parts, recorded)
    first[0] = 0
    for t in range(n_steps):
        kept = min(t, psi.shape[0] - 1)
        _arrive(t, input_first, neuron, n_in, n_emitted, emitted, first, pre, times)
        if post.size > 0:
            _scatter(t, first, pre, times, row, post, weights, current)
        elif matrix.size > 0:
            _deliver(t, first, pre, times, matrix, current)  # type: ignore[arg-type]  # unsigned indices serve as well
        n_emitted = advance(kept, parts, values, current, state, psi, emitted)
        _read_out(t, readouts, row_out, post_out, weights_out, n_emitted, emitted, current_out, potential)
        keep(t, kept, recorded, place, state, psi, dynamics)
    last = first[n_steps]
    for e in range(n_emitted):
        pre[last + e] = n_in + emitted[e]
    first[n_steps + 1] = last + n_emitted


@compiled
def count(n_in: int, first: Ints, pre: Indices, watched: Ints, n_spikes: Ints, fired: Bools) -> None:
    """Count the recurrent spikes, and mark in which step those of watched neurons were emitted.

    watched: (n_watched,), increasing. n_spikes: (n_rec,). fired: (n_steps, n_watched).
    """
    place = np.full(n_spikes.size, -1)
    for n in range(watched.size):
        place[watched[n]] = n
    n_spikes[:] = 0
    for t in range(first.size - 2):
        for e in range(first[t + 1], first[t + 2]):
            if pre[e] >= n_in:
                n_spikes[pre[e] - n_in] += 1
                if place[pre[e] - n_in] >= 0:
                    fired[t, place[pre[e] - n_in]] = True
