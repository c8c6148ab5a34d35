"""The online family's inner loops, in Numba: neurons that run on, synapses that change at every spike.

Equations and their order: NEST 3.10, models/eprop_iaf.cpp, eprop_iaf_adapt.cpp, eprop_iaf_psc_delta.cpp,
eprop_iaf_psc_delta_adapt.cpp, eprop_readout.cpp, eprop_synapse.h, weight_optimizer.cpp; Korcsak-Gorzo et al. (2025),
arXiv:2511.21674. All delays are one step. In step t
1. errors of step t-1 become learning signals L_j(t-2) = sum_k B_jk error_k(t-1), which completes row t-2;
2. spikes of step t-1 arrive by sender, inputs before recurrent neurons: each updates its synapses, then is sent with
   the weights that result;
3. neurons and readouts advance. Potentials are relative to E_L.

A spike that arrives in step T, the one before having arrived in step T', adds up the rows T'-1 ... T'-2 + min(T - T',
cutoff) of the postsynaptic history of surrogate gradient psi, L and rate term f:

    z_bar = alpha z_bar + z                     z is 1 in row T' only
    e = psi (z_bar - beta epsilon);             epsilon = rho epsilon + e
    e_bar = kappa e_bar + e;                    e_reg = kappa_reg e_reg + (1 - kappa_reg) e
    gradient += L e_bar + f e_reg               onto a readout: gradient += error z_bar

There are three ways to add up. WALK goes row by row and gives NEST's bits. The others use that the sum is linear in
(z_bar, epsilon, e_bar, e_reg) at its begin, with coefficients that belong to the postsynaptic neuron: SUMS, without
adaptation, takes them from differences of running sums; MAPS composes them from those of blocks of rows. Their cost
does not depend on the interval (SUMS) or hardly does (MAPS: one step per block). docs/eprop_plus.md derives them.

What all synapses of a presynaptic neuron onto one population share, z_bar among it, is kept once.
"""

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.compiled.compiling import compiled, inlined

WALK, SUMS, MAPS = range(3)

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


# Constants of a population's eligibility traces; readouts have ALPHA and CUTOFF. BLOCK: rows to a block.
ALPHA, KAPPA, KAPPA_REG, RHO, CUTOFF, BLOCK = range(6)
N_TRACES = 6

# The optimizer. ETA_CHANGED: how often eta has changed; FIRST_ETA: what it was after the first change.
ADAM, ETA, FIRST_ETA, ETA_CHANGED, BATCH_SIZE, W_MIN, W_MAX, BETA_1, BETA_2, EPSILON, EACH_STEP = range(11)
N_OPTIMIZER = 11

# Per presynaptic neuron. LAST: step of the last spike or flush, 0 before the first; FLUSHED: it was a flush; REMAINING:
# rows to the cutoff; SILENT: steps beyond it; STEP: the optimizer's; N_OPTIMIZED: its calls that changed a weight.
LAST, FLUSHED, REMAINING, SILENT, STEP, N_OPTIMIZED = range(6)
N_COUNTS = 6
# Z: spike that enters z_bar in the next row. BETA_1_POWER, BETA_2_POWER: Adam's, over its steps.
Z_BAR, Z, ETA_CURRENT, BETA_1_POWER, BETA_2_POWER = range(5)
N_TRACE = 5

# Per synapse.
WEIGHT, E_BAR, E_REG, EPS, GRADIENT, CUMULATED, M, V = range(8)
N_SYNAPSE = 8

# History, (n_lines + 1, n_rec, width): line t, kept at t % n_lines, has psi, L and f of row t - 1 and the running sums
# (SUMS) or the map (MAPS) from the begin of row t - 1's block to that row. The last line is always 0.
PSI, LEARNING, RATE = range(3)
Q, Q_REG, A, A_REG, R = range(3, 8)
MAP = 3  # where a line's map begins
LINE_WIDTH = {WALK: 8, SUMS: 8, MAPS: 16}
# A map's coefficients: EPS_Z is what z_bar adds to epsilon, and so on; G_: to the gradient.
EPS_Z, EPS_EPS, E_Z, E_EPS, REG_Z, REG_EPS, G_Z, G_EPS, G_E, G_REG = range(10)
N_MAP = 10
# Readouts' history, (n_lines + 1, n_out, 2): error of row t - 1, and the running sum of error alpha^u.
ERROR, ERROR_SUM = range(2)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Indices = NDArray[np.uint32]
Offsets = NDArray[np.uint64]  # unsigned indices save Numba the test for negative ones


