"""Sine waves: each readout is to follow a superposition of sines.

Task, numbers and draw order of NEST's tutorial eprop_supervised_regression_sine-waves_bsshslm_2020.py.
"""

from dataclasses import dataclass

import numpy as np

from eprop_cli.errors import require
from eprop_cli.schema import POSITIVE, SEED, at_least, key
from eprop_cli.tasks.pattern import Pattern, PatternConfig, Targets


@dataclass(kw_only=True)
class Steps:
    """Durations in time steps."""

    sequence: int = key(at_least(2, "time steps"))


@dataclass(kw_only=True)
class SineWavesConfig(PatternConfig):
    """Keys of conf/task/sine_waves.yaml."""

    periods: list[int] = key(POSITIVE, unit="steps")
    amplitude_min: float
    amplitude_max: float
    seed: int = key(SEED)
    steps: Steps

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.periods), "task.periods", self.periods, "must name at least one period")
        least, most = self.amplitude_min, self.amplitude_max
        require(least <= most, "task.amplitude_min", least, f"must be at most amplitude_max ({most})")

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence."""
        return self.steps.sequence


class SineWaves(Pattern):
    """Superpositions of sines of given periods, with random amplitudes and phases, that start at 0 and reach to 1."""

    Config = SineWavesConfig
    config: SineWavesConfig

    def draw_target(self, rng: np.random.RandomState) -> Targets:
        """One superposition after another, in the order of the readouts."""
        return np.stack([self._superposition(rng) for _ in range(self.config.n_out)])

    def _superposition(self, rng: np.random.RandomState) -> Targets:
        c, n_steps = self.config, self.config.sequence_steps
        amplitudes = rng.uniform(c.amplitude_min, c.amplitude_max, len(c.periods))
        phases = rng.uniform(0.0, 2.0 * np.pi, len(c.periods))
        wave = np.zeros(n_steps)
        for amplitude, phase, period in zip(amplitudes, phases, c.periods, strict=True):
            # Whole periods only, over which the sine is stretched, as in the tutorial.
            wave += amplitude * np.sin(np.linspace(phase, phase + 2.0 * np.pi * (n_steps // period), n_steps))
        wave -= wave[0]
        wave /= max(np.abs(wave).max(), 1e-6)
        return wave
