"""Each synapse exists with a probability of its own, as NEST's pairwise_bernoulli."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.mask import Indices, Mask
from eprop_cli.connectivity.rule import ConnectionRule, RuleConfig
from eprop_cli.schema import PROBABILITY, key


@dataclass(kw_only=True)
class BernoulliConfig(RuleConfig):
    """Keys of {rule: bernoulli}."""

    p: float = key(PROBABILITY)


class Bernoulli(ConnectionRule):
    """connectivity.PROJECTION={rule: bernoulli, p: P}."""

    Config = BernoulliConfig
    config: BernoulliConfig

    def expected(self, n_pre: int, n_post: int) -> float:
        """The mean."""
        return self.config.p * n_pre * n_post

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Draw how many places lie between one synapse and the next: costs time and memory per synapse."""
        rows = max(1, int(MOST_AT_A_TIME / max(1.0, self.config.p * n_post)))  # presynaptic neurons at a time
        parts: list[Indices] = []
        fan_out = np.zeros(n_pre, dtype=np.int64)
        for begin in range(0, n_pre, rows):
            end = min(begin + rows, n_pre)
            pre, post = np.divmod(_places(rng, self.config.p, (end - begin) * n_post), n_post)
            if self.without_self:
                pre, post = pre[pre + begin != post], post[pre + begin != post]
            fan_out[begin:end] = np.bincount(pre, minlength=end - begin)
            parts.append(post.astype(np.uint32))
        row = np.concatenate([[0], np.cumsum(fan_out)]).astype(np.int64)
        return Mask(n_pre, n_post, row, np.concatenate(parts))


MOST_AT_A_TIME = 2**22  # synapses, for which some temporary arrays are held


def _places(rng: np.random.RandomState, p: float, n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Places below n, each taken with probability p."""
    if p in (0.0, 1.0):
        return np.arange(n if p else 0, dtype=np.int64)
    parts, last = [], -1
    while last < n:
        expected = p * (n - 1 - last)
        gaps = rng.geometric(p, int(expected + 5.0 * np.sqrt(expected) + 10))
        places = last + np.cumsum(np.minimum(gaps, n + 1), dtype=np.int64)
        parts.append(places)
        last = int(places[-1])
    found = np.concatenate(parts)
    return found[: np.searchsorted(found, n)]
