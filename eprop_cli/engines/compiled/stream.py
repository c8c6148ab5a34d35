"""One compiled simulation that goes on and on, driven batch by batch, whose whole state can be kept and taken up again.

Steps are those of NEST's simulation of the same config, changes of the learning rate included: a batch begins when the
last steps of the one before, as many as its signals lag, are still to come, and those have its learning rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.archives import check_arrays, check_in_range
from eprop_cli.config.config import Config
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.connectivity.mask import Mask, Wiring, sampled
from eprop_cli.connectivity.synapses import no_such_synapse
from eprop_cli.engines.base import Outcome
from eprop_cli.engines.compiled import online
from eprop_cli.engines.compiled.recording import first_neurons, online_tables
from eprop_cli.schema import MOST
from eprop_cli.values import Batch, Weights

STATE, LEFT = "state_", "left_"  # what names of arrays begin with: of the network, of the steps that are left


@dataclass(frozen=True)
class Segment:
    """A stretch of n steps to simulate: uint8 (n, n_in) input spikes, (n, n_out) targets, (n,) learning window."""

    inputs: NDArray[np.uint8]
    targets: NDArray[np.float64]
    window: NDArray[np.float64]

    @classmethod
    def of_batch(cls, batch: Batch, learning_window: int) -> "Segment":
        """All sequences of a batch one after another."""
        n_batch, n_steps, n_in = batch.spikes.shape
        window = np.zeros((n_batch, n_steps))
        window[:, n_steps - learning_window :] = 1.0
        inputs = batch.spikes.reshape(-1, n_in).astype(np.uint8)
        return cls(inputs, batch.targets.reshape(len(batch.targets), -1).T.copy(), window.ravel())

    def part(self, start: int, stop: int | None) -> "Segment":
        """Some of its steps."""
        some = slice(start, stop)
        return Segment(self.inputs[some], self.targets[some], self.window[some])

    def __len__(self) -> int:
        return len(self.window)


@dataclass
class _Begun:
    """A batch under way, what has come out of its steps so far, and those that are left."""

    batch: Batch
    record: bool
    left: Segment
    outcomes: list[online.Advanced]


class CompiledStream:
    """training=continuous in the compiled engine."""

    def __init__(self, config: Config, wiring: Wiring, weights: Weights) -> None:
        self._config, self._wiring, self._initial, self._timing = config, wiring, weights, config.timing
        self._recorded = first_neurons(config, config.recording.n_record)
        self._network: online.OnlineNetwork | None = None  # from the first learning rate on
        self._begun: _Begun | None = None
        self._held: Segment | None = None  # the last step, whose targets go on for as long as nothing follows
        self._eta = 0.0  # with which the simulation goes on
        self._now = 0  # step at which the next batch begins

    def begin(self, batch: Batch, eta: float, record: bool) -> Outcome | None:
        """Simulate the last steps of the batch before with the learning rate of this one, as NEST's scripts do."""
        if self._network is None:
            self._network = make_network(self._config, self._wiring, self._initial, eta)
        before = self.end(eta)
        self._begun = _Begun(batch, record, Segment.of_batch(batch, self._timing.learning_window), [])
        self._now += len(self._begun.left)
        return before

    def go_on(self) -> None:
        """Simulate all but the last steps of the batch, sequence by sequence, to heed Ctrl-C in between."""
        assert self._begun is not None
        last = self._timing.total_offset
        while len(self._begun.left) > last:
            self._advance(self._begun, min(self._timing.sequence, len(self._begun.left) - last))

    def end(self, eta: float | None) -> Outcome | None:
        """Simulate the last steps of the batch, with that of the next one; returns None if its outcome was known."""
        self._eta = self._eta if eta is None else eta
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        self._held = begun.left.part(-1, None)
        self._advance(begun, len(begun.left))
        if not begun.outcomes[:-1]:  # only its last steps have been simulated since the state was taken up
            return None
        return self._outcome(begun.batch, begun.outcomes, begun.record)

    def finish(self) -> Outcome | None:
        """Force the last updates, past the end of the batch: weights() are final then."""
        outcome, held = self.end(None), self._held
        if self._network is not None and held is not None:
            quiet = np.zeros_like(held.inputs)
            self._network.advance(quiet, held.targets, held.window, self._eta, final_steps=1)
        return outcome

    def evaluate(self, batch: Batch) -> Outcome:
        """Simulate a batch on a copy of the network that does not learn; nothing else changes."""
        if self._network is None:
            first = self._config.learning_rate(0)
            self._network = make_network(self._config, self._wiring, self._initial, first)
        copy, steps = self._network.frozen(), Segment.of_batch(batch, self._timing.learning_window)
        return self._outcome(batch, [copy.advance(steps.inputs, steps.targets, steps.window, 0.0)], False)

    def weights(self) -> Weights:
        """Weights as the synapses hold them."""
        if self._network is None:
            return self._initial
        weights = {FEEDBACK: self._initial[FEEDBACK]}
        for projection, values in zip(PLASTIC, self._network.weights(), strict=True):
            mask = self._wiring[projection]
            weights[projection] = mask.listed().matrix(values) if mask.is_dense else values
        return {projection: weights[projection] for projection in self._initial}

    def moments(self) -> dict[str, Weights]:
        """What the optimizer keeps of all synapses."""
        if self._network is None:
            return {}
        kept = {"m": online.M, "v": online.V}
        names = self._config.make_optimizer().moments
        return {name: dict(zip(PLASTIC, self._network.synapses(kept[name]), strict=True)) for name in names}

    def state(self) -> dict[str, Any]:
        """All that it needs to go on, once go_on() has come to its end; arrays are copies."""
        state: dict[str, Any] = {"now": self._now, "eta": self._eta}
        if self._network is not None:
            state |= {STATE + name: values for name, values in self._network.state.arrays().items()}
        if self._begun is not None:
            state |= {LEFT + each.name: getattr(self._begun.left, each.name).copy() for each in fields(Segment)}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what state() gave."""
        self._now, self._eta = int(state["now"]), float(state["eta"])
        arrays = {name.removeprefix(STATE): values for name, values in state.items() if name.startswith(STATE)}
        if arrays:
            self._network = make_network(self._config, self._wiring, self._initial, self._eta)
            self._network.state.load(arrays)
        left = {name.removeprefix(LEFT): values for name, values in state.items() if name.startswith(LEFT)}
        if left:
            nothing = Batch(np.empty((0, 0, 0), bool), np.empty((0, 0, 0)), ())
            self._begun = _Begun(nothing, False, Segment(**left), [])

    def _advance(self, begun: _Begun, n_steps: int) -> None:
        assert self._network is not None
        steps, begun.left = begun.left.part(0, n_steps), begun.left.part(n_steps, None)
        recorded = self._recorded if begun.record else ()
        raster = begun.record and self._config.recording.spikes
        inputs, targets, window = steps.inputs, steps.targets, steps.window
        outcome = self._network.advance(inputs, targets, window, self._eta, recorded, raster)
        begun.outcomes.append(outcome)

    def _outcome(self, batch: Batch, outcomes: Sequence[online.Advanced], record: bool) -> Outcome:
        config, timing = self._config, self._timing
        n_out, shape = config.task.n_out, (len(batch.spikes), timing.sequence)
        readout = np.concatenate([outcome.readout_signal for outcome in outcomes]).T.reshape(n_out, *shape)
        n_spikes = np.sum([outcome.n_spikes for outcome in outcomes], axis=0)
        counts = {population: int(n_spikes[place].sum()) for population, place in config.model.places.items()}
        n = config.recording.n_record_w
        return Outcome(
            np.ascontiguousarray(readout[:, :, timing.sequence - timing.learning_window :]),
            counts,
            recording=online_tables(config, batch, self._recorded, outcomes) if record else None,
            weight_changes=sampled(self._wiring, self.weights(), n, timing.ms(self._now)) if n else None,
        )


def check_state(config: Config, wiring: Wiring, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless CompiledStream.restore() takes what may be a state, whoever wrote it."""
    arrays = {name: np.asarray(values) for name, values in state.items()}
    check_arrays(arrays, {"now": ("iu", ()), "eta": ("f", ())})
    check_in_range(arrays, ("now",), 0, online.MOST_STEPS)
    check_in_range(arrays, ("eta",), 0.0, MOST)
    left = {LEFT + each.name for each in fields(Segment)} & arrays.keys()
    kept = {name.removeprefix(STATE): values for name, values in arrays.items() if name.startswith(STATE)}
    if kept:
        zeros = {name: np.zeros(mask.shape) for name, mask in wiring.items()}
        network = make_network(config, wiring, zeros, float(arrays["eta"]))
        network.state.load(kept)
        network.check()
    elif left:
        raise ValueError("it has steps that are left, and no network")
    if left:
        n = config.timing.total_offset
        shapes = {"inputs": (n, config.task.n_in), "targets": (n, config.task.n_out), "window": (n,)}
        schema = {LEFT + name: ("u" if name == "inputs" else "f", shape) for name, shape in shapes.items()}
        check_arrays(arrays, schema)


