"""Losses and gradients without NEST, equal to NEST's to rounding: what surrounds the compiled kernels.

Results are the same for any number of threads: see batch.Simulator.

flush_event_send_interval makes no difference here: it frees a history that the kernels do not keep.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import FEEDBACK, clear
from eprop_cli.connectivity.mask import NEIGHBOURS, Wiring, joined
from eprop_cli.engines.base import Engine, Outcome
from eprop_cli.errors import ConfigError, require
from eprop_cli.models.base import GRADIENT, STREAM, Model
from eprop_cli.values import Batch, Weights

try:
    from numba.core.event import Event, Listener, install_listener

    from eprop_cli.engines.compiled import synapses
    from eprop_cli.engines.compiled.batch import Circuit, Simulated, Simulator
    from eprop_cli.engines.compiled.parameters import Floats, neuron_parameters, readout_parameters, surrogates
    from eprop_cli.engines.compiled.recording import first_neurons, recorded_tables, window_targets
    from eprop_cli.engines.compiled.stream import CompiledStream, check_state, make_network
    from eprop_cli.engines.compiled.synapses import Synapses
except ImportError as error:
    constraint = f"needs Numba ({error}); pip install '.[compiled]' in the checkout"
    raise ConfigError("engine", "compiled", constraint) from error

KERNELS = {"adjoint": (GRADIENT,), "online": (STREAM,)}  # equations of a model -> what is computed of it
NONE = np.empty(0, dtype=np.int64)  # of the neurons


log = logging.getLogger(__name__)


class CompilingTold(Listener):  # type: ignore[misc]
    """Says once that kernels are compiled: the first run on an installation stands still meanwhile."""

    told = False

    def on_start(self, event: "Event") -> None:
        """Numba compiles a function, having found none on disk."""
        if not CompilingTold.told:
            CompilingTold.told = True
            log.info("compiling kernels (once per installation, 5 to 15 s)")

    def on_end(self, event: "Event") -> None:
        """Numba has compiled a function."""


class CompiledEngine(Engine):
    """engine=compiled."""

    package = "numba"
    remedy = "pip install '.[compiled]' in the checkout"

    def __init__(self, config: RunConfig, wiring: Wiring | None = None) -> None:
        super().__init__(config, wiring)
        self._model = config.model
        self._simulator = Simulator(config.engine.n_workers)
        self._ahead = ThreadPoolExecutor(1)
        self._lists: tuple[NDArray[np.int64], NDArray[np.uint32]] | None = None  # of NEIGHBOURS together
        if config.needs != GRADIENT:
            return
        self._neurons = neuron_parameters(self._model)
        self._readouts = readout_parameters(self._model)
        self._surrogates = surrogates(self._model)
        first, second = (self._wiring[projection] for projection in NEIGHBOURS)
        if not first.is_dense:
            (row, post), (row_2, post_2) = first.lists, second.lists
            self._lists = np.concatenate([row, row_2[1:] + row[-1]]), joined(post, post_2)

    @classmethod
    def provides(cls, model: type[Model]) -> frozenset[str]:
        """What there are kernels for."""
        return frozenset(KERNELS.get(model.equations, ()))

    @classmethod
    def keeps_state(cls) -> bool:
        """A stream is all its own."""
        return True

    @classmethod
    def check_state(cls, config: RunConfig, wiring: Wiring, state: Mapping[str, Any]) -> None:
        """Look at all that the kernels index with."""
        check_state(config, wiring, state)

    @classmethod
    def bytes_per_synapse(cls, needs: str) -> int:
        """Of a stream its state, which two checkpoints and the copy that evaluates hold as well."""
        return 300 if needs == STREAM else 40

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError for more threads than there is work for."""
        super().check(config)
        workers, n_batch = config.engine.n_workers, config.task.n_batch
        constraint = "must be 1 with training=continuous: one simulation is computed by one thread"
        require(workers == 1 or config.needs != STREAM, "engine.n_workers", workers, constraint)
        constraint = f"must be at most task.n_batch ({n_batch}): a worker takes at least one sequence"
        require(workers <= n_batch, "engine.n_workers", workers, constraint)

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch forward and backward."""
        lost = None if following is None else np.vstack([batch.spikes[1:, 1] > 0, following])
        chosen = self._config.recording
        recorded = first_neurons(self._config, chosen.n_record) if record else NONE
        watched = first_neurons(self._config, chosen.n_record_spikes) if record and chosen.spikes else NONE
        network = self._network(weights)
        targets = window_targets(batch, self._config.task.learning_window_steps)
        simulated = self._run(
            network, batch.spikes, targets, lost=lost, recorded=recorded, watched=watched, traced=record
        )
        averaged = self._config.synapse.average_gradient
        count = len(batch.spikes) * (self._config.task.learning_window_steps if averaged else 1)
        self._simulator.average(network, simulated, count)
        recording = None
        if record:
            feedback = self._wiring[FEEDBACK].rows(weights[FEEDBACK], recorded)
            recording = recorded_tables(self._config, feedback, batch, recorded, simulated)
        return Outcome(*self._metrics(simulated), self._gradients(simulated), recording)

    def begin(
        self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool
    ) -> Callable[[], Outcome] | None:
        """Begin gradient() in a thread of its own."""
        return self._ahead.submit(self.gradient, weights, batch, following, record).result

    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch forward only."""
        targets = window_targets(batch, self._config.task.learning_window_steps)
        simulated = self._run(self._network(weights), batch.spikes, targets, learn=False, traced=False)
        return Outcome(*self._metrics(simulated))

    def stream(self, weights: Weights) -> CompiledStream:
        """One simulation."""
        with install_listener("numba:compile", CompilingTold()):
            return CompiledStream(self._config, self._wiring, weights)

    def compile(self, weights: Weights) -> None:
        """Compile the kernels, unless Numba has them on disk."""
        task = self._config.task
        if self._config.needs == STREAM:
            eta = self._config.optimizer.eta
            make_network(self._config, self._wiring, weights, eta)  # it simulates its first steps
            return
        spikes = np.zeros((1, task.sequence_steps, task.n_in), dtype=bool)
        self.gradient(weights, Batch(spikes, np.zeros((task.n_out, 1, task.sequence_steps)), ((),)), None, False)

    def close(self) -> None:
        """Stop the threads, whatever they are at."""
        self._simulator.close()
        self._ahead.shutdown()

    def _run(self, *arguments: Any, **options: Any) -> Simulated:
        """Run the kernels, and say so where they are compiled first."""
        with install_listener("numba:compile", CompilingTold()):
            return self._simulator.run(*arguments, **options)

    def _network(self, weights: Weights) -> Circuit:
        """What the kernels take; shares the memory of listed weights."""
        rec = self._onto_rec(weights)
        out, feedback = (self._synapses(weights, projection) for projection in ("rec_out", FEEDBACK))
        softmax = self._config.loss.softmax
        return Circuit(self._neurons, self._surrogates, self._readouts, softmax, rec, out, feedback)

    def _onto_rec(self, values: Weights) -> Synapses:
        """Weights, or what else synapses have, of those onto recurrent neurons."""
        first, second = (values[projection] for projection in NEIGHBOURS)
        if self._lists is None:
            return synapses.dense(np.hstack([first, second]).T)
        return synapses.listed(*self._lists, joined(first, second))

    def _synapses(self, weights: Weights, projection: str) -> Synapses:
        mask, values = self._wiring[projection], weights[projection]
        return synapses.dense(values.T) if mask.is_dense else synapses.listed(*mask.lists, values)

    def _metrics(self, simulated: Simulated) -> tuple[Floats, dict[str, int]]:
        """Readout and spike counts as in an Outcome."""
        n_spikes = simulated.n_spikes.sum(axis=0)
        counts = {population: int(n_spikes[place].sum()) for population, place in self._model.places.items()}
        return np.ascontiguousarray(simulated.signal.transpose(2, 0, 1)), counts

    def _gradients(self, simulated: Simulated) -> Weights:
        """Gradients in the shapes of the weights."""
        flat, n_in = simulated.gradient, self._wiring["in_rec"].n_pre
        out = self._wiring["rec_out"]
        gradient_out = simulated.gradient_out
        if out.is_dense:
            gradient_out = np.ascontiguousarray(gradient_out.reshape(out.n_pre, out.n_post).T)
        if self._lists is not None:
            n = self._wiring["in_rec"].size
            return {"in_rec": flat[:n], "rec_rec": flat[n:], "rec_out": gradient_out}
        rec = flat.reshape(-1, self._model.n_rec)
        gradients = {
            name: np.ascontiguousarray(part.T) for name, part in zip(NEIGHBOURS, (rec[:n_in], rec[n_in:]), strict=True)
        }
        return clear(gradients | {"rec_out": gradient_out})
