"""Lemniscate: two readouts are to draw a figure of eight.

Task, numbers and draw order of NEST's tutorial eprop_supervised_regression_lemniscate_bsshslm_2020.py.
"""

from dataclasses import dataclass

import numpy as np

from eprop_cli.schema import at_least, key
from eprop_cli.tasks.pattern import Pattern, PatternConfig, Targets, require_two_readouts


@dataclass(kw_only=True)
class Steps:
    """Durations in time steps."""

    sequence: int = key(at_least(2, "time steps"))


@dataclass(kw_only=True)
class LemniscateConfig(PatternConfig):
    """Keys of conf/task/lemniscate.yaml."""

    steps: Steps

    def __post_init__(self) -> None:
        super().__post_init__()
        require_two_readouts(self)

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence."""
        return self.steps.sequence


class Lemniscate(Pattern):
    """A sine over one period, and one over two."""

    Config = LemniscateConfig
    planes = ((0, 1),)
    config: LemniscateConfig

    def draw_target(self, rng: np.random.RandomState) -> Targets:
        """The same whatever is drawn."""
        n_steps = self.config.sequence_steps
        return np.stack([np.sin(np.linspace(0.0, periods * 2.0 * np.pi, n_steps)) for periods in (1, 2)])
