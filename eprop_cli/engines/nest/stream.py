"""One NEST simulation that goes on and on, driven batch by batch: NEST's optimizer changes weights as spikes pass."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eprop_cli.config.config import Config
from eprop_cli.connectivity.base import PLASTIC, ends
from eprop_cli.connectivity.mask import Wiring
from eprop_cli.connectivity.synapses import InitialMoments, no_such_synapse
from eprop_cli.engines.base import Outcome
from eprop_cli.engines.nest.kernel import start_kernel
from eprop_cli.engines.nest.network import Network, build_network, force_final_update, present, read_weights
from eprop_cli.engines.nest.recordings import count_spikes, readout, recording_of
from eprop_cli.values import Batch, Table, Weights

MOST_LOOKED_AT = 1000  # synapses of a projection whose optimizers are asked, which takes NEST a while


@dataclass(frozen=True)
class _Begun:
    """A batch under way, the time step at which it began, and whether it is to be recorded."""

    batch: Batch
    start: int
    record: bool


class NestStream:
    """training=continuous on NEST."""

    def __init__(self, config: Config, wiring: Wiring, weights: Weights) -> None:
        self._config, self._wiring, self._initial = config, wiring, weights
        self._optimizer = config.make_optimizer().nest_parameters() | config.model.optimizer(config.task.n_batch)
        self._nest = start_kernel(config)
        # NEST applies the first learning rate that is ever set to the first update: it must be that of the first phase.
        without_eta = {key: value for key, value in self._optimizer.items() if key != "eta"}
        self._network = build_network(self._nest, config, wiring, weights, without_eta)
        self._set_initial_moments(config.synapse.init_optimizer)
        self._begun: _Begun | None = None
        self._now = 0  # step at which the next batch begins
        self._final: Weights | None = None

    def begin(self, batch: Batch, eta: float, record: bool) -> Outcome | None:
        """Present a batch and simulate until the last readout of the batch before has been recorded."""
        before, start = self._begun, self._now
        # An update is applied in a later phase, but with the learning rate of its own; NEST keeps it per synapse.
        self._nest.SetDefaults(self._network.synapse, {"optimizer": self._optimizer | {"eta": eta}})
        present(self._network, batch, start, None if before is None else before.batch)
        self._simulate(self._network.timing.lead)
        self._begun = _Begun(batch, start, record)
        self._now = start + len(batch.spikes) * self._network.timing.sequence
        return None if before is None else self._outcome(before)

    def go_on(self) -> None:
        """Simulate to the end of the batch, in pieces, to heed Ctrl-C in between."""
        assert self._begun is not None
        timing = self._network.timing
        for step in range(self._begun.start + timing.lead, self._now, timing.sequence):
            self._simulate(min(timing.sequence, self._now - step))

    def finish(self) -> Outcome | None:
        """Force the last updates."""
        force_final_update(self._network, self._now)
        self._simulate(self._network.timing.lead)
        outcome = None if self._begun is None else self._outcome(self._begun)
        self._final = self.weights()
        return outcome

    def weights(self) -> Weights:
        """Weights as the synapses hold them."""
        return self._final or read_weights(self._nest, self._network, self._wiring, self._initial)

    def moments(self) -> dict[str, Weights]:
        """What the optimizer keeps of some synapses of each projection, evenly spaced."""
        names = self._config.make_optimizer().moments
        found: dict[str, Weights] = {name: {} for name in names}
        for projection in PLASTIC if names else ():
            pre, post = (self._network.nodes(population) for population in ends(projection))
            synapses = self._nest.GetConnections(pre, post, self._network.synapse)
            kept = synapses[:: 1 + len(synapses) // MOST_LOOKED_AT].get("optimizer") if len(synapses) else []
            kept = [kept] if isinstance(kept, dict) else kept  # NEST gives that of a single one as it is
            for name in names:
                found[name][projection] = np.array([each[name] for each in kept])
        return found

    def _simulate(self, steps: int) -> None:
        self._nest.Simulate(self._network.timing.ms(steps))

    def _outcome(self, begun: _Begun) -> Outcome:
        network, config, start = self._network, self._config, begun.start
        end = network.timing.ms(start + len(begun.batch.spikes) * network.timing.sequence)
        events = {name: probe.drain(end) for name, probe in network.probes.items()}
        return Outcome(
            readout(events["out"], config.task.n_out, network.timing, "readout_signal"),
            count_spikes(network, events["spikes"]),
            recording=recording_of(network, events, start, config.recording.interval) if begun.record else None,
            weight_changes=_weight_changes(network, events["weights"]) if "weights" in events else None,
        )

    def _set_initial_moments(self, entries: Iterable[InitialMoments]) -> None:
        for entry in entries:
            pre, post = (self._network.nodes(population) for population in ends(entry.projection))
            try:  # all of them exist
                self._wiring[entry.projection].index(np.full(len(entry.post), entry.pre), np.array(entry.post))
            except LookupError as error:
                raise no_such_synapse(entry) from error
            synapses = self._nest.GetConnections(pre[entry.pre], post[sorted(entry.post)], self._network.synapse)
            synapses.set([{"optimizer": {"m": entry.m, "v": entry.v}}] * len(synapses))


def _weight_changes(network: Network, events: Table) -> Table:
    """Weights at the first spike of each synapse after they changed; a synapse keeps its weight between updates."""
    order = np.lexsort((events["times"], events["targets"], events["senders"]))
    events = {key: values[order] for key, values in events.items()}
    changed = np.ones(len(order), dtype=bool)
    changed[1:] = np.any([np.diff(events[key]) != 0 for key in ("senders", "targets", "weights")], axis=0)
    parts = []
    for projection in PLASTIC:
        pre, post = ends(projection)
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
