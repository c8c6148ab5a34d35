"""What an optimizer is: gradients in, steps out; and what all of them share: schedules, decay, clipping, bounds.

Pure functions: weights and state go in, new ones come out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from eprop_cli.connectivity.base import clear
from eprop_cli.connectivity.synapses import InitialMoments
from eprop_cli.errors import require
from eprop_cli.schema import NON_NEGATIVE, POSITIVE, Group, key, one_of
from eprop_cli.values import Weights


@dataclass(kw_only=True)
class Schedule:
    """Learning rate over iterations."""

    name: str = key(one_of(("constant", "step", "cosine")))
    warmup: int = key(NON_NEGATIVE, unit="iterations")
    step_every: int = key(POSITIVE, unit="iterations")
    step_factor: float = key(NON_NEGATIVE)
    cosine_iter: int = key(NON_NEGATIVE, unit="iterations")
    eta_min: float = key(NON_NEGATIVE)


@dataclass(kw_only=True)
class OptimizerConfig(Group):
    """The keys that every optimizer has."""

    GROUP = "optimizer"

    name: str
    eta: float = key(NON_NEGATIVE)
    Wmin: float = key(unit="pA")
    Wmax: float = key(unit="pA")
    weight_decay: float = key(NON_NEGATIVE)
    clip_norm: float | None = key(POSITIVE)
    schedule: Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.Wmin < self.Wmax, "optimizer.Wmin", self.Wmin, f"must be below Wmax ({self.Wmax})")


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers between steps.

    step: steps taken.
    moments: name -> per plastic projection float64 (n_post, n_pre).
    numbers: name -> a number.
    """

    step: int
    moments: Mapping[str, Weights] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


class Optimizer:
    """An optimizer with its config.

    nest_type: what NEST's synapses call it; None if they do not have it.
    moments: names of what it keeps per synapse.
    ranges: of its moments and numbers that cannot have all values, the least and the largest.
    """

    Config: ClassVar[type[OptimizerConfig]] = OptimizerConfig
    nest_type: ClassVar[str | None] = None
    moments: ClassVar[tuple[str, ...]] = ()
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def check(cls, config: Any) -> None:
        """Raise ConfigError for what does not go with the rest of a config."""

    def initial_state(self, weights: Weights) -> OptimizerState:
        """State before the first step."""
        raise NotImplementedError

    def step(self, state: OptimizerState, gradients: Weights, eta: float) -> tuple[Weights, OptimizerState]:
        """What is to be taken off the weights, and the state afterwards."""
        raise NotImplementedError

    def nest_parameters(self) -> dict[str, Any]:
        """Parameters of NEST's optimizer, but for its batch size."""
        return {"type": self.nest_type, "eta": self.config.eta, "Wmin": self.config.Wmin, "Wmax": self.config.Wmax}

    def optimize(self, state: OptimizerState, weights: Weights, gradients: Weights) -> tuple[Weights, OptimizerState]:
        """Take one step. gradients: batch means per plastic projection, 0 where there is no synapse."""
        config = self.config
        eta = learning_rate(config.schedule, config.eta, state.step)
        steps, state = self.step(state, clipped(gradients, config.clip_norm), eta)
        updated = dict(weights)
        for projection, step in steps.items():
            if config.weight_decay:  # decoupled from the gradient (Loshchilov & Hutter 2019)
                step = step + eta * config.weight_decay * weights[projection]
            updated[projection] = np.clip(weights[projection] - step, config.Wmin, config.Wmax)
        return clear(updated), state  # 0 may lie outside Wmin and Wmax


def set_moments(state: OptimizerState, entries: Iterable[InitialMoments]) -> None:
    """Give some synapses of a fresh state the moments of synapse.init_optimizer, in place."""
    for entry in entries:
        for name, arrays in state.moments.items():
            arrays[entry.projection][entry.post, entry.pre] = getattr(entry, name)


def learning_rate(schedule: Schedule, eta: float, step: int) -> float:
    """Learning rate of step number step, from 0."""
    if step < schedule.warmup:
        return eta * (step + 1) / schedule.warmup
    if schedule.name == "step":
        return eta * schedule.step_factor ** (step // schedule.step_every)
    if schedule.name == "cosine":
        span = max(1, schedule.cosine_iter - schedule.warmup)
        phase = min(1.0, (step - schedule.warmup) / span)
        return schedule.eta_min + (eta - schedule.eta_min) * 0.5 * (1.0 + math.cos(math.pi * phase))
    return eta


def clipped(gradients: Weights, clip_norm: float | None) -> Weights:
    """Gradients scaled down so that their norm over all projections is at most clip_norm."""
    if clip_norm is None:
        return gradients
    norm = math.sqrt(sum(float(np.sum(gradient**2)) for gradient in gradients.values()))
    return gradients if norm <= clip_norm else {key: clip_norm / norm * g for key, g in gradients.items()}
