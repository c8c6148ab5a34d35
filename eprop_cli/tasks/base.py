"""What a task is: a config, and a function from a random generator to a batch of spikes and targets."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eprop_cli.errors import require
from eprop_cli.values import Batch


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


class Task(Protocol):
    """A task made from its config; it keeps no state between batches."""

    def __init__(self, config: TaskConfig) -> None: ...

    def batch(self, rng: np.random.RandomState) -> Batch:
        """Draw the next batch from the generator."""
        ...
