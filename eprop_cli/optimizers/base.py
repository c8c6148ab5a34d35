"""What an optimizer is: gradients in, steps out; and what all of them share: schedules, decay, clipping, bounds.

Pure functions: weights and state go in, new ones come out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.base import clear
from eprop_cli.connectivity.mask import Wiring
from eprop_cli.connectivity.synapses import InitialMoments, no_such_synapse
from eprop_cli.errors import require
from eprop_cli.schema import NON_NEGATIVE, POSITIVE, Group, key, one_of
from eprop_cli.values import Weights

Floats = NDArray[np.float64]
BLOCK = 2**15  # values at a time where weights change in place: stays in the cache


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
class EtaFactor:
    """Factors on the learning rate."""

    in_rec: float = key(NON_NEGATIVE)
    rec_rec: float = key(NON_NEGATIVE)
    rec_out: float = key(NON_NEGATIVE)


@dataclass(kw_only=True)
class Bounds:
    """Bounds of a projection's weights, [low, high]; None: Wmin, Wmax."""

    in_rec: list[float] | None
    rec_rec: list[float] | None
    rec_out: list[float] | None


@dataclass(kw_only=True)
class OptimizerConfig(Group):
    """The keys that every optimizer has."""

    GROUP = "optimizer"

    name: str
    eta: float = key(NON_NEGATIVE)
    Wmin: float = key(unit="pA")
    Wmax: float = key(unit="pA")
    eta_factor: EtaFactor
    bounds: Bounds
    weight_decay: float = key(NON_NEGATIVE)
    clip_norm: float | None = key(POSITIVE)
    schedule: Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.Wmin < self.Wmax, "optimizer.Wmin", self.Wmin, f"must be below Wmax ({self.Wmax})")
        for name, bounds in vars(self.bounds).items():
            ordered = bounds is None or (len(bounds) == 2 and bounds[0] < bounds[1])
            require(ordered, f"optimizer.bounds.{name}", bounds, "must be [low, high], low below high, or null")

    def bounds_of(self, projection: str) -> tuple[float, float]:
        """Bounds of a projection's weights."""
        low, high = getattr(self.bounds, projection) or (self.Wmin, self.Wmax)
        return low, high


@dataclass(frozen=True)
class OptimizerState:
    """What an optimizer remembers between steps.

    step: steps taken.
    moments: name -> per plastic projection float64, in the shape of its weights.
    numbers: name -> a number.
    """

    step: int
    moments: Mapping[str, Weights] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rates:
    """A step in numbers, for an engine that takes it itself.

    What is taken off a weight is rate * gradient; or, with moments = (beta_1, beta_2, epsilon), Adam's
    rate * m / (sqrt(v) + epsilon).
    """

    rate: float
    moments: tuple[float, float, float] | None = None


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

    def rates(self, state: OptimizerState, eta: float) -> Rates | None:
        """The step that step() takes, in numbers; None if it is of another kind."""
        return None

    def advanced(self, state: OptimizerState) -> OptimizerState:
        """The state after a step, but for the moments."""
        return replace(state, step=state.step + 1)

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
            updated[projection] = self._taken(projection, weights[projection], step, eta)
        return clear(updated), state  # 0 may lie outside Wmin and Wmax

    def optimize_in_place(self, state: OptimizerState, weights: Weights, gradients: Weights) -> OptimizerState:
        """As optimize, but changes weights and moments, a block at a time, which spares memory of their size."""
        config, after = self.config, state
        eta = learning_rate(config.schedule, config.eta, state.step)
        factor = shrinking(gradients, config.clip_norm, by_blocks=True)
        for projection, gradient in gradients.items():
            arrays = {name: moments[projection].reshape(-1) for name, moments in state.moments.items()}
            values, flat = weights[projection].reshape(-1), gradient.reshape(-1)
            for begin in range(0, len(values), BLOCK):
                block = slice(begin, begin + BLOCK)
                part = flat[block] if factor is None else factor * flat[block]
                before = {name: {projection: array[block]} for name, array in arrays.items()}
                steps, after = self.step(OptimizerState(state.step, before, state.numbers), {projection: part}, eta)
                values[block] = self._taken(projection, values[block], steps[projection], eta)
                for name, array in arrays.items():
                    array[block] = after.moments[name][projection]
        clear(weights)
        return OptimizerState(state.step + 1, state.moments, after.numbers)

    def _taken(self, projection: str, weights: Floats, step: Floats, eta: float) -> Floats:
        """Weights after a step."""
        config = self.config
        if config.weight_decay:  # decoupled from the gradient (Loshchilov & Hutter 2019)
            step = step + eta * config.weight_decay * weights
        if (factor := getattr(config.eta_factor, projection)) != 1.0:
            step = factor * step
        taken: Floats = np.clip(weights - step, *config.bounds_of(projection))
        return taken


def set_moments(state: OptimizerState, wiring: Wiring, entries: Iterable[InitialMoments]) -> None:
    """Give some synapses of a fresh state the moments of synapse.init_optimizer, in place."""
    for entry in entries:
        pre, post = np.full(len(entry.post), entry.pre), np.array(entry.post, dtype=np.int64)
        try:
            index = wiring[entry.projection].index(pre, post)
        except LookupError as error:
            raise no_such_synapse(entry) from error
        for name, arrays in state.moments.items():
            arrays[entry.projection][index] = getattr(entry, name)


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


def shrinking(gradients: Weights, clip_norm: float | None, by_blocks: bool) -> float | None:
    """The factor by which gradients are scaled down so that their norm over all projections is at most clip_norm.

    None if they are not. by_blocks: have sums over blocks, as steps in place do; they round otherwise.
    """
    if clip_norm is None:
        return None
    parts: Iterable[Floats] = gradients.values()
    if by_blocks:
        flat = [gradient.reshape(-1) for gradient in parts]
        parts = (values[begin : begin + BLOCK] for values in flat for begin in range(0, len(values), BLOCK))
    norm = math.sqrt(sum(float(np.sum(part**2)) for part in parts))
    return None if norm <= clip_norm else clip_norm / norm


def clipped(gradients: Weights, clip_norm: float | None) -> Weights:
    """Gradients scaled down so that their norm over all projections is at most clip_norm."""
    factor = shrinking(gradients, clip_norm, by_blocks=False)
    return gradients if factor is None else {key: factor * g for key, g in gradients.items()}
