"""All synapses."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.mask import Mask
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig


@dataclass(kw_only=True)
class DenseConfig(RuleConfig):
    """Keys of {rule: dense}. keep_zeros: zeros in synapse.weights_from are synapses too."""

    keep_zeros: bool = False


class Dense(ConnectionRule):
    """connectivity.PROJECTION=dense."""

    Config = DenseConfig
    is_all = True

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Nothing to draw."""
        return Mask(n_pre, n_post, autapses=not self.without_self)
