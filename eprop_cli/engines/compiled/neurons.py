"""What recurrent neurons do in a step, some neighbours at a time: integrate, fire, and what is kept for the gradient.

Equations are those that kernels names; potentials are relative to E_L. What makes it fast: neighbours whose state and
parameters fit a core's first-level cache, and quantities at distances that are known when this is compiled, so that the
compiler sees that they do not overlap and makes vector instructions of the loop over neighbours, a loop for each
surrogate gradient function.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.compiled.compiling import compiled, inlined

PIECEWISE_LINEAR, EXPONENTIAL, FAST_SIGMOID_DERIVATIVE, ARCTAN = range(4)  # in SURROGATE_GRADIENTS' order
# Rows of the neurons' parameters; readouts have those of the first line. Potentials are in mV and relative to E_L.
# SCALE: what an arriving spike of weight 1 adds to the potential. DRIVE: what the constant current adds in a step.
# T_REF: in steps. F_TARGET: spikes per step. SLOPE: 1 / surrogate_gradient_width. RHO, BETA: 0 without adaptation.
ALPHA, SCALE, DRIVE, V_MIN, E_L = range(5)
V_TH, T_REF, RHO, BETA, HEIGHT, SLOPE, C_REG, F_TARGET = range(5, 13)
N_PARAMETERS = 13
# Rows of the neurons' state. REFRACTORY: steps left. SPIKE: 1 where emitted.
V, A, REFRACTORY, SPIKE = range(4)
N_STATE = 4
KEPT_V, KEPT_A, KEPT_PSI = range(3)  # what is kept of recorded neurons
BLOCK = 256  # neighbours at most
APART = BLOCK + 8  # values from one row to the next; not a power of two, as a cache has few places for such
TOGETHER = 8  # neurons that are looked at together: few of them fire
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.uint8]


@compiled
def blocks(neurons: Floats, surrogates: Ints) -> Ints:
    """Neighbours that share a surrogate gradient function, (n_blocks, 4): function, start, stop, first.

    first: the first of the blocks before with equal parameters, which has them for all. neurons, surrogates: see
    kernels.run.
    """
    found = np.empty((neurons.shape[1] // BLOCK + surrogates.shape[0], 4), np.int64)
    n = 0
    for s in range(surrogates.shape[0]):
        for start in range(surrogates[s, 1], surrogates[s, 2], BLOCK):
            size = min(BLOCK, surrogates[s, 2] - start)
            first = found[n - 1, 3] if n > 0 else n
            if first < n and size > found[first, 2] - found[first, 1]:
                first = n
            for parameter in range(N_PARAMETERS):
                for j in range(size):
                    if first < n and neurons[parameter, found[first, 1] + j] != neurons[parameter, start + j]:
                        first = n
            found[n, 0], found[n, 1], found[n, 2], found[n, 3] = surrogates[s, 0], start, start + size, first
            n += 1
    return found[:n]


@compiled
def parameters(neurons: Floats, blocks: Ints) -> Floats:
    """Each block's parameters, one row of them every APART values; what it shares is there once."""
    values = np.zeros((blocks.shape[0], N_PARAMETERS, APART))
    for b in range(blocks.shape[0]):
        if blocks[b, 3] == b:
            for parameter in range(N_PARAMETERS):
                for j in range(blocks[b, 1], blocks[b, 2]):  # assigned as a whole, they take 3 s longer to compile
                    values[b, parameter, j - blocks[b, 1]] = neurons[parameter, j]
    return values.reshape(-1)


@compiled
def at_rest(blocks: Ints) -> Floats:
    """Each block's state, one row of it every APART values."""
    return np.zeros(blocks.shape[0] * N_STATE * APART)


@compiled
def places(blocks: Ints, chosen: Ints) -> Ints:
    """Where in the state the first row of chosen neurons is; the next ones follow APART values later."""
    found = np.empty(chosen.size, np.int64)
    for n in range(chosen.size):
        for b in range(blocks.shape[0]):
            if blocks[b, 1] <= chosen[n] < blocks[b, 2]:
                found[n] = b * N_STATE * APART + chosen[n] - blocks[b, 1]
    return found


@compiled
def _surrogate_gradient(function: int, x: float) -> Any:
    """Of height 1, at a distance x from threshold in widths (NEST's documentation: surrogate gradient functions)."""
    if function == PIECEWISE_LINEAR:
        return max(0.0, 1.0 - abs(x))
    if function == EXPONENTIAL:
        return np.exp(-abs(x))
    if function == FAST_SIGMOID_DERIVATIVE:
        return 1.0 / (1.0 + abs(x)) ** 2
    return 1.0 / (1.0 + x**2)


