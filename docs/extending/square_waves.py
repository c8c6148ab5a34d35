"""A task: a known one with other targets. `task=sine_waves task.name=square_waves:SquareWaves`."""

import numpy as np

from eprop_cli.tasks.pattern import Targets
from eprop_cli.tasks.sine_waves import SineWaves


class SquareWaves(SineWaves):
    """The readouts are to be 1 where the superposed sines are positive, else -1."""

    def draw_target(self, rng: np.random.RandomState) -> Targets:
        """The same draws as for sine waves, so that both tasks have the same seeds."""
        return np.where(super().draw_target(rng) > 0, 1.0, -1.0)
