"""Build the network in NEST and talk to it: set inputs and targets, read recorders and weights.

nest is imported when the kernel is first reset, so that everything else in the package works without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.engines.nest.probes import Probe, ids_of, make_probes
from eprop_cli.models.bsshslm_2020 import SPIKE_MODELS, population_parameters
from eprop_cli.timing import Timing
from eprop_cli.values import Batch, Weights

EPROP_SYNAPSE = "eprop_synapse_bsshslm_2020"
# pA, makes every neuron fire at the final update. The tutorial's 1000 is too weak where weights have been made to hold
# gradients (engines/nest.py).
FORCING_WEIGHT = 1e200


@dataclass(frozen=True)
class Network:
    """A built network. Node collections are named as in the tutorial; absent recorders are missing from probes.

    probes: "spikes" (recurrent), "spikes_in", "reg", "ad", "out", "weights".
    ids: NEST ids of the populations "in", "reg", "ad", "rec", "out"; asking a node collection for them takes long.
    """

    timing: Timing
    gen_spk_in: Any
    gen_rate_target: Any
    gen_spk_final_update: Any
    nrns_in: Any
    nrns_reg: Any
    nrns_ad: Any
    nrns_out: Any
    probes: Mapping[str, Probe]
    ids: Mapping[str, range]

    @property
    def nrns_rec(self) -> Any:
        """Recurrent neurons: regular, then adaptive."""
        return self.nrns_reg + self.nrns_ad

    def belong(self, ids: NDArray[Any], population: str) -> NDArray[np.bool_]:
        """Which of some NEST ids are neurons of a population ("in", "reg", "ad", "rec", "out")."""
        members = self.ids[population]
        return (ids >= members.start) & (ids < members.stop)

    def index(self, ids: NDArray[Any], population: str) -> NDArray[np.int32]:
        """NEST ids as indices within their population."""
        return np.asarray(ids).astype(np.int32) - np.int32(self.ids[population].start)


def build_network(
    nest: Any, config: Config, weights: Weights, optimizer: Mapping[str, Any] | None, dynamics: bool = True
) -> Network:
    """Build the tutorial's network in a fresh kernel.

    optimizer: parameters of the e-prop synapses' optimizer; None builds the network with static synapses and without
        what only learning needs (targets, learning signals).
    dynamics: create the recorders that config.recording asks for; otherwise only those that metrics need.
    """
    timing = Timing.of(config.task, config.kernel)
    nrns = {
        "in": nest.Create("parrot_neuron", config.task.n_in),  # devices cannot have plastic synapses
        "reg": _create(nest, SPIKE_MODELS["reg"], config.neuron.n_reg, population_parameters(config, "reg")),
        "ad": _create(nest, SPIKE_MODELS["ad"], config.neuron.n_ad, population_parameters(config, "ad")),
        "out": nest.Create("eprop_readout_bsshslm_2020", config.task.n_out, population_parameters(config, "out")),
    }
    network = Network(
        timing,
        gen_spk_in=nest.Create("spike_generator", config.task.n_in),
        gen_rate_target=nest.Create("step_rate_generator", config.task.n_out),
        gen_spk_final_update=nest.Create("spike_generator", 1),
        nrns_in=nrns["in"],
        nrns_reg=nrns["reg"],
        nrns_ad=nrns["ad"],
        nrns_out=nrns["out"],
        probes=make_probes(nest, config, nrns, timing, dynamics, plastic=optimizer is not None),
        ids=ids_of(nrns),
    )
    _connect(nest, config, network, weights, optimizer)
    return network


def present(network: Network, batch: Batch, start: int, before: Batch | None = None) -> None:
    """Set the generators to a batch whose first sequence begins at time step start, which is the kernel's present.

    before: the batch that ends at start; its last targets, which lag by total_offset, are yet to come.
    """
    timing = network.timing
    n_steps = timing.iteration
    times = timing.ms(1) * (start + timing.offset_gen + np.arange(n_steps))
    network.gen_spk_in.set([{"spike_times": times[fired]} for fired in batch.spikes.reshape(n_steps, -1).T])

    targets = batch.targets.reshape(len(batch.targets), n_steps)
    changes = np.diff(targets, axis=1, prepend=np.nan) != 0
    changes[:, :: timing.sequence] = True  # as in the tutorial
    steps = np.arange(n_steps)
    if before is not None:
        tail = timing.total_offset - 1
        last = before.targets.reshape(len(targets), n_steps)[:, -tail:]
        targets, changes = np.hstack([last, targets]), np.hstack([np.ones_like(last, dtype=bool), changes])
        steps = np.arange(-tail, n_steps)
    times = timing.ms(1) * (start + timing.total_offset + steps)
    network.gen_rate_target.set(
        [
            {"amplitude_times": times[changed], "amplitude_values": target[changed]}
            for changed, target in zip(changes, targets, strict=True)
        ]
    )


def force_final_update(network: Network, end: int) -> None:
    """Make every presynaptic neuron fire past the end of the task (step end).

    A synapse applies its last gradient only when it transmits its next spike.
    """
    network.gen_spk_final_update.set(spike_times=[network.timing.ms(end + network.timing.delays)])


def read_weights(nest: Any, network: Network, like: Weights) -> Weights:
    """Weights of all plastic projections, and the fixed feedback weights of like."""
    nrns = {"in": network.nrns_in, "rec": network.nrns_rec, "out": network.nrns_out}
    weights = {}
    for projection, values in like.items():
        pre_name, post_name = projection.split("_")
        weights[projection] = values.copy()
        if projection != "out_rec":
            status = nest.GetConnections(nrns[pre_name], nrns[post_name], EPROP_SYNAPSE).get(
                ["source", "target", "weight"]
            )
            targets = network.index(np.array(status["target"]), post_name)
            sources = network.index(np.array(status["source"]), pre_name)
            weights[projection][targets, sources] = status["weight"]
    return weights


def _create(nest: Any, model: str, n: int, parameters: Mapping[str, Any]) -> Any:
    """Create n neurons; a list among the parameters has one value for each."""
    if not n:
        return nest.NodeCollection()
    # One dictionary per neuron: beside a list NEST would take a name for a list of letters.
    each = [{key: v[i] if isinstance(v, list) else v for key, v in parameters.items()} for i in range(n)]
    nodes = nest.Create(model, n)
    nodes.set(each)
    return nodes


def _first(n: int, nodes: Any) -> Any:
    """The first n nodes, or all where there are fewer."""
    return nodes[: min(n, len(nodes))]


def _connect(
    nest: Any, config: Config, network: Network, weights: Weights, optimizer: Mapping[str, Any] | None
) -> None:
    """Connect the network; numbers as in the tutorial."""
    step: dict[str, Any] = {"delay": network.timing.resolution}
    all_to_all = {"rule": "all_to_all", "allow_autapses": False}
    static = {"synapse_model": "static_synapse"} | step
    nrns_in, nrns_rec, nrns_out, probes = network.nrns_in, network.nrns_rec, network.nrns_out, network.probes
    plastic = static
    if optimizer is not None:
        defaults: dict[str, Any] = {"optimizer": dict(optimizer), "average_gradient": config.synapse.average_gradient}
        if "weights" in probes:
            defaults["weight_recorder"] = probes["weights"].recorder
        nest.SetDefaults(EPROP_SYNAPSE, defaults)
        plastic = {"synapse_model": EPROP_SYNAPSE, "tau_m_readout": config.neuron.out.tau_m} | step

    nest.Connect(network.gen_spk_in, nrns_in, "one_to_one", static)  # connection 1
    nest.Connect(nrns_in, nrns_rec, all_to_all, plastic | {"weight": weights["in_rec"]})  # connection 2
    nest.Connect(nrns_rec, nrns_rec, all_to_all, plastic | {"weight": weights["rec_rec"]})  # connection 3
    nest.Connect(nrns_rec, nrns_out, all_to_all, plastic | {"weight": weights["rec_out"]})  # connection 4
    if optimizer is not None:
        rate = {"synapse_model": "rate_connection_delayed"} | step
        feedback = {"synapse_model": "eprop_learning_signal_connection_bsshslm_2020", "weight": weights["out_rec"]}
        nest.Connect(nrns_out, nrns_rec, all_to_all, feedback | step)  # connection 5
        nest.Connect(network.gen_rate_target, nrns_out, "one_to_one", rate | {"receptor_type": 2})  # connection 6
        if config.neuron.out.loss == "cross_entropy":  # the other readouts' signals, for the softmax
            nest.Connect(nrns_out, nrns_out, all_to_all, rate | {"receptor_type": 1, "weight": 1.0})  # connection 7
        forcing = static | {"weight": FORCING_WEIGHT}
        nest.Connect(network.gen_spk_final_update, nrns_in + nrns_rec, "all_to_all", forcing)

    nest.Connect(nrns_rec, probes["spikes"].recorder, "all_to_all", static)
    if "spikes_in" in probes:
        nest.Connect(nrns_in, probes["spikes_in"].recorder, "all_to_all", static)
    for population in ("reg", "ad"):
        if population in probes:
            nodes = _first(config.recording.n_record, getattr(network, f"nrns_{population}"))
            nest.Connect(probes[population].recorder, nodes, "all_to_all", static)
    nest.Connect(probes["out"].recorder, nrns_out, "all_to_all", static)
