"""Masks as NEST's script on N-MNIST draws them: numpy.random.choice once all weights are drawn, whole matrices."""

from dataclasses import dataclass

import numpy as np

from eprop_cli.connectivity.mask import Mask, of_matrix
from eprop_cli.connectivity.rule import AFTER, ConnectionRule, RuleConfig
from eprop_cli.schema import PROBABILITY, key


@dataclass(kw_only=True)
class ChoiceConfig(RuleConfig):
    """Keys of {rule: choice}. sparsity: probability that a synapse is missing."""

    sparsity: float = key(PROBABILITY)


class Choice(ConnectionRule):
    """connectivity.PROJECTION={rule: choice, sparsity: P}."""

    Config = ChoiceConfig
    config: ChoiceConfig
    when = AFTER

    def expected(self, n_pre: int, n_post: int) -> float:
        """Whole matrices are drawn first."""
        return float(n_pre * n_post)

    def draw(self, rng: np.random.RandomState, n_pre: int, n_post: int) -> Mask:
        """Draw post by pre."""
        there = rng.choice([0, 1], (n_post, n_pre), p=[self.config.sparsity, 1 - self.config.sparsity]).astype(bool)
        if self.without_self:
            np.fill_diagonal(there, False)
        return of_matrix(there)