@compiled
def _advance(
    b: int, function: int, start: int, stop: int, first: int, t: int,
    parameters: Floats, current: Floats, state: Floats, psi: Floats,
) -> None:  # fmt: skip
    """Advance the neurons of block b by a step; current, of all neurons, is the sum of arriving spikes' weights.

    v(t) = zeta sum_i W_ji z_i(t-1) + alpha v(t-1) - v_th z(t-1), at least V_min
    a(t) = rho a(t-1) + z(t-1);  A(t) = v_th + beta a(t)
    z(t) = H(v(t) - A(t)) and its surrogate gradient, which fills psi[t, start:stop]; both are 0 in refractory neurons
    """
    n, s, u = np.uint64(stop - start), np.uint64(start), np.uint64(t)  # unsigned: no test for negative indices
    row, x, p = np.uint64(APART), np.uint64(b * N_STATE * APART), np.uint64(first * N_PARAMETERS * APART)
    v, a = x + np.uint64(V) * row, x + np.uint64(A) * row
    refractory, spike = x + np.uint64(REFRACTORY) * row, x + np.uint64(SPIKE) * row
    drive, scale, alpha = p + np.uint64(DRIVE) * row, p + np.uint64(SCALE) * row, p + np.uint64(ALPHA) * row
    v_th, v_min, t_ref = p + np.uint64(V_TH) * row, p + np.uint64(V_MIN) * row, p + np.uint64(T_REF) * row
    rho, beta = p + np.uint64(RHO) * row, p + np.uint64(BETA) * row
    slope, height = p + np.uint64(SLOPE) * row, p + np.uint64(HEIGHT) * row
    for j in range(n):
        z = state[spike + j]
        arriving = parameters[drive + j] + parameters[scale + j] * current[s + j]
        potential = arriving + parameters[alpha + j] * state[v + j] - parameters[v_th + j] * z
        potential = max(potential, parameters[v_min + j])
        adaptation = parameters[rho + j] * state[a + j] + z
        distance = potential - (parameters[v_th + j] + parameters[beta + j] * adaptation)
        left = max(state[refractory + j] - 1.0, 0.0)
        z = 1.0 if (distance >= 0.0) & (left == 0.0) else 0.0
        gradient = parameters[height + j] * _surrogate_gradient(function, distance * parameters[slope + j])
        state[v + j] = potential
        state[a + j] = adaptation
        state[refractory + j] = left + parameters[t_ref + j] * z
        state[spike + j] = z
        psi[u, s + j] = 0.0 if left > 0.0 else gradient


@compiled
def _emit(b: int, start: int, stop: int, state: Floats, n: int, emitted: Ints) -> int:
    """List the neurons of block b that have just fired, after n others; returns the number of all."""
    spike = np.uint64((b * N_STATE + SPIKE) * APART)
    for begin in range(0, stop - start, TOGETHER):
        end, some = min(begin + TOGETHER, stop - start), False
        for j in range(np.uint64(begin), np.uint64(end)):
            some |= state[spike + j] != 0.0
        if some:
            for j in range(begin, end):
                emitted[n] = start + j  # stays if there is a spike; faster than a branch
                n += state[spike + np.uint64(j)] != 0.0
    return n


@inlined
def advance(
    t: int, blocks: Ints, parameters: Floats, current: Floats, state: Floats, psi: Floats, emitted: Ints
) -> int:
    """Advance all neurons by a step; fills psi[t], and current with 0.

    Returns how many fire; emitted begins with them.
    """
    n = 0
    for b in range(blocks.shape[0]):
        _advance(b, blocks[b, 0], blocks[b, 1], blocks[b, 2], blocks[b, 3], t, parameters, current, state, psi)
        n = _emit(b, blocks[b, 1], blocks[b, 2], state, n, emitted)
    current[:] = 0.0
    return n


@inlined
def keep(t: int, row: int, recorded: Ints, places: Ints, state: Floats, psi: Floats, dynamics: Floats) -> None:
    """Keep what recorded neurons are like in step t, whose surrogate gradients are psi[row]."""
    for n in range(recorded.size):
        dynamics[t, n, KEPT_V] = state[places[n] + V * APART]
        dynamics[t, n, KEPT_A] = state[places[n] + A * APART]
        dynamics[t, n, KEPT_PSI] = psi[row, recorded[n]]
