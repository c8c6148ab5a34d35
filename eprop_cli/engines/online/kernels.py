"""The online family's time loop, in Numba: neurons and readouts that run on, synapses that change at every spike.

Equations and their order: NEST 3.10, models/eprop_iaf.cpp, eprop_iaf_adapt.cpp, eprop_iaf_psc_delta.cpp,
eprop_iaf_psc_delta_adapt.cpp, eprop_readout.cpp. All delays are one step. In step t
1. errors of step t-1 become learning signals: L_j(t-2) = sum_k B_jk error_k(t-1), which completes row t-2;
2. spikes of step t-1 arrive by sender, inputs before recurrent neurons: each updates its synapses, then is sent with
   the weights that result;
3. neurons and readouts advance. Potentials are relative to E_L.
"""

import numpy as np
from numpy.typing import NDArray

from .updates import (
    ERROR,
    LEARNING,
    MAPS,
    PSI,
    RATE,
    SUMS,
    WALK,
    WEIGHT,
    Floats,
    Indices,
    Ints,
    arrive,
    compiled,
    extend_error_sums,
    extend_maps,
    extend_sums,
    flush_due,
)

PIECEWISE_LINEAR, EXPONENTIAL, FAST_SIGMOID_DERIVATIVE, ARCTAN = range(4)

# Rows of the neurons' parameters; readouts have those of the first line. Potentials are in mV and relative to E_L.
# DECAY: exp(-dt / tau_m). DRIVE: what the constant current adds in a step. T_REF, TAU_M: in steps. RHO: exp(-dt /
# adapt_tau), RHO and BETA are 0 without adaptation. F_TARGET: spikes per step.
DECAY, DRIVE, V_MIN, E_L = range(4)
V_TH, V_RESET, T_REF, TAU_M, RHO_A, BETA, HEIGHT, WIDTH, KAPPA_F, C_REG, F_TARGET = range(4, 15)
N_PARAMETERS = 15

# Rows of the neurons' state. REFRACTORY: steps left. SPIKE: 1 where emitted. F_AV: filtered rate, spikes/ms. KEPT:
# input that waits for the end of the refractory time. THRESHOLD: adapted.
POTENTIAL, ADAPTATION, REFRACTORY, SPIKE, F_AV, KEPT, CURRENT, THRESHOLD = range(8)
N_STATE = 8
# Rows of the readouts' state.
OUT_POTENTIAL, OUT_ERROR, OUT_CURRENT = range(3)
N_OUT_STATE = 3

RECORDED_V, RECORDED_PSI, RECORDED_L, RECORDED_THRESHOLD, RECORDED_A = range(5)  # what is recorded of a neuron
N_RECORDED = 5


@compiled
def _learn(
    t: int, method: int, traces: Floats, out_traces: Floats, powers: Floats, out_powers: Floats, neurons: Floats,
    feedback: Floats, out: Floats, history: Floats, suffixes: Floats, out_history: Floats,
) -> None:  # fmt: skip
    """Complete row t of the recurrent neurons' history with the learning signal."""
    line = (t + 1) % (history.shape[0] - 1)
    for j in range(history.shape[1]):
        history[line, j, LEARNING] = 0.0
    for k in range(out.shape[1]):
        for j in range(history.shape[1]):
            history[line, j, LEARNING] += feedback[k, j] * out[OUT_ERROR, k]
    if method == SUMS:
        extend_sums(t, traces, powers, history)
    elif method == MAPS:
        extend_maps(t, traces, neurons[BETA], history, suffixes)
    if method != WALK:
        extend_error_sums(t, out_traces, out_powers, out_history)


@compiled
def _send(i: int, first: Ints, targets: Indices, synapses: Floats, row: int, state: Floats) -> None:
    """Add the weights of neuron i's synapses to their targets' current, which is a row of state."""
    for s in range(first[i], first[i + 1]):
        state[row, targets[s]] += synapses[WEIGHT, s]


@compiled
def _integrate(t: int, forcing: float, neurons: Floats, state: Floats) -> None:
    """Advance eprop_iaf and eprop_iaf_adapt: v = drive + input + alpha v; a = rho a + z(t-1)."""
    for j in range(state.shape[1]):
        current = state[CURRENT, j] + forcing
        drive = neurons[DRIVE, j] if t > 0 else 0.0  # NEST takes I_e into account from the second step on
        v = drive + current + neurons[DECAY, j] * state[POTENTIAL, j]
        state[POTENTIAL, j] = max(v, neurons[V_MIN, j])
    for j in range(state.shape[1]):
        state[REFRACTORY, j] = max(state[REFRACTORY, j] - 1.0, 0.0)
    for j in range(state.shape[1]):
        state[ADAPTATION, j] = neurons[RHO_A, j] * state[ADAPTATION, j] + state[SPIKE, j]


