"""What NEST's recorders hold, as readouts, counts and tables."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.nest.network import Network
from eprop_cli.timing import Timing
from eprop_cli.values import Recording, Table


def readout(events: Table, n_out: int, timing: Timing, signal: str) -> NDArray[np.float64]:
    """A readout signal in the learning windows of one batch, float64 (n_out, n_batch, learning_window)."""
    order = np.lexsort((events["times"], events["senders"]))
    values = np.asarray(events[signal][order], dtype=np.float64).reshape(n_out, -1, timing.sequence)
    return values[:, :, -timing.learning_window :]


def count_spikes(network: Network, events: Table) -> dict[str, int]:
    """Spikes of each recurrent population."""
    return {population: int(network.belong(events["senders"], population).sum()) for population in network.recurrent}


def recording_of(network: Network, events: Mapping[str, Table], start: int, interval: float) -> Recording:
    """The recording of a batch that began at time step start, from the events of its probes."""
    tables = {}
    readouts = ["out"] if network.records_readout else []  # metrics need one of their signals in any case
    for population in (*network.recurrent, *readouts):
        if population in events:
            table = _table(network, events[population], population, start)
            steps = np.rint(np.asarray(table["time"], dtype=np.float64) / network.timing.resolution)
            on_grid = steps % network.timing.steps(interval) == 0
            tables[population] = {key: values[on_grid] for key, values in table.items()}
    if "spikes_in" in events:
        tables["spikes"] = _spike_table(network, events, start)
    return tables


def _table(network: Network, events: Table, population: str, start: int) -> Table:
    """Events as a table: times since the start of their sequence, senders as indices, in the recordings' order."""
    timing = network.timing
    steps = np.rint(np.asarray(events["times"], dtype=np.float64) / timing.resolution).astype(np.int64) - start
    sequence, step = np.divmod(steps, timing.sequence)
    neuron = network.index(events["senders"], population)
    order = np.lexsort((neuron, step, sequence))
    table: Table = {
        "sequence": sequence[order].astype(np.int32),
        "time": timing.ms(1) * step[order],
        "neuron": neuron[order],
    }
    return table | {key: values[order] for key, values in events.items() if key not in ("times", "senders")}


def _spike_table(network: Network, events: Mapping[str, Table], start: int) -> Table:
    parts = []
    for population, source in {"in": "spikes_in", **dict.fromkeys(network.recurrent, "spikes")}.items():
        own = network.belong(events[source]["senders"], population)
        own &= (
            np.asarray(events[source]["senders"], dtype=np.int64)
            < network.ids[population].start + network.n_record_spikes
        )
        table = _table(network, {key: values[own] for key, values in events[source].items()}, population, start)
        parts.append(table | {"population": np.full(own.sum(), population)})
    columns = ("sequence", "time", "population", "neuron")
    joined = {key: np.concatenate([part[key] for part in parts]) for key in columns}
    order = np.lexsort((joined["neuron"], joined["time"], joined["sequence"]))
    return {key: values[order] for key, values in joined.items()}
