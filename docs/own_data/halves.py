"""A data set of one's own as a task: which half of the inputs is the busier one?"""

from collections.abc import Mapping

import numpy as np

from eprop_cli.data import Events, Source, make_events
from eprop_cli.tasks.samples import SampleTask


class Halves:
    """Samples of which one half of the inputs fires more; a file would be read in sample()."""

    n_classes = 2

    def __init__(self, n_samples: int, n_in: int, n_steps: int, seed: int) -> None:
        self.n_samples, self.n_in, self.n_steps, self.seed = n_samples, n_in, n_steps, seed

    def __len__(self) -> int:
        return self.n_samples

    def sample(self, index: int) -> tuple[Events, int]:
        """Steps and input neurons of the spikes of a sample, and its class."""
        rng = np.random.RandomState(self.seed + index)
        rate = np.where(np.arange(self.n_in) * 2 // self.n_in == index % 2, 0.3, 0.1)
        return make_events(*np.nonzero(rng.random_sample((self.n_steps, self.n_in)) < rate)), index % 2


class WhichHalf(SampleTask):
    """Which half it was."""

    def sources(self) -> Mapping[str, Source]:
        """Samples to train on and to test on; task.validation of the former are set apart."""
        shape = self.config.n_in, self.config.sequence_steps
        return {"training": Halves(100, *shape, seed=0), "test": Halves(30, *shape, seed=1000)}
