"""Spikes as lists of events, the form in which every data set gives them, and the rasters made from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eprop_cli.errors import UserError


@dataclass(frozen=True)
class Events:
    """The input spikes of one sample, sorted by step, then by neuron.

    step: unsigned int (n_events,), time step of each spike, counted from 0.
    neuron: unsigned int (n_events,), index of the input neuron; a pair that occurs twice is two spikes.
    """

    step: NDArray[np.unsignedinteger[Any]]
    neuron: NDArray[np.unsignedinteger[Any]]

    def __len__(self) -> int:
        return len(self.step)

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return self.step.nbytes + self.neuron.nbytes

    def before(self, n_steps: int) -> "Events":
        """The events of the first n_steps steps."""
        stop = np.searchsorted(self.step, n_steps)
        return Events(self.step[:stop], self.neuron[:stop])


def make_events(step: ArrayLike, neuron: ArrayLike) -> Events:
    """Events in order, kept in the smallest unsigned integers that hold them.

    step, neuron: whole numbers, at least 0, (n_events,), in any order.
    Raises UserError where they are something else.
    """
    step, neuron = np.asarray(step), np.asarray(neuron)
    if step.shape != neuron.shape or step.ndim != 1:
        raise UserError(f"events: step {step.shape} and neuron {neuron.shape} must be two lists of one length")
    step, neuron = _whole("step", step), _whole("neuron", neuron)
    n = neuron.max(initial=0) + 1
    step, neuron = np.divmod(np.sort(step * n + neuron), n)  # sorts one array: several times faster than two
    return Events(_compact(step), _compact(neuron))


def bins(times: ArrayLike, width: float) -> NDArray[np.int64]:
    """The bin, counted from 0, into which each time falls; both in one unit, an edge belongs to the bin it begins."""
    return np.floor(np.asarray(times, dtype=np.float64) / width).astype(np.int64)


def counts(samples: Sequence[Events], n_steps: int, n_in: int) -> NDArray[np.uint8]:
    """Spike counts, uint8 (n_batch, n_steps, n_in).

    Raises UserError for an event outside of this shape, or 256 spikes of a neuron in one step.
    """
    raster = np.zeros((len(samples), n_steps, n_in), dtype=np.uint8)
    for sequence, events in zip(raster.reshape(len(samples), -1), samples, strict=True):
        cells, number = np.unique(_cells(events, n_steps, n_in), return_counts=True)
        if number.max(initial=0) > np.iinfo(np.uint8).max:
            raise UserError(f"events: {number.max()} spikes of one neuron in one step; at most 255 can be counted")
        sequence[cells] = number
    return raster


def spikes(samples: Sequence[Events], n_steps: int, n_in: int) -> NDArray[np.bool_]:
    """Where there is at least one spike, bool (n_batch, n_steps, n_in); raises UserError as counts()."""
    raster = np.zeros((len(samples), n_steps, n_in), dtype=bool)
    for sequence, events in zip(raster.reshape(len(samples), -1), samples, strict=True):
        sequence[_cells(events, n_steps, n_in)] = True
    return raster


def join(samples: Sequence[Events], n_steps: int) -> Events:
    """The samples one after another, each n_steps long, as one stream of len(samples) * n_steps steps.

    An event past the end of its sample falls into the one that follows; past the end of the last, it is lost.
    """
    if not samples:
        return make_events(np.zeros(0, int), np.zeros(0, int))
    step = np.concatenate([events.step.astype(np.int64) + i * n_steps for i, events in enumerate(samples)])
    neuron = np.concatenate([events.neuron.astype(np.int64) for events in samples])
    return make_events(step, neuron).before(len(samples) * n_steps)


def _cells(events: Events, n_steps: int, n_in: int) -> NDArray[np.int64]:
    """Flat index of each event in an array (n_steps, n_in)."""
    for name, values, size in (("step", events.step, n_steps), ("neuron", events.neuron, n_in)):
        if len(values) and values.max() >= size:
            raise UserError(f"events: {name} {values.max()} is outside of the {size} that there are")
    cells: NDArray[np.int64] = events.step.astype(np.int64) * n_in + events.neuron
    return cells


def _whole(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    whole = values.astype(np.int64)
    if len(values) and (not np.array_equal(whole, values) or whole.min() < 0):
        raise UserError(f"events: {name} must be whole numbers, at least 0")
    return whole


def _compact(values: NDArray[np.int64]) -> NDArray[np.unsignedinteger[Any]]:
    return values.astype(np.min_scalar_type(values.max(initial=0)))
