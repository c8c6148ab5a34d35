"""No synapses: rec_rec of a feed-forward network."""

import numpy as np

from eprop_cli.connectivity.mask import Mask, empty
from eprop_cli.connectivity.rule import ConnectionRule


class NoSynapses(ConnectionRule):
    """connectivity.PROJECTION=none."""

    def expected(self, n_pre: int, n_post: int) -> float:
        """None."""
        return 0.0

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Nothing to draw."""
        return empty(n_pre, n_post)
