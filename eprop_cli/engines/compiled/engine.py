"""Losses and gradients without NEST, equal to NEST's to rounding: what surrounds the compiled kernels.

The sequences of a batch are shared out over threads. Each keeps its gradient to itself until all are added up in the
batch's order, so results are the same for any number of threads. The threads are Python's: the kernels release the
interpreter's lock, and so need none of Numba's threading layers, of which OpenMP's crashes next to NEST's OpenMP.

flush_event_send_interval makes no difference here: it frees a history that the kernels do not keep.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import clear
from eprop_cli.engines.base import Engine, Outcome
from eprop_cli.errors import ConfigError, require
from eprop_cli.models.base import GRADIENT, STREAM, Model
from eprop_cli.values import Batch, Weights

try:
    from eprop_cli.engines.compiled import kernels
    from eprop_cli.engines.compiled.parameters import Floats, neuron_parameters, readout_parameters, surrogates
    from eprop_cli.engines.compiled.recording import Simulated, recorded_neurons, recorded_tables, window_targets
    from eprop_cli.engines.compiled.stream import CompiledStream, make_network
except ImportError as error:
    constraint = f"needs Numba ({error}); pip install '.[compiled]' in the checkout"
    raise ConfigError("engine", "compiled", constraint) from error

KERNELS = {"adjoint": (GRADIENT,), "online": (STREAM,)}  # equations of a model -> what is computed of it


class CompiledEngine(Engine):
    """engine=compiled."""

    package = "numba"
    remedy = "pip install '.[compiled]' in the checkout"

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self._model = config.model
        if config.needs == GRADIENT:
            self._neurons = neuron_parameters(self._model)
            self._readouts = readout_parameters(self._model)
        self._n_threads = config.engine.n_workers
        self._threads = ThreadPoolExecutor(self._n_threads)

    @classmethod
    def provides(cls, model: type[Model]) -> frozenset[str]:
        """What there are kernels for."""
        return frozenset(KERNELS.get(model.equations, ()))

    @classmethod
    def keeps_state(cls) -> bool:
        """A stream is all its own."""
        return True

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
        lost = np.zeros((len(batch.spikes), batch.spikes.shape[2]), dtype=bool)
        if following is not None:
            lost = np.vstack([batch.spikes[1:, 1] > 0, following])
        recorded = recorded_neurons(self._config) if record else np.empty(0, dtype=np.int64)
        simulated = self._simulate(weights, batch, lost, recorded, record and self._config.recording.spikes)
        recording = recorded_tables(self._config, weights, batch, recorded, simulated) if record else None
        return Outcome(*self._metrics(simulated), self._gradients(simulated), recording)

    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch forward only."""
        return Outcome(*self._metrics(self._simulate(weights, batch, None, np.empty(0, dtype=np.int64), False)))

    def stream(self, weights: Weights) -> CompiledStream:
        """One simulation."""
        return CompiledStream(self._config, weights)

    def compile(self) -> None:
        """Compile the kernels, unless Numba has them on disk."""
        task, n_rec = self._config.task, self._model.n_rec
        shapes = {"in_rec": (n_rec, task.n_in), "rec_rec": (n_rec, n_rec), "rec_out": (task.n_out, n_rec)}
        weights = {name: np.zeros(shape) for name, shape in (shapes | {"out_rec": (n_rec, task.n_out)}).items()}
        if self._config.needs == STREAM:
            make_network(self._config, weights, self._config.optimizer.eta)  # it simulates its first steps
            return
        spikes = np.zeros((1, task.sequence_steps, task.n_in), dtype=bool)
        self.gradient(weights, Batch(spikes, np.zeros((task.n_out, 1, task.sequence_steps)), ((),)), None, False)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown()

    def _simulate(
        self,
        weights: Weights,
        batch: Batch,
        lost: NDArray[np.bool_] | None,
        recorded: NDArray[np.int64],
        spikes: bool,
    ) -> Simulated:
        """Run the kernels. lost: see kernels.run; None for no gradients. spikes: tell when neurons fired."""
        config = self._config
        n_batch, n_steps, n_in = batch.spikes.shape
        n_out, n_neurons = weights["rec_out"].shape
        window, n_learn = config.task.learning_window_steps, 0 if lost is None else n_batch
        simulated = Simulated(
            potential=np.empty((n_batch, n_steps, n_out)),
            signal=np.empty((n_batch, window, n_out)),
            n_spikes=np.empty((n_batch, n_neurons), dtype=np.int64),
            fired=np.zeros((n_batch, n_steps if spikes else 0, n_neurons), dtype=bool),
            dynamics=np.empty((n_batch, n_steps, len(recorded), 3)),
            gradients=np.empty((n_learn, n_in + n_neurons, n_neurons)),
            gradients_out=np.empty((n_learn, n_neurons, n_out)),
        )
        arguments = (
            self._neurons,
            surrogates(self._model),
            self._readouts,
            config.loss.softmax,
            *_packed(weights),
            np.require(batch.spikes.view(np.uint8), requirements=["C", "W"]),
            window_targets(batch, window),
            np.zeros((n_batch, n_in), dtype=bool) if lost is None else lost,
            recorded,
            *simulated,
        )
        shares = [np.arange(start, n_batch, self._n_threads) for start in range(self._n_threads)]
        list(self._threads.map(lambda share: kernels.run(share, *arguments), shares))
        return simulated

    def _metrics(self, simulated: Simulated) -> tuple[Floats, dict[str, int]]:
        """Readout and spike counts as in an Outcome."""
        n_spikes = simulated.n_spikes.sum(axis=0)
        counts = {population: int(n_spikes[place].sum()) for population, place in self._model.places.items()}
        return np.ascontiguousarray(simulated.signal.transpose(2, 0, 1)), counts

    def _gradients(self, simulated: Simulated) -> Weights:
        """Means over the batch, with the factor that the kernels leave out."""
        n_batch, n_pre, n_post = simulated.gradients.shape
        count = n_batch * (self._config.task.learning_window_steps if self._config.synapse.average_gradient else 1)
        rec = simulated.gradients.sum(axis=0) * (self._neurons[kernels.SCALE] / count)
        out = simulated.gradients_out.sum(axis=0) * (self._readouts[kernels.SCALE] / count)
        n_in = n_pre - n_post
        gradients = {"in_rec": rec[:n_in], "rec_rec": rec[n_in:], "rec_out": out}
        return clear({projection: np.ascontiguousarray(gradient.T) for projection, gradient in gradients.items()})


def _packed(weights: Weights) -> tuple[Floats, Floats, Floats]:
    """Weights as kernels.run takes them; copies, with targets next to each other."""
    rec = np.ascontiguousarray(np.hstack([weights["in_rec"], weights["rec_rec"]]).T)
    return rec, weights["rec_out"].T.copy(), weights["out_rec"].T.copy()
