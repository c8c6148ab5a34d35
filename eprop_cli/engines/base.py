"""What an engine is: (weights, batch) -> readout, spike counts and gradients. Training loops know only this."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eprop_cli.values import Batch, Recording, Weights


@dataclass(frozen=True)
class Outcome:
    """What one batch gave.

    readout: float64 (n_out, n_batch, learning_window), softmax or plain readout signal.
    n_spikes: spikes of the populations "reg" and "ad" in all sequences together.
    gradients: projection -> float64 (n_post, n_pre), mean over the batch, averaged over the learning window where
        synapse.average_gradient is; 0 where there is no synapse. None from an evaluation.
    recording: None where none was asked for.
    """

    readout: NDArray[np.float64]
    n_spikes: dict[str, int]
    gradients: Weights | None = None
    recording: Recording | None = None


class Engine(Protocol):
    """Computes batches; holds workers or buffers, but no state that a result depends on."""

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch and return its gradients.

        following: bool (n_in,), input spikes in step 1 of the sequence that follows the batch, to lose the same
            gradient term as a continuous NEST simulation; None for the whole gradient.
        record: return a recording too.
        """
        ...

    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch without learning; readouts are those that gradient() would return."""
        ...

    def close(self) -> None:
        """Give workers back."""
        ...