@compiled
def extend_sums(t: int, traces: Floats, powers: Floats, history: Floats) -> None:
    """Add row t to the running sums; u counts rows from the begin of the block.

    q = sum psi (alpha/kappa)^u                 q_reg = (1 - kappa_reg) sum psi (alpha/kappa_reg)^u
    a = sum L kappa^u                           a_reg = sum f kappa_reg^u
    r = sum (L kappa^u q + f kappa_reg^u q_reg)
    """
    n_lines = history.shape[0] - 1
    u = t % int(traces[BLOCK])
    old, new = history[t % n_lines if u > 0 else n_lines], history[(t + 1) % n_lines]
    kappa_u, reg_u = powers[KAPPA, u], powers[KAPPA_REG, u]
    to_q, to_q_reg = powers[ALPHA, u] / kappa_u, (1.0 - traces[KAPPA_REG]) * powers[ALPHA, u] / reg_u
    for j in range(new.shape[0]):
        q, q_reg = old[j, Q] + to_q * new[j, PSI], old[j, Q_REG] + to_q_reg * new[j, PSI]
        learning, rate = kappa_u * new[j, LEARNING], reg_u * new[j, RATE]
        new[j, Q] = q
        new[j, Q_REG] = q_reg
        new[j, A] = old[j, A] + learning
        new[j, A_REG] = old[j, A_REG] + rate
        new[j, R] = old[j, R] + (learning * q + rate * q_reg)


@compiled
def extend_maps(t: int, traces: Floats, beta: Floats, history: Floats, suffixes: Floats) -> None:
    """Add row t to its block's map; where it completes the block, make the maps from each row to the block's end."""
    block, n_lines = int(traces[BLOCK]), history.shape[0] - 1
    u = t % block
    alpha_u = traces[ALPHA] ** u
    kappa, reg, rho = traces[KAPPA], traces[KAPPA_REG], traces[RHO]
    kappa_u, reg_u = kappa ** (u + 1), reg ** (u + 1)
    old, new = history[t % n_lines if u > 0 else n_lines], history[(t + 1) % n_lines]
    for j in range(new.shape[0]):
        psi, learning, rate = new[j, PSI], new[j, LEARNING], new[j, RATE]
        eps_eps = old[j, MAP + EPS_EPS] if u > 0 else 1.0
        e_z = psi * (alpha_u - beta[j] * old[j, MAP + EPS_Z])
        e_eps = -psi * beta[j] * eps_eps
        to_e_z, to_e_eps = kappa * old[j, MAP + E_Z] + e_z, kappa * old[j, MAP + E_EPS] + e_eps
        to_reg_z = reg * old[j, MAP + REG_Z] + (1.0 - reg) * e_z
        to_reg_eps = reg * old[j, MAP + REG_EPS] + (1.0 - reg) * e_eps
        new[j, MAP + EPS_Z] = rho * old[j, MAP + EPS_Z] + e_z
        new[j, MAP + EPS_EPS] = rho * eps_eps + e_eps
        new[j, MAP + E_Z] = to_e_z
        new[j, MAP + E_EPS] = to_e_eps
        new[j, MAP + REG_Z] = to_reg_z
        new[j, MAP + REG_EPS] = to_reg_eps
        new[j, MAP + G_Z] = old[j, MAP + G_Z] + learning * to_e_z + rate * to_reg_z
        new[j, MAP + G_EPS] = old[j, MAP + G_EPS] + learning * to_e_eps + rate * to_reg_eps
        new[j, MAP + G_E] = old[j, MAP + G_E] + learning * kappa_u
        new[j, MAP + G_REG] = old[j, MAP + G_REG] + rate * reg_u
    if u == block - 1:
        _complete_block(t + 1 - block, traces, beta, history, suffixes)


