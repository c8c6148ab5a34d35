"""What a task is: a config, and a function from a random generator to a batch of spikes and targets."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eprop_cli.errors import require


@dataclass
class TaskConfig:
    """The keys that every task has. Counts are numbers of neurons, sequences or iterations."""

    name: str
    n_iter: int
    n_batch: int
    n_in: int
    n_out: int

    def __post_init__(self) -> None:
        require(self.n_iter >= 0, "task.n_iter", self.n_iter, "must be at least 0")
        for key in ("n_batch", "n_in", "n_out"):
            value = getattr(self, key)
            require(value >= 1, f"task.{key}", value, "must be at least 1")

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence."""
        raise NotImplementedError

    @property
    def learning_window_steps(self) -> int:
        """Time steps at the end of a sequence in which learning signals are non-zero."""
        raise NotImplementedError


@dataclass(frozen=True)
class Window:
    """A named stretch of the sequence, shaded in figures.

    kind: windows of one kind share a colour and a legend entry, e.g. "cue left".
    start, stop: time steps, stop excluded.
    """

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class Batch:
    """One batch of sequences.

    spikes: bool (n_batch, n_steps, n_in), True where an input neuron fires; never in step 0, which NEST drops.
    targets: float64 (n_out, n_batch, n_steps), target signal of each readout (a probability for cross-entropy).
    windows: n_batch tuples of windows, what a figure of that sequence shades.
    """

    spikes: NDArray[np.bool_]
    targets: NDArray[np.float64]
    windows: tuple[tuple[Window, ...], ...]


class Task(Protocol):
    """A task made from its config; it keeps no state between batches."""

    def __init__(self, config: TaskConfig) -> None: ...

    def batch(self, rng: np.random.RandomState) -> Batch:
        """Draw the next batch from the generator."""
        ...
