"""Simulate sequences on a GPU: spikes and distances from threshold, in the order of sums of the CPU's kernels.

Two ways, for equal results. Small networks: a block simulates a sequence, all its steps in one launch; nothing but
barriers lies between two steps. Large ones: a launch is one step, and a block a tile of neurons of one sequence.

Spikes are kept as bits, a word for 32 neurons. Before they are delivered a block makes an ordered list of them, filled
up to a multiple of DELIVERED with a neuron whose weights are 0, so that many loads can be under way without a check.
Large arrays are flat and indices into them unsigned: Numba tests signed ones for being negative at every access. An
unsigned number and a literal would make a float, hence the casts.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from eprop_cli.engines.compiled.neurons import ALPHA, BETA, DRIVE, RHO, SCALE, T_REF, V_MIN, V_TH
from eprop_cli.engines.cuda.device import SIMULATED, WARP, Floats, Ints, Words, device_function, kernel

DELIVERED = 2 if SIMULATED else 8  # spikes whose weights are loaded together
MAX_THREADS = 992  # of a block with one neuron per thread
REGISTERS = 64  # of a thread; so a multiprocessor holds 1024 threads, whose loads hide each other's latency
MAX_PER_THREAD = 2  # neurons; with more, their parameters do not fit in registers
TILE = 32 if SIMULATED else 256  # neurons of a block, where a launch is one step; whole words
TILE_WORDS, TILE_LISTED = TILE // 32, TILE * 32 + DELIVERED  # as a block reads as many words as it has threads
SCATTERERS = 2 if SIMULATED else 128  # threads of a block that delivers spikes along sparse synapses
SPAN = 3 if SIMULATED else 3072  # neurons that they deliver to, whose currents fit in shared memory
SCATTERED_LISTED = SCATTERERS * 32 + DELIVERED
N_MEMBRANE = 7  # parameters that a step needs


@device_function
def deliver(listed: Any, start: Any, stop: Any, column: Any, n_columns: Any, weights: Floats, current: Any) -> Any:
    """Add to current the weights[i, column] of the presynaptic neurons in listed[start:stop], in their order.

    Fillers follow up to the next multiple of DELIVERED. All integers are unsigned.
    """
    pre = cuda.local.array(DELIVERED, np.uint64)
    weight = cuda.local.array(DELIVERED, np.float64)
    e = start
    while e < stop:
        for u in range(DELIVERED):
            pre[u] = listed[e + np.uint64(u)]
        for u in range(DELIVERED):
            weight[u] = weights[pre[u] * n_columns + column]
        for u in range(DELIVERED):
            current += weight[u]
        e += np.uint64(DELIVERED)
    return current


@device_function
def _advance(parameters: Floats, r: int, current: float, v: float, a: float, z: float) -> tuple[float, float, float]:
    """Advance the potential and adaptation of neuron r; returns them and the distance from threshold."""
    current = parameters[0, r] + parameters[1, r] * current
    v = max(current + parameters[2, r] * v - parameters[3, r] * z, parameters[4, r])
    a = parameters[5, r] * a + z
    return v, a, v - (parameters[3, r] + parameters[6, r] * a)


@device_function
def _load(neurons: Floats, j: int, parameters: Floats, r: int) -> None:
    """Take the parameters of neuron j to where _advance looks for those of neuron r."""
    parameters[0, r] = neurons[DRIVE, j]
    parameters[1, r] = neurons[SCALE, j]
    parameters[2, r] = neurons[ALPHA, j]
    parameters[3, r] = neurons[V_TH, j]
    parameters[4, r] = neurons[V_MIN, j]
    parameters[5, r] = neurons[RHO, j]
    parameters[6, r] = neurons[BETA, j]


@device_function
def bit(j: Any) -> Any:
    """Where neuron or step j stands in its word."""
    return np.uint32(np.uint32(1) << np.uint32(j & 31))


@device_function
def list_spikes(words: Words, first: int, n: int, filler: int, counts: Ints, listed: Words) -> int:
    """List the neurons whose bits are set in words[first : first + n], counted from the first word, in shared memory.

    n: at most the threads of the block. counts: n integers in shared memory. Returns how many are listed, without
    the fillers that follow. All threads of the block call this; the list is complete for all of them.
    """
    tid = cuda.threadIdx.x
    word = np.uint32(0)
    if tid < n:
        word = words[np.uint64(first + tid)]
        counts[tid] = cuda.popc(word)
    cuda.syncthreads()
    total, rank = 0, 0
    for i in range(n):
        if i == tid:
            rank = total
        total += counts[i]
    if tid < n:
        while word:
            listed[rank] = np.uint32(tid * 32 + cuda.ffs(word) - 1)
            word &= np.uint32(word - np.uint32(1))
            rank += 1
    if tid == 0:
        for u in range(DELIVERED):
            listed[total + u] = np.uint32(filler)
    cuda.syncthreads()
    return total


@device_function
def _rank(words: Words, j: Any) -> Any:
    """How many neurons before neuron j have their bit set in words, in shared memory."""
    rank = cuda.popc(np.uint32(words[j >> 5] & np.uint32(bit(j) - np.uint32(1))))
    for i in range(j >> 5):
        rank += cuda.popc(words[i])
    return rank


def resident_shape(n_rec: int) -> tuple[int, int] | None:
    """Threads, and neurons per thread, of a block that simulates a whole sequence; None if there are too many."""
    per_thread = -(-n_rec // MAX_THREADS)
    return (WARP * -(-n_rec // (WARP * per_thread)), per_thread) if per_thread <= MAX_PER_THREAD else None


@lru_cache(None)
def resident(threads: int, per_thread: int) -> Any:
    """The kernel that simulates a sequence per block; arguments as explained in Simulation.

    Thread tid has the neurons tid, tid + threads, ...; those beyond the last one do nothing but wait.
    """
    n_words = -(-threads * per_thread // 32)
    n_listed = n_words * 32 + DELIVERED

    def forward(
        learning: bool, sequence: int, n_steps: int, n_in: int,
        neurons: Floats, weights: Floats, first: Words, pre: Words,
        distances: Floats, words: Words, times: Ints, n_spikes: Ints,
    ) -> None:  # fmt: skip
        b, tid = cuda.blockIdx.x, cuda.threadIdx.x
        n_rec = neurons.shape[1]
        row, n_own_words = np.uint64(n_rec), (n_rec + 31) // 32
        own_weights = weights[np.int64(n_in) * n_rec :]
        shared_words = cuda.shared.array((2, n_words), np.uint32)  # of the step and of the one before
        emitted = cuda.shared.array(n_listed, np.uint32)
        parameters = cuda.local.array((N_MEMBRANE, per_thread), np.float64)
        v, a, z = (cuda.local.array(per_thread, np.float64), cuda.local.array(per_thread, np.float64),
                   cuda.local.array(per_thread, np.float64))  # fmt: skip
        refractory, count, t_ref = (cuda.local.array(per_thread, np.int32), cuda.local.array(per_thread, np.int32),
                                    cuda.local.array(per_thread, np.int32))  # fmt: skip
        post, listed = cuda.local.array(per_thread, np.uint64), cuda.local.array(per_thread, np.uint64)
        for r in range(per_thread):
            j = min(tid + r * threads, n_rec - 1)
            _load(neurons, j, parameters, r)
            v[r], a[r], z[r], refractory[r], count[r] = 0.0, 0.0, 0.0, 0, 0
            t_ref[r], post[r] = np.int32(neurons[T_REF, j]), np.uint64(j)
            listed[r] = (np.uint64(b) * row + np.uint64(j)) * np.uint64(times.size // n_spikes.size)
        start, own_first = np.uint64(0), np.uint64(np.int64(sequence + b) * (n_steps + 1))
        kept, stop, n_emitted = np.uint64(0), np.uint64(0), 0
        if learning:
            kept = np.uint64(b) * np.uint64(distances.size // n_spikes.shape[0])
        if tid < n_own_words:
            shared_words[0, tid] = np.uint32(0)
        cuda.syncthreads()
        for t in range(n_steps):
            buffer = t & 1
            start, stop = np.uint64(first[own_first + np.uint64(t)]), np.uint64(first[own_first + np.uint64(t + 1)])
            for r in range(per_thread):
                current = deliver(pre, start, stop, post[r], row, weights, 0.0)
                current = deliver(emitted, np.uint64(0), np.uint64(n_emitted), post[r], row, own_weights, current)
                v[r], a[r], distance = _advance(parameters, r, current, v[r], a[r], z[r])
                refractory[r] = max(refractory[r] - 1, 0)
                z[r] = 0.0
                if tid + r * threads < n_rec:
                    if learning:
                        distances[kept + post[r]] = np.inf if refractory[r] > 0 else distance
                    if distance >= 0.0 and refractory[r] == 0:
                        z[r] = 1.0
                        refractory[r] += t_ref[r]
                        times[listed[r] + np.uint64(count[r])] = t
                        count[r] += 1
                        j = tid + r * threads
                        cuda.atomic.or_(shared_words, (buffer, j >> 5), bit(j))
            kept += row
            n_emitted = 0
            for r in range(per_thread):
                n_emitted += cuda.syncthreads_count(np.int32(z[r]))
            for r in range(per_thread):
                if z[r] > 0.0:
                    emitted[_rank(shared_words[buffer], tid + r * threads)] = np.uint32(tid + r * threads)
            for u in range(tid, DELIVERED, threads):
                emitted[n_emitted + u] = np.uint32(n_rec)
            if tid < n_own_words:
                shared_words[1 - buffer, tid] = np.uint32(0)
                words[np.uint64((np.int64(b) * n_steps + t) * n_own_words + tid)] = shared_words[buffer, tid]
            cuda.syncthreads()
        for r in range(per_thread):
            if tid + r * threads < n_rec:
                n_spikes[b, post[r]] = count[r]

    return kernel(forward, max_registers=REGISTERS)


@device_function
def _scatter(i: Any, tile: int, n_tiles: int, parts: Any, posts: Words, weights: Floats, sums: Floats) -> None:
    """Add the weights of neuron i's synapses onto a tile; a thread per synapse, and no two onto the same neuron."""
    part = np.int64(i) * n_tiles + tile
    for s in range(parts[part] + cuda.threadIdx.x, parts[part + 1], SCATTERERS):
        sums[np.int64(posts[s]) - tile * SPAN] += weights[s]
    cuda.syncthreads()


