"""Plain gradient descent, as in NEST."""

from dataclasses import replace

from eprop_cli.optimizers.base import Optimizer, OptimizerState
from eprop_cli.values import Weights


class GradientDescent(Optimizer):
    """optimizer=gradient_descent."""

    nest_type = "gradient_descent"

    def initial_state(self, weights: Weights) -> OptimizerState:
        """Nothing to remember."""
        return OptimizerState(0)

    def step(self, state: OptimizerState, gradients: Weights, eta: float) -> tuple[Weights, OptimizerState]:
        """The gradient times the learning rate."""
        steps = {projection: eta * gradient for projection, gradient in gradients.items()}
        return steps, replace(state, step=state.step + 1)
