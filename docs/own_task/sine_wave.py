"""A task of one's own: frozen noise in, the readouts are to follow sine waves (a regression)."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.schema import POSITIVE, at_least, key
from eprop_cli.tasks import Batch, Task, TaskConfig, Window


@dataclass
class SineWaveConfig(TaskConfig):
    """Keys of conf/task/sine_wave.yaml."""

    sequence: int = key(at_least(2, "time steps"))
    input_spike_prob: float
    period: float = key(POSITIVE)
    batches_differ = False  # the noise is the same every time, so there is nothing to validate on

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence."""
        return self.sequence

    @property
    def learning_window_steps(self) -> int:
        """All of it: the readouts are to be right at any time."""
        return self.sequence


class SineWave(Task):
    """Readout k is to follow a sine wave of k + 1 periods per config.period steps."""

    Config = SineWaveConfig
    losses = ("mean_squared_error",)

    def batch(self, rng: np.random.RandomState) -> Batch:
        """Targets and noise do not depend on rng here."""
        c = self.config
        noise = np.random.RandomState(0).random_sample((c.sequence, c.n_in)) < c.input_spike_prob
        noise[0] = False
        spikes = np.repeat(noise[None], c.n_batch, axis=0)
        phase = 2 * np.pi * np.arange(c.sequence) / c.period
        waves = np.stack([np.sin((k + 1) * phase) for k in range(c.n_out)])
        targets = np.repeat(waves[:, None], c.n_batch, axis=1)
        windows = ((Window("learning window", 0, c.sequence),),) * c.n_batch
        return Batch(spikes, targets, windows)
