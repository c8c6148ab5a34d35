"""Losses and gradients without NEST, equal to NEST's to rounding: what surrounds the compiled kernels.

The sequences of a batch are shared out over threads. Each keeps its gradient to itself until all are added up in the
batch's order, so results are the same for any number of threads. The threads are Python's: the kernels release the
interpreter's lock, and so need none of Numba's threading layers, of which OpenMP's crashes next to NEST's OpenMP.

Two keys of the config make no difference here: kernel.local_num_threads are threads of NEST, and
flush_event_send_interval frees a history that the kernels do not keep.
"""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config import SURROGATE_GRADIENTS, Config, DataParallel
from eprop_cli.derived import Timing, n_rec, population_parameters
from eprop_cli.engines.base import RECORDABLES, Outcome, Recording, Table, Weights
from eprop_cli.errors import ConfigError
from eprop_cli.tasks import Batch, make_task
from eprop_cli.weights import initial_weights

try:
    from eprop_cli.engines import kernels
except ImportError as error:
    constraint = f"needs Numba ({error}); pip install '.[compiled]' in the checkout"
    raise ConfigError("engine", "compiled", constraint) from error

Floats = NDArray[np.float64]

FEEDBACK_LAG = 3  # steps from a spike to the learning signal that it causes: to the readout, its softmax, and back


class Simulated(NamedTuple):
    """What the kernels fill, in the order and shapes of kernels.run."""

    potential: Floats
    signal: Floats
    n_spikes: NDArray[np.int64]
    fired: NDArray[np.bool_]
    dynamics: Floats
    gradients: Floats
    gradients_out: Floats


class CompiledEngine:
    """engine=compiled."""

    def __init__(self, config: Config) -> None:
        assert isinstance(config.training, DataParallel)
        self._config = config
        self._neurons = _neuron_parameters(config)
        self._readouts = _readout_parameters(config)
        self._n_threads = config.training.n_workers
        self._threads = ThreadPoolExecutor(self._n_threads)

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch forward and backward."""
        lost = np.zeros((len(batch.spikes), batch.spikes.shape[2]), dtype=bool)
        if following is not None:
            lost = np.vstack([batch.spikes[1:, 1], following])
        recorded = _recorded_neurons(self._config) if record else np.empty(0, dtype=np.int64)
        simulated = self._simulate(weights, batch, lost, recorded, record and self._config.recording.spikes)
        recording = _recording(self._config, weights, batch, recorded, simulated) if record else None
        return Outcome(*self._metrics(simulated), self._gradients(simulated), recording)

    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch forward only."""
        return Outcome(*self._metrics(self._simulate(weights, batch, None, np.empty(0, dtype=np.int64), False)))

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown()

    def _simulate(
        self,
        weights: Weights,
        batch: Batch,
        lost: NDArray[np.bool_] | None,
        recorded: NDArray[np.int64],
        spikes: bool,
    ) -> Simulated:
        """Run the kernels. lost: see kernels.run; None for no gradients. spikes: tell when neurons fired."""
        config = self._config
        n_batch, n_steps, n_in = batch.spikes.shape
        n_out, n_neurons = weights["rec_out"].shape
        window, n_learn = config.task.learning_window_steps, 0 if lost is None else n_batch
        simulated = Simulated(
            potential=np.empty((n_batch, n_steps, n_out)),
            signal=np.empty((n_batch, window, n_out)),
            n_spikes=np.empty((n_batch, n_neurons), dtype=np.int64),
            fired=np.zeros((n_batch, n_steps if spikes else 0, n_neurons), dtype=bool),
            dynamics=np.empty((n_batch, n_steps, len(recorded), 3)),
            gradients=np.empty((n_learn, n_in + n_neurons, n_neurons)),
            gradients_out=np.empty((n_learn, n_neurons, n_out)),
        )
        arguments = (
            self._neurons,
            _surrogates(config),
            self._readouts,
            config.neuron.out.loss == "cross_entropy",
            *_packed(weights),
            np.require(batch.spikes, dtype=bool, requirements=["C", "W"]),
            _window_targets(batch, window),
            np.zeros((n_batch, n_in), dtype=bool) if lost is None else lost,
            recorded,
            *simulated,
        )
        shares = [np.arange(start, n_batch, self._n_threads) for start in range(self._n_threads)]
        list(self._threads.map(lambda share: kernels.run(share, *arguments), shares))
        return simulated

    def _metrics(self, simulated: Simulated) -> tuple[Floats, dict[str, int]]:
        """Readout and spike counts as in an Outcome."""
        n_reg, n_spikes = self._config.neuron.n_reg, simulated.n_spikes.sum(axis=0)
        counts = {"reg": int(n_spikes[:n_reg].sum()), "ad": int(n_spikes[n_reg:].sum())}
        return np.ascontiguousarray(simulated.signal.transpose(2, 0, 1)), counts

    def _gradients(self, simulated: Simulated) -> Weights:
        """Means over the batch, with the factor that the kernels leave out."""
        n_batch, n_pre, n_post = simulated.gradients.shape
        count = n_batch * (self._config.task.learning_window_steps if self._config.synapse.average_gradient else 1)
        rec = simulated.gradients.sum(axis=0) * (self._neurons[kernels.SCALE] / count)
        out = simulated.gradients_out.sum(axis=0) * (self._readouts[kernels.SCALE] / count)
        n_in = n_pre - n_post
        np.fill_diagonal(rec[n_in:], 0.0)  # no autapses
        gradients = {"in_rec": rec[:n_in], "rec_rec": rec[n_in:], "rec_out": out}
        return {projection: np.ascontiguousarray(gradient.T) for projection, gradient in gradients.items()}


