"""A network of NEST's online e-prop family that is advanced batch by batch and owns all of its state."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eprop_cli.models.base import SURROGATE_GRADIENTS

from . import kernels
from .kernels import Floats, Indices, Ints

METHODS = {"walk": kernels.WALK, "sums": kernels.SUMS, "maps": kernels.MAPS}

NEST_ETA = 1e-4  # what eta is in NEST before anybody sets it
FORCING = 1000.0  # mV, more than any threshold; the weight that NEST's scripts give to the final spike
MOST_STEPS = 2**53
MAX_LIMIT = 256  # steps of history that are kept, at most; longer intervals are added up in parts
SMALLEST_POWER = 1e-3  # what a power within a block may come down to: differences of sums lose as many digits
MAX_SUMS_BLOCK, MIN_SUMS_BLOCK, MAPS_BLOCK = 128, 8, 32


@dataclass(frozen=True)
class Neurons:
    """The recurrent neurons' parameters, with NEST's names, units and meaning (potentials absolute).

    Those marked * may differ between neurons: a number or an array (n_rec,).
    V_reset is for the psc_delta models, adapt_* and adaptation for the adaptive ones.
    """

    model: str
    C_m: ArrayLike  # pF *
    E_L: ArrayLike  # mV *
    I_e: ArrayLike  # pA *
    V_m: ArrayLike  # mV *, initial
    V_th: ArrayLike  # mV *
    t_ref: ArrayLike  # ms *
    tau_m: float  # ms
    c_reg: ArrayLike  # *
    f_target: ArrayLike  # spikes/s *
    kappa: float
    kappa_reg: float
    surrogate_gradient_function: str
    surrogate_gradient_height: ArrayLike  # *
    surrogate_gradient_width: ArrayLike  # *
    eprop_isi_trace_cutoff: float = math.inf  # ms
    V_min: ArrayLike = -math.inf  # mV *
    V_reset: ArrayLike = 0.0  # mV *
    refractory_input: bool = False
    adapt_beta: ArrayLike = 0.0  # *
    adapt_tau: float = 10.0  # ms
    adaptation: ArrayLike = 0.0  # *, initial


@dataclass(frozen=True)
class Readouts:
    """The readouts' parameters, with NEST's names, units and meaning."""

    C_m: float  # pF
    E_L: float  # mV
    I_e: float  # pA
    V_m: float  # mV, initial
    tau_m: float  # ms
    eprop_isi_trace_cutoff: float = math.inf  # ms
    V_min: float = -math.inf  # mV


@dataclass(frozen=True)
class OptimizerParameters:
    """The optimizer's parameters, with NEST's names. batch_size counts time steps; optimize_each_step always walks."""

    type: str  # gradient_descent or adam
    batch_size: int
    optimize_each_step: bool
    Wmin: float
    Wmax: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


@dataclass(frozen=True)
class ListedSynapses:
    """Synapses from one population onto another, by presynaptic neuron, and each one's by target.

    first: (n_pre + 1,), neuron i has synapses first[i] ... first[i + 1] - 1. targets, weights (pA): (n_synapses,).
    """

    first: NDArray[np.integer[Any]]
    targets: Indices
    weights: Floats

    @classmethod
    def from_matrix(cls, weights: ArrayLike, exist: ArrayLike | None = None) -> "ListedSynapses":
        """Make it from weights (n_pre, n_post); exist: bool of that shape, which synapses there are, all by default."""
        matrix = np.asarray(weights, np.float64)
        there = np.ones(matrix.shape, np.bool_) if exist is None else np.asarray(exist, np.bool_)
        first = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return cls(first.astype(np.int64), np.nonzero(there)[1].astype(np.uint32), matrix[there])


@dataclass(frozen=True)
class Advanced:
    """What came out of advancing by some steps.

    V_m: (n_steps, n_out), mV, the readouts' potential.
    readout_signal, target_signal, error_signal: (n_steps, n_out), times the learning window, as NEST records them.
    n_spikes: (n_rec,). fired: (n_steps, n_rec), or None.
    dynamics: V_m, surrogate_gradient, learning_signal, V_th_adapt, adaptation, each (n_steps, n_recorded).
    """

    V_m: Floats
    readout_signal: Floats
    target_signal: Floats
    error_signal: Floats
    n_spikes: Ints
    fired: NDArray[np.bool_] | None
    dynamics: dict[str, Floats]


@dataclass
class State:
    """All that a network needs to go on: arrays only; shapes as in kernels.run.

    clock: (1,), NEST's number of the next step. eta: (3,), the last one, the first one that was set, whether it was.
    """

    clock: Ints
    eta: Floats
    neurons: Floats
    readouts: Floats
    history: Floats
    suffixes: Floats
    out_history: Floats
    counts: Ints
    trace: Floats
    synapses: Floats
    out_counts: Ints
    out_trace: Floats
    out_synapses: Floats

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> array, copies."""
        return {field.name: getattr(self, field.name).copy() for field in fields(self)}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what arrays() gave, from a network of the same shape.

        Raises KeyError if one is missing and ValueError if one has another shape.
        """
        for field in fields(self):
            here, there = getattr(self, field.name), arrays[field.name]
            if here.shape != there.shape or here.dtype != there.dtype:
                raise ValueError(
                    f"{field.name}: expected {here.dtype} {here.shape}, found {there.dtype} {there.shape};"
                    " the state belongs to another network"
                )
            here[...] = there


class OnlineNetwork:
    """A network whose weights change at every spike, and that is never reset.

    Task steps are those of the inputs: inputs of task step s reach the recurrent neurons in the step that counts as
    task step s for all that is recorded, as in NEST's scripts, where that is step s + offset of the simulation.
    """

    def __init__(
        self, neurons: Neurons, readouts: Readouts, optimizer: OptimizerParameters,
        w_in: ListedSynapses, w_rec: ListedSynapses, w_out: ListedSynapses, feedback: ArrayLike,
        eta: float, dt: float = 1.0, method: str | None = None, offset: int = 2,
    ) -> None:  # fmt: skip
        """Make the network, and simulate the `offset` steps before the first input arrives.

        w_in, w_rec, w_out: synapses from inputs and recurrent neurons onto recurrent neurons, and onto readouts.
        feedback: (n_rec, n_out), weights of the learning signals. eta: learning rate. dt: ms, resolution and delay.
        method: walk, sums or maps, which agree but for rounding (walk: NEST's bits); the fastest by default.
        Raises ValueError if sums are asked for where there is adaptation, or where traces decay too fast.
        """
        self.n_in, self.n_rec = w_in.first.size - 1, w_rec.first.size - 1
        self.feedback = np.ascontiguousarray(np.asarray(feedback, np.float64).T)
        self.n_out = self.feedback.shape[0]
        self.dt = dt
        self.delta, self.keeps_input = "psc_delta" in neurons.model, neurons.refractory_input
        self.function = SURROGATE_GRADIENTS.index(neurons.surrogate_gradient_function)
        self.neurons = _neuron_rows(neurons, self.n_rec, dt)
        self.readouts = _membrane(readouts, self.n_out, dt)
        self.traces, self.out_traces = _traces(neurons, readouts, dt)
        self.method = _method(method, self.traces, self.neurons, optimizer)
        self.traces[kernels.BLOCK] = MAPS_BLOCK if self.method == kernels.MAPS else max(_sums_block(self.traces), 1)
        self.powers, self.out_powers = _powers(self.traces), _powers(self.out_traces)
        self.optimizer = _optimizer_row(optimizer)
        cutoff = max(self.traces[kernels.CUTOFF], self.out_traces[kernels.CUTOFF])
        self.limit = int(max(min(cutoff, MAX_LIMIT), 1))
        self.first = np.concatenate([w_in.first, w_in.first[-1] + w_rec.first[1:]]).astype(np.uint64)
        self.post = np.concatenate([w_in.targets, w_rec.targets])
        self.out_first, self.out_post = w_out.first.astype(np.uint64), w_out.targets
        self.state = self._rest(neurons, readouts, np.concatenate([w_in.weights, w_rec.weights]), w_out.weights)
        nothing = np.zeros((offset, self.n_in), np.uint8)
        self.advance(nothing, np.zeros((offset, self.n_out)), np.zeros(offset), eta)

    def _rest(self, neurons: Neurons, readouts: Readouts, weights: Floats, out_weights: Floats) -> State:
        n_lines = max(self.limit, int(self.traces[kernels.BLOCK])) + 2
        state = np.zeros((kernels.N_STATE, self.n_rec))
        state[kernels.POTENTIAL] = np.asarray(neurons.V_m, np.float64) - self.neurons[kernels.E_L]
        state[kernels.ADAPTATION] = neurons.adaptation
        out = np.zeros((kernels.N_OUT_STATE, self.n_out))
        out[kernels.OUT_POTENTIAL] = readouts.V_m - readouts.E_L
        n_suffixes = n_lines + 1 if self.method == kernels.MAPS else 0
        return State(
            np.zeros(1, np.int64), np.array([NEST_ETA, NEST_ETA, 0.0]), state, out,
            _aligned((n_lines + 1, self.n_rec, kernels.LINE_WIDTH[self.method])),
            _aligned((n_suffixes, self.n_rec, kernels.LINE_WIDTH[kernels.MAPS])),
            np.zeros((n_lines + 1, self.n_out, 2)),
            *_unused(self.first.size - 1, weights), *_unused(self.out_first.size - 1, out_weights),
        )  # fmt: skip

    def advance(
        self, inputs: NDArray[np.uint8], targets: Floats, window: ArrayLike, eta: float,
        recorded: ArrayLike = (), raster: bool = False, final_steps: int = 0,
    ) -> Advanced:  # fmt: skip
        """Go on by n_steps, as many sequences as there are in a row.

        inputs: (n_steps, n_in), how many spikes an input neuron emits in a step. targets: (n_steps, n_out).
        window: (n_steps,), 1 where there is a learning signal, 0 elsewhere.
        eta: learning rate. As in NEST, a changed one acts from a synapse's second update after the change on.
        recorded: recurrent neurons of which the dynamics are recorded. raster: whether fired is wanted.
        final_steps: if positive, every neuron is made to fire at the end, as NEST's scripts do to have the last
        gradients applied: recurrent neurons in the last step, inputs right after it, and the simulation goes on for
        so many steps, of which nothing is recorded. Neurons of models with reset by subtraction fire in each of them.
        """
        self._set_eta(eta)
        n_steps = inputs.shape[0]
        window = np.asarray(window, np.float64)
        forcing = np.zeros(n_steps)
        if final_steps > 0:
            forcing[-1] = FORCING
        outcome = self._run(inputs, targets, window, forcing, np.asarray(recorded, np.int64), raster)
        if final_steps > 0:
            last = np.zeros((final_steps, self.n_in), np.uint8)
            last[0] = 1
            held, on = np.repeat(targets[-1:], final_steps, axis=0), np.repeat(window[-1:], final_steps)
            self._run(last, held, on, np.zeros(final_steps), np.zeros(0, np.int64), False)
        return outcome

    def _run(
        self, inputs: NDArray[np.uint8], targets: Floats, window: Floats, forcing: Floats, recorded: Ints, raster: bool
    ) -> Advanced:
        n_steps, state = inputs.shape[0], self.state
        potential, n_spikes = np.empty((n_steps, self.n_out)), np.zeros(self.n_rec, np.int64)
        fired = np.zeros((n_steps if raster else 0, self.n_rec), np.bool_)
        dynamics = np.empty((n_steps, recorded.size, kernels.N_RECORDED))
        kernels.run(
            int(state.clock[0]), self.dt, self.method, self.limit, self.delta, self.keeps_input, self.function,
            self.neurons, self.readouts, self.traces, self.out_traces,
            self.powers, self.out_powers, self.feedback, self.optimizer,
            np.ascontiguousarray(inputs, np.uint8), np.ascontiguousarray(targets, np.float64), window, forcing,
            recorded,
            state.neurons, state.readouts, state.history, state.suffixes, state.out_history,
            state.counts, state.trace, self.first, self.post, state.synapses,
            state.out_counts, state.out_trace, self.out_first, self.out_post, state.out_synapses,
            potential, n_spikes, fired, dynamics,
        )  # fmt: skip
        state.clock += n_steps
        potential += self.readouts[kernels.E_L]
        on = window[:, np.newaxis]
        names = ("V_m", "surrogate_gradient", "learning_signal", "V_th_adapt", "adaptation")
        return Advanced(
            potential, potential * on, targets * on, (potential - targets) * on, n_spikes,
            fired if raster else None, {name: dynamics[:, :, n] for n, name in enumerate(names)},
        )  # fmt: skip

    def _set_eta(self, eta: float) -> None:
        """Let the optimizer know eta; a synapse's first update takes the first value that was ever set."""
        known = self.state.eta
        if eta != known[0]:
            known[:] = eta, known[1] if known[2] else eta, 1.0
        self.optimizer[kernels.ETA], self.optimizer[kernels.FIRST_ETA], self.optimizer[kernels.ETA_CHANGED] = known

    def weights(self) -> tuple[Floats, Floats, Floats]:
        """Weights (pA) of the synapses from inputs, from recurrent neurons, and onto readouts, as given. Copies."""
        in_rec, rec_rec, rec_out = self.synapses(kernels.WEIGHT)
        return in_rec.copy(), rec_rec.copy(), rec_out.copy()

    def synapses(self, kind: int) -> tuple[Floats, Floats, Floats]:
        """As weights(), one kind of what synapses have (kernels.WEIGHT, M, V). Not copies."""
        n_in, values = self.first[self.n_in], self.state.synapses[kind]
        return values[:n_in], values[n_in:], self.state.out_synapses[kind]

    def check(self) -> None:
        """Raise ValueError unless the kernels, going on from the state, stay within their arrays, whoever wrote it."""
        state, clock = self.state, int(self.state.clock[0])
        if not 0 <= clock <= MOST_STEPS:
            raise ValueError(f"clock is not from 0 to {MOST_STEPS}")
        if not np.isin(state.neurons[kernels.SPIKE], (0.0, 1.0)).all():
            raise ValueError("neurons have spikes that are not 0 or 1")
        for counts, traces in ((state.counts, self.traces), (state.out_counts, self.out_traces)):
            most = np.zeros(kernels.N_COUNTS, np.int64)
            most[[kernels.LAST, kernels.SILENT, kernels.STEP, kernels.N_OPTIMIZED]] = clock, clock, clock + 1, clock + 1
            most[[kernels.FLUSHED, kernels.REMAINING]] = 1, int(traces[kernels.CUTOFF])
            last, flushed, remaining = counts[[kernels.LAST, kernels.FLUSHED, kernels.REMAINING]]
            late = (last != 0) & ((flushed == 0) | (remaining > 0)) & (clock - last > self.limit + 1)
            if (counts < 0).any() or (counts > most[:, np.newaxis]).any() or late.any():
                raise ValueError("counts are not those of a simulation")

    def frozen(self) -> "OnlineNetwork":
        """A copy that does not learn if it is advanced with eta 0, not even by the update in which eta still lags."""
        other = copy.deepcopy(self)
        other.state.trace[kernels.ETA_CURRENT] = 0.0
        other.state.out_trace[kernels.ETA_CURRENT] = 0.0
        other.state.eta[:] = 0.0
        return other


def _aligned(shape: tuple[int, ...]) -> Floats:
    """Zeros that begin with a cache line, so that a neuron's eight sums are one."""
    memory = np.zeros(math.prod(shape) + 8)
    start = -memory.ctypes.data % 64 // 8
    return memory[start : start + math.prod(shape)].reshape(shape)


def _unused(n_pre: int, weights: Floats) -> tuple[Ints, Floats, Floats]:
    """Counts, trace and synapses before the first spike."""
    counts, trace = np.zeros((kernels.N_COUNTS, n_pre), np.int64), np.zeros((kernels.N_TRACE, n_pre))
    counts[kernels.STEP] = 1
    trace[kernels.ETA_CURRENT] = NEST_ETA
    trace[[kernels.BETA_1_POWER, kernels.BETA_2_POWER]] = 1.0
    synapses = np.zeros((kernels.N_SYNAPSE, weights.size))
    synapses[kernels.WEIGHT] = weights
    return counts, trace, synapses


def _membrane(p: Neurons | Readouts, n: int, dt: float) -> Floats:
    """The parameters that neurons and readouts share, in kernels' order."""
    rows = np.zeros((kernels.N_PARAMETERS, n))
    decay = math.exp(-dt / p.tau_m)
    rows[kernels.DECAY], rows[kernels.E_L] = decay, p.E_L
    rows[kernels.DRIVE] = p.tau_m / np.asarray(p.C_m, np.float64) * (1.0 - decay) * np.asarray(p.I_e, np.float64)
    rows[kernels.V_MIN] = p.V_min - rows[kernels.E_L]
    return rows


def _neuron_rows(p: Neurons, n: int, dt: float) -> Floats:
    rows = _membrane(p, n, dt)
    rows[kernels.V_TH], rows[kernels.V_RESET] = p.V_th - rows[kernels.E_L], p.V_reset - rows[kernels.E_L]
    rows[kernels.T_REF], rows[kernels.TAU_M] = np.rint(np.asarray(p.t_ref) / dt), p.tau_m / dt
    if p.model.endswith("adapt"):
        rows[kernels.RHO_A], rows[kernels.BETA] = math.exp(-dt / p.adapt_tau), p.adapt_beta
    rows[kernels.HEIGHT], rows[kernels.WIDTH] = p.surrogate_gradient_height, p.surrogate_gradient_width
    rows[kernels.KAPPA_F], rows[kernels.C_REG] = p.kappa_reg, p.c_reg
    rows[kernels.F_TARGET] = np.asarray(p.f_target) / 1000.0 * dt
    return rows


def _traces(p: Neurons, out: Readouts, dt: float) -> tuple[Floats, Floats]:
    """Constants of the eligibility traces onto recurrent neurons and onto readouts."""
    traces, out_traces = np.zeros(kernels.N_TRACES), np.zeros(kernels.N_TRACES)
    traces[kernels.ALPHA], out_traces[kernels.ALPHA] = math.exp(-dt / p.tau_m), math.exp(-dt / out.tau_m)
    traces[kernels.KAPPA], traces[kernels.KAPPA_REG] = p.kappa, p.kappa_reg
    traces[kernels.RHO] = math.exp(-dt / p.adapt_tau) if p.model.endswith("adapt") else 0.0
    traces[kernels.CUTOFF] = _cutoff(p.eprop_isi_trace_cutoff, dt)
    out_traces[kernels.CUTOFF] = _cutoff(out.eprop_isi_trace_cutoff, dt)
    out_traces[kernels.BLOCK] = max(_longest_block(out_traces[kernels.ALPHA]), 1)
    return traces, out_traces


def _powers(traces: Floats) -> Floats:
    """Powers of alpha, kappa and kappa_reg from 0 on: (3, block + limit at most)."""
    return traces[: kernels.RHO, np.newaxis] ** np.arange(MAX_SUMS_BLOCK + MAX_LIMIT + 2)


def _cutoff(milliseconds: float, dt: float) -> float:
    return min(round(milliseconds / dt), 2.0**40) if math.isfinite(milliseconds) else 2.0**40


def _sums_block(traces: Floats) -> int:
    """The length of blocks for sums onto recurrent neurons; 0 where there is none."""
    alpha, kappa, reg = traces[[kernels.ALPHA, kernels.KAPPA, kernels.KAPPA_REG]]
    return _longest_block(min(alpha, kappa, reg, alpha / kappa, alpha / reg)) if min(kappa, reg) > 0.0 else 0


def _longest_block(fastest: float) -> int:
    """The largest number of steps whose power of what decays fastest is not too small for differences of sums."""
    return int(min(math.log(SMALLEST_POWER) / math.log(fastest), MAX_SUMS_BLOCK))


def _method(name: str | None, traces: Floats, neurons: Floats, optimizer: OptimizerParameters) -> int:
    """The fastest method that applies, or the one asked for."""
    sums = not neurons[kernels.BETA].any() and _sums_block(traces) >= MIN_SUMS_BLOCK
    if name == "sums" and not sums:
        raise ValueError("method: sums need neurons without adaptation and traces that decay slowly; use maps or walk")
    if optimizer.optimize_each_step:
        return kernels.WALK
    return METHODS[name or ("sums" if sums else "maps")]


def _optimizer_row(p: OptimizerParameters) -> Floats:
    row = np.zeros(kernels.N_OPTIMIZER)
    row[kernels.ADAM] = p.type == "adam"
    row[kernels.BATCH_SIZE], row[kernels.W_MIN], row[kernels.W_MAX] = p.batch_size, p.Wmin, p.Wmax
    row[kernels.BETA_1], row[kernels.BETA_2], row[kernels.EPSILON] = p.beta_1, p.beta_2, p.epsilon
    row[kernels.EACH_STEP] = p.optimize_each_step
    return row
