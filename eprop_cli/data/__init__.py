"""Data sets: files or arrays in, spikes as events and labels out. One file per data set."""

from eprop_cli.data.events import Events, make_events
from eprop_cli.data.orders import Filled, Order, Shuffled, Wrapped
from eprop_cli.data.samples import BrokenSampleError, Cache, Loaded, Part, Samples, Source, split

__all__ = [
    "BrokenSampleError",
    "Cache",
    "Events",
    "Filled",
    "Loaded",
    "Order",
    "Part",
    "Samples",
    "Shuffled",
    "Source",
    "Wrapped",
    "make_events",
    "split",
]
