"""Plain gradient descent, as in NEST."""

from eprop_cli.optimizers.base import Optimizer, OptimizerState, Rates
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
        return steps, self.advanced(state)

    def rates(self, state: OptimizerState, eta: float) -> Rates:
        """The learning rate alone."""
        return Rates(eta)