def compile_kernels(config: Config) -> None:
    """Compile the kernels, unless Numba has them on disk, before several processes would do so at the same time."""
    one = replace(config.training, n_workers=1)
    config = replace(config, training=one, task=replace(config.task, n_batch=1))
    engine, rng = CompiledEngine(config), np.random.RandomState(config.seed)
    weights = initial_weights(config, rng)
    engine.gradient(weights, make_task(config.task).batch(rng), None, record=False)
    engine.close()


def _neuron_parameters(config: Config) -> Floats:
    """Parameters of the recurrent neurons, float64 (N_PARAMETERS, n_rec); rows as in kernels."""
    n_reg, dt = config.neuron.n_reg, config.kernel.resolution
    parameters = np.zeros((kernels.N_PARAMETERS, n_rec(config.neuron)))
    for population, columns in {"reg": slice(n_reg), "ad": slice(n_reg, None)}.items():
        rows, values = parameters[:, columns], population_parameters(config, population)
        _set_membrane(rows, values, dt)
        rows[kernels.V_TH] = values["V_th"] - values["E_L"]
        rows[kernels.T_REF] = round(values["t_ref"] / dt)
        rows[kernels.HEIGHT] = values["surrogate_gradient_height"]
        rows[kernels.SLOPE] = 1.0 / values["surrogate_gradient_width"]
        rows[kernels.C_REG] = values["c_reg"]
        rows[kernels.F_TARGET] = values["f_target"] * dt / 1000.0
        if population == "ad":
            rows[kernels.RHO] = _decay(values["adapt_tau"], dt)
            rows[kernels.BETA] = values["adapt_beta"]
    return parameters


def _readout_parameters(config: Config) -> Floats:
    """Parameters of a readout neuron, float64 (N_PARAMETERS,)."""
    parameters = np.zeros((kernels.N_PARAMETERS, 1))
    _set_membrane(parameters, population_parameters(config, "out"), config.kernel.resolution)
    return parameters[:, 0].copy()


def _set_membrane(rows: Floats, values: Mapping[str, Any], dt: float) -> None:
    """Set what recurrent and readout neurons have in common."""
    alpha = _decay(values["tau_m"], dt)
    rows[kernels.ALPHA] = alpha
    rows[kernels.SCALE] = 1.0 if values["regular_spike_arrival"] else 1.0 - alpha
    rows[kernels.DRIVE] = np.asarray(values["tau_m"]) / values["C_m"] * (1.0 - alpha) * values["I_e"]
    rows[kernels.E_L] = values["E_L"]
    rows[kernels.V_MIN] = values.get("V_min", -math.inf) - values["E_L"]


def _decay(tau: Any, dt: float) -> Floats:
    """exp(-dt / tau) of one or several time constants in ms, rounded as in C++, which NumPy's is not always."""
    return np.array([math.exp(-dt / value) for value in np.ravel(tau)])


def _surrogates(config: Config) -> NDArray[np.int64]:
    """Surrogate gradient functions, which kernels numbers as config does, and where the adaptive neurons begin."""
    neuron = config.neuron
    functions = [group.surrogate_gradient_function for group in (neuron.reg, neuron.ad)]
    return np.array([*map(SURROGATE_GRADIENTS.index, functions), neuron.n_reg])


def _packed(weights: Weights) -> tuple[Floats, Floats, Floats]:
    """Weights as kernels.run takes them; copies, with targets next to each other."""
    n_in = weights["in_rec"].shape[1]
    rec = np.ascontiguousarray(np.hstack([weights["in_rec"], weights["rec_rec"]]).T)
    np.fill_diagonal(rec[n_in:], 0.0)  # no autapses
    return rec, weights["rec_out"].T.copy(), weights["out_rec"].T.copy()


def _window_targets(batch: Batch, window: int) -> Floats:
    """Targets in the learning window, float64 (n_batch, learning_window, n_out)."""
    return batch.targets[:, :, -window:].transpose(1, 2, 0).copy()


