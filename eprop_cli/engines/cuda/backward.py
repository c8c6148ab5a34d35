"""From spikes to readouts, errors and gradients on a GPU, in the order of sums of the CPU's kernels.

read_out_spikes, read_out   the readouts' signal, the error, and the error filtered backwards in time
backward                    a thread per sequence and postsynaptic neuron: its adjoint, backwards in time
mark_inputs, list_inputs    when each input neuron fires
gather                      a thread per synapse: sums of the adjoint over the times of the presynaptic spikes

No sum is shared between threads by atomics, so none depends on scheduling. Indices and unsigned integers: see forward.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from eprop_cli.engines.compiled.neurons import (
    ALPHA,
    BETA,
    C_REG,
    DRIVE,
    E_L,
    EXPONENTIAL,
    F_TARGET,
    FAST_SIGMOID_DERIVATIVE,
    HEIGHT,
    PIECEWISE_LINEAR,
    RHO,
    SCALE,
    SLOPE,
    V_MIN,
)
from eprop_cli.engines.cuda.device import SIMULATED, Floats, Ints, Words, device_function, kernel
from eprop_cli.engines.cuda.forward import DELIVERED, bit, deliver, list_spikes

READERS = 2 if SIMULATED else 64  # threads of a block that reads spikes out
MAX_KEPT = 32  # readouts whose feedback fits in registers
READERS_LISTED = READERS * 32 + DELIVERED
LISTERS = 2 if SIMULATED else 128  # threads of a block that lists input spikes
AHEAD = 2 if SIMULATED else 8  # steps whose distances are loaded together
SUMMED = 4 if SIMULATED else 8  # values of the adjoint that are loaded together; a multiple of 4
COLUMNS, GROUP = (2, 2) if SIMULATED else (32, 8)  # synapses, and sequences at a time, of a block of gather


@kernel
def read_out_spikes(n_steps: int, weights_out: Floats, n_out: int, words: Words, current: Floats) -> None:
    """Sum the readouts' weights of the spikes emitted in a step of a sequence: current[b, t, k].

    A block per step and sequence. weights_out: (n_rec + 1, n_out) as a flat array, zeros in the end.
    """
    t, b, tid = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    n_words, n_rec = words.size // (current.shape[0] * n_steps), weights_out.size // n_out - 1
    counts = cuda.shared.array(READERS, np.int32)
    emitted = cuda.shared.array(READERS_LISTED, np.uint32)
    for k in range(tid, n_out, READERS):
        current[b, t, k] = 0.0
    for done in range(0, n_words, READERS):
        first, n = (np.int64(b) * n_steps + t) * n_words + done, min(READERS, n_words - done)
        n_emitted = list_spikes(words, first, n, n_rec - done * 32, counts, emitted)
        rows = weights_out[done * 32 * n_out :]
        for k in range(tid, n_out, READERS):
            current[b, t, k] = deliver(
                emitted, np.uint64(0), np.uint64(n_emitted), np.uint64(k), np.uint64(n_out), rows, current[b, t, k]
            )
        cuda.syncthreads()


@device_function
def _integrate(b: int, k: int, readouts: Floats, potential: Floats) -> None:
    """Turn the currents of readout k into its potential. Loads are made before they are needed, here and below."""
    n_steps, y = potential.shape[1], 0.0
    ahead = cuda.local.array(AHEAD, np.float64)
    for first in range(0, n_steps, AHEAD):
        for u in range(AHEAD):
            ahead[u] = potential[b, min(first + u, n_steps - 1), k]
        for u in range(AHEAD):
            if first + u < n_steps:
                y = max(readouts[DRIVE] + readouts[SCALE] * ahead[u] + readouts[ALPHA] * y, readouts[V_MIN])
                potential[b, first + u, k] = y


@device_function
def _cross_entropy(target: float, y: float) -> float:
    """A readout's term of the cross-entropy, 0 where its target is."""
    if target == 0.0:
        return 0.0
    return -target * math.log(y) if y > 0.0 else np.inf