@compiled
def _complete_block(start: int, traces: Floats, beta: Floats, history: Floats, suffixes: Floats) -> None:
    """Make the maps from each row of a block to the block's end, backward: row t first, then the map from t + 1 on.

    suffixes: (n_lines + 1, n_rec, >= N_MAP), the last line 0.
    """
    block, n_lines = int(traces[BLOCK]), history.shape[0] - 1
    alpha, kappa, reg, rho = traces[ALPHA], traces[KAPPA], traces[KAPPA_REG], traces[RHO]
    for u in range(block - 1, -1, -1):
        t = start + u
        kappa_m, reg_m = kappa ** (block - 1 - u), reg ** (block - 1 - u) * (1.0 - reg)
        row, new = history[(t + 1) % n_lines], suffixes[t % n_lines]
        old = suffixes[(t + 1) % n_lines] if u < block - 1 else suffixes[n_lines]
        for j in range(row.shape[0]):
            eps_eps = old[j, EPS_EPS] if u < block - 1 else 1.0
            e_z, e_eps = row[j, PSI], -row[j, PSI] * beta[j]
            to_eps = rho + e_eps
            to_e, to_reg = old[j, G_E] + row[j, LEARNING], old[j, G_REG] + row[j, RATE]
            to_g = to_e + (1.0 - reg) * to_reg
            new[j, EPS_Z] = alpha * old[j, EPS_Z] + eps_eps * e_z
            new[j, EPS_EPS] = eps_eps * to_eps
            new[j, E_Z] = alpha * old[j, E_Z] + (old[j, E_EPS] + kappa_m) * e_z
            new[j, E_EPS] = old[j, E_EPS] * to_eps + kappa_m * e_eps
            new[j, REG_Z] = alpha * old[j, REG_Z] + (old[j, REG_EPS] + reg_m) * e_z
            new[j, REG_EPS] = old[j, REG_EPS] * to_eps + reg_m * e_eps
            new[j, G_Z] = alpha * old[j, G_Z] + (old[j, G_EPS] + to_g) * e_z
            new[j, G_EPS] = old[j, G_EPS] * to_eps + to_g * e_eps
            new[j, G_E] = kappa * to_e
            new[j, G_REG] = reg * to_reg


@compiled
def extend_error_sums(t: int, traces: Floats, powers: Floats, history: Floats) -> None:
    """Add row t to the readouts' running sum of error alpha^u."""
    n_lines = history.shape[0] - 1
    u = t % int(traces[BLOCK])
    old, new = t % n_lines if u > 0 else n_lines, (t + 1) % n_lines
    alpha_u = powers[ALPHA, u]
    for k in range(history.shape[1]):
        history[new, k, ERROR_SUM] = history[old, k, ERROR_SUM] + alpha_u * history[new, k, ERROR]


