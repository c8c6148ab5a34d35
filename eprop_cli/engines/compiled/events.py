"""Input spikes as lists of events, which cost memory and time per spike and not per step."""

from typing import NamedTuple

import numpy as np

from eprop_cli.engines.compiled.compiling import compiled
from eprop_cli.engines.compiled.neurons import Counts, Ints
from eprop_cli.engines.compiled.synapses import Indices

TOGETHER = 16  # inputs that are looked at together: few of them fire


class InputSpikes(NamedTuple):
    """Input spikes of a batch, listed.

    first: int64 (n_batch, n_steps + 1); in step t of sequence b the neurons neuron[first[b, t] : first[b, t + 1]] fire.
    neuron: uint32 (n_events,), increasing in each step; one that fires several times in it stands there as often.
    n_in: number of input neurons.
    """

    first: Ints
    neuron: Indices
    n_in: int


def events(spikes: Counts) -> InputSpikes:
    """Events of a raster (n_batch, n_steps, n_in)."""
    n_batch, n_steps, n_in = spikes.shape
    first, neuron = np.empty((n_batch, n_steps + 1), np.int64), np.empty(_total(spikes) + 1, np.uint32)
    _list(spikes, first, neuron)
    return InputSpikes(first, neuron[:-1], n_in)


def listed(sequence: Ints, step: Ints, neuron: Ints, shape: tuple[int, int, int]) -> InputSpikes:
    """Events given one by one, in any order; shape: (n_batch, n_steps, n_in)."""
    n_batch, n_steps, n_in = shape
    order = np.lexsort((neuron, step, sequence))
    # each sequence ends where the next one begins
    starts = (np.arange(n_batch) * n_steps)[:, None] + np.arange(n_steps + 1)
    first = np.searchsorted((sequence * n_steps + step)[order], starts)
    return InputSpikes(first.astype(np.int64), neuron[order].astype(np.uint32), n_in)


def raster(given: InputSpikes) -> Counts:
    """Events as a raster of counts (n_batch, n_steps, n_in)."""
    n_batch, n_steps = len(given.first), given.first.shape[1] - 1
    spikes = np.zeros((n_batch * n_steps, given.n_in), dtype=np.uint8)
    steps = np.repeat(np.arange(len(spikes)), np.diff(given.first, axis=1).reshape(-1))
    np.add.at(spikes, (steps, given.neuron), 1)
    return spikes.reshape(n_batch, n_steps, given.n_in)


@compiled
def _total(spikes: Counts) -> int:
    """How many spikes there are."""
    n = 0
    for b in range(spikes.shape[0]):
        for t in range(spikes.shape[1]):
            for i in range(spikes.shape[2]):
                n += spikes[b, t, i]
    return n


@compiled
def _list(spikes: Counts, first: Ints, neuron: Indices) -> None:
    """Fill first and neuron, which has a place to spare."""
    n, n_in = 0, spikes.shape[2]
    for b in range(spikes.shape[0]):
        for t in range(spikes.shape[1]):
            first[b, t] = n
            for start in range(0, n_in, TOGETHER):
                stop, place = min(start + TOGETHER, n_in), np.uint64(start)  # unsigned: no test for negative indices
                if stop == start + TOGETHER:
                    some = np.uint8(0)
                    for i in range(np.uint64(TOGETHER)):
                        some |= spikes[b, t, place + i]
                    if some == 0:
                        continue
                for i in range(place, np.uint64(stop)):
                    neuron[n] = i  # stays if there is a spike; faster than a branch
                    n += spikes[b, t, i]
                    for again in range(1, spikes[b, t, i]):
                        neuron[n - again] = i
        first[b, spikes.shape[1]] = n