@device_function
def _filter(b: int, k: int, kappa: float, own_signal: Floats, error: Floats, trace: Floats) -> Any:
    """Filter readout k's errors backwards in time, then multiply them by 1 - kappa; returns its mean signal."""
    window, n_steps, filtered, total = error.shape[1], trace.shape[1], 0.0, 0.0
    ahead, signal = cuda.local.array(AHEAD, np.float64), cuda.local.array(AHEAD, np.float64)
    for last in range(window - 1, -1, -AHEAD):
        for u in range(AHEAD):
            ahead[u], signal[u] = error[b, max(last - u, 0), k], own_signal[max(last - u, 0), k]
        for u in range(AHEAD):
            if last - u >= 0:
                filtered = filtered * kappa + ahead[u]
                total += signal[u]
                trace[b, n_steps - window + last - u, k] = filtered
                error[b, last - u, k] = (1.0 - kappa) * ahead[u]
    for t in range(n_steps - window - 1, -1, -1):
        filtered *= kappa
        trace[b, t, k] = filtered
    return total / window


@kernel
def read_out(
    sequence: int, softmax: bool, readouts: Floats, classes: Ints, targets: Floats,
    potential: Floats, signal: Floats, error: Floats, trace: Floats, terms: Floats, means: Floats,
) -> None:  # fmt: skip
    """Make a sequence's signal and errors of the readouts' currents; a block per sequence.

    classes (n_batch,): the readout whose target is 1, or -1 where targets (n_batch, window, n_out) tell.
    potential (n_piece, n_steps, n_out): the currents before. signal (n_batch, window, n_out).
    error (n_piece, window, n_out): times 1 - kappa. trace (n_piece, n_steps, n_out): the error filtered.
    terms (n_batch, window): cross-entropy of each step; 0 without softmax. means (n_batch, n_out): of signal over time.
    """
    b, tid, n_threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    all_b, window, n_out = sequence + b, error.shape[1], error.shape[2]
    start = potential.shape[1] - window
    for k in range(tid, n_out, n_threads):
        _integrate(b, k, readouts, potential)
    cuda.syncthreads()
    for t in range(tid, window, n_threads):
        total, term = 0.0, 0.0
        for k in range(n_out):
            y = potential[b, start + t, k] + readouts[E_L]
            signal[all_b, t, k] = math.exp(y) if softmax else y
            total += signal[all_b, t, k]
        for k in range(n_out):
            y = signal[all_b, t, k] / (total if softmax else 1.0)
            target = 1.0 if classes[all_b] == k else 0.0
            if classes[all_b] < 0:
                target = targets[all_b, t, k]
            signal[all_b, t, k] = y
            error[b, t, k] = y - target
            if softmax:
                term += _cross_entropy(target, y)
        terms[all_b, t] = term
    cuda.syncthreads()
    for k in range(tid, n_out, n_threads):
        means[all_b, k] = _filter(b, k, readouts[ALPHA], signal[all_b], error, trace)


@device_function
def _surrogate_gradient(function: int, x: Any) -> Any:
    """Surrogate gradient of height 1 at a distance x from threshold, in units of its width; 0 at infinity."""
    if function == PIECEWISE_LINEAR:
        return max(0.0, 1.0 - abs(x))
    if function == EXPONENTIAL:
        return math.exp(-abs(x))
    if function == FAST_SIGMOID_DERIVATIVE:
        return 1.0 / ((1.0 + abs(x)) * (1.0 + abs(x)))
    return 1.0 / (1.0 + x * x)