@inlined
def _row(
    line: int, z_bar: float, start: int, stop: int, traces: Floats, beta: Floats,
    history: Floats, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """One row, as NEST adds it up."""
    kappa, reg, new, rho = traces[KAPPA], traces[KAPPA_REG], 1.0 - traces[KAPPA_REG], traces[RHO]
    for s in range(start, stop):
        j = targets[s]
        e = history[line, j, PSI] * (z_bar - beta[j] * synapses[EPS, s])
        synapses[EPS, s] = rho * synapses[EPS, s] + e
        synapses[E_BAR, s] = kappa * synapses[E_BAR, s] + e
        synapses[E_REG, s] = reg * synapses[E_REG, s] + new * e
        synapses[GRADIENT, s] += (
            history[line, j, LEARNING] * synapses[E_BAR, s] + history[line, j, RATE] * synapses[E_REG, s]
        )


@inlined
def _plain_row(
    line: int, z_bar: float, start: int, stop: int, traces: Floats,
    history: Floats, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """One row without adaptation, as NEST adds it up."""
    kappa, reg, new = traces[KAPPA], traces[KAPPA_REG], 1.0 - traces[KAPPA_REG]
    for s in range(start, stop):
        j = targets[s]
        e = history[line, j, PSI] * z_bar
        synapses[E_BAR, s] = kappa * synapses[E_BAR, s] + e
        synapses[E_REG, s] = reg * synapses[E_REG, s] + new * e
        synapses[GRADIENT, s] += (
            history[line, j, LEARNING] * synapses[E_BAR, s] + history[line, j, RATE] * synapses[E_REG, s]
        )


@inlined
def _error_row(
    line: int, z_bar: float, start: int, stop: int, history: Floats, targets: Indices, synapses: Floats
) -> None:
    """One row of synapses onto readouts."""
    for s in range(start, stop):
        synapses[GRADIENT, s] += history[line, targets[s], ERROR] * z_bar


@inlined
def _walk(
    i: int, n_rows: int, spike: float, readout: bool, adaptive: bool, traces: Floats, beta: Floats, history: Floats,
    optimizer: Floats, counts: Ints, trace: Floats, first: Offsets, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up n_rows rows one by one; spike enters z_bar in the second one."""
    start, stop, n_lines = first[i], first[i + 1], history.shape[0] - 1
    begin = counts[LAST, i] - 1
    for t in range(begin, begin + n_rows):
        z_bar = traces[ALPHA] * trace[Z_BAR, i] + trace[Z, i]
        trace[Z_BAR, i], trace[Z, i], spike = z_bar, spike, 0.0
        line = (t + 1) % n_lines
        if optimizer[EACH_STEP]:
            for s in range(start, stop):
                synapses[GRADIENT, s] = 0.0
        if readout:
            _error_row(line, z_bar, start, stop, history, targets, synapses)
        elif adaptive:
            _row(line, z_bar, start, stop, traces, beta, history, targets, synapses)
        else:
            _plain_row(line, z_bar, start, stop, traces, history, targets, synapses)
        if optimizer[EACH_STEP]:
            _optimize(i, t + 1, optimizer, counts, trace, first, synapses)


@inlined
def _add_sums(
    t: int, n_rows: int, z_bar: float, start: int, stop: int, traces: Floats, powers: Floats,
    history: Floats, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up n_rows rows of one block from t on; z_bar is that of row t."""
    n_lines = history.shape[0] - 1
    u = t % int(traces[BLOCK])
    old, new = t % n_lines if u > 0 else n_lines, (t + n_rows) % n_lines
    z = z_bar / powers[ALPHA, u]
    to_a, to_a_reg = powers[KAPPA, 1] / powers[KAPPA, u], powers[KAPPA_REG, 1] / powers[KAPPA_REG, u]
    decay, decay_reg = powers[KAPPA, n_rows], powers[KAPPA_REG, n_rows]
    z_e, z_reg = z * powers[KAPPA, u + n_rows - 1], z * powers[KAPPA_REG, u + n_rows - 1]
    for s in range(start, stop):
        j = targets[s]
        q, q_reg = history[old, j, Q], history[old, j, Q_REG]
        a, a_reg = history[new, j, A] - history[old, j, A], history[new, j, A_REG] - history[old, j, A_REG]
        r = history[new, j, R] - history[old, j, R] - (q * a + q_reg * a_reg)
        e_bar, e_reg = synapses[E_BAR, s], synapses[E_REG, s]
        synapses[GRADIENT, s] += z * r + (to_a * e_bar * a + to_a_reg * e_reg * a_reg)
        synapses[E_BAR, s] = decay * e_bar + z_e * (history[new, j, Q] - q)
        synapses[E_REG, s] = decay_reg * e_reg + z_reg * (history[new, j, Q_REG] - q_reg)


@inlined
def _add_first_sums(
    t: int, n_rows: int, first_z_bar: float, z_bar: float, start: int, stop: int, traces: Floats, powers: Floats,
    history: Floats, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up row t - 1, whose z_bar is first_z_bar, and then n_rows rows of one block; they share a line."""
    n_lines = history.shape[0] - 1
    u = t % int(traces[BLOCK])
    row, new = t % n_lines, (t + n_rows) % n_lines
    old = row if u > 0 else n_lines
    kappa, reg = powers[KAPPA, 1], powers[KAPPA_REG, 1]
    z = z_bar / powers[ALPHA, u]
    to_a, to_a_reg = kappa / powers[KAPPA, u], reg / powers[KAPPA_REG, u]
    decay, decay_reg = powers[KAPPA, n_rows], powers[KAPPA_REG, n_rows]
    z_e, z_reg = z * powers[KAPPA, u + n_rows - 1], z * powers[KAPPA_REG, u + n_rows - 1]
    for s in range(start, stop):
        j = targets[s]
        e = history[row, j, PSI] * first_z_bar
        e_bar, e_reg = kappa * synapses[E_BAR, s] + e, reg * synapses[E_REG, s] + (1.0 - reg) * e
        gradient = synapses[GRADIENT, s] + (history[row, j, LEARNING] * e_bar + history[row, j, RATE] * e_reg)
        q, q_reg = history[old, j, Q], history[old, j, Q_REG]
        a, a_reg = history[new, j, A] - history[old, j, A], history[new, j, A_REG] - history[old, j, A_REG]
        r = history[new, j, R] - history[old, j, R] - (q * a + q_reg * a_reg)
        synapses[GRADIENT, s] = gradient + (z * r + (to_a * e_bar * a + to_a_reg * e_reg * a_reg))
        synapses[E_BAR, s] = decay * e_bar + z_e * (history[new, j, Q] - q)
        synapses[E_REG, s] = decay_reg * e_reg + z_reg * (history[new, j, Q_REG] - q_reg)


@inlined
def _add_map(
    z_bar: float, decay: float, decay_reg: float, start: int, stop: int, maps: Floats, offset: int,
    targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up rows by their map; z_bar is that of the first one.

    maps: (n_rec, >= offset + N_MAP), of which each row has a map from offset on.
    """
    for s in range(start, stop):
        j = targets[s]
        eps, e_bar, e_reg = synapses[EPS, s], synapses[E_BAR, s], synapses[E_REG, s]
        synapses[GRADIENT, s] += (
            maps[j, offset + G_Z] * z_bar + maps[j, offset + G_EPS] * eps
            + (maps[j, offset + G_E] * e_bar + maps[j, offset + G_REG] * e_reg)
        )  # fmt: skip
        synapses[E_BAR, s] = decay * e_bar + (maps[j, offset + E_Z] * z_bar + maps[j, offset + E_EPS] * eps)
        synapses[E_REG, s] = decay_reg * e_reg + (maps[j, offset + REG_Z] * z_bar + maps[j, offset + REG_EPS] * eps)
        synapses[EPS, s] = maps[j, offset + EPS_Z] * z_bar + maps[j, offset + EPS_EPS] * eps


@inlined
def _add_block(
    t: int, n_rows: int, complete: bool, z_bar: float, start: int, stop: int, traces: Floats, powers: Floats,
    beta: Floats, history: Floats, suffixes: Floats, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up n_rows rows of one block from t on, by a map where there is one; complete: they end the block."""
    n_lines = history.shape[0] - 1
    decay, decay_reg = powers[KAPPA, n_rows], powers[KAPPA_REG, n_rows]
    if t % int(traces[BLOCK]) == 0:
        maps = history[(t + n_rows) % n_lines]
        _add_map(z_bar, decay, decay_reg, start, stop, maps, MAP, targets, synapses)
    elif complete:
        _add_map(z_bar, decay, decay_reg, start, stop, suffixes[t % n_lines], 0, targets, synapses)
    else:
        for n in range(n_rows):
            z = z_bar * powers[ALPHA, n]
            _row((t + n + 1) % n_lines, z, start, stop, traces, beta, history, targets, synapses)


@inlined
def _add_error_sums(
    t: int, n_rows: int, z_bar: float, start: int, stop: int, traces: Floats, powers: Floats,
    history: Floats, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up n_rows rows of one block of synapses onto readouts; z_bar is that of row t."""
    n_lines = history.shape[0] - 1
    u = t % int(traces[BLOCK])
    old, new = t % n_lines if u > 0 else n_lines, (t + n_rows) % n_lines
    z = z_bar / powers[ALPHA, u]
    for s in range(start, stop):
        k = targets[s]
        synapses[GRADIENT, s] += z * (history[new, k, ERROR_SUM] - history[old, k, ERROR_SUM])


@inlined
def _add_up(
    i: int, n_rows: int, spike: float, method: int, readout: bool, traces: Floats, powers: Floats, beta: Floats,
    history: Floats, suffixes: Floats, counts: Ints, trace: Floats, first: Offsets, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up n_rows rows: one by itself, in which spike is yet to enter z_bar, then by parts of blocks."""
    start, stop, n_lines, block = first[i], first[i + 1], history.shape[0] - 1, int(traces[BLOCK])
    t = counts[LAST, i]
    end = t + n_rows - 1
    first_z_bar = powers[ALPHA, 1] * trace[Z_BAR, i] + trace[Z, i]
    z_bar = powers[ALPHA, 1] * first_z_bar + spike  # of row t
    trace[Z_BAR, i], trace[Z, i] = first_z_bar, spike
    if n_rows > 1:
        trace[Z_BAR, i], trace[Z, i] = z_bar * powers[ALPHA, n_rows - 2], 0.0
    if readout:
        _error_row(t % n_lines, first_z_bar, start, stop, history, targets, synapses)
    elif method == MAPS:
        _row(t % n_lines, first_z_bar, start, stop, traces, beta, history, targets, synapses)
    elif n_rows == 1:
        _plain_row(t % n_lines, first_z_bar, start, stop, traces, history, targets, synapses)
    else:
        n = min(end, (t // block + 1) * block) - t
        _add_first_sums(t, n, first_z_bar, z_bar, start, stop, traces, powers, history, targets, synapses)
        z_bar *= powers[ALPHA, n]
        t += n
    while t < end:
        n = min(end, (t // block + 1) * block) - t
        if readout:
            _add_error_sums(t, n, z_bar, start, stop, traces, powers, history, targets, synapses)
        elif method == SUMS:
            _add_sums(t, n, z_bar, start, stop, traces, powers, history, targets, synapses)
        else:
            complete = (t + n) % block == 0
            _add_block(t, n, complete, z_bar, start, stop, traces, powers, beta, history, suffixes, targets, synapses)
        z_bar *= powers[ALPHA, n]
        t += n


@inlined
def _decay(
    i: int, readout: bool, traces: Floats, counts: Ints, trace: Floats, first: Offsets, synapses: Floats
) -> None:
    """Let the traces decay over the steps beyond the cutoff, in which nothing is added up."""
    n = float(counts[SILENT, i])
    counts[SILENT, i] = 0
    trace[Z_BAR, i] *= traces[ALPHA] ** n
    if readout:
        return
    decay, decay_reg, decay_eps = traces[KAPPA] ** n, traces[KAPPA_REG] ** n, traces[RHO] ** n
    for s in range(first[i], first[i + 1]):
        synapses[E_BAR, s] *= decay
        synapses[E_REG, s] *= decay_reg
        synapses[EPS, s] *= decay_eps


@inlined
def _optimize(
    i: int, index: int, optimizer: Floats, counts: Ints, trace: Floats, first: Offsets, synapses: Floats
) -> None:
    """Let the optimizer know of the gradient; it changes the weights where a batch of time steps is over.

    A changed eta acts from a synapse's second change on.
    """
    start, stop = first[i], first[i + 1]
    step = 1 + index // int(optimizer[BATCH_SIZE])
    for s in range(start, stop):
        synapses[CUMULATED, s] += synapses[GRADIENT, s]
    if counts[STEP, i] >= step:
        return
    if optimizer[ETA_CHANGED] != 0.0 and counts[N_OPTIMIZED, i] == 0:
        trace[ETA_CURRENT, i] = optimizer[FIRST_ETA]
    if optimizer[ADAM] == 0.0:
        _descend(start, stop, trace[ETA_CURRENT, i], optimizer, synapses)
    else:
        for s in range(start, stop):
            synapses[CUMULATED, s] /= optimizer[BATCH_SIZE]
        for _ in range(counts[STEP, i], step):
            _adam_step(i, start, stop, optimizer, trace, synapses)
        for s in range(start, stop):
            synapses[WEIGHT, s] = min(max(synapses[WEIGHT, s], optimizer[W_MIN]), optimizer[W_MAX])
    trace[ETA_CURRENT, i] = optimizer[ETA]
    counts[N_OPTIMIZED, i] += 1
    counts[STEP, i] = step


@inlined
def _descend(start: int, stop: int, eta: float, optimizer: Floats, synapses: Floats) -> None:
    """Take a step of gradient descent."""
    batch_size, lowest, highest = optimizer[BATCH_SIZE], optimizer[W_MIN], optimizer[W_MAX]
    for s in range(start, stop):
        weight = synapses[WEIGHT, s] - eta * (synapses[CUMULATED, s] / batch_size)
        synapses[WEIGHT, s] = min(max(weight, lowest), highest)
        synapses[CUMULATED, s] = 0.0


@inlined
def _adam_step(i: int, start: int, stop: int, optimizer: Floats, trace: Floats, synapses: Floats) -> None:
    """Take one of Adam's steps; there is one per elapsed batch of time steps, of which the first has the gradient."""
    beta_1, beta_2, epsilon = optimizer[BETA_1], optimizer[BETA_2], optimizer[EPSILON]
    trace[BETA_1_POWER, i] *= beta_1
    trace[BETA_2_POWER, i] *= beta_2
    eta = trace[ETA_CURRENT, i] * np.sqrt(1.0 - trace[BETA_2_POWER, i]) / (1.0 - trace[BETA_1_POWER, i])
    for s in range(start, stop):
        gradient = synapses[CUMULATED, s]
        synapses[M, s] = beta_1 * synapses[M, s] + (1.0 - beta_1) * gradient
        synapses[V, s] = beta_2 * synapses[V, s] + (1.0 - beta_2) * gradient * gradient
        synapses[WEIGHT, s] -= eta * synapses[M, s] / (np.sqrt(synapses[V, s]) + epsilon)
        synapses[CUMULATED, s] = 0.0


@compiled
def arrive(
    i: int, t: int, flush: bool, method: int, readout: bool, traces: Floats, powers: Floats, beta: Floats,
    history: Floats, suffixes: Floats, optimizer: Floats, counts: Ints, trace: Floats, first: Offsets, targets: Indices,
    synapses: Floats,
) -> None:  # fmt: skip
    """Update the synapses of presynaptic neuron i onto one population as a spike of its arrives in step t.

    flush: there is no spike; the gradient is added up, before history that it needs is overwritten, and kept.
    traces: (N_TRACES,). powers: (3, > block + limit), of alpha, kappa and kappa_reg, from 0 on. beta: (n_rec,).
    history: (n_lines + 1, n_post, width); suffixes: (n_lines + 1, n_post, >= N_MAP).
    optimizer: (N_OPTIMIZER,). counts: (N_COUNTS, n_pre). trace: (N_TRACE, n_pre).
    first, targets: neuron i has the synapses first[i] ... first[i + 1] - 1. synapses: (N_SYNAPSE, n_synapses).
    """
    if counts[LAST, i] != 0:
        elapsed = t - counts[LAST, i]
        spike = 0.0
        if counts[FLUSHED, i] == 0:
            counts[REMAINING, i] = int(traces[CUTOFF])
            spike = 1.0
            for s in range(first[i], first[i + 1]):
                synapses[GRADIENT, s] = 0.0
        n_rows = min(counts[REMAINING, i], elapsed)
        if method == WALK:
            adaptive = traces[RHO] != 0.0
            _walk(
                i, n_rows, spike, readout, adaptive, traces, beta, history,
                optimizer, counts, trace, first, targets, synapses,
            )  # fmt: skip
        elif n_rows > 0:
            _add_up(
                i, n_rows, spike, method, readout, traces, powers, beta, history, suffixes,
                counts, trace, first, targets, synapses,
            )  # fmt: skip
        counts[REMAINING, i] -= n_rows
        counts[SILENT, i] += elapsed - n_rows
        if not flush:
            if counts[SILENT, i] > 0:
                _decay(i, readout, traces, counts, trace, first, synapses)
            if optimizer[EACH_STEP] == 0.0:
                _optimize(i, t - 1, optimizer, counts, trace, first, synapses)
    counts[LAST, i] = t
    counts[FLUSHED, i] = flush


@compiled
def flush_due(
    t: int, limit: int, method: int, readout: bool, traces: Floats, powers: Floats, beta: Floats, history: Floats,
    suffixes: Floats, optimizer: Floats, counts: Ints, trace: Floats,
    first: Offsets, targets: Indices, synapses: Floats,
) -> None:  # fmt: skip
    """Add up what needs history of `limit` steps ago, which is about to be overwritten."""
    for i in range(counts.shape[1]):
        due = counts[LAST, i] != 0 and t - counts[LAST, i] >= limit
        if due and (counts[FLUSHED, i] == 0 or counts[REMAINING, i] > 0):
            arrive(
                i, t, True, method, readout, traces, powers, beta, history, suffixes,
                optimizer, counts, trace, first, targets, synapses,
            )  # fmt: skip


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
def _send(i: int, first: Offsets, targets: Indices, synapses: Floats, row: int, state: Floats) -> None:
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
    counts: Ints, trace: Floats, first: Offsets, post: Indices, synapses: Floats,
    out_counts: Ints, out_trace: Floats, out_first: Offsets, out_post: Indices, out_synapses: Floats,
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
