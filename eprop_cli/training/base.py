"""What every way of training shares: records, the order of phases, and the check of a batch's result."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eprop_cli import metrics
from eprop_cli.config import Config, Training
from eprop_cli.derived import Timing
from eprop_cli.engines.base import Recording, Table, Weights
from eprop_cli.errors import TrainingError
from eprop_cli.tasks import Batch

Checkpoint = dict[str, Any]  # name -> array, number or text; what checkpoint.npz holds

PHASES = TRAINING, VALIDATION, EARLY_STOPPING, TEST = "training", "validation", "early-stopping", "test"


@dataclass(frozen=True)
class Row:
    """A line of metrics.csv.

    iteration: training iterations done, this one included.
    phase: training, validation, early-stopping or test.
    accuracy, recall_error: fractions of sequences; nan unless the loss is cross-entropy.
    rate_reg, rate_ad: mean firing rates in spikes/s; nan for an empty population.
    seconds: wall-clock time.
    """

    iteration: int
    phase: str
    loss: float
    accuracy: float
    recall_error: float
    rate_reg: float
    rate_ad: float
    seconds: float


@dataclass(frozen=True)
class Record:
    """What training yields after each batch.

    batch: the inputs, for the figures of a recorded iteration.
    recording: None unless this iteration is one that is recorded.
    weight_changes: columns projection, pre, post, time (ms since training began), weight; None outside training.
    """

    row: Row
    batch: Batch
    recording: Recording | None = None
    weight_changes: Table | None = None


class Trainer(Protocol):
    """A way of training. records() can be iterated once; weights() tells where it stands at any time."""

    initial: Weights
    simulating: float  # seconds spent simulating so far

    def records(self) -> Iterator[Record]:
        """Train, yielding after each batch."""
        ...

    def commit(self) -> Checkpoint | None:
        """Take note that all records so far are written; a state to go on from, if there is one at this point."""
        ...

    def weights(self) -> Weights:
        """Weights after what has been trained so far."""
        ...

    def close(self) -> None:
        """Give workers back; whatever happened before."""
        ...


@dataclass
class Progress:
    """How far the phases have come; what a checkpoint must keep of them."""

    iteration: int = 0  # training iterations begun
    stopped: bool = False  # early
    error: float = 0.0  # recall error of the batch evaluated last


def phases(training: Training, n_iter: int, progress: Progress) -> Iterator[str]:
    """Yield the phase of each batch in turn, by the rules of NEST's 3.10 tutorial.

    progress: where to begin; its counters are kept up to date here, its error by the caller. Where that error
        lags the batch presented last, as in a continuous simulation, the rules see the lagging one, as in the tutorial.
    """
    while progress.iteration < n_iter and not progress.stopped:
        if training.do_early_stopping and progress.iteration % training.n_iter_validate_every == 0:
            yield VALIDATION
            if progress.iteration > 0 and progress.error < training.stop_crit:
                errors = []
                for _ in range(training.n_iter_early_stop):
                    yield EARLY_STOPPING
                    errors.append(progress.error)
                progress.stopped = bool(np.mean(errors) < training.stop_crit)
        progress.iteration += 1
        yield TRAINING
    for _ in range(training.n_iter_test):
        yield TEST


@dataclass
class Bookkeeper:
    """Turns readouts into rows, and decides which iterations are recorded."""

    config: Config
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.timing = Timing.of(self.config.task, self.config.kernel)

    def wants(self, progress: Progress) -> bool:
        """Whether the training iteration under way is to be recorded. That it is the last is known beforehand."""
        chosen, iteration = self.config.recording.iterations, progress.iteration
        first = iteration == 1 and "first" in chosen
        last = (iteration == self.config.task.n_iter or progress.stopped) and "last" in chosen
        return first or last or iteration in chosen

    def row(
        self, iteration: int, phase: str, readout: NDArray[np.float64], batch: Batch, n_spikes: dict[str, int]
    ) -> Row:
        """The row of a batch; raises TrainingError if its loss is not finite."""
        neuron, timing = self.config.neuron, self.timing
        target = batch.targets[:, :, -timing.learning_window :]
        loss = metrics.LOSSES[neuron.out.loss](readout, target)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} in {phase} iteration {iteration}")
        classes = neuron.out.loss == "cross_entropy"
        accuracy = metrics.accuracy(readout, target) if classes else math.nan
        duration = timing.ms(timing.iteration)
        now = time.perf_counter()
        seconds, self.began = now - self.began, now
        return Row(
            iteration,
            phase,
            loss,
            accuracy,
            1.0 - accuracy,
            metrics.firing_rate(n_spikes["reg"], neuron.n_reg, duration),
            metrics.firing_rate(n_spikes["ad"], neuron.n_ad, duration),
            seconds,
        )
