"""When things happen in a simulation, in time steps and ms."""

from dataclasses import dataclass

from eprop_cli.config.groups import Kernel
from eprop_cli.tasks.base import TaskConfig


@dataclass(frozen=True)
class Timing:
    """Time steps and durations of a simulation; names as in NEST's tutorial, all but resolution in steps.

    Generators emit their first signal in time step 1 (offset_gen); each stage then lags the one before by its delay.
    """

    sequence: int
    learning_window: int
    n_batch: int
    resolution: float  # ms

    offset_gen: int = 1
    delay_in_rec: int = 1
    delay_rec_out: int = 1
    delay_out_norm: int = 1
    extension_sim: int = 1  # Simulate() stops before the last step of its interval is recorded

    @classmethod
    def of(cls, task: TaskConfig, kernel: Kernel) -> "Timing":
        """Timing of a task at a resolution."""
        return cls(task.sequence_steps, task.learning_window_steps, task.n_batch, kernel.resolution)

    @property
    def iteration(self) -> int:
        """Steps of one batch."""
        return self.n_batch * self.sequence

    @property
    def delays(self) -> int:
        """Steps from the input to the normalised readout."""
        return self.delay_in_rec + self.delay_rec_out + self.delay_out_norm

    @property
    def total_offset(self) -> int:
        """Steps by which the readout lags the task's time."""
        return self.offset_gen + self.delays

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
