"""The projections."""

from typing import Any

import numpy as np

from eprop_cli.values import Weights

PLASTIC = ("in_rec", "rec_rec", "rec_out")  # projections that learn, in the tutorial's order
FEEDBACK = "out_rec"


def clear(values: Weights) -> Weights:
    """Set values of dense projections where there is no synapse to 0, in place; returns them."""
    if "rec_rec" in values and values["rec_rec"].ndim == 2:
        np.fill_diagonal(values["rec_rec"], 0.0)
    return values


def ends(projection: str) -> tuple[str, str]:
    """Populations that a projection goes from and to."""
    pre, post = projection.split("_")
    return pre, post


def like(values: Weights, fill: Any) -> Weights:
    """Arrays as those of the plastic projections, filled with a value."""
    return {projection: np.full_like(values[projection], fill) for projection in PLASTIC if projection in values}
