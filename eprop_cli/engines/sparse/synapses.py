"""Synapses as the kernels take them: rows of presynaptic neurons, in one flat array of values.

Weights, gradients and an optimizer's moments are values in the same order, so they need the indices only once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.kernels import Bools, Floats, Ints

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


def sparse(weights: Floats, mask: Bools) -> Synapses:
    """The synapses of a matrix (n_pre, n_post) at which a mask of the same shape is True."""
    row = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int64)
    return Synapses(row, np.nonzero(mask)[1].astype(np.uint32), np.ascontiguousarray(weights[mask], dtype=np.float64))


def stacked(*parts: Synapses) -> Synapses:
    """Projections onto the same targets as one, first part first: all are dense, or none."""
    if len({part.dense for part in parts if len(part.weights)}) > 1:
        raise ValueError("dense and sparse projections cannot share their rows: give the dense ones a mask of True")
    starts = np.cumsum([0, *(len(part.weights) for part in parts)])
    rows = [part.row[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
    row = np.concatenate([*rows, starts[-1:]]).astype(np.int64)
    return Synapses(row, np.concatenate([p.post for p in parts]), np.concatenate([p.weights for p in parts]))


def matrix(synapses: Synapses, values: Floats, n_post: int) -> Floats:
    """Values of synapses as a matrix (n_pre, n_post), 0 where there is none."""
    if synapses.dense:
        return values.reshape(synapses.n_pre, n_post)
    found = np.zeros((synapses.n_pre, n_post))
    found[np.repeat(np.arange(synapses.n_pre), np.diff(synapses.row)), synapses.post] = values
    return found