@lru_cache(None)
def backward(n_kept: int) -> Any:
    """The kernel that computes adjoints; its threads keep the feedback of the first n_kept readouts in registers."""

    def adjoint_of(
        last: int, n_steps: int, functions: Ints, neurons: Floats, feedback: Floats, kappa: float,
        error: Floats, n_spikes: Ints, distances: Floats, adjoint: Floats,
    ) -> None:  # fmt: skip
        """Turn distances from threshold into the adjoint mu of kernels.py: _backward; they may be the same array.

        last: learning signals count up to that step, excluded. functions: (n_rec,), surrogate gradients.
        error: (n_piece, window, n_out), times 1 - kappa.
        distances, adjoint: (n_piece, padded steps, n_rec), flat; the adjoint is 0 from step n_steps on.
        """
        b, j = cuda.blockIdx.y, cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        n_rec, window, n_out = neurons.shape[1], error.shape[1], error.shape[2]
        start, row = n_steps - window, np.uint64(n_rec)
        if j >= n_rec:
            return
        alpha, rho, beta = neurons[ALPHA, j], neurons[RHO, j], neurons[BETA, j]
        height, slope = neurons[HEIGHT, j], neurons[SLOPE, j]
        function = functions[j]
        rate = neurons[C_REG, j] * (n_spikes[b, j] / n_steps - neurons[F_TARGET, j]) / n_steps
        learning, adaptation, mu = 0.0, 0.0, 0.0
        ahead, kept = cuda.local.array(AHEAD, np.float64), cuda.local.array(n_kept, np.float64)
        for k in range(n_kept):
            kept[k] = feedback[k, j]
        padded = distances.size // (n_spikes.shape[0] * n_rec)
        here = np.uint64(b) * np.uint64(padded) * row + np.uint64(j) + np.uint64(padded) * row
        for first in range(padded - AHEAD, -AHEAD, -AHEAD):
            for u in range(AHEAD):
                ahead[u] = distances[here - np.uint64(u + 1) * row]
            for u in range(AHEAD):
                t = first + AHEAD - 1 - u
                if t < n_steps:
                    learning *= kappa
                    if start <= t < last:
                        for k in range(n_kept):
                            learning += error[b, t - start, k] * kept[k]
                        for k in range(n_kept, n_out):
                            learning += error[b, t - start, k] * feedback[k, j]
                    psi = height * _surrogate_gradient(function, ahead[u] * slope)
                    g = psi * (learning + rate + adaptation)
                    adaptation = rho * adaptation - beta * g
                    mu = g + alpha * mu
                here -= row
                adjoint[here] = mu

    return kernel(adjoint_of)


@kernel
def mark_inputs(sequence: int, n_steps: int, n_in: int, first: Words, pre: Words, marks: Words) -> None:
    """Set a bit in marks (n_piece, n_in, words) for each step in which an input neuron fires; a thread per step."""
    t, b = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockIdx.y
    if t >= n_steps:
        return
    n_words = (n_steps + 31) // 32
    at = np.int64(sequence + b) * (n_steps + 1) + t
    for e in range(first[at], first[at + 1]):
        i = np.int64(pre[np.uint64(e)])
        if i < n_in:
            cuda.atomic.or_(marks, (b * n_in + i) * n_words + (t >> 5), bit(t))


@kernel
def list_inputs(
    sequence: int, n_steps: int, first: Words, marks: Words, starts: Words, counts: Ints, times: Ints
) -> None:
    """List the steps marked for each input neuron. A block per sequence; a thread has neighbouring neurons.

    starts, counts: (n_piece, n_in).
    """
    b, tid = cuda.blockIdx.x, cuda.threadIdx.x
    n_in, n_words = counts.shape[1], (n_steps + 31) // 32
    per_thread = (n_in + LISTERS - 1) // LISTERS
    begin, end = tid * per_thread, min((tid + 1) * per_thread, n_in)
    lengths = cuda.shared.array(LISTERS, np.int64)
    length = 0
    for i in range(begin, end):
        count = 0
        for w in range(n_words):
            count += cuda.popc(marks[(np.int64(b) * n_in + i) * n_words + w])
        counts[b, i] = count
        length += count
    lengths[tid] = length
    cuda.syncthreads()
    own_first, piece_first = first[np.int64(sequence + b) * (n_steps + 1)], first[np.int64(sequence) * (n_steps + 1)]
    n = np.int64(own_first) - np.int64(piece_first)
    for other in range(tid):
        n += lengths[other]
    for i in range(begin, end):
        starts[b, i] = n
        for w in range(n_words):
            word = marks[(np.int64(b) * n_in + i) * n_words + w]
            while word:
                times[n] = w * 32 + cuda.ffs(word) - 1
                word &= np.uint32(word - np.uint32(1))
                n += 1


