"""What every way of training shares: records, the order of phases, and the check of a batch's result."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.errors import TrainingError
from eprop_cli.losses import LOSSES, firing_rate
from eprop_cli.losses import accuracy as sequence_accuracy
from eprop_cli.phases import Progress
from eprop_cli.timing import Timing
from eprop_cli.values import Batch, Checkpoint, Recording, Row, Table, Weights


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
        loss = LOSSES[neuron.out.loss](readout, target)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss} in {phase} iteration {iteration}")
        classes = neuron.out.loss == "cross_entropy"
        accuracy = sequence_accuracy(readout, target) if classes else math.nan
        duration = timing.ms(timing.iteration)
        now = time.perf_counter()
        seconds, self.began = now - self.began, now
        return Row(
            iteration,
            phase,
            loss,
            accuracy,
            1.0 - accuracy,
            firing_rate(n_spikes["reg"], neuron.n_reg, duration),
            firing_rate(n_spikes["ad"], neuron.n_ad, duration),
            seconds,
        )
