"""Every neuron has the same number of synapses, onto neurons drawn without replacement, as NEST's fixed_outdegree."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.mask import Mask
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig
from eprop_cli.connectivity.subsets import subsets
from eprop_cli.errors import require
from eprop_cli.schema import at_least, key


@dataclass(kw_only=True)
class FixedOutdegreeConfig(RuleConfig):
    """Keys of {rule: fixed_outdegree}."""

    outdegree: int = key(at_least(1))


class FixedOutdegree(ConnectionRule):
    """connectivity.PROJECTION={rule: fixed_outdegree, outdegree: N}."""

    Config = FixedOutdegreeConfig
    config: FixedOutdegreeConfig

    def check(self, n_pre: int, n_post: int) -> None:
        """Raise ConfigError for more synapses than neurons they can go to."""
        most = n_post - self.without_self
        constraint = f"must be at most {most}: there are no more neurons to go to, and no multapses"
        require(self.config.outdegree <= most, f"{self.key}.outdegree", self.config.outdegree, constraint)

    def expected(self, n_pre: int, n_post: int) -> float:
        """The exact number."""
        return float(self.config.outdegree * n_pre)

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Draw presynaptic neuron by presynaptic neuron."""
        row = np.arange(n_pre + 1, dtype=np.int64) * self.config.outdegree
        post = subsets(rng, n_pre, self.config.outdegree, n_post, self.without_self)
        return Mask(n_pre, n_post, row, post.reshape(-1))