@device_function
def _sum(
    total: Any, forwards: bool, fours: bool, times: Ints, begin: Any, count: int, adjoint: Floats, base: Any, row: Any
) -> Any:
    """Add to total the adjoint[base + t * row] at times[begin : begin + count].

    forwards: the first one first. fours: add the sums of four at a time, as long as there are four.
    """
    at, value = cuda.local.array(SUMMED, np.uint64), cuda.local.array(SUMMED, np.float64)
    for n in range(0, count, SUMMED):
        for u in range(SUMMED):
            e = min(n + u, count - 1)
            at[u] = times[begin + np.uint64(e if forwards else count - 1 - e)]
        for u in range(SUMMED):
            value[u] = adjoint[base + at[u] * row]
        for u in range(0, SUMMED, 4):
            if fours and n + u + 4 <= count:
                total += (value[u] + value[u + 1]) + (value[u + 2] + value[u + 3])
            else:
                for one in range(u, u + 4):
                    if n + one < count:
                        total += value[one]
    return total


@device_function
def _synapse(i: int, column: int, sparse: bool, rows: Any, posts: Words, n_post: int) -> tuple[Any, Any, Any]:
    """Number of the synapse in a column of row i, its postsynaptic neuron, and whether there is one."""
    if not sparse:
        return np.int64(i) * n_post + column, np.uint64(min(column, n_post - 1)), column < n_post
    synapse = np.int64(rows[i]) + column
    exists = synapse < rows[i + 1]
    return synapse, np.uint64(posts[synapse] if exists else 0), exists


@kernel
def gather(
    fours: bool, n_steps: int, lag: int, first_row: int, sparse: bool, rows: Any, posts: Words, n_post: int,
    starts: Any, counts: Ints, times: Ints,
    adjoint: Floats, truncate: bool, truncated: Floats, lost: Any, gradient: Floats,
) -> None:  # fmt: skip
    """Add to the gradient of each synapse the sum of adjoint[b, t + lag, post] over presynaptic spike times t.

    Times are taken backwards, each sequence is summed by itself, and then they are in their order. A block per
    presynaptic neuron and COLUMNS of its synapses, which are rows[i] to rows[i + 1], onto neurons posts, if sparse; or
    else one onto each of n_post neurons. fours: see _sum. What arrives after n_steps has no part in a sum of four.
    truncated: taken in place of adjoint where lost (n_piece, n_pre), if truncate.
    """
    i, x, y = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
    n_piece = counts.shape[0]
    synapse, post, exists = _synapse(first_row + i, cuda.blockIdx.y * COLUMNS + x, sparse, rows, posts, n_post)
    row, size = np.uint64(n_post), np.uint64(adjoint.size // n_piece)
    partial = cuda.shared.array((2, GROUP, COLUMNS), np.float64)
    total = gradient[synapse] if exists and y == 0 else 0.0
    buffer = 0
    for group in range(0, n_piece, GROUP):
        b = group + y
        own = 0.0
        if b < n_piece:
            base = np.uint64(b) * size + np.uint64(lag) * row + post
            source = truncated if truncate and lost[b, i] else adjoint
            begin, count = np.uint64(starts[b, i]), np.int64(counts[b, i])
            if count > 0 and times[begin + np.uint64(count - 1)] + lag >= n_steps:
                count -= 1
            own = _sum(0.0, False, fours, times, begin, count, source, base, row)
        partial[buffer, y, x] = own
        cuda.syncthreads()
        if y == 0:
            for s in range(min(GROUP, n_piece - group)):
                total += partial[buffer, s, x]
        buffer = 1 - buffer
    if exists and y == 0:
        gradient[synapse] = total


@kernel
def stream(
    forwards: bool, lag: int, first_row: int, sparse: bool, rows: Any, posts: Words, n_post: int,
    starts: Any, counts: Ints, times: Ints,
    adjoint: Floats, truncate: bool, truncated: Floats, lost: Any, gradient: Floats,
) -> None:  # fmt: skip
    """As gather, but without sums of each sequence by itself; forwards: see _sum."""
    i, n_piece = cuda.blockIdx.x, counts.shape[0]
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    synapse, post, exists = _synapse(first_row + i, column, sparse, rows, posts, n_post)
    if not exists:
        return
    row, size, total = np.uint64(n_post), np.uint64(adjoint.size // n_piece), gradient[synapse]
    for b in range(n_piece):
        base = np.uint64(b) * size + np.uint64(lag) * row + post
        source = truncated if truncate and lost[b, i] else adjoint
        total = _sum(total, forwards, False, times, np.uint64(starts[b, i]), counts[b, i], source, base, row)
    gradient[synapse] = total
