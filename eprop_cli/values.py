"""The nouns that travel: weights, batches, recordings, rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# projection ("in_rec", "rec_rec", "rec_out", "out_rec") -> float64, pA: (n_post, n_pre) where all synapses are there,
# else (n,) in the order of connectivity.mask.Mask; recurrent neurons population by population
Weights = dict[str, NDArray[np.float64]]
# column -> one value per row; arrays of equal length
Table = dict[str, NDArray[np.generic]]
# name of a recording -> table, rows sorted by sequence, time, neuron. Columns of all tables:
#   sequence (index in the batch), time (ms from the start of the sequence, on the population's own clock: delays taken
#   off), neuron (index within the population); and of
#   spikes: population ("in" or that of the neuron)
#   each recurrent population, out: the model family's recordables
Recording = dict[str, Table]


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

    spikes: bool (n_batch, n_steps, n_in), True where an input neuron fires; or uint8, how many spikes it fires.
    targets: float64 (n_out, n_batch, n_steps), target signal of each readout (a probability for cross-entropy).
    windows: n_batch tuples of windows, what a figure of that sequence shades.
    """

    spikes: NDArray[np.bool_] | NDArray[np.uint8]
    targets: NDArray[np.float64]
    windows: tuple[tuple[Window, ...], ...]


Checkpoint = dict[str, Any]  # name -> array, number or text; what checkpoint.npz holds


@dataclass(frozen=True)
class Row:
    """A line of metrics.csv.

    iteration: training iterations done, this one included.
    phase: training, validation, early-stopping or test.
    metrics: column -> value, in the table's order.
    seconds: wall-clock time.
    """

    iteration: int
    phase: str
    metrics: dict[str, float]
    seconds: float

    def flat(self) -> dict[str, Any]:
        """The row as it stands in the table."""
        return {"iteration": self.iteration, "phase": self.phase, **self.metrics, "seconds": self.seconds}
