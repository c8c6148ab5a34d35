"""Losses and gradients from NEST: each sequence in a kernel of its own, shared out over worker processes.

A sequence's gradient must not depend on its neighbours, so each gets a fresh kernel; that costs no more than one kernel
for the whole batch. The synapses' own optimizer is set up so that their last, forced spike writes the gradient into the
weight.
"""

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.config.groups import DataParallel
from eprop_cli.connectivity.base import PROJECTIONS
from eprop_cli.engines.base import Outcome
from eprop_cli.engines.nest.kernel import start_kernel
from eprop_cli.engines.nest.network import (
    EPROP_SYNAPSE,
    FORCING_WEIGHT,
    Network,
    build_network,
    force_final_update,
    present,
)
from eprop_cli.engines.nest.recordings import count_spikes, readout, recording_of
from eprop_cli.engines.nest.workers import Workers
from eprop_cli.errors import TrainingError
from eprop_cli.values import Batch, Recording, Weights

# With gradient descent of this learning rate, w - ETA * g is -ETA * g to the last bit for any gradient that is not tiny
# beyond meaning, and a power of two is divided out again without rounding.
ETA = 2.0**200
REPORTING = {"type": "gradient_descent", "batch_size": 1, "eta": ETA, "Wmin": -1e300, "Wmax": 1e300}
_kernel = threading.Lock()  # one per process, as NEST's kernel is; Dask workers may run several threads


@dataclass(frozen=True)
class Share:
    """What one worker has to do: some sequences of a batch, one after another.

    lossy: bool (n_sequences, n_in), inputs whose last gradient term is lost, as in a continuous simulation; None: none.
    """

    config: Config  # with n_batch 1
    weights: Weights
    sequences: tuple[Batch, ...]
    learn: bool
    lossy: NDArray[np.bool_] | None
    record: bool


@dataclass(frozen=True)
class SequenceOutcome:
    """Readout (n_out, learning_window), spike counts, gradients and recording of one sequence."""

    readout: NDArray[np.float64]
    n_spikes: dict[str, int]
    gradients: Weights | None
    recording: Recording | None


