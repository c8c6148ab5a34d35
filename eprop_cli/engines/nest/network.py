"""Build the network in NEST and talk to it: set inputs and targets, read weights."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.connectivity.base import FEEDBACK, ends
from eprop_cli.connectivity.mask import Mask, Wiring
from eprop_cli.engines.nest.probes import Probe, ids_of, make_probes
from eprop_cli.timing import Timing
from eprop_cli.values import Batch, Weights

ALL_TO_ALL = {"rule": "all_to_all", "allow_autapses": False}


@dataclass(frozen=True)
class Network:
    """A built network.

    nrns: node collections "in", the recurrent populations in their order, "out".
    probes: "spikes" (recurrent), "spikes_in", the recurrent populations, "out", "weights"; absent ones are missing.
    ids: NEST ids of nrns and of "rec"; asking a node collection for them takes long.
    synapse: NEST's model of the plastic synapses.
    gen_learning_window: None where NEST's kernel has the learning window.
    records_readout: whether all dynamic variables of the readouts are recorded, rather than what metrics need.
    n_record_spikes: neurons of a population, the first ones, whose spikes are recorded.
    """

    timing: Timing
    synapse: str
    gen_spk_in: Any
    gen_rate_target: Any
    gen_learning_window: Any
    gen_spk_final_update: Any
    nrns: Mapping[str, Any]
    probes: Mapping[str, Probe]
    ids: Mapping[str, range]
    records_readout: bool
    n_record_spikes: int

    def nodes(self, population: str) -> Any:
        """Node collection of a population, or of "rec", all recurrent ones together."""
        if population != "rec":
            return self.nrns[population]
        return reduce(operator.add, (self.nrns[name] for name in self.recurrent))

    @property
    def recurrent(self) -> tuple[str, ...]:
        """Names of the recurrent populations."""
        return tuple(name for name in self.nrns if name not in ("in", "out"))

    def belong(self, ids: NDArray[Any], population: str) -> NDArray[np.bool_]:
        """Which of some NEST ids are neurons of a population."""
        members = self.ids[population]
        return (ids >= members.start) & (ids < members.stop)

    def index(self, ids: NDArray[Any], population: str) -> NDArray[np.int32]:
        """NEST ids as indices within their population."""
        return np.asarray(ids).astype(np.int32) - np.int32(self.ids[population].start)


def build_network(
    nest: Any,
    config: Config,
    wiring: Wiring,
    weights: Weights,
    optimizer: Mapping[str, Any] | None,
    dynamics: bool = True,
) -> Network:
    """Build the tutorial's network in a fresh kernel.

    optimizer: parameters of the e-prop synapses' optimizer; None builds the network with static synapses and without
        what only learning needs (targets, learning signals).
    dynamics: create the recorders that config.recording asks for; otherwise only those that metrics need.
    """
    model = config.model
    nrns = {"in": nest.Create("parrot_neuron", config.task.n_in)}  # devices cannot have plastic synapses
    for population in model.populations:
        parameters = model.parameters(population.name)
        nrns[population.name] = _create(nest, population.model, population.size, parameters)
    nrns["out"] = nest.Create(model.readout, config.task.n_out, model.parameters("out"))
    network = Network(
        model.timing,
        model.synapse,
        gen_spk_in=nest.Create("spike_generator", config.task.n_in),
        gen_rate_target=nest.Create("step_rate_generator", config.task.n_out),
        gen_learning_window=None if model.window_receptor is None else nest.Create("step_rate_generator"),
        gen_spk_final_update=nest.Create("spike_generator", 1),
        nrns=nrns,
        probes=make_probes(nest, config, nrns, dynamics, plastic=optimizer is not None),
        ids=ids_of(nrns),
        records_readout=dynamics and config.recording.readout,
        n_record_spikes=config.recording.n_record_spikes,
    )
    _connect(nest, config, network, wiring, weights, optimizer)
    return network


def present(network: Network, batch: Batch, start: int, before: Batch | None = None) -> None:
    """Set the generators to a batch whose first sequence begins at time step start, which is the kernel's present.

    before: the batch that ends at start; its last targets, which lag by total_offset, are yet to come.
    """
    timing = network.timing
    n_steps = len(batch.spikes) * timing.sequence
    times = timing.ms(1) * (start + timing.offset_gen + np.arange(n_steps))
    trains = batch.spikes.reshape(n_steps, -1).T
    network.gen_spk_in.set([{"spike_times": np.repeat(times, fired)} for fired in trains])

    network.gen_rate_target.set(_rates(timing, batch.targets, start, None if before is None else before.targets))
    if network.gen_learning_window is not None:
        window = np.zeros((1, len(batch.spikes), timing.sequence))
        window[:, :, timing.sequence - timing.learning_window :] = 1.0
        network.gen_learning_window.set(_rates(timing, window, start, None if before is None else window[:, -1:]))


def _rates(
    timing: Timing, signals: NDArray[np.float64], start: int, before: NDArray[np.float64] | None
) -> list[dict[str, NDArray[np.float64]]]:
    """Parameters of step rate generators that emit signals (n, n_batch, n_steps) for a batch that begins at start.

    before: signals of the batch before, the last of which are yet to come; None: there was none.
    """
    signals = signals.reshape(len(signals), -1)
    changes = np.diff(signals, axis=1, prepend=np.nan) != 0
    changes[:, :: timing.sequence] = True  # as in the tutorial
    steps = np.arange(signals.shape[1])
    if before is not None:
        tail = timing.total_offset - 1
        last = before.reshape(len(signals), -1)[:, -tail:]
        signals, changes = np.hstack([last, signals]), np.hstack([np.ones_like(last, dtype=bool), changes])
        steps = np.concatenate([np.arange(-tail, 0), steps])
    times = timing.ms(1) * (start + timing.total_offset + steps)
    return [
        {"amplitude_times": times[changed], "amplitude_values": signal[changed]}
        for changed, signal in zip(changes, signals, strict=True)
    ]


def force_final_update(network: Network, end: int) -> None:
    """Make every presynaptic neuron fire past the end of the task (step end).

    A synapse applies its last gradient only when it transmits its next spike.
    """
    network.gen_spk_final_update.set(spike_times=[network.timing.ms(end + network.timing.forcing)])


def read_weights(nest: Any, network: Network, wiring: Wiring, like: Weights) -> Weights:
    """Weights of all plastic projections, and the fixed feedback weights of like."""
    weights = {}
    for projection, values in like.items():
        weights[projection] = values.copy()
        if projection != FEEDBACK and wiring[projection].size:
            pre, post = ends(projection)
            connections = nest.GetConnections(network.nodes(pre), network.nodes(post), network.synapse)
            status = connections.get(["source", "target", "weight"])
            targets = network.index(np.array(status["target"]), post)
            sources = network.index(np.array(status["source"]), pre)
            weights[projection][wiring[projection].index(sources, targets)] = status["weight"]
    return weights


def _create(nest: Any, model: str, n: int, parameters: Mapping[str, Any]) -> Any:
    """Create n neurons; a list among the parameters has one value for each."""
    # One dictionary per neuron: beside a list NEST would take a name for a list of letters.
    each = [{key: v[i] if isinstance(v, list) else v for key, v in parameters.items()} for i in range(n)]
    nodes = nest.Create(model, n)
    nodes.set(each)
    return nodes


def _connect(
    nest: Any,
    config: Config,
    network: Network,
    wiring: Wiring,
    weights: Weights,
    optimizer: Mapping[str, Any] | None,
) -> None:
    """Connect the network; numbers as in the tutorial."""
    model = config.model
    step: dict[str, Any] = {"delay": network.timing.resolution}
    static = {"synapse_model": "static_synapse"} | step
    nrns_in, nrns_rec, nrns_out = (network.nodes(population) for population in ("in", "rec", "out"))

    def connect(projection: str, synapse: Mapping[str, Any]) -> None:
        _connect_projection(nest, network, projection, wiring[projection], weights[projection], synapse)

    plastic = static
    if optimizer is not None:
        defaults, each = model.plastic()
        defaults = {"optimizer": dict(optimizer)} | defaults
        if "weights" in network.probes:
            defaults["weight_recorder"] = network.probes["weights"].recorder
        nest.SetDefaults(network.synapse, defaults)
        plastic = {"synapse_model": network.synapse} | each | step

    nest.Connect(network.gen_spk_in, nrns_in, "one_to_one", static)  # connection 1
    connect("in_rec", plastic)  # connection 2
    connect("rec_rec", plastic)  # connection 3
    connect("rec_out", plastic)  # connection 4
    if optimizer is not None:
        rate = {"synapse_model": "rate_connection_delayed"} | step
        connect(FEEDBACK, {"synapse_model": model.learning_signal} | step)  # connection 5
        nest.Connect(network.gen_rate_target, nrns_out, "one_to_one", rate | {"receptor_type": 2})  # connection 6
        if config.loss.softmax:  # it needs the other readouts' signals
            nest.Connect(nrns_out, nrns_out, ALL_TO_ALL, rate | {"receptor_type": 1, "weight": 1.0})  # connection 7
        if network.gen_learning_window is not None:
            window = rate | {"receptor_type": model.window_receptor}
            nest.Connect(network.gen_learning_window, nrns_out, ALL_TO_ALL, window)  # connection 7 of this family
        forcing = static | {"weight": model.forcing_weight}
        nest.Connect(network.gen_spk_final_update, nrns_in + nrns_rec, "all_to_all", forcing)
    _connect_probes(nest, config, network, static)


def _connect_projection(
    nest: Any, network: Network, projection: str, mask: Mask, weights: NDArray[np.float64], synapse: Mapping[str, Any]
) -> None:
    """Connect exactly the synapses of a mask."""
    pre, post = ends(projection)
    if mask.is_dense:
        rule = ALL_TO_ALL | {"allow_autapses": mask.autapses}
        nest.Connect(network.nodes(pre), network.nodes(post), rule, dict(synapse) | {"weight": weights})
    elif mask.size:
        sources = network.ids[pre].start + mask.pre.astype(np.int64)
        targets = network.ids[post].start + mask.lists[1].astype(np.int64)
        # Between arrays of ids NEST takes all parameters as arrays.
        each = {key: np.full(mask.size, value) for key, value in synapse.items() if key != "synapse_model"}
        each |= {"weight": weights, "synapse_model": synapse["synapse_model"]}
        nest.Connect(sources, targets, "one_to_one", each)


def _connect_probes(nest: Any, config: Config, network: Network, static: Mapping[str, Any]) -> None:
    probes = network.probes
    nest.Connect(network.nodes("rec"), probes["spikes"].recorder, "all_to_all", static)
    if "spikes_in" in probes:
        nest.Connect(network.nodes("in"), probes["spikes_in"].recorder, "all_to_all", static)
    for population in network.recurrent:
        if population in probes:
            nodes = network.nodes(population)
            first = nodes[: min(config.recording.n_record, len(nodes))]
            nest.Connect(probes[population].recorder, first, "all_to_all", static)
    nest.Connect(probes["out"].recorder, network.nodes("out"), "all_to_all", static)
