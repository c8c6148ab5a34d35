"""Train in one NEST simulation, as the tutorial does: NEST's optimizer changes weights as spikes pass.

The simulation is driven batch by batch. A batch is evaluated when its last readout has been recorded, a few steps into
the next one, whose inputs are therefore set before.
"""

import time
from collections.abc import Iterator

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.connectivity.base import PROJECTIONS, InitialMoments
from eprop_cli.connectivity.weights import initial_weights
from eprop_cli.engines.nest.kernel import start_kernel
from eprop_cli.engines.nest.network import (
    EPROP_SYNAPSE,
    Network,
    build_network,
    force_final_update,
    present,
    read_weights,
)
from eprop_cli.engines.nest.recordings import count_spikes, readout, recording_of
from eprop_cli.errors import TrainingError
from eprop_cli.optimizers.optimize import optimizer_parameters
from eprop_cli.phases import TRAINING, Progress, phases
from eprop_cli.tasks import make_task
from eprop_cli.training.base import Bookkeeper, Record
from eprop_cli.values import Batch, Table, Weights


class Continuous:
    """training=continuous."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rng = np.random.RandomState(config.seed)
        self.initial = initial_weights(config, self._rng)
        self._optimizer = optimizer_parameters(config.optimizer, config.task.n_batch)
        self._nest = start_kernel(config)
        # NEST applies the first learning rate that is ever set to the first update: it must be that of the first phase.
        without_eta = {key: value for key, value in self._optimizer.items() if key != "eta"}
        self._network = build_network(self._nest, config, self.initial, without_eta)
        self._set_initial_moments(config.synapse.init_optimizer)
        self._final: Weights | None = None
        self.simulating = 0.0

    def records(self) -> Iterator[Record]:
        """Train, yielding each batch as soon as the simulation has passed its end."""
        task, timing, book = make_task(self._config.task), self._network.timing, Bookkeeper(self._config)
        progress, pending, start = Progress(), None, 0
        for phase in phases(self._config.training, self._config.task.n_iter, progress):
            batch = task.batch(self._rng)
            # An update is applied in a later phase, but with the learning rate of its own; NEST keeps it per synapse.
            self._set_eta(self._config.optimizer.eta if phase == TRAINING else 0.0)
            present(self._network, batch, start, None if pending is None else pending[2])
            self._simulate(timing.lead)
            if pending is not None:
                record = self._finish(book, *pending)
                progress.error = record.row.recall_error
                yield record
            pending = (progress.iteration, phase, batch, start, phase == TRAINING and book.wants(progress))
            for step in range(timing.lead, timing.iteration, timing.sequence):  # in pieces, to heed Ctrl-C in between
                self._simulate(min(timing.sequence, timing.iteration - step))
            start += timing.iteration
        force_final_update(self._network, start)
        self._simulate(timing.lead)
        if pending is not None:  # there was at least one batch
            yield self._finish(book, *pending)
        self._final = self.weights()
        for projection in PROJECTIONS:  # once is enough: a weight that is NaN stays so, and makes its neuron silent
            if not np.isfinite(self._final[projection]).all():
                raise TrainingError(f"a weight of {projection} became infinite or NaN")

    def commit(self) -> None:
        """A simulation under way cannot be saved: NEST does not give its synapses' traces and optimizer state out."""

    def weights(self) -> Weights:
        """Weights as the synapses hold them; one that has not transmitted since its last batch lags behind."""
        return self._final or read_weights(self._nest, self._network, self.initial)

    def close(self) -> None:
        """Nothing to give back."""
        ...

    def _finish(self, book: Bookkeeper, iteration: int, phase: str, batch: Batch, start: int, record: bool) -> Record:
        network, timing = self._network, self._network.timing
        events = {name: probe.drain(timing.ms(start + timing.iteration)) for name, probe in network.probes.items()}
        signal = readout(events["out"], self._config.task.n_out, timing, "readout_signal")
        row = book.row(iteration, phase, signal, batch, count_spikes(network, events["spikes"]))
        recording = recording_of(network, events, start, self._config.recording.interval) if record else None
        changes = _weight_changes(network, events["weights"]) if "weights" in events else None
        return Record(row, batch, recording, changes)

    def _simulate(self, steps: int) -> None:
        began = time.perf_counter()
        self._nest.Simulate(self._network.timing.ms(steps))
        self.simulating += time.perf_counter() - began

    def _set_eta(self, eta: float) -> None:
        self._nest.SetDefaults(EPROP_SYNAPSE, {"optimizer": self._optimizer | {"eta": eta}})

    def _set_initial_moments(self, entries: list[InitialMoments]) -> None:
        network = self._network
        nrns = {"in": network.nrns_in, "rec": network.nrns_rec, "out": network.nrns_out}
        for entry in entries:
            pre, post = (nrns[population] for population in entry.projection.split("_"))
            synapses = self._nest.GetConnections(pre[entry.pre], post[sorted(entry.post)], EPROP_SYNAPSE)
            synapses.set([{"optimizer": {"m": entry.m, "v": entry.v}}] * len(synapses))


def _weight_changes(network: Network, events: Table) -> Table:
    """Weights at the first spike of each synapse after they changed; a synapse keeps its weight between updates."""
    order = np.lexsort((events["times"], events["targets"], events["senders"]))
    events = {key: values[order] for key, values in events.items()}
    changed = np.ones(len(order), dtype=bool)
    changed[1:] = np.any([np.diff(events[key]) != 0 for key in ("senders", "targets", "weights")], axis=0)
    parts = []
    for projection in PROJECTIONS:
        pre, post = projection.split("_")
        own = changed & network.belong(events["senders"], pre) & network.belong(events["targets"], post)
        parts.append(
            {
                "projection": np.full(own.sum(), projection),
                "pre": network.index(events["senders"][own], pre),
                "post": network.index(events["targets"][own], post),
                "time": np.asarray(events["times"])[own],
                "weight": np.asarray(events["weights"])[own],
            }
        )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
