"""Train in one simulation that goes on and on, as NEST's tutorial does: weights change as spikes pass."""

from collections.abc import Iterator

import numpy as np

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.connectivity.projections import SYMMETRIC
from eprop_cli.engines.base import Outcome, make_engine
from eprop_cli.errors import require
from eprop_cli.models.base import STREAM
from eprop_cli.phases import PHASES, TRAINING, Progress, phases
from eprop_cli.training.base import Bookkeeper, Record, Trainer, check_finite, initial_network, make_task, timed
from eprop_cli.values import Batch, Checkpoint, Weights


class Continuous(Trainer):
    """training=continuous."""

    needs = STREAM
    not_resumable = (
        "a continuous run cannot be continued exactly, as NEST does not give out the state of its synapses; "
        "start again with training=data_parallel, which can"
    )

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        self._config = config
        self._rng = np.random.RandomState(config.seed)
        self.wiring, self.initial = initial_network(config, self._rng)
        self._task = make_task(config, self._rng)
        self._engine = make_engine(config, self.wiring)
        self._stream = self._engine.stream(self.initial)
        self._drawn = dict.fromkeys(PHASES, 0)

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError for what the optimizers of synapses do not have."""
        remedy = "needs training=data_parallel; NEST's own optimizer does not have it"
        optimizer = config.optimizer
        require(config.make_optimizer().nest_type is not None, "optimizer", optimizer.name, remedy)
        require(optimizer.weight_decay == 0, "optimizer.weight_decay", optimizer.weight_decay, remedy)
        require(optimizer.clip_norm is None, "optimizer.clip_norm", optimizer.clip_norm, remedy)
        require(optimizer.schedule.name == "constant", "optimizer.schedule.name", optimizer.schedule.name, remedy)
        rates, bounds = vars(optimizer.eta_factor), vars(optimizer.bounds)
        require(set(rates.values()) == {1.0}, "optimizer.eta_factor", rates, remedy)
        require(set(map(str, bounds.values())) == {"None"}, "optimizer.bounds", bounds, remedy)
        for name, learns in vars(config.connectivity.plastic).items():
            require(learns, f"connectivity.plastic.{name}", learns, "must be true, or needs training=data_parallel")
        feedback, remedy_here = config.connectivity.feedback, "needs training=data_parallel; NEST cannot do it"
        require(feedback != SYMMETRIC, "connectivity.feedback", feedback, remedy_here)
        for name, fraction in vars(config.connectivity.excitatory_fraction).items():
            require(fraction is None, f"connectivity.excitatory_fraction.{name}", fraction, remedy_here)
        require(optimizer.schedule.warmup == 0, "optimizer.schedule.warmup", optimizer.schedule.warmup, remedy)
        super().check(config)

    def records(self) -> Iterator[Record]:
        """Train, yielding each batch as soon as the simulation has passed its end."""
        config, book, progress = self._config, Bookkeeper(self._config), Progress()
        pending: tuple[int, str, Batch] | None = None
        for phase in phases(config.training, config.criterion, config.task.n_iter, progress):
            batch = self._task.batch_at(self._rng, phase, self._drawn[phase])
            self._drawn[phase] += 1
            eta = config.optimizer.eta if phase == TRAINING else 0.0
            record = phase == TRAINING and book.wants(progress)
            outcome = timed(self, lambda batch=batch, eta=eta, record=record: self._stream.begin(batch, eta, record))
            if pending is not None:
                finished = _record(book, pending, outcome)
                progress.metric = finished.row.metrics[config.training.stop_metric]
                yield finished
            pending = (progress.iteration, phase, batch)
            timed(self, self._stream.go_on)
        outcome = timed(self, self._stream.finish)
        if pending is not None:  # there was at least one batch
            yield _record(book, pending, outcome)
        # Once is enough: a weight that is NaN stays so, and makes its neuron silent.
        check_finite(self.weights(), PLASTIC)

    def weights(self) -> Weights:
        """Weights as the synapses hold them; one that has not transmitted since its last batch lags behind."""
        return self._stream.weights()

    def close(self) -> None:
        """Give back what the engine holds."""
        self._engine.close()


def _record(book: Bookkeeper, begun: tuple[int, str, Batch], outcome: Outcome) -> Record:
    iteration, phase, batch = begun
    row = book.row(iteration, phase, outcome.readout, batch, outcome.n_spikes)
    return Record(row, batch, outcome.recording, outcome.weight_changes)
