"""Which synapses a projection has: all, or those listed in rows of presynaptic neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC, ends
from eprop_cli.values import Table, Weights

if TYPE_CHECKING:
    from scipy.sparse import csc_array

Ints = NDArray[np.int64]
Indices = NDArray[np.uint32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mask:
    """The synapses of a projection.

    row: int64 (n_pre + 1,); presynaptic neuron i has the synapses row[i] to row[i + 1]. None: all synapses (dense).
    post: uint32 (n,), their targets, increasing in each row.
    autapses: whether a dense projection has those from a neuron to itself.

    Values of a dense projection, as weights, are arrays (n_post, n_pre); those of a listed one (n,), in its order.
    """

    n_pre: int
    n_post: int
    row: Ints | None = None
    post: Indices | None = None
    autapses: bool = True

    @property
    def is_dense(self) -> bool:
        """Whether all synapses are there, and values are matrices."""
        return self.row is None

    @property
    def lists(self) -> tuple[Ints, Indices]:
        """Row and post of a listed projection."""
        assert self.row is not None
        assert self.post is not None
        return self.row, self.post

    @property
    def size(self) -> int:
        """Number of synapses."""
        if self.post is not None:
            return len(self.post)
        return self.n_pre * self.n_post - (0 if self.autapses else min(self.n_pre, self.n_post))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of values."""
        return (self.n_post, self.n_pre) if self.is_dense else (self.size,)

    @property
    def pre(self) -> Indices:
        """Presynaptic neuron of each listed synapse."""
        row, _ = self.lists
        return np.repeat(np.arange(self.n_pre, dtype=np.uint32), np.diff(row))

    def fan_in(self) -> Ints:
        """Synapses onto each postsynaptic neuron."""
        if self.is_dense:
            return np.full(self.n_post, self.n_pre) - (0 if self.autapses else 1)
        return np.bincount(self.lists[1], minlength=self.n_post)

    def fan_out(self) -> Ints:
        """Synapses from each presynaptic neuron."""
        if self.row is None:
            return np.full(self.n_pre, self.n_post) - (0 if self.autapses else 1)
        return np.diff(self.row)

    def listed(self) -> Mask:
        """The same synapses, as a list."""
        return self if self.post is not None else of_matrix(self.exists())

    def exists(self) -> NDArray[np.bool_]:
        """Which synapses there are, bool (n_post, n_pre)."""
        if self.post is not None:
            return self.matrix(np.ones(self.size)).astype(bool)
        there = np.ones((self.n_post, self.n_pre), dtype=bool)
        if not self.autapses:
            np.fill_diagonal(there, False)
        return there

    def take(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Values out of a matrix (n_post, n_pre); that of a dense projection itself, with 0 where no synapse is."""
        if self.post is not None:
            taken: NDArray[Any] = matrix[self.post, self.pre]
            return taken
        if not self.autapses:
            np.fill_diagonal(matrix, 0.0)
        return matrix

    def matrix(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values as a matrix (n_post, n_pre), 0 where there is no synapse."""
        if self.post is None:
            return values
        found = np.zeros((self.n_post, self.n_pre), dtype=values.dtype)
        found[self.post, self.pre] = values
        return found

    def sparse(self, values: NDArray[Any]) -> csc_array:
        """Values as a SciPy matrix (n_post, n_pre)."""
        from scipy.sparse import csc_array

        mask = self.listed()
        row, post = mask.lists
        return csc_array((mask.take(values) if self.is_dense else values, post, row), shape=(self.n_post, self.n_pre))

    def rows(self, values: NDArray[Any], post: NDArray[Any]) -> NDArray[Any]:
        """Values onto some neurons, (n, n_pre), 0 where there is no synapse."""
        if self.is_dense:
            onto: NDArray[Any] = values[post]
            return onto
        found: NDArray[Any] = self.sparse(values)[post].toarray()
        return found

    def find(self, pre: NDArray[Any], post: NDArray[Any]) -> Ints:
        """Places of synapses of a listed projection, given by their ends; raises LookupError if one does not exist."""
        _, posts = self.lists
        there = self.pre.astype(np.int64) * self.n_post + posts
        wanted = np.asarray(pre).astype(np.int64) * self.n_post + np.asarray(post).astype(np.int64)
        places = np.searchsorted(there, wanted)
        if len(wanted) and (not len(there) or (there[np.minimum(places, len(there) - 1)] != wanted).any()):
            raise LookupError("there is no such synapse")
        return places

    def index(self, pre: NDArray[Any], post: NDArray[Any]) -> Any:
        """What the values of synapses given by their ends are indexed with."""
        return (post, pre) if self.is_dense else self.find(pre, post)

    def corner(self, n_pre: int, n_post: int) -> tuple[Ints, Ints]:
        """Ends (pre, post) of the synapses among the first neurons, post by post."""
        n_pre, n_post = min(n_pre, self.n_pre), min(n_post, self.n_post)
        if self.row is None:
            there = np.ones((n_post, n_pre), dtype=bool)
            if not self.autapses:
                np.fill_diagonal(there, False)
            post, pre = np.nonzero(there)
            return pre, post
        stop = self.row[n_pre]
        pre, post = self.pre[:stop].astype(np.int64), self.lists[1][:stop].astype(np.int64)
        pre, post = pre[post < n_post], post[post < n_post]
        order = np.lexsort((pre, post))
        return pre[order], post[order]

    def same_as(self, other: Mask) -> bool:
        """Whether another mask has the same synapses."""
        if (self.n_pre, self.n_post, self.size) != (other.n_pre, other.n_post, other.size):
            return False
        if self.is_dense and other.is_dense:
            return self.autapses == other.autapses
        (row, post), (others, posts) = self.listed().lists, other.listed().lists
        return np.array_equal(row, others) and np.array_equal(post, posts)

    def transposed(self) -> tuple[Mask, Ints]:
        """The synapses of a listed projection turned round, and the order in which to take their values."""
        _, post = self.lists
        order = np.argsort(post, kind="stable")
        turned = np.concatenate([[0], np.cumsum(self.fan_in())]).astype(np.int64)
        return Mask(self.n_post, self.n_pre, turned, self.pre[order]), order


Wiring = Mapping[str, Mask]  # projection -> its synapses; one for a run


def of_matrix(there: NDArray[np.bool_]) -> Mask:
    """The synapses at which bool (n_post, n_pre) is True."""
    n_post, n_pre = there.shape
    pre, post = np.nonzero(there.T)
    return _of_sorted(pre, post, n_pre, n_post)


def of_pairs(pre: NDArray[Any], post: NDArray[Any], n_pre: int, n_post: int) -> Mask:
    """Synapses given by their ends, in any order. Raises ValueError where one is given twice."""
    from scipy.sparse import coo_array

    ones = np.ones(len(pre), dtype=np.int32)
    found = coo_array((ones, (pre, post)), shape=(n_pre, n_post)).tocsr()
    found.sort_indices()
    if found.nnz != len(pre):
        raise ValueError("a synapse is given twice")
    return Mask(n_pre, n_post, found.indptr.astype(np.int64), found.indices.astype(np.uint32))


def checked_lists(name: str, row: NDArray[Any], post: NDArray[Any], n_pre: int, n_post: int) -> Mask:
    """The synapses in row and post, whoever made them; raises ValueError unless they are those of a projection."""
    for array, shape in ((row, (n_pre + 1,)), (post, (post.size,))):
        if array.dtype.kind not in "iu" or array.shape != shape:
            raise ValueError(f"its synapses of {name} are {array.dtype} of shape {array.shape}")
    row = row.astype(np.int64, copy=False)
    if row[0] != 0 or row[-1] != post.size or (np.diff(row) < 0).any():
        raise ValueError(f"its rows of {name} do not follow each other")
    if post.size and (int(post.min()) < 0 or int(post.max()) >= n_post):
        raise ValueError(f"its synapses of {name} have targets that are not from 0 to {n_post - 1}")
    post = post.astype(np.uint32, copy=False)
    rises = np.ones(post.size, dtype=bool)
    rises[1:] = post[1:] > post[:-1]
    rises[row[:-1][np.diff(row) > 0]] = True  # where a row begins
    if not rises.all():
        raise ValueError(f"its synapses of {name} are not in order, or are there twice")
    return Mask(n_pre, n_post, row, post)


def empty(n_pre: int, n_post: int) -> Mask:
    """No synapses."""
    return Mask(n_pre, n_post, np.zeros(n_pre + 1, dtype=np.int64), np.empty(0, dtype=np.uint32))


def _of_sorted(pre: NDArray[Any], post: NDArray[Any], n_pre: int, n_post: int) -> Mask:
    row = np.searchsorted(pre, np.arange(n_pre + 1)).astype(np.int64)
    return Mask(n_pre, n_post, row, post.astype(np.uint32))


def all_dense(sizes: Mapping[str, int]) -> dict[str, Mask]:
    """The wiring with all synapses but autapses. sizes: of in, rec, out."""
    wiring = {}
    for projection in (*PLASTIC, FEEDBACK):
        pre, post = ends(projection)
        wiring[projection] = Mask(sizes[pre], sizes[post], autapses=pre != post)
    return wiring


def neighbours(values: Weights) -> Weights:
    """Values with those of in_rec and rec_rec next to each other in memory if listed, which spares copies later."""
    if any(values[projection].ndim != 1 for projection in NEIGHBOURS):
        return values
    together = np.concatenate([values[projection] for projection in NEIGHBOURS])
    n = len(values[NEIGHBOURS[0]])
    return values | dict(zip(NEIGHBOURS, (together[:n], together[n:]), strict=True))


def sampled(wiring: Wiring, weights: Weights, n: int, time: float) -> Table:
    """Weights between the first n senders and targets of each plastic projection, onto all readouts, at a time (ms).

    Columns projection, pre, post, time, weight.
    """
    parts = []
    for projection in PLASTIC:
        mask = wiring[projection]
        pre, post = mask.corner(n, n if projection.endswith("rec") else mask.n_post)
        values = weights[projection][mask.index(pre, post)]
        parts.append((np.full(len(pre), projection), pre.astype(np.int32), post.astype(np.int32), values))
    projections, pres, posts, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return {"projection": projections, "pre": pres, "post": posts, "time": np.full(len(values), time), "weight": values}


def joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Two flat arrays as one, without a copy where they are neighbours."""
    base = first.base
    if base is not None and base is second.base and base.shape == (len(first) + len(second),):
        starts = [array.__array_interface__["data"][0] for array in (base, first, second)]
        if starts[:2] == [starts[0]] * 2 and starts[2] == starts[1] + first.nbytes:
            whole: NDArray[Any] = base
            return whole
    return np.concatenate([first, second])


NEIGHBOURS = ("in_rec", "rec_rec")  # projections onto the same targets