class NestEngine:
    """engine=nest."""

    def __init__(self, config: Config) -> None:
        assert isinstance(config.training, DataParallel)
        self._n_workers = config.training.n_workers
        self._workers = Workers(config.training)
        self._config = copy.deepcopy(config)
        self._config.task.n_batch = 1

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch with e-prop synapses."""
        lossy = None if following is None else np.vstack([batch.spikes[1:, 1], following])
        outcomes = self._simulate(weights, batch, True, lossy, record)
        gradients = {}
        for projection in PROJECTIONS:
            total = np.zeros_like(weights[projection])
            for outcome in outcomes:  # in the batch's order, whoever computed it
                assert outcome.gradients is not None
                total += outcome.gradients[projection]
            gradients[projection] = total / len(outcomes)
        recording = _joined([outcome.recording for outcome in outcomes if outcome.recording is not None])
        return Outcome(*_readouts(outcomes), gradients, recording if record else None)

    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch with static synapses, several times as fast."""
        spikes = batch.spikes.copy()
        spikes[:, 0] = False  # e-prop synapses drop what static ones would transmit
        batch = replace(batch, spikes=spikes)
        return Outcome(*_readouts(self._simulate(weights, batch, False, None, False)))

    def close(self) -> None:
        """Stop the workers."""
        self._workers.close(at_once=True)

    def _simulate(
        self, weights: Weights, batch: Batch, learn: bool, lossy: NDArray[np.bool_] | None, record: bool
    ) -> "list[SequenceOutcome]":
        n_batch = len(batch.spikes)
        shares = [
            Share(
                self._config,
                weights,
                tuple(_sequence(batch, int(index)) for index in indices),
                learn,
                None if lossy is None else lossy[indices],
                record,
            )
            for indices in np.array_split(np.arange(n_batch), self._n_workers)
        ]
        done = self._workers.map(simulate_share, shares, builds=-(-n_batch // self._n_workers))
        return [outcome for outcomes in done for outcome in outcomes]


def simulate_share(share: Share) -> list[SequenceOutcome]:
    """Simulate a share in this process's NEST; what a worker does."""
    with _kernel:
        return [_simulate_sequence(share, index) for index in range(len(share.sequences))]


def _simulate_sequence(share: Share, index: int) -> SequenceOutcome:
    config, sequence = share.config, share.sequences[index]
    nest = start_kernel(config)
    try:
        network = build_network(nest, config, share.weights, REPORTING if share.learn else None, share.record)
        present(network, sequence, 0)
        timing, gradients = network.timing, None
        if share.learn:
            gradients = _simulate_learning(nest, network, share, index)
        else:
            nest.Simulate(timing.ms(timing.sequence + timing.lead))
    except nest.NESTError as error:
        raise TrainingError(f"NEST: {error}") from error
    events = {name: probe.drain(timing.ms(timing.sequence)) for name, probe in network.probes.items()}
    recording = recording_of(network, events, 0, config.recording.interval) if share.record else None
    signal_name = "readout_signal" if share.learn else "V_m"
    signals = readout(events["out"], config.task.n_out, timing, signal_name)[:, 0]
    if not share.learn and config.neuron.out.loss == "cross_entropy":
        signals = np.exp(signals) / np.exp(signals).sum(axis=0)
    return SequenceOutcome(signals, count_spikes(network, events["spikes"]), gradients, recording)


def _simulate_learning(nest: Any, network: Network, share: Share, index: int) -> Weights:
    """Simulate one sequence and read the gradients off its forced last spikes.

    An input spike in step 1 of a next sequence would make its synapses update one step before the last learning signal
    has come; forcing the inputs in lossy one step early reproduces that.
    """
    timing = network.timing
    end = timing.sequence + timing.delays
    force_final_update(network, timing.sequence)
    if share.lossy is not None and share.lossy[index].any():
        generator = nest.Create("spike_generator", 1, {"spike_times": [timing.ms(end - 1)]})
        inputs = nest.NodeCollection(np.array(network.ids["in"])[share.lossy[index]])
        nest.Connect(generator, inputs, "all_to_all", {"weight": FORCING_WEIGHT, "delay": timing.resolution})
    recorder = nest.Create("weight_recorder")  # before time passes: creating a node loses spikes in flight
    # Where a Simulate() begins, signals in flight from the readouts are lost: so not within the learning window.
    quiet = max(0, timing.sequence - timing.learning_window)
    if quiet:
        nest.Simulate(timing.ms(quiet))
    # Attached late the recorder takes few events; asking the connections for their weights takes thirty times as long.
    nest.SetDefaults(EPROP_SYNAPSE, {"weight_recorder": recorder})
    nest.Simulate(timing.ms(timing.sequence + timing.lead - quiet))
    events = recorder.events
    forced = events["times"] > timing.ms(end + 0.5)
    return _gradients(network, share.weights, {key: values[forced] for key, values in events.items()})


def _gradients(network: Network, weights: Weights, events: dict[str, NDArray[Any]]) -> Weights:
    """Gradients from the weights that synapses have after a step of REPORTING."""
    gradients = {}
    for projection in PROJECTIONS:
        pre, post = projection.split("_")
        own = network.belong(events["senders"], pre) & network.belong(events["targets"], post)
        index = network.index(events["targets"][own], post), network.index(events["senders"][own], pre)
        updated = np.full_like(weights[projection], np.nan)
        updated[index] = events["weights"][own]
        gradients[projection] = (weights[projection] - updated) / ETA
    np.fill_diagonal(gradients["rec_rec"], 0.0)
    return gradients


def _sequence(batch: Batch, index: int) -> Batch:
    """A batch of one of a batch's sequences."""
    one = slice(index, index + 1)
    return Batch(batch.spikes[one], np.ascontiguousarray(batch.targets[:, one]), batch.windows[one])


def _readouts(outcomes: Sequence[SequenceOutcome]) -> tuple[NDArray[np.float64], dict[str, int]]:
    readouts = np.stack([outcome.readout for outcome in outcomes], axis=1)
    return readouts, {key: sum(outcome.n_spikes[key] for outcome in outcomes) for key in ("reg", "ad")}


def _joined(recordings: Sequence[Recording]) -> Recording:
    """The recordings of single sequences as that of a batch."""
    joined: Recording = {}
    for name in recordings[0] if recordings else ():
        tables = []
        for index, recording in enumerate(recordings):
            table = recording[name]
            tables.append(table | {"sequence": np.full(len(table["sequence"]), index, dtype=np.int32)})
        joined[name] = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
    return joined
