"""Every neuron gets the same number of synapses, from neurons drawn without replacement, as NEST's fixed_indegree."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.mask import Mask
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig
from eprop_cli.connectivity.subsets import subsets
from eprop_cli.errors import require
from eprop_cli.schema import at_least, key


@dataclass(kw_only=True)
class FixedIndegreeConfig(RuleConfig):
    """Keys of {rule: fixed_indegree}."""

    indegree: int = key(at_least(1))


class FixedIndegree(ConnectionRule):
    """connectivity.PROJECTION={rule: fixed_indegree, indegree: N}."""

    Config = FixedIndegreeConfig
    config: FixedIndegreeConfig

    def check(self, n_pre: int, n_post: int) -> None:
        """Raise ConfigError for more synapses than neurons they can come from."""
        most = n_pre - self.without_self
        constraint = f"must be at most {most}: there are no more neurons to come from, and no multapses"
        require(self.config.indegree <= most, f"{self.key}.indegree", self.config.indegree, constraint)

    def expected(self, n_pre: int, n_post: int) -> float:
        """The exact number."""
        return float(self.config.indegree * n_post)

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Draw postsynaptic neuron by postsynaptic neuron."""
        row = np.arange(n_post + 1, dtype=np.int64) * self.config.indegree
        pre = subsets(rng, n_post, self.config.indegree, n_pre, self.without_self)
        mask, _ = Mask(n_post, n_pre, row, pre.reshape(-1)).transposed()
        return mask
