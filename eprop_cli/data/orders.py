"""Which samples make up which batch: pure functions of the batch's index, so that a resume needs no state."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Order(Protocol):
    """The batches of one phase, numbered from 0 without end."""

    @property
    def n_batches(self) -> int:
        """Batches of one epoch, a last incomplete one included."""
        ...

    def batch(self, index: int) -> NDArray[np.int64]:
        """Indices of the samples of a batch, int (n_batch,) or fewer."""
        ...

    def epoch(self, index: int) -> int:
        """The epoch, counted from 0, in which a batch begins."""
        ...

    def epochs(self, n_batches: int) -> float:
        """Epochs that a number of batches are."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """Every sample once per epoch; the last batch of an epoch holds what is left over.

    seed: of the order, another one in each epoch; None: always in the order of the source.
    distinct: whether indices are counted on from epoch to epoch, for a source that varies its samples.
    """

    n_samples: int
    n_batch: int
    seed: int | None = None
    distinct: bool = False

    @property
    def n_batches(self) -> int:
        """Batches of one epoch, a last incomplete one included."""
        return -(-self.n_samples // self.n_batch)

    def epoch(self, index: int) -> int:
        """The epoch, counted from 0, to which a batch belongs."""
        return index // self.n_batches

    def batch(self, index: int) -> NDArray[np.int64]:
        """Indices of the samples of a batch, int (n_batch,), fewer in the last of an epoch."""
        epoch, batch = divmod(index, self.n_batches)
        return self.order(epoch)[batch * self.n_batch : (batch + 1) * self.n_batch]

    def epochs(self, n_batches: int) -> float:
        """Epochs that a number of batches are."""
        return n_batches / self.n_batches

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Indices of all samples in the order of an epoch, int (n_samples,)."""
        first = epoch * self.n_samples if self.distinct else 0
        if self.seed is None:
            return np.arange(first, first + self.n_samples)
        # RandomState: NumPy promises never to change its numbers, those of a Generator it may.
        rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, epoch))))
        return first + rng.permutation(self.n_samples).astype(np.int64)


@dataclass(frozen=True)
class Filled(Shuffled):
    """Every sample once per epoch, in full batches: what is left over of an epoch is filled up from the next one."""

    def epoch(self, index: int) -> int:
        """The epoch, counted from 0, in which a batch begins."""
        return index * self.n_batch // self.n_samples

    def epochs(self, n_batches: int) -> float:
        """Epochs that a number of batches are."""
        return n_batches * self.n_batch / self.n_samples

    def batch(self, index: int) -> NDArray[np.int64]:
        """Indices of the samples of a batch, int (n_batch,)."""
        found: list[NDArray[np.int64]] = []
        start, stop = index * self.n_batch, (index + 1) * self.n_batch
        while start < stop:
            epoch, place = divmod(start, self.n_samples)
            found.append(self.order(epoch)[place : place + stop - start])
            start += len(found[-1])
        return np.concatenate(found)


@dataclass(frozen=True)
class Wrapped:
    """One permutation, gone through again and again in full batches that may span two epochs.

    So NEST's script on N-MNIST takes its groups: `Wrapped(rng.permutation(n_samples), group_size)`.
    """

    permutation: NDArray[np.int64]
    n_batch: int

    @property
    def n_batches(self) -> int:
        """Batches until every sample has been taken."""
        return -(-len(self.permutation) // self.n_batch)

    def epoch(self, index: int) -> int:
        """The epoch, counted from 0, in which a batch begins."""
        return index * self.n_batch // len(self.permutation)

    def epochs(self, n_batches: int) -> float:
        """Epochs that a number of batches are."""
        return n_batches * self.n_batch / len(self.permutation)

    def batch(self, index: int) -> NDArray[np.int64]:
        """Indices of the samples of a batch, int (n_batch,)."""
        start = index * self.n_batch
        return self.permutation[np.arange(start, start + self.n_batch) % len(self.permutation)]
