"""Batches of samples from a source: split into parts, read ahead in a thread, kept in memory as far as that reaches."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data.events import Events
from eprop_cli.data.orders import Order
from eprop_cli.errors import UserError, require

log = logging.getLogger(__name__)

ON_BAD_FILE = ("error", "skip")
ENTRY_BYTES = 400  # what Python takes for an entry of the cache beside its events: two arrays' heads, tuple, key


class Source(Protocol):
    """Samples that can be asked for by index; all that a data set of one's own needs.

    n_in, n_classes: input neurons and classes. n_steps: time steps of a sample.
    A source that varies its samples from epoch to epoch says so with `varies = True`, is asked for index + epoch * len,
    and is not kept in memory.
    """

    n_in: int
    n_steps: int
    n_classes: int

    def __len__(self) -> int: ...

    def sample(self, index: int) -> tuple[Events, int]:
        """Spikes and label of a sample, the same at every call; raises BrokenSampleError if it cannot be read."""
        ...


def varies(source: Source) -> bool:
    """Whether a source gives other samples in each epoch."""
    return bool(getattr(source, "varies", False))


class BrokenSampleError(UserError):
    """One sample cannot be read; the message names its file."""


class Part:
    """Some of the samples of a source, as a source.

    indices: int (n,), which of them, in this order.
    """

    def __init__(self, source: Source, indices: NDArray[np.int64]) -> None:
        self.source, self.indices = source, indices
        self.n_in, self.n_steps, self.n_classes = source.n_in, source.n_steps, source.n_classes

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> tuple[Events, int]:
        """Spikes and label of a sample of this part."""
        return self.source.sample(int(self.indices[index]))


def split(source: Source, fractions: Sequence[float], seed: int) -> list[Part]:
    """Cut a source at random into one part more than there are fractions; the last takes what is left.

    fractions: share of each of the first parts, between 0 and 1; their sum is below 1.
    seed: two calls with one seed make the same parts.
    """
    sizes = [round(fraction * len(source)) for fraction in fractions]
    possible = all(0 <= fraction <= 1 for fraction in fractions) and sum(sizes) < len(source)
    require(possible, "fractions", list(fractions), f"must leave some of the {len(source)} samples")
    order = np.random.RandomState(seed).permutation(len(source)).astype(np.int64)
    return [Part(source, np.sort(indices)) for indices in np.split(order, np.cumsum(sizes))]


class Cache:
    """Samples that have been read, up to a number of bytes.

    What is in it stays: each epoch asks for every sample once, so dropping the oldest would miss most of them.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.nbytes = limit, 0
        self._kept: dict[tuple[str, int], tuple[Events, int]] = {}

    def get(self, phase: str, index: int, source: Source) -> tuple[Events, int]:
        """A sample, from memory or else from its source."""
        kept = self._kept.get((phase, index))
        if kept is None:
            kept = source.sample(index)
            nbytes = kept[0].nbytes + ENTRY_BYTES
            if not varies(source) and self.nbytes + nbytes <= self.limit:
                self._kept[phase, index] = kept
                self.nbytes += nbytes
        return kept


@dataclass(frozen=True)
class Loaded:
    """One batch.

    events: the spikes of each sample. labels: int64 (n_batch,). indices: int64 (n_batch,), in the phase's source.
    skipped: why samples of the batch are missing, a line each.
    """

    events: tuple[Events, ...]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    skipped: tuple[str, ...]


class Samples:
    """The batches of each phase; while one is in use, a thread reads the next of its phase.

    sources, orders: by phase. on_bad_file: "error" ends with the file's name, "skip" leaves it out with a warning.
    cache_bytes: bound on what is kept of the samples read. ahead: whether to read ahead.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        orders: Mapping[str, Order],
        on_bad_file: str = "error",
        cache_bytes: int = 0,
        ahead: bool = True,
    ) -> None:
        require(on_bad_file in ON_BAD_FILE, "task.on_bad_file", on_bad_file, f"must be one of {', '.join(ON_BAD_FILE)}")
        self.sources, self.orders, self.cache = sources, orders, Cache(cache_bytes)
        self._skip, self._ahead = on_bad_file == "skip", ahead
        # One thread reads all: the cache needs no lock, and files are read in the order of the batches.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="samples")
        self._next: dict[str, tuple[int, Future[Loaded]]] = {}
        self._told: set[str] = set()

    def load(self, phase: str, index: int) -> Loaded:
        """A batch of a phase, the same whatever was asked for before.

        Raises UserError where a sample cannot be read, or with on_bad_file=skip where none of the batch can.
        """
        asked, batch = self._next.pop(phase, (index, None))
        if batch is None or asked != index:
            batch = self._reader.submit(self._read, phase, index)
        if self._ahead:
            self._next[phase] = index + 1, self._reader.submit(self._read, phase, index + 1)
        loaded = batch.result()
        for line in loaded.skipped:
            if line not in self._told:
                self._told.add(line)
                log.warning("%s; skipped", line)
        return loaded

    def epoch(self, phase: str, index: int) -> int:
        """The epoch, counted from 0, in which a batch begins."""
        return self.orders[phase].epoch(index)

    def close(self) -> None:
        """End the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self, phase: str, index: int) -> Loaded:
        source, events, labels, indices, skipped = self.sources[phase], [], [], [], []
        for i in self.orders[phase].batch(index).tolist():
            try:
                sample, label = self.cache.get(phase, i, source)
            except BrokenSampleError as error:
                if not self._skip:
                    raise
                skipped.append(str(error))
                continue
            _check(source, i, sample, label)
            events.append(sample)
            labels.append(label)
            indices.append(i)
        if not events:
            raise UserError(f"batch {index} of {phase} has no sample that can be read: {skipped[0]}")
        return Loaded(tuple(events), np.array(labels, np.int64), np.array(indices, np.int64), tuple(skipped))


def _check(source: Source, index: int, events: Events, label: int) -> None:
    """Raise UserError where a source does not keep what it says of itself; events may be late, but have a neuron."""
    if len(events) and events.neuron.max() >= source.n_in:
        raise UserError(f"sample {index}: input neuron {events.neuron.max()} is outside of the {source.n_in} (n_in)")
    if not 0 <= label < source.n_classes:
        raise UserError(f"sample {index}: label {label} is outside of the {source.n_classes} classes (n_classes)")
