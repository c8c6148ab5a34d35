"""Losses and gradients from NEST: each sequence in a kernel of its own, shared out over worker processes.

A sequence's gradient must not depend on its neighbours, so each gets a fresh kernel; that costs no more than one kernel
for the whole batch. The synapses' own optimizer is set up so that their last, forced spike writes the gradient into the
weight.
"""

import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import PLASTIC, clear, ends
from eprop_cli.connectivity.mask import Wiring
from eprop_cli.engines.base import Engine, EngineConfig, Outcome
from eprop_cli.engines.nest.kernel import installed_nest, start_kernel
from eprop_cli.engines.nest.network import Network, build_network, force_final_update, present
from eprop_cli.engines.nest.recordings import count_spikes, readout, recording_of
from eprop_cli.engines.nest.stream import NestStream
from eprop_cli.engines.nest.workers import Workers, check_scheduler
from eprop_cli.errors import TrainingError, require
from eprop_cli.models.base import GRADIENT, STREAM, Model
from eprop_cli.schema import NON_NEGATIVE, at_least, key, one_of
from eprop_cli.values import Batch, Recording, Weights

# With gradient descent of this learning rate, w - ETA * g is -ETA * g to the last bit for any gradient that is not tiny
# beyond meaning, and a power of two is divided out again without rounding.
ETA = 2.0**200
REPORTING = {"type": "gradient_descent", "batch_size": 1, "eta": ETA, "Wmin": -1e300, "Wmax": 1e300}
RELEASE = "3.10"  # of NEST, whose models and parameters are meant
_kernel = threading.Lock()  # one per process, as NEST's kernel is; Dask workers may run several threads


@dataclass(frozen=True)
class Share:
    """What one worker has to do: some sequences of a batch, one after another.

    lossy: bool (n_sequences, n_in), inputs whose last gradient term is lost, as in a continuous simulation; None: none.
    """

    config: RunConfig
    wiring: Wiring
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


