"""A rule of connections: the neighbours on a ring. `connectivity.rec_rec="{rule: ring:Ring, reach: 2}"`."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.mask import Mask, of_pairs
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig
from eprop_cli.errors import require
from eprop_cli.schema import at_least, key


@dataclass(kw_only=True)
class RingConfig(RuleConfig):
    """reach: neighbours that a neuron projects to, on either side."""

    reach: int = key(at_least(1))


class Ring(ConnectionRule):
    """Recurrent neurons on a ring, in their order."""

    Config = RingConfig

    def check(self, n_pre: int, n_post: int) -> None:
        """Raise ConfigError where the neighbours on both sides would meet."""
        fits = n_pre == n_post and 2 * self.config.reach < n_pre
        require(fits, f"{self.key}.reach", self.config.reach, f"must be below half the number of neurons ({n_pre})")

    def expected(self, n_pre: int, n_post: int) -> float:
        """How many synapses there will be."""
        return 2.0 * self.config.reach * n_pre

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Nothing is random."""
        away = np.arange(1, self.config.reach + 1)
        pre = np.repeat(np.arange(n_pre), 2 * self.config.reach)
        post = (pre + np.tile(np.concatenate([-away, away]), n_pre)) % n_post
        return of_pairs(pre, post, n_pre, n_post)
