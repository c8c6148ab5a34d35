"""What a task is: a config, and a function from a random generator to a batch of spikes and targets."""

from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.errors import UserError, require
from eprop_cli.phases import TRAINING
from eprop_cli.registry import variant
from eprop_cli.schema import Group, at_least, key
from eprop_cli.values import Batch


@dataclass(kw_only=True)
class TaskConfig(Group):
    """The keys that every task has. Counts are numbers of neurons, sequences or iterations."""

    GROUP = "task"

    name: str
    n_iter: int = key(at_least(0))
    n_batch: int = key(at_least(1))
    n_in: int = key(at_least(1))
    n_out: int = key(at_least(1))

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence."""
        raise NotImplementedError

    @property
    def learning_window_steps(self) -> int:
        """Time steps at the end of a sequence in which learning signals are non-zero."""
        raise NotImplementedError

    @property
    def batches_differ(self) -> bool:
        """Whether a batch is another one each time, so that there is something to validate on."""
        return True

    @property
    def evaluates_splits(self) -> bool:
        """Whether validation and test go through all there is, in several batches, rather than take one."""
        return False

    @property
    def short_batches(self) -> dict[str, str]:
        """Keys that let a batch hold fewer than n_batch sequences, with the value of each that rules it out."""
        return {}

    def check_window(self, window_key: str) -> None:
        """Raise ConfigError unless the learning window fits into the sequence."""
        window, sequence = self.learning_window_steps, self.sequence_steps
        constraint = f"must be from 1 to the length of the sequence ({sequence} steps)"
        require(1 <= window <= sequence, window_key, window, constraint)


class Task:
    """A task made from its config. Between batches it keeps no state but what prepare() drew.

    losses: names of those that fit, the one to take by default first.
    has_classes: whether the readout that is largest on average is the answer; with a loss that needs classes it always
        is.
    has_epochs: whether training goes through the same samples again and again.
    planes: pairs of readouts that are the coordinates of a point, to be drawn in the plane.
    """

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "mean_squared_error")
    has_classes: ClassVar[bool] = False
    has_epochs: ClassVar[bool] = False
    planes: ClassVar[tuple[tuple[int, int], ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def check(cls, config: Any) -> None:
        """Raise ConfigError for what does not go with the rest of a config."""

    def prepare(self, rng: np.random.RandomState) -> None:
        """Draw once, after the initial weights and from the training stream, what all batches share."""

    def batch(self, rng: np.random.RandomState) -> Batch:
        """Draw the next batch from the generator."""
        raise NotImplementedError

    def batch_at(self, rng: np.random.RandomState, phase: str, index: int) -> Batch:
        """The batch number index, from 0, of a phase; a task that draws has no need to know its place."""
        return self.batch(rng)

    @property
    def together(self) -> tuple[str, ...]:
        """Phases that take their batches in turn from one row of batches."""
        return ()

    def n_batches(self, phase: str) -> int:
        """Batches that one evaluation takes."""
        return 1

    def epochs(self, n_batches: int) -> float:
        """Epochs of training after a number of batches."""
        return 0.0

    def close(self) -> None:
        """Give back what it holds; no batch is asked for afterwards."""


def task_class(name: str) -> type[Task]:
    """The class that task.name means; raises ConfigError if there is none."""
    return variant("task", name)


class CheckedTask:
    """The task that a config names; raises UserError if a batch is not what Batch says, as a user's may be anything.

    probabilities: whether targets must be some, as for a softmax.
    resets: whether neurons are reset when a sequence begins. What arrives then is lost, in NEST too: so spikes in step
        0 are taken out, that no gradient or raster speaks of them.
    """

    def __init__(self, config: TaskConfig, probabilities: bool = False, resets: bool = True) -> None:
        self._config = config
        self._resets = resets
        self._probabilities = probabilities
        self._task = task_class(config.name)(config)

    def prepare(self, rng: np.random.RandomState, own: np.random.RandomState | None = None) -> None:
        """Draw what all batches share; own: where a task with a seed of its own draws from."""
        if own is None:
            self._task.prepare(rng)
        else:
            self._task.prepare(rng, own)  # type: ignore[call-arg]

    def draw(self, rng: np.random.RandomState, phase: str, drawn: dict[str, int]) -> Batch:
        """The next batch of a phase; drawn: batches that each phase has had, which is kept up to date."""
        together = self._task.together
        index = sum(drawn[each] for each in together) if phase in together else drawn[phase]
        batch = self.batch_at(rng, phase, index)
        drawn[phase] += 1
        return batch

    def is_alone(self, phase: str) -> bool:
        """Whether a batch of a phase can be drawn before its turn, as others take none of the same row."""
        return phase not in self._task.together

    def n_batches(self, phase: str) -> int:
        """Batches that one evaluation takes."""
        return self._task.n_batches(phase)

    def epochs(self, n_batches: int) -> float:
        """Epochs of training after a number of batches."""
        return self._task.epochs(n_batches)

    def close(self) -> None:
        """Give back what it holds."""
        self._task.close()

    def batch_at(self, rng: np.random.RandomState, phase: str, index: int) -> Batch:
        """The batch number index, from 0, of a phase."""
        batch, c = self._task.batch_at(rng, phase, index), self._config
        short = c.short_batches or (c.evaluates_splits and phase != TRAINING)  # a split ends where it ends
        n_batch = min(max(1, len(batch.spikes)), c.n_batch) if short else c.n_batch
        shape = (n_batch, c.sequence_steps, c.n_in)
        kind, dtype = ("uint8", np.uint8) if np.asarray(batch.spikes).dtype == np.uint8 else ("bool", np.bool_)
        self._check("spikes", batch.spikes, kind, dtype, shape)
        self._check("targets", batch.targets, "float64", np.float64, (c.n_out, *shape[:2]))
        self._check_targets(batch.targets)
        if not isinstance(batch.windows, Sized) or len(batch.windows) != n_batch:
            raise self._error(f"windows must have an entry for each of the {n_batch} sequences")
        if self._resets and batch.spikes[:, 0].any():
            spikes = batch.spikes.copy()
            spikes[:, 0] = 0
            batch = replace(batch, spikes=spikes)
        return batch

    def _check_targets(self, targets: NDArray[np.float64]) -> None:
        if not np.isfinite(targets).all():
            raise self._error("targets must be finite")
        if self._probabilities:
            shown = targets[:, :, -self._config.learning_window_steps :]
            distributed = (shown >= 0).all() and np.allclose(shown.sum(axis=0), 1.0)
            if not distributed:
                remedy = "targets of cross_entropy must be probabilities that add up to 1 over the readouts"
                raise self._error(f"{remedy}; or set neuron.out.loss=mean_squared_error")

    def _check(self, what: str, values: Any, kind: str, dtype: type[Any], shape: tuple[int, ...]) -> None:
        values = np.asarray(values)
        if values.dtype != dtype or values.shape != shape:
            raise self._error(f"{what} must be {kind} {shape}, but are {values.dtype} {values.shape}")

    def _error(self, message: str) -> UserError:
        return UserError(f"task.name={self._config.name}: {message}")
