"""When things happen in a simulation, in time steps and ms."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Timing:
    """Time steps and durations of a simulation; names as in NEST's tutorial, all but resolution in steps.

    Generators emit their first signal in time step 1 (offset_gen); each stage then lags the one before by its delay.
    """

    sequence: int
    learning_window: int
    resolution: float  # ms

    offset_gen: int = 1
    delay_in_rec: int = 1
    delay_rec_out: int = 1
    delay_out_norm: int = 1
    extension_sim: int = 1  # Simulate() stops before the last step of its interval is recorded

    @property
    def delays(self) -> int:
        """Steps from the input to the normalised readout."""
        return self.delay_in_rec + self.delay_rec_out + self.delay_out_norm

    @property
    def total_offset(self) -> int:
        """Steps by which the readout lags the task's time."""
        return self.offset_gen + self.delays

    @property
    def forcing(self) -> int:
        """Steps past the end at which final spikes are forced: none of them falls into the task."""
        return max(self.delays, self.offset_gen + self.delay_in_rec)

    @property
    def lead(self) -> int:
        """Steps that must be simulated past the end of a sequence to have all of its readout recorded."""
        return self.total_offset + self.extension_sim

    def ms(self, steps: float) -> float:
        """Duration of a number of steps in ms."""
        return steps * self.resolution

    def steps(self, duration: float) -> int:
        """Number of steps in a duration in ms."""
        return round(duration / self.resolution)


def decay(tau: Any, dt: float) -> NDArray[np.float64]:
    """exp(-dt / tau) of one or several time constants (ms), rounded as in C++, which NumPy's is not always.

    Returns float64 (n,), n 1 for a number.
    """
    return np.array([math.exp(-dt / value) for value in np.ravel(tau)])
