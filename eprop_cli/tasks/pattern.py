"""What the pattern tasks share: noise comes in, readouts are to follow given signals (NEST's regression tutorials)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.errors import require
from eprop_cli.schema import PROBABILITY, key
from eprop_cli.tasks.base import Task, TaskConfig
from eprop_cli.values import Batch

Targets = NDArray[np.float64]


@dataclass(kw_only=True)
class PatternConfig(TaskConfig):
    """Keys that the pattern tasks share; all of the sequence is learning window."""

    input_spike_prob: float = key(PROBABILITY)
    frozen_input: bool

    @property
    def learning_window_steps(self) -> int:
        """All of it."""
        return self.sequence_steps

    @property
    def batches_differ(self) -> bool:
        """Not where the same noise comes in each time."""
        return not self.frozen_input


class Pattern(Task):
    """A target that is the same for all sequences, and noise that is too, or is drawn for each sequence."""

    Config: ClassVar[type[PatternConfig]] = PatternConfig
    losses = ("mean_squared_error",)
    config: PatternConfig

    noise: NDArray[np.bool_] | None = None  # (n_steps, n_in), where it is frozen
    target: Targets  # (n_out, n_steps)

    def prepare(self, rng: np.random.RandomState, own: np.random.RandomState | None = None) -> None:
        """Draw the frozen noise, then the target, in the tutorials' order.

        own: the stream that a run with seed task.seed would draw from, where that is another one: the target is that
            run's, the noise is not.
        """
        if self.config.frozen_input:
            self.noise = self._noise(rng)
            if own is not None:
                self._noise(own)
        self.target = self.draw_target(rng if own is None else own)

    def draw_target(self, rng: np.random.RandomState) -> Targets:
        """Target signals, float64 (n_out, n_steps)."""
        raise NotImplementedError

    def batch(self, rng: np.random.RandomState) -> Batch:
        """The target with the noise."""
        n_batch = self.config.n_batch
        spikes = np.stack([self._noise(rng) if self.noise is None else self.noise for _ in range(n_batch)])
        targets = np.repeat(self.target[:, None], n_batch, axis=1)
        return Batch(spikes, targets, ((),) * n_batch)

    def _noise(self, rng: np.random.RandomState) -> NDArray[np.bool_]:
        c = self.config
        noise: NDArray[np.bool_] = rng.random_sample((c.sequence_steps, c.n_in)) < c.input_spike_prob
        return noise


def require_two_readouts(config: TaskConfig) -> None:
    """Raise ConfigError unless there is a readout for each coordinate."""
    require(config.n_out == 2, "task.n_out", config.n_out, "must be 2 in this task, the coordinates of a point")
