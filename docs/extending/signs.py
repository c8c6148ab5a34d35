"""An optimizer: only the sign of the gradient counts. `optimizer=gradient_descent optimizer.name=signs:Signs`."""

from dataclasses import replace

import numpy as np

from eprop_cli.optimizers.base import Optimizer, OptimizerState
from eprop_cli.values import Weights


class Signs(Optimizer):
    """Each weight moves by eta. NEST's synapses do not have it, so it needs training=data_parallel."""

    def initial_state(self, weights: Weights) -> OptimizerState:
        """Nothing to remember."""
        return OptimizerState(0)

    def step(self, state: OptimizerState, gradients: Weights, eta: float) -> tuple[Weights, OptimizerState]:
        """What is subtracted from the weights."""
        return {name: eta * np.sign(gradient) for name, gradient in gradients.items()}, replace(
            state, step=state.step + 1
        )