@dataclass(kw_only=True)
class NestConfig(EngineConfig):
    """Keys of conf/engine/nest.yaml."""

    local_num_threads: int = key(at_least(1))
    backend: str = key(one_of(("loky", "dask")))
    scheduler: str | None
    max_retries: int = key(NON_NEGATIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        threads, cores = self.local_num_threads, os.cpu_count() or 1
        constraint = f"must be at most the number of cores ({cores}): NEST's threads wait for each other spinning"
        require(threads <= cores, "engine.local_num_threads", threads, constraint)
        if self.backend == "dask":
            address = "must be the address of a Dask scheduler, e.g. tcp://host:8786, with backend=dask"
            require(self.scheduler is not None, "engine.scheduler", self.scheduler, address)


class NestEngine(Engine):
    """engine=nest."""

    Config = NestConfig
    package = "nest"
    remedy = f"install nest-simulator {RELEASE}, or use training=data_parallel engine=compiled"

    def __init__(self, config: RunConfig, wiring: Wiring | None = None) -> None:
        super().__init__(config, wiring)
        self._workers = Workers(config.engine)

    @classmethod
    def provides(cls, model: type[Model]) -> frozenset[str]:
        """Whatever can be computed."""
        return frozenset({GRADIENT, STREAM}.intersection(model.computes))

    @classmethod
    def bytes_per_synapse(cls, needs: str) -> int:
        """Synapse, optimizer, weights; more with the history of spikes."""
        return 250

    @classmethod
    def cores(cls, engine: Mapping[str, Any]) -> int:
        """Each worker has its threads."""
        return int(engine["n_workers"]) * int(engine["local_num_threads"])

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError for what NEST cannot do."""
        super().check(config)
        if config.needs == STREAM:
            # A Simulate() call begins in step 1 of a batch; there a softmax misses the other readouts' signals.
            window, most = config.task.learning_window_steps, config.task.sequence_steps - 2
            constraint = f"must be at most {most} with training=continuous and cross_entropy (sequence less 2 steps)"
            fits = window <= most or not config.loss.softmax
            require(fits, "task.steps.learning_window", window, constraint)
        else:
            workers, n_batch = config.engine.n_workers, config.task.n_batch
            constraint = f"must be at most task.n_batch ({n_batch}): a worker takes at least one sequence"
            require(workers <= n_batch, "engine.n_workers", workers, constraint)

    @classmethod
    def check_possible(cls, config: RunConfig) -> None:
        """Raise ConfigError if NEST is not installed or of another release, or Dask is wanted and does not answer."""
        super().check_possible(config)
        found = installed_nest()
        fits = re.fullmatch(rf"{re.escape(RELEASE)}(\D.*)?", found) is not None
        require(fits, "engine", config.engine.name, f"needs NEST {RELEASE}, found {found}; {cls.remedy}")
        if config.engine.backend == "dask":
            missing = "needs distributed, which is not installed; pip install '.[dask]' in the checkout"
            require(find_spec("distributed") is not None, "engine.backend", "dask", missing)
            check_scheduler(str(config.engine.scheduler))

    def stream(self, weights: Weights) -> NestStream:
        """One NEST simulation, in this process."""
        return NestStream(self._config, self._wiring, weights)

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch with e-prop synapses."""
        lossy = None if following is None else np.vstack([batch.spikes[1:, 1] > 0, following])
        outcomes = self._simulate(weights, batch, True, lossy, record)
        gradients = {}
        for projection in PLASTIC:
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
        spikes[:, 0] = 0  # e-prop synapses drop what static ones would transmit
        batch = replace(batch, spikes=spikes)
        return Outcome(*_readouts(self._simulate(weights, batch, False, None, False)))

    def close(self) -> None:
        """Stop the workers."""
        self._workers.close(at_once=True)

    def _simulate(
        self, weights: Weights, batch: Batch, learn: bool, lossy: NDArray[np.bool_] | None, record: bool
    ) -> "list[SequenceOutcome]":
        n_batch = len(batch.spikes)
        n_workers = min(self._config.engine.n_workers, n_batch)  # a last batch may be small
        shares = [
            Share(
                self._config,
                self._wiring,
                weights,
                tuple(_sequence(batch, int(index)) for index in indices),
                learn,
                None if lossy is None else lossy[indices],
                record,
            )
            for indices in np.array_split(np.arange(n_batch), n_workers)
        ]
        done = self._workers.map(simulate_share, shares, builds=-(-n_batch // n_workers))
        return [outcome for outcomes in done for outcome in outcomes]


def simulate_share(share: Share) -> list[SequenceOutcome]:
    """Simulate a share in this process's NEST; what a worker does."""
    with _kernel:
        return [_simulate_sequence(share, index) for index in range(len(share.sequences))]


def _simulate_sequence(share: Share, index: int) -> SequenceOutcome:
    config, sequence = share.config, share.sequences[index]
    nest = start_kernel(config)
    try:
        network = build_network(
            nest, config, share.wiring, share.weights, REPORTING if share.learn else None, share.record
        )
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
    if not share.learn and config.loss.softmax:
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
        weight = share.config.model.forcing_weight
        nest.Connect(generator, inputs, "all_to_all", {"weight": weight, "delay": timing.resolution})
    recorder = nest.Create("weight_recorder")  # before time passes: creating a node loses spikes in flight
    # Where a Simulate() begins, signals in flight from the readouts are lost: so not within the learning window.
    quiet = max(0, timing.sequence - timing.learning_window)
    if quiet:
        nest.Simulate(timing.ms(quiet))
    # Attached late the recorder takes few events; asking the connections for their weights takes thirty times as long.
    nest.SetDefaults(network.synapse, {"weight_recorder": recorder})
    nest.Simulate(timing.ms(timing.sequence + timing.lead - quiet))
    events = recorder.events
    forced = events["times"] > timing.ms(end + 0.5)
    return _gradients(network, share, {key: values[forced] for key, values in events.items()})


def _gradients(network: Network, share: Share, events: dict[str, NDArray[Any]]) -> Weights:
    """Gradients from the weights that synapses have after a step of REPORTING."""
    gradients = {}
    for projection in PLASTIC:
        pre, post = ends(projection)
        own = network.belong(events["senders"], pre) & network.belong(events["targets"], post)
        ends_of = network.index(events["senders"][own], pre), network.index(events["targets"][own], post)
        weights = share.weights[projection]
        updated = np.full_like(weights, np.nan)
        updated[share.wiring[projection].index(*ends_of)] = events["weights"][own]
        gradients[projection] = (weights - updated) / ETA
    return clear(gradients)


def _sequence(batch: Batch, index: int) -> Batch:
    """A batch of one of a batch's sequences."""
    one = slice(index, index + 1)
    return Batch(batch.spikes[one], np.ascontiguousarray(batch.targets[:, one]), batch.windows[one])


def _readouts(outcomes: Sequence[SequenceOutcome]) -> tuple[NDArray[np.float64], dict[str, int]]:
    readouts = np.stack([outcome.readout for outcome in outcomes], axis=1)
    return readouts, {key: sum(outcome.n_spikes[key] for outcome in outcomes) for key in outcomes[0].n_spikes}


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