@kernel
def scatter(
    t: int, sequence: int, n_steps: int, n_in: int, first: Words, pre: Words,
    parts: Any, posts: Words, weights: Floats, words: Words, currents: Floats,
) -> None:  # fmt: skip
    """Deliver the spikes that arrive in step t along sparse synapses to SPAN neurons of a sequence per block.

    parts (n_pre * n_tiles + 1,): the synapses of neuron i onto a tile begin at parts[i * n_tiles + tile].
    """
    tile, b, tid, n_tiles = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x, cuda.gridDim.x
    n_rec = currents.shape[1]
    n_words = (n_rec + 31) // 32
    sums = cuda.shared.array(SPAN, np.float64)
    counts = cuda.shared.array(SCATTERERS, np.int32)
    emitted = cuda.shared.array(SCATTERED_LISTED, np.uint32)
    for j in range(tid, SPAN, SCATTERERS):
        sums[j] = 0.0
    cuda.syncthreads()
    at = np.int64(sequence + b) * (n_steps + 1) + t
    for e in range(first[at], first[at + 1]):
        i = np.int64(pre[np.uint64(e)])
        if i < n_in:  # else it is a filler
            _scatter(i, tile, n_tiles, parts, posts, weights, sums)
    before = (np.int64(b) * n_steps + t - 1) * n_words
    for done in range(0, n_words if t > 0 else 0, SCATTERERS):
        n = list_spikes(words, before + done, min(SCATTERERS, n_words - done), 0, counts, emitted)
        for e in range(n):
            _scatter(np.int64(emitted[e]) + n_in + done * 32, tile, n_tiles, parts, posts, weights, sums)
        cuda.syncthreads()
    for j in range(tid, min(SPAN, n_rec - tile * SPAN), SCATTERERS):
        currents[b, tile * SPAN + j] = sums[j]