def make_network(config: Config, wiring: Wiring, weights: Weights, eta: float) -> online.OnlineNetwork:
    """The network of a config; eta: the first learning rate."""
    model = config.model
    (population,) = model.populations
    parameters = model.parameters(population.name)
    del parameters["flush_event_send_interval"]  # it frees a history that is not kept here
    optimizer = config.make_optimizer().nest_parameters() | model.optimizer(config.task.n_batch)
    del optimizer["eta"]
    listed = {projection: wiring[projection].listed() for projection in PLASTIC}
    w_in, w_rec, w_out = (_projection(wiring[key], listed[key], weights[key]) for key in PLASTIC)
    network = online.OnlineNetwork(
        online.Neurons(model=population.model, **parameters),
        online.Readouts(**model.parameters("out")),
        online.OptimizerParameters(**optimizer),
        w_in,
        w_rec,
        w_out,
        wiring[FEEDBACK].matrix(weights[FEEDBACK]),
        eta,
        dt=config.timing.resolution,
        offset=config.timing.total_offset,
    )
    for entry in config.synapse.init_optimizer:
        try:
            places = listed[entry.projection].find(np.full(len(entry.post), entry.pre), np.array(entry.post))
        except LookupError as error:
            raise no_such_synapse(entry) from error
        synapses = network.state.out_synapses if entry.projection == "rec_out" else network.state.synapses
        index = places + (listed["in_rec"].size if entry.projection == "rec_rec" else 0)
        synapses[online.M, index], synapses[online.V, index] = entry.m, entry.v
    return network


def _projection(mask: Mask, listed: Mask, weights: NDArray[np.float64]) -> online.ListedSynapses:
    """Synapses as the kernels take them. listed: those of the mask as a list."""
    return online.ListedSynapses(*listed.lists, listed.take(weights) if mask.is_dense else weights)
