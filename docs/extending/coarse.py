"""An engine: the compiled one, with gradients of few bits. `engine=compiled engine.name=coarse:Coarse`."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.base import Outcome
from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.values import Batch, Weights

LEVELS = 127  # of each sign, as a signed byte has them


class Coarse(CompiledEngine):
    """What hardware with 8-bit gradients might give."""

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """The gradients in 127 steps of each sign."""
        outcome = super().gradient(weights, batch, following, record)
        assert outcome.gradients is not None
        return replace(outcome, gradients={name: _rounded(values) for name, values in outcome.gradients.items()})


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    step = float(np.abs(values).max()) / LEVELS
    return np.round(values / step) * step if step else values