STATE_V, STATE_A = range(2)


@kernel
def step(
    t: int, sparse: bool, learning: bool, sequence: int, n_steps: int, n_in: int,
    neurons: Floats, weights: Floats, first: Words, pre: Words,
    currents: Floats, state: Floats, refractory: Ints,
    distances: Floats, words: Words, times: Ints, n_spikes: Ints,
) -> None:  # fmt: skip
    """Simulate step t of a tile of neurons of a sequence per block.

    currents (n_piece, n_rec): those that scatter has made, if sparse.
    state (n_piece, 2, n_rec), refractory (n_piece, n_rec): whatever they are before step 0.
    """
    b, tid = cuda.blockIdx.y, cuda.threadIdx.x
    n_rec, j = neurons.shape[1], cuda.blockIdx.x * TILE + tid
    n_words, exists = (n_rec + 31) // 32, j < n_rec
    column, row = np.uint64(min(j, n_rec - 1)), np.uint64(n_rec)
    fired = cuda.shared.array(TILE_WORDS, np.uint32)
    counts = cuda.shared.array(TILE, np.int32)
    emitted = cuda.shared.array(TILE_LISTED, np.uint32)
    parameters = cuda.local.array((N_MEMBRANE, 1), np.float64)
    before = (np.int64(b) * n_steps + t - 1) * n_words
    v, a, z, wait, count = 0.0, 0.0, 0.0, np.int32(0), np.int32(0)
    if sparse:
        current = currents[b, np.int64(column)]
    else:
        at = np.uint64(np.int64(sequence + b) * (n_steps + 1) + t)
        begin, end = np.uint64(first[at]), np.uint64(first[at + np.uint64(1)])
        current = deliver(pre, begin, end, column, row, weights, 0.0)
        for done in range(0, n_words if t > 0 else 0, TILE):
            n = list_spikes(words, before + done, min(TILE, n_words - done), n_rec - done * 32, counts, emitted)
            rows = weights[np.int64(n_in + done * 32) * n_rec :]
            current = deliver(emitted, np.uint64(0), np.uint64(n), column, row, rows, current)
            cuda.syncthreads()
    if t > 0 and exists:
        v, a, wait, count = state[b, STATE_V, j], state[b, STATE_A, j], refractory[b, j], n_spikes[b, j]
        z = 1.0 if words[np.uint64(before + (j >> 5))] & bit(j) else 0.0
    if tid < TILE_WORDS:
        fired[tid] = np.uint32(0)
    cuda.syncthreads()
    if exists:
        _load(neurons, j, parameters, 0)
        v, a, distance = _advance(parameters, 0, current, v, a, z)
        wait = wait - np.int32(1) if wait > 0 else wait
        if learning:
            kept = np.uint64(b) * np.uint64(distances.size // n_spikes.shape[0]) + np.uint64(t) * row
            distances[kept + column] = np.inf if wait > 0 else distance
        base = (np.uint64(b) * row + column) * np.uint64(times.size // n_spikes.size)
        if distance >= 0.0 and wait == 0:
            wait += np.int32(neurons[T_REF, j])
            times[base + np.uint64(count)] = t
            count += 1
            cuda.atomic.or_(fired, tid >> 5, bit(tid))
        state[b, STATE_V, j], state[b, STATE_A, j], refractory[b, j], n_spikes[b, j] = v, a, wait, count
    cuda.syncthreads()
    if tid < TILE_WORDS and cuda.blockIdx.x * TILE_WORDS + tid < n_words:
        words[np.uint64(before + n_words + cuda.blockIdx.x * TILE_WORDS + tid)] = fired[tid]
