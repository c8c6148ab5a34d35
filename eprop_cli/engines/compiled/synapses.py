"""Synapses as the kernels take them: rows of presynaptic neurons, in one flat array of values.

Weights, gradients and an optimizer's moments are values in the same order, so they need the indices only once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.compiled.compiling import compiled
from eprop_cli.engines.compiled.neurons import Floats, Ints

Indices = NDArray[np.uint32]


class Synapses(NamedTuple):
    """One projection, or several with the same targets on top of each other.

    row: int64 (n_pre + 1,); presynaptic neuron i has the synapses row[i] to row[i + 1].
    post: uint32 (n_synapses,), their targets, increasing in each row. Empty: every row has all targets (dense).
    weights: float64 (n_synapses,).
    """

    row: Ints
    post: Indices
    weights: Floats

    @property
    def n_pre(self) -> int:
        """Number of presynaptic neurons."""
        return len(self.row) - 1

    @property
    def dense(self) -> bool:
        """Whether every row has all targets."""
        return len(self.post) == 0 and len(self.weights) > 0


def dense(weights: Floats) -> Synapses:
    """All synapses of a matrix (n_pre, n_post); shares its memory where that is contiguous."""
    n_pre, n_post = weights.shape
    values = np.ascontiguousarray(weights, dtype=np.float64).reshape(-1)
    return Synapses(np.arange(n_pre + 1, dtype=np.int64) * n_post, np.empty(0, dtype=np.uint32), values)


def listed(row: Ints, post: Indices, weights: Floats) -> Synapses:
    """Synapses that are listed; no targets at all would mean that there are all."""
    return Synapses(row, post if len(post) else NOWHERE, weights)


NOWHERE = np.zeros(1, dtype=np.uint32)  # targets of a list without synapses


@compiled
def scale_by_target(begin: int, end: int, post: Indices, factor: Floats, values: Floats) -> None:
    """Multiply the values begin to end of listed synapses by their target's factor."""
    for s in range(np.uint64(begin), np.uint64(end)):
        values[s] *= factor[post[s]]
