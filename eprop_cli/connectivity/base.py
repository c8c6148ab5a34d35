"""The projections, and which of their synapses exist."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.values import Table, Weights

PLASTIC = ("in_rec", "rec_rec", "rec_out")  # projections that learn, in the tutorial's order
FEEDBACK = "out_rec"


def exists(projection: str, n_post: int, n_pre: int) -> NDArray[np.bool_]:
    """Which synapses there are, bool (n_post, n_pre): all but those from a neuron to itself."""
    there = np.ones((n_post, n_pre), dtype=bool)
    if projection == "rec_rec":
        np.fill_diagonal(there, False)
    return there


def clear(values: Weights) -> Weights:
    """Set values where there is no synapse to 0, in place; returns them."""
    if "rec_rec" in values:
        np.fill_diagonal(values["rec_rec"], 0.0)
    return values


def ends(projection: str) -> tuple[str, str]:
    """Populations that a projection goes from and to."""
    pre, post = projection.split("_")
    return pre, post


def like(values: Weights, fill: Any) -> Weights:
    """Arrays as those of the plastic projections, filled with a value."""
    return {projection: np.full_like(values[projection], fill) for projection in PLASTIC}


def sampled(weights: Weights, n: int, time: float) -> Table:
    """Weights between the first n senders and targets of each projection, at a time (ms).

    Columns projection, pre, post, time, weight.
    """
    parts = []
    for projection in PLASTIC:
        n_post = n if projection.endswith("rec") else len(weights[projection])
        values = weights[projection][:n_post, :n]
        post, pre = np.nonzero(exists(projection, *values.shape))
        parts.append((np.full(len(pre), projection), pre.astype(np.int32), post.astype(np.int32), values[post, pre]))
    projections, pres, posts, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return {"projection": projections, "pre": pres, "post": posts, "time": np.full(len(values), time), "weight": values}
