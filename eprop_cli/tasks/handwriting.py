"""Handwriting: two readouts are to lead a pen.

Task, numbers and draw order of NEST's tutorial eprop_supervised_regression_handwriting_bsshslm_2020.py; its word comes
with NEST.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eprop_cli.errors import ConfigError, require
from eprop_cli.schema import at_least, key
from eprop_cli.tasks.paths import find
from eprop_cli.tasks.pattern import Pattern, PatternConfig, Targets, require_two_readouts

SHIPPED = Path("doc", "examples", "pynest", "eprop_plasticity", "chaos_handwriting.txt")  # in NEST's installation
MOST_BYTES = 2**24  # of a file of strokes


@dataclass(kw_only=True)
class Steps:
    """Durations in time steps."""

    data_point: int = key(at_least(1, "time step"))


@dataclass(kw_only=True)
class HandwritingConfig(PatternConfig):
    """Keys of conf/task/handwriting.yaml."""

    file: str | None
    steps: Steps

    def __post_init__(self) -> None:
        super().__post_init__()
        require_two_readouts(self)
        if self.file is not None:
            self.file = str(find("task.file", self.file))
        _ = self.strokes

    @property
    def strokes(self) -> NDArray[np.float64]:
        """Displacements of the pen from point to point, float64 (n_points, 2)."""
        return _read(_shipped() if self.file is None else Path(self.file))

    @property
    def sequence_steps(self) -> int:
        """Time steps of one sequence."""
        return len(self.strokes) * self.steps.data_point


class Handwriting(Pattern):
    """The pen's way, each coordinate scaled and centred."""

    Config = HandwritingConfig
    planes = ((0, 1),)
    config: HandwritingConfig

    def draw_target(self, rng: np.random.RandomState) -> Targets:
        """The same whatever is drawn."""
        every, n_points = self.config.steps.data_point, len(self.config.strokes)
        times = np.arange(self.config.sequence_steps) / every
        return np.stack([np.interp(times, np.arange(n_points), _scaled(way)) for way in self.config.strokes.T])


def _scaled(strokes: NDArray[np.float64]) -> NDArray[np.float64]:
    way = np.cumsum(strokes)
    way /= np.max(np.abs(way))
    way -= np.mean(way)
    return way


def _shipped() -> Path:
    nest = find_spec("nest")
    path = Path(nest.origin).parent / SHIPPED if nest is not None and nest.origin is not None else None
    if path is None or not path.is_file():
        raise ConfigError("task.file", None, "NEST's own is not installed; give a file of strokes, two numbers a line")
    return path


@lru_cache(maxsize=8)
def _read(path: Path) -> NDArray[np.float64]:
    try:
        require(path.stat().st_size <= MOST_BYTES, "task.file", str(path), f"must not have over {MOST_BYTES} bytes")
        strokes = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        constraint = f"must be a text file with two numbers a line ({error})"
        raise ConfigError("task.file", str(path), " ".join(constraint.split())) from error
    shaped = strokes.ndim == 2 and strokes.shape[1] == 2 and len(strokes) >= 2 and bool(np.isfinite(strokes).all())
    require(shaped, "task.file", str(path), "must have two finite numbers a line, and at least two lines")
    varies = bool((np.abs(np.cumsum(strokes, axis=0)).max(axis=0) > 0).all())
    require(varies, "task.file", str(path), "must move in both coordinates")
    strokes.setflags(write=False)
    return strokes
