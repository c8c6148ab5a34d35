"""A batch's input spikes as lists, which is how they travel to the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.cuda.device import Words
from eprop_cli.engines.cuda.forward import DELIVERED

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    return cast(Function, numba.njit(nogil=True)(function))


@dataclass(frozen=True)
class Inputs:
    """Input neurons that fire, in the order of sequences, steps and neurons.

    first: uint32 (n_batch, n_steps + 1); those of sequence b and step t are pre[first[b, t] : first[b, t + 1]],
        filled up to a multiple of DELIVERED with a neuron whose weights are 0. Step 0 has none: NEST drops them.
        A neuron that fires several times in a step is there as often, as NEST adds up its weights.
    pre: uint32.
    filler: that neuron, n_in + n_rec.
    """

    first: Words
    pre: Words
    filler: int


def from_spikes(spikes: NDArray[np.bool_] | NDArray[np.uint8], filler: int) -> Inputs:
    """List the spikes of a batch (n_batch, n_steps, n_in), bool or uint8, how many.

    filler: n_in + n_rec, a neuron without synapses.
    """
    flat = np.ascontiguousarray(spikes).reshape(-1).view(np.uint8)
    events = np.empty(np.count_nonzero(spikes), dtype=np.int64)
    _find(flat[: len(flat) // 8 * 8].view(np.uint64), flat, events)
    if spikes.dtype != np.bool_:
        events = np.repeat(events, flat[events])
    return from_events(events, spikes.shape, filler)


def from_events(events: NDArray[np.int64], shape: tuple[int, ...], filler: int) -> Inputs:
    """List spikes from their sorted places in a flattened array of this shape (n_batch, n_steps, n_in).

    Where there are several spikes, a place is there as often.
    """
    n_batch, n_steps, n_in = shape
    first = np.empty((n_batch, n_steps + 1), dtype=np.uint32)
    pre = np.empty(min(DELIVERED * len(events), len(events) + (DELIVERED - 1) * n_batch * n_steps), dtype=np.uint32)
    return Inputs(first, pre[: _fill(events, n_in, filler, DELIVERED, first, pre)], filler)


@_compiled
def _find(eights: NDArray[np.uint64], flat: NDArray[np.uint8], events: NDArray[np.int64]) -> None:
    """Fill events with the places at which flat is not 0. eights: the same eight at a time, most of which are 0."""
    n = 0
    for e in range(eights.size):
        if eights[e]:
            for i in range(8 * e, 8 * e + 8):
                if flat[i]:
                    events[n] = i
                    n += 1
    for i in range(8 * eights.size, flat.size):
        if flat[i]:
            events[n] = i
            n += 1


@_compiled
def _fill(events: NDArray[np.int64], n_in: int, filler: int, multiple: int, first: Words, pre: Words) -> int:
    """Fill first and pre; returns how long pre is. multiple: a power of 2."""
    n_batch, n_steps, n, e, mask = first.shape[0], first.shape[1] - 1, 0, 0, multiple - 1  # faster than a remainder
    for b in range(n_batch):
        for t in range(n_steps):
            first[b, t] = n
            base = (b * n_steps + t) * n_in
            while e < events.size and events[e] < base + n_in:
                if t > 0:
                    pre[n] = events[e] - base
                    n += 1
                e += 1
            while n & mask:
                pre[n] = filler
                n += 1
        first[b, n_steps] = n
    return n


def joined(samples: Sequence[Inputs]) -> Inputs:
    """Batches as one, in their order; so a data set's samples are listed once and not for each batch."""
    lengths = [len(sample.pre) for sample in samples]
    starts = np.cumsum([0, *lengths[:-1]], dtype=np.uint32)
    first = np.concatenate([sample.first + start for sample, start in zip(samples, starts, strict=True)])
    return Inputs(first, np.concatenate([sample.pre for sample in samples]), samples[0].filler)