@compiled
def _integrate_delta(forcing: float, keeps_input: bool, neurons: Floats, state: Floats) -> None:
    """Advance the psc_delta models, of which refractory neurons stand still; they lose or keep their input."""
    for j in range(state.shape[1]):
        current = state[CURRENT, j] + forcing
        if state[REFRACTORY, j] == 0.0:
            v = neurons[DRIVE, j] + neurons[DECAY, j] * state[POTENTIAL, j] + current
            if state[KEPT, j] != 0.0:
                v += state[KEPT, j]
                state[KEPT, j] = 0.0
            state[POTENTIAL, j] = max(v, neurons[V_MIN, j])
            state[ADAPTATION, j] = neurons[RHO_A, j] * state[ADAPTATION, j] + state[SPIKE, j]
        else:
            if keeps_input:
                state[KEPT, j] += current * np.exp(-state[REFRACTORY, j] / neurons[TAU_M, j])
            state[REFRACTORY, j] -= 1.0


@compiled
def _surrogate_gradient(line: int, function: int, neurons: Floats, state: Floats, history: Floats) -> None:
    """Surrogate gradient psi (NEST's documentation: surrogate gradient functions); 0 in refractory neurons."""
    for j in range(state.shape[1]):
        state[THRESHOLD, j] = neurons[V_TH, j] + neurons[BETA, j] * state[ADAPTATION, j]
    for j in range(state.shape[1]):
        x = (state[POTENTIAL, j] - state[THRESHOLD, j]) / neurons[WIDTH, j]
        if function == PIECEWISE_LINEAR:
            psi = neurons[HEIGHT, j] * max(0.0, 1.0 - abs(x))
        elif function == EXPONENTIAL:
            psi = neurons[HEIGHT, j] * np.exp(-abs(x))
        elif function == FAST_SIGMOID_DERIVATIVE:
            psi = neurons[HEIGHT, j] * (1.0 + abs(x)) ** -2.0
        else:
            psi = neurons[HEIGHT, j] / (1.0 + x**2.0)
        history[line, j, PSI] = 0.0 if state[REFRACTORY, j] > 0.0 else psi


@compiled
def _fire(line: int, delta: bool, dt: float, neurons: Floats, state: Floats, history: Floats, n_spikes: Ints) -> None:
    """Emit spikes, reset, and filter the rate for its regularisation f = c_reg (f_av - f_target)."""
    for j in range(state.shape[1]):
        state[SPIKE, j] = 0.0
        if state[POTENTIAL, j] >= state[THRESHOLD, j] and (delta or state[REFRACTORY, j] == 0.0):
            state[SPIKE, j] = 1.0
            state[REFRACTORY, j] = neurons[T_REF, j]
            state[POTENTIAL, j] = neurons[V_RESET, j] if delta else state[POTENTIAL, j] - neurons[V_TH, j]
            n_spikes[j] += 1
    for j in range(state.shape[1]):
        kappa = neurons[KAPPA_F, j]
        state[F_AV, j] = kappa * state[F_AV, j] + (1.0 - kappa) * state[SPIKE, j] / dt
        history[line, j, RATE] = neurons[C_REG, j] * (state[F_AV, j] - neurons[F_TARGET, j])


@compiled
def _read_out(
    t: int, line: int, readouts: Floats, target: Floats, window: float, out: Floats, out_history: Floats
) -> None:
    """Advance the readouts y = drive + input + alpha y; error = (y - target) window."""
    for k in range(out.shape[1]):
        drive = readouts[DRIVE, k] if t > 0 else 0.0
        v = drive + out[OUT_CURRENT, k] + readouts[DECAY, k] * out[OUT_POTENTIAL, k]
        out[OUT_POTENTIAL, k] = max(v, readouts[V_MIN, k])
        out[OUT_ERROR, k] = (out[OUT_POTENTIAL, k] + readouts[E_L, k] - target[k]) * window
        out_history[line, k, ERROR] = out[OUT_ERROR, k]


@compiled
def _record(line: int, learning: int, recorded: Ints, neurons: Floats, state: Floats, history: Floats,
            dynamics: Floats) -> None:  # fmt: skip
    """Note the recorded neurons' state; line, learning: of the history, where psi and L are."""
    for n in range(recorded.size):
        j = recorded[n]
        dynamics[n, RECORDED_V] = state[POTENTIAL, j] + neurons[E_L, j]
        dynamics[n, RECORDED_PSI] = history[line, j, PSI]
        dynamics[n, RECORDED_L] = history[learning, j, LEARNING]
        dynamics[n, RECORDED_THRESHOLD] = state[THRESHOLD, j] + neurons[E_L, j]
        dynamics[n, RECORDED_A] = state[ADAPTATION, j]


