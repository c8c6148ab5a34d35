"""The compiled engine's inner loops: e-prop forward and backward through sequences, in Numba.

Equations: Bellec et al. (2020), Nature Communications 11:3625, Methods, in the time steps of NEST's model documentation
(eprop_iaf_adapt_bsshslm_2020, eprop_readout_bsshslm_2020, eprop_synapse_bsshslm_2020). Potentials are relative to E_L.
Presynaptic neurons are numbered input, recurrent; recurrent ones population by population.

What makes it fast: each loop does one simple thing over neighbouring neurons and so becomes vector instructions; and
functions called in every step take few arrays, neither views nor tuples, because references to them are counted.
"""

import numpy as np

from eprop_cli.engines.compiled.compiling import compiled
from eprop_cli.engines.compiled.neurons import (
    ALPHA,
    BETA,
    C_REG,
    DRIVE,
    E_L,
    F_TARGET,
    RHO,
    SCALE,
    TOGETHER,
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


@compiled
def _collect(t: int, spikes: Counts, n_emitted: int, emitted: Ints, first: Ints, pre: Ints, times: Counts) -> None:
    """List the neurons whose spikes arrive in step t. NEST drops those that arrive in the first step of a sequence.

    first, pre: presynaptic neurons pre[first[t] : first[t + 1]] have spikes that arrive in step t.
    times: how many each of them has.
    """
    n = first[t]
    if t > 0:
        for start in range(0, spikes.shape[1], TOGETHER):
            stop, some = min(start + TOGETHER, spikes.shape[1]), np.uint8(0)
            for i in range(start, stop):
                some |= spikes[t, i]
            if some == 0:
                continue
            for i in range(start, stop):
                pre[n] = i  # stays if there is a spike; faster than a branch
                times[n] = spikes[t, i]
                n += spikes[t, i] != 0
        for e in range(n_emitted):
            pre[n] = spikes.shape[1] + emitted[e]
            times[n] = 1
            n += 1
    first[t + 1] = n


@compiled
def _deliver(t: int, first: Ints, pre: Ints, times: Counts, weights: Floats, current: Floats) -> None:
    """Add up the weights of arriving spikes in NEST's order: input before recurrent neurons, by index.

    Several spikes that an input neuron fires in one step weigh as much more, and make one trace.
    """
    for e in range(first[t], first[t + 1]):
        i = pre[e]
        for _ in range(times[e]):  # NEST sends them one by one
            for j in range(current.size):
                current[j] += weights[i, j]


@compiled
def _read_out(t: int, readouts: Floats, weights: Floats, n_emitted: int, emitted: Ints, potential: Floats) -> None:
    """Advance the readouts' potential y(t) = zeta sum_j W_kj z_j(t) + kappa y(t-1), at least V_min."""
    for k in range(potential.shape[1]):
        current = 0.0
        for e in range(n_emitted):
            current += weights[emitted[e], k]
        y = readouts[DRIVE] + readouts[SCALE] * current + readouts[ALPHA] * (potential[t - 1, k] if t > 0 else 0.0)
        potential[t, k] = max(y, readouts[V_MIN])


@compiled
def _signal(softmax: bool, e_l: float, potential: Floats, signal: Floats) -> None:
    """Readout signal (learning_window, n_out): softmax over the readouts, or their potential."""
    start = potential.shape[0] - signal.shape[0]
    for t in range(signal.shape[0]):
        total = 0.0
        for k in range(signal.shape[1]):
            y = potential[start + t, k] + e_l
            signal[t, k] = np.exp(y) if softmax else y
            total += signal[t, k]
        for k in range(signal.shape[1]):
            signal[t, k] /= total if softmax else 1.0


@compiled
def _forward(
    parts: Ints, values: Floats, readouts: Floats, weights: Floats, weights_out: Floats,
    spikes: Counts, recorded: Ints,
    first: Ints, pre: Ints, psi: Floats, potential: Floats, dynamics: Floats,
) -> None:  # fmt: skip
    """Simulate a sequence from rest; fills first, pre, psi, potential and dynamics.

    parts, values: what blocks() and parameters() make of neurons.
    Recurrent spikes reach the readouts in the step in which they are emitted, and recurrent neurons one step later;
    those of the last step reach the readouts only, and stand under step n_steps in first.
    """
    n_steps, n_in = spikes.shape
    n_rec = weights.shape[1]
    state, current = at_rest(parts), np.zeros(n_rec)
    kept = places(parts, recorded)
    emitted, n_emitted = np.empty(n_rec + 1, np.int64), 0
    times = np.empty(pre.size, np.uint8)
    first[0] = 0
    for t in range(n_steps):
        _collect(t, spikes, n_emitted, emitted, first, pre, times)
        _deliver(t, first, pre, times, weights, current)
        n_emitted = advance(t, parts, values, current, state, psi, emitted)
        _read_out(t, readouts, weights_out, n_emitted, emitted, potential)
        keep(t, t, recorded, kept, state, psi, dynamics)
    last = first[n_steps]
    for e in range(n_emitted):
        pre[last + e] = n_in + emitted[e]
    first[n_steps + 1] = last + n_emitted


@compiled
def _count(n_in: int, first: Ints, pre: Ints, n_spikes: Ints, fired: Bools) -> None:
    """Count the recurrent spikes, and mark in which step they were emitted where that is asked for."""
    n_spikes[:] = 0
    for t in range(first.size - 2):
        for e in range(first[t + 1], first[t + 2]):
            if pre[e] >= n_in:
                n_spikes[pre[e] - n_in] += 1
                if fired.size > 0:
                    fired[t, pre[e] - n_in] = True


@compiled
def _backward(
    neurons: Floats, kappa: float, feedback: Floats, error: Floats, rate_term: Floats,
    first: Ints, pre: Ints, psi: Floats,
    gradient: Floats, gradient_out: Floats,
) -> None:  # fmt: skip
    """Fill a sequence's gradient (n_in + n_rec, n_rec) and gradient_out (n_rec, n_out), both without the factor zeta.

    Bellec et al.'s gradient sum_t L_j(t) F_kappa(e_ji)(t) is linear in the presynaptic spikes. So it can be summed the
    other way round, backward in time, with an adjoint per postsynaptic neuron for each trace per synapse:
    learning signal M_j(t) = (1 - kappa) L_j(t) + kappa M_j(t+1), L_j = sum_k B_jk E_k, E = 0 before the learning window
    surrogate g_j(t) = psi_j(t) (M_j(t) + f_j + lambda_j(t+1)), f_j from the rate regularisation
    adaptation lambda_j(t) = rho lambda_j(t+1) - beta g_j(t)
    potential mu_j(t) = g_j(t) + alpha mu_j(t+1), which is added to W_ji for each spike of i that arrives in step t
    and for the readouts: E_k(t) + kappa E_k(t+1) + ..., which is added to W_kj for each spike that j emits in step t
    """
    n_steps, n_rec = psi.shape
    window, n_out = error.shape
    n_in = gradient.shape[0] - n_rec
    learning, adaptation = np.zeros(n_rec), np.zeros(n_rec)
    g, potential = np.zeros(n_rec), np.zeros(n_rec)
    error_trace = np.zeros(n_out)
    gradient[:] = 0.0
    gradient_out[:] = 0.0
    for t in range(n_steps - 1, -1, -1):
        for k in range(n_out):
            error_trace[k] *= kappa
        for j in range(n_rec):
            learning[j] *= kappa
        if t >= n_steps - window:
            for k in range(n_out):
                e_k = error[t - n_steps + window, k]
                error_trace[k] += e_k
                for j in range(n_rec):
                    learning[j] += (1.0 - kappa) * e_k * feedback[k, j]
        for j in range(n_rec):
            g[j] = psi[t, j] * (learning[j] + rate_term[j] + adaptation[j])
        for j in range(n_rec):
            adaptation[j] = neurons[RHO, j] * adaptation[j] - neurons[BETA, j] * g[j]
        for j in range(n_rec):
            potential[j] = g[j] + neurons[ALPHA, j] * potential[j]
        for e in range(first[t], first[t + 1]):
            i = pre[e]
            for j in range(n_rec):
                gradient[i, j] += potential[j]
        for e in range(first[t + 1], first[t + 2]):
            if pre[e] >= n_in:
                for k in range(n_out):
                    gradient_out[pre[e] - n_in, k] += error_trace[k]


@compiled
def run(
    sequences: Ints,
    neurons: Floats, surrogates: Ints, readouts: Floats, softmax: bool,
    weights: Floats, weights_out: Floats, feedback: Floats,
    spikes: Counts, targets: Floats, lost: Bools, recorded: Ints,
    potential: Floats, signal: Floats, n_spikes: Ints, fired: Bools,
    dynamics: Floats, gradients: Floats, gradients_out: Floats,
) -> None:  # fmt: skip
    """Simulate some sequences of a batch, given by index.

    neurons: (N_PARAMETERS, n_rec). readouts: (N_PARAMETERS,); alpha is the kappa of the eligibility traces too.
    surrogates: (n_stretches, 3), surrogate gradient function of neurons from start to stop.
    weights: (n_in + n_rec, n_rec), weights_out: (n_rec, n_out), feedback: (n_out, n_rec).
    spikes: (n_batch, n_steps, n_in), how many; targets: (n_batch, learning_window, n_out).
    lost: (n_batch, n_in), inputs whose gradient lacks the term of the last learning signal.
    recorded: (n_recorded,), recurrent neurons.
    Filled are
    potential: (n_batch, n_steps, n_out), signal: (n_batch, learning_window, n_out), n_spikes: (n_batch, n_rec)
    fired: (n_batch, n_steps, n_rec), False before; n_steps = 0: not wanted
    dynamics: (n_batch, n_steps, n_recorded, 3)
    gradients: (n_batch, n_in + n_rec, n_rec), gradients_out: (n_batch, n_rec, n_out); n_batch = 0: none.
    """
    n_steps, n_in = spikes.shape[1:]
    n_rec, kappa = neurons.shape[1], readouts[ALPHA]
    psi = np.empty((n_steps, n_rec))
    first, pre = np.empty(n_steps + 2, np.int64), np.empty(n_steps * (n_in + n_rec) + 1, np.int64)
    parts = blocks(neurons, surrogates)
    values = parameters(neurons, parts)
    for b in sequences:
        _forward(
            parts, values, readouts, weights, weights_out, spikes[b], recorded,
            first, pre, psi, potential[b], dynamics[b],
        )  # fmt: skip
        _signal(softmax, readouts[E_L], potential[b], signal[b])
        _count(n_in, first, pre, n_spikes[b], fired[b])
        if gradients.shape[0] > 0:
            error = signal[b] - targets[b]
            rate_term = neurons[C_REG] * (n_spikes[b] / n_steps - neurons[F_TARGET]) / n_steps
            _backward(neurons, kappa, feedback, error, rate_term, first, pre, psi, gradients[b], gradients_out[b])
            if lost[b].any():
                error[-1] = 0.0
                truncated, unused = np.empty_like(gradients[b]), np.empty_like(gradients_out[b])
                _backward(neurons, kappa, feedback, error, rate_term, first, pre, psi, truncated, unused)
                for i in range(n_in):
                    if lost[b, i]:
                        for j in range(n_rec):
                            gradients[b, i, j] = truncated[i, j]