def _recorded_neurons(config: Config) -> NDArray[np.int64]:
    """Recurrent neurons whose dynamic variables are recorded: the first ones of each population."""
    n, neuron = config.recording.n_record, config.neuron
    return np.concatenate([np.arange(min(n, neuron.n_reg)), neuron.n_reg + np.arange(min(n, neuron.n_ad))])


def _recording(
    config: Config, weights: Weights, batch: Batch, recorded: NDArray[np.int64], simulated: Simulated
) -> Recording:
    """The tables that NEST's recorders would give; values (n_batch, n_steps, n_neurons) until they become columns."""
    targets = _window_targets(batch, simulated.signal.shape[1])
    error, n_steps = simulated.signal - targets, batch.spikes.shape[1]
    columns = {}
    if len(recorded):
        learning_signal = _in_sequence(error @ weights["out_rec"][recorded].T, n_steps, FEEDBACK_LAG)
        parameters = _neuron_parameters(config)[:, recorded]
        dynamics = _dynamics(simulated.dynamics, parameters) | {"learning_signal": learning_signal}
        for population, own in {"reg": recorded < config.neuron.n_reg, "ad": recorded >= config.neuron.n_reg}.items():
            if own.any():
                columns[population] = {name: dynamics[name][:, :, own] for name in RECORDABLES[population]}
    if config.recording.readout:
        signals = {"readout_signal": simulated.signal, "target_signal": targets, "error_signal": error}
        columns["out"] = _potentials(config, simulated.potential) | {
            name: _in_sequence(values, n_steps, 0) for name, values in signals.items()
        }
    timing = Timing.of(config.task, config.kernel)
    recording = {name: _table(timing, config.recording.interval, columns[name]) for name in columns}
    if config.recording.spikes:
        recording["spikes"] = _spikes(timing, config.neuron.n_reg, batch.spikes, simulated.fired)
    return recording


def _dynamics(kept: Floats, parameters: Floats) -> dict[str, Floats]:
    """Dynamic variables of recurrent neurons in NEST's terms, from what the kernels keep."""
    v, a, psi = (kept[:, :, :, variable] for variable in (kernels.KEPT_V, kernels.KEPT_A, kernels.KEPT_PSI))
    e_l = parameters[kernels.E_L]
    threshold = parameters[kernels.V_TH] + parameters[kernels.BETA] * a
    return {"V_m": v + e_l, "surrogate_gradient": psi, "V_th_adapt": threshold + e_l, "adaptation": a}


def _potentials(config: Config, potential: Floats) -> dict[str, Floats]:
    """The readouts' membrane potential, and what the softmax normalises.

    They are recorded with the signal computed from them, by when they are a step further: in the end at the first step
    of the next sequence, and all sequences begin alike.
    """
    v_m = np.roll(potential, -1, axis=1) + config.neuron.out.E_L
    return {"V_m": v_m, "readout_signal_unnorm": np.exp(v_m) if config.neuron.out.loss == "cross_entropy" else v_m}


def _in_sequence(values: Floats, n_steps: int, lag: int) -> Floats:
    """Values of the learning window (n_batch, learning_window, n), lag steps later in a whole sequence; 0 elsewhere."""
    n_batch, window, n = values.shape
    sequence = np.zeros((n_batch, n_steps + lag, n))
    sequence[:, n_steps + lag - window :] = values
    return sequence[:, :n_steps]


def _table(timing: Timing, interval: float, columns: Mapping[str, Floats]) -> Table:
    """Columns (n_batch, n_steps, n_neurons) as a table of every interval (ms)."""
    every = timing.steps(interval)
    thinned = {name: values[:, ::every] for name, values in columns.items()}
    sequence, row, neuron = np.indices(next(iter(thinned.values())).shape).reshape(3, -1)
    table: Table = {
        "sequence": sequence.astype(np.int32),
        "time": timing.ms(1) * (row * every),
        "neuron": neuron.astype(np.int32),
    }
    return table | {name: thinned[name].ravel() for name in sorted(thinned)}  # the order in which NEST gives them


def _spikes(timing: Timing, n_reg: int, spikes: NDArray[np.bool_], fired: NDArray[np.bool_]) -> Table:
    """All spikes, as a table sorted by sequence, time and neuron."""
    fired_by = {"in": spikes, "reg": fired[:, :, :n_reg], "ad": fired[:, :, n_reg:]}
    found = {population: np.nonzero(raster) for population, raster in fired_by.items()}
    sequence, step, neuron = (np.concatenate(columns) for columns in zip(*found.values(), strict=True))
    population = np.repeat(list(found), [len(columns[0]) for columns in found.values()])
    order = np.lexsort((neuron, step, sequence))
    return {
        "sequence": sequence[order].astype(np.int32),
        "time": timing.ms(1) * step[order],
        "population": population[order],
        "neuron": neuron[order].astype(np.int32),
    }