@compiled
def run(
    t_start: int, dt: float, method: int, limit: int, delta: bool, keeps_input: bool, function: int,
    neurons: Floats, readouts: Floats, traces: Floats, out_traces: Floats,
    powers: Floats, out_powers: Floats, feedback: Floats, optimizer: Floats,
    inputs: NDArray[np.uint8], targets: Floats, window: Floats, forcing: Floats, recorded: Ints,
    state: Floats, out: Floats, history: Floats, suffixes: Floats, out_history: Floats,
    counts: Ints, trace: Floats, first: Ints, post: Indices, synapses: Floats,
    out_counts: Ints, out_trace: Floats, out_first: Ints, out_post: Indices, out_synapses: Floats,
    potential: Floats, n_spikes: Ints, fired: NDArray[np.bool_], dynamics: Floats,
) -> None:  # fmt: skip
    """Advance by inputs.shape[0] steps, of which the first is step t_start.

    limit: steps after which a silent neuron's synapses are brought up to date, at most history.shape[0] - 3.
    neurons: (N_PARAMETERS, n_rec); readouts: (N_PARAMETERS, n_out); feedback: (n_out, n_rec).
    inputs: (n_steps, n_in), how many spikes of an input neuron arrive in a step. targets: (n_steps, n_out).
    window: (n_steps,), forcing: (n_steps,), mV, added to every recurrent neuron's potential.
    recorded: (n_recorded,), recurrent neurons. For the other arguments see updates.arrive.
    state: (N_STATE, n_rec), out: (N_OUT_STATE, n_out) and all from there to out_synapses is changed in place.
    Filled are potential: (n_steps, n_out), relative to E_L; n_spikes: (n_rec,), added to; fired: (n_steps, n_rec),
    n_steps = 0: not wanted; dynamics: (n_steps, n_recorded, N_RECORDED).
    """
    n_steps, n_in = inputs.shape
    n_rec, n_out = state.shape[1], out.shape[1]
    n_lines = history.shape[0] - 1
    beta, no_beta, no_suffixes = neurons[BETA], np.zeros(0), suffixes[:0]
    for step in range(n_steps):
        t = t_start + step
        if t >= 2:
            _learn(
                t - 2,
                method,
                traces,
                out_traces,
                powers,
                out_powers,
                neurons,
                feedback,
                out,
                history,
                suffixes,
                out_history,
            )
        state[CURRENT, :] = 0.0
        out[OUT_CURRENT, :] = 0.0
        for i in range(n_in + n_rec):
            n = int(inputs[step, i]) if i < n_in else int(state[SPIKE, i - n_in])
            if n == 0:
                continue
            for _ in range(n):  # spikes that coincide are sent one by one, but enter the trace as one
                arrive(
                    i, t, False, method, False, traces, powers, beta, history, suffixes,
                    optimizer, counts, trace, first, post, synapses,
                )  # fmt: skip
                _send(i, first, post, synapses, CURRENT, state)
            if i >= n_in:
                j = i - n_in
                arrive(
                    j, t, False, method, True, out_traces, out_powers, no_beta, out_history, no_suffixes,
                    optimizer, out_counts, out_trace, out_first, out_post, out_synapses,
                )  # fmt: skip
                _send(j, out_first, out_post, out_synapses, OUT_CURRENT, out)
        flush_due(
            t, limit, method, False, traces, powers, beta, history, suffixes,
            optimizer, counts, trace, first, post, synapses,
        )  # fmt: skip
        flush_due(
            t, limit, method, True, out_traces, out_powers, no_beta, out_history, no_suffixes,
            optimizer, out_counts, out_trace, out_first, out_post, out_synapses,
        )  # fmt: skip
        line = (t + 1) % n_lines
        if delta:
            _integrate_delta(forcing[step], keeps_input, neurons, state)
        else:
            _integrate(t, forcing[step], neurons, state)
        _surrogate_gradient(line, function, neurons, state, history)
        _fire(line, delta, dt, neurons, state, history, n_spikes)
        _read_out(t, line, readouts, targets[step], window[step], out, out_history)
        for k in range(n_out):
            potential[step, k] = out[OUT_POTENTIAL, k]
        if fired.shape[0] > 0:
            for j in range(n_rec):
                fired[step, j] = state[SPIKE, j] != 0.0
        _record(line, (t - 1) % n_lines, recorded, neurons, state, history, dynamics[step])
