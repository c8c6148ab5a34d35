"""The tables that NEST's recorders would give, from what the kernels keep."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.engines.compiled import neurons
from eprop_cli.engines.compiled.batch import Simulated
from eprop_cli.engines.compiled.online import Advanced
from eprop_cli.engines.compiled.parameters import Floats, neuron_parameters
from eprop_cli.timing import Timing
from eprop_cli.values import Batch, Recording, Table

FEEDBACK_LAG = 3  # steps from a spike to the learning signal that it causes: to the readout, its softmax, and back


def window_targets(batch: Batch, window: int) -> Floats:
    """Targets in the learning window, (n_batch, learning_window, n_out); shares their memory."""
    return batch.targets[:, :, -window:].transpose(1, 2, 0)


def first_neurons(config: Config, n: int) -> NDArray[np.int64]:
    """The first n neurons of each recurrent population."""
    return np.concatenate([np.arange(place.start, place.stop)[:n] for place in config.model.places.values()])


def recorded_tables(
    config: Config, feedback: Floats, batch: Batch, recorded: NDArray[np.int64], simulated: Simulated
) -> Recording:
    """The tables that NEST's recorders would give; values (n_batch, n_steps, n_neurons) until they become columns.

    feedback: weights (n_recorded, n_out) onto the recorded neurons.
    """
    model = config.model
    targets = window_targets(batch, simulated.signal.shape[1])
    error, n_steps = simulated.signal - targets, batch.spikes.shape[1]
    columns = {}
    if len(recorded):
        learning_signal = _in_sequence(error @ feedback.T, n_steps, FEEDBACK_LAG)
        parameters = neuron_parameters(model)[:, recorded]
        dynamics = _dynamics(simulated.dynamics, parameters) | {"learning_signal": learning_signal}
        for population in model.populations:
            place = model.places[population.name]
            own = (recorded >= place.start) & (recorded < place.stop)
            columns[population.name] = {name: dynamics[name][:, :, own] for name in population.recordables}
    if config.recording.readout:
        signals = {"readout_signal": simulated.signal, "target_signal": targets, "error_signal": error}
        columns["out"] = _potentials(config, simulated.potential) | {
            name: _in_sequence(values, n_steps, 0) for name, values in signals.items()
        }
    timing = config.timing
    recording = {name: _table(timing, config.recording.interval, columns[name]) for name in columns}
    if config.recording.spikes:
        recording["spikes"] = _spikes(config, batch.spikes, simulated.fired)
    return recording


def online_tables(config: Config, batch: Batch, recorded: NDArray[np.int64], outcomes: Sequence[Advanced]) -> Recording:
    """The tables that NEST's recorders would give of a batch of the online family, from its steps' outcomes."""
    timing, model = config.timing, config.model
    shape = len(batch.spikes), timing.sequence

    def joined(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(values).reshape(*shape, -1)

    columns = {}
    if len(recorded):
        for population in model.populations:
            place = model.places[population.name]
            own = (recorded >= place.start) & (recorded < place.stop)
            columns[population.name] = {
                name: joined([outcome.dynamics[name][:, own] for outcome in outcomes])
                for name in population.recordables
            }
    if config.recording.readout:
        columns["out"] = {
            name: joined([getattr(outcome, name) for outcome in outcomes]) for name in model.readout_recordables
        }
    recording = {name: _table(timing, config.recording.interval, columns[name]) for name in columns}
    if config.recording.spikes:
        fired = joined([outcome.fired for outcome in outcomes if outcome.fired is not None])
        watched = first_neurons(config, config.recording.n_record_spikes)
        recording["spikes"] = _spikes(config, batch.spikes, fired[:, :, watched])
    return recording


def _dynamics(kept: Floats, parameters: Floats) -> dict[str, Floats]:
    """Dynamic variables of recurrent neurons in NEST's terms, from what the kernels keep."""
    v, a, psi = (kept[:, :, :, variable] for variable in (neurons.KEPT_V, neurons.KEPT_A, neurons.KEPT_PSI))
    e_l = parameters[neurons.E_L]
    threshold = parameters[neurons.V_TH] + parameters[neurons.BETA] * a
    return {"V_m": v + e_l, "surrogate_gradient": psi, "V_th_adapt": threshold + e_l, "adaptation": a}


def _potentials(config: Config, potential: Floats) -> dict[str, Floats]:
    """The readouts' membrane potential, and what the softmax normalises.

    They are recorded with the signal computed from them, by when they are a step further: in the end at the first step
    of the next sequence, and all sequences begin alike.
    """
    v_m = np.roll(potential, -1, axis=1) + config.neuron.out.E_L
    return {"V_m": v_m, "readout_signal_unnorm": np.exp(v_m) if config.loss.softmax else v_m}


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


def _spikes(config: Config, spikes: NDArray[Any], fired: NDArray[np.bool_]) -> Table:
    """Spikes of watched neurons, as a table sorted by sequence, time and neuron."""
    timing, most = config.timing, config.recording.n_record_spikes
    fired_by, place = {"in": spikes[:, :, :most]}, 0
    for each in config.model.populations:
        n_watched = min(each.size, most)
        fired_by[each.name] = fired[:, :, place : place + n_watched]
        place += n_watched
    found = {population: _fired(raster) for population, raster in fired_by.items()}
    sequence, step, neuron = (np.concatenate(columns) for columns in zip(*found.values(), strict=True))
    population = np.repeat(list(found), [len(columns[0]) for columns in found.values()])
    order = np.lexsort((neuron, step, sequence))
    return {
        "sequence": sequence[order].astype(np.int32),
        "time": timing.ms(1) * step[order],
        "population": population[order],
        "neuron": neuron[order].astype(np.int32),
    }


def _fired(raster: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Sequence, step and neuron of each spike."""
    places = np.nonzero(raster)
    return [np.repeat(each, raster[places]) for each in places]
