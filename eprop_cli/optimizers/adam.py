"""Adam (Kingma & Ba 2015), in NEST's arithmetic to the bit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from eprop_cli.connectivity.base import like
from eprop_cli.optimizers.base import Optimizer, OptimizerConfig, OptimizerState, Rates
from eprop_cli.schema import POSITIVE, Rule, key
from eprop_cli.values import Weights

BETAS = ("beta_1", "beta_2")
BELOW_1 = Rule("from 0 to below 1", lambda beta: 0 <= beta < 1)


@dataclass(kw_only=True)
class AdamConfig(OptimizerConfig):
    """Keys of conf/optimizer/adam.yaml."""

    beta_1: float = key(BELOW_1)
    beta_2: float = key(BELOW_1)
    epsilon: float = key(POSITIVE)  # a synapse without gradient would otherwise be updated by 0 / 0


class Adam(Optimizer):
    """optimizer=adam. The moments are m and v; beta_1_power, beta_2_power are multiplied up as NEST does."""

    Config = AdamConfig
    nest_type = "adam"
    moments = ("m", "v")
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"v": (0.0, math.inf), "beta_1_power": (0.0, 1.0), "beta_2_power": (0.0, 1.0)}
    )
    config: AdamConfig

    def initial_state(self, weights: Weights) -> OptimizerState:
        """Moments of 0."""
        moments = {name: like(weights, 0.0) for name in self.moments}
        return OptimizerState(0, moments, {"beta_1_power": 1.0, "beta_2_power": 1.0})

    def step(self, state: OptimizerState, gradients: Weights, eta: float) -> tuple[Weights, OptimizerState]:
        """The bias corrections are in the learning rate; operations in NEST's order."""
        adam, alpha = self.config, self.rates(state, eta).rate
        m_before, v_before = state.moments["m"], state.moments["v"]
        m = {key: adam.beta_1 * m_before[key] + (1.0 - adam.beta_1) * g for key, g in gradients.items()}
        v = {key: adam.beta_2 * v_before[key] + (1.0 - adam.beta_2) * g * g for key, g in gradients.items()}
        steps = {key: alpha * m[key] / (np.sqrt(v[key]) + adam.epsilon) for key in gradients}
        return steps, replace(self.advanced(state), moments={"m": m, "v": v})

    def rates(self, state: OptimizerState, eta: float) -> Rates:
        """The learning rate with the bias corrections of the step, and what the moments need."""
        adam, numbers = self.config, self.advanced(state).numbers
        alpha = eta * math.sqrt(1.0 - numbers["beta_2_power"]) / (1.0 - numbers["beta_1_power"])
        return Rates(alpha, (adam.beta_1, adam.beta_2, adam.epsilon))

    def advanced(self, state: OptimizerState) -> OptimizerState:
        """The powers are multiplied up."""
        powers = {f"{beta}_power": state.numbers[f"{beta}_power"] * getattr(self.config, beta) for beta in BETAS}
        return replace(state, step=state.step + 1, numbers=powers)

    def nest_parameters(self) -> dict[str, Any]:
        """What NEST's Adam needs besides."""
        return super().nest_parameters() | {key: getattr(self.config, key) for key in ("beta_1", "beta_2", "epsilon")}
