"""What an engine is: (weights, batch) -> readout, spike counts and gradients. Training loops know only this."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.constraints import Constraints
from eprop_cli.connectivity.mask import Wiring, all_dense
from eprop_cli.engines.limits import check_limits
from eprop_cli.errors import require
from eprop_cli.models.base import Model
from eprop_cli.optimizers.base import Optimizer, OptimizerState
from eprop_cli.registry import SAME_RESULTS, VARIANTS, variant
from eprop_cli.schema import Group, at_least, key
from eprop_cli.values import Batch, Recording, Table, Weights


@dataclass(kw_only=True)
class EngineConfig(Group):
    """The keys that every engine has."""

    GROUP = "engine"

    name: str
    n_workers: int = key(at_least(1))


@dataclass(frozen=True)
class Outcome:
    """What one batch gave.

    readout: float64 (n_out, n_batch, learning_window), softmax or plain readout signal.
    n_spikes: spikes of each recurrent population in all sequences together.
    gradients: projection -> float64 in the shape of its weights, mean over the batch, averaged over the learning window
        where synapse.average_gradient is; 0 where a dense projection has no synapse. None from an evaluation.
    recording: None where none was asked for.
    weight_changes: of a stream, columns projection, pre, post, time (ms since it began), weight; None where none was
        asked for.
    """

    readout: NDArray[np.float64]
    n_spikes: dict[str, int]
    gradients: Weights | None = None
    recording: Recording | None = None
    weight_changes: Table | None = None


class Stream(Protocol):
    """A simulation that goes on and on, weights changing as spikes pass.

    A batch is known when its last readout has been recorded, a few steps into the next one; hence begin() gives the
    outcome of the batch before.
    """

    def begin(self, batch: Batch, eta: float, record: bool) -> Outcome | None:
        """Present a batch with a learning rate; returns the outcome of the batch before, None for the first.

        record: whether the outcome of this batch is to have a recording.
        """
        ...

    def go_on(self) -> None:
        """Simulate to the end of the batch that has begun."""
        ...

    def finish(self) -> Outcome | None:
        """Have every synapse apply what it has learned; returns the outcome of the last batch."""
        ...

    def weights(self) -> Weights:
        """Weights as the synapses hold them; one that has not transmitted since its last batch lags behind."""
        ...

    def moments(self) -> Mapping[str, Weights]:
        """What the optimizer keeps of synapses, name -> projection -> values; some of them where they are many."""
        ...


class KeptStream(Stream, Protocol):
    """A stream whose whole state can be kept, so that it can be taken up again and be copied.

    After end() the outcome of the batch that has begun is known, and begin() has none to give.
    """

    def end(self, eta: float | None) -> Outcome | None:
        """Simulate what is left of the batch; returns its outcome.

        eta: learning rate of the batch that is to follow, as begin() would have it; None: the batch's own.
        """
        ...

    def evaluate(self, batch: Batch) -> Outcome:
        """Simulate a batch on a copy that does not learn; nothing else changes."""
        ...

    def state(self) -> dict[str, Any]:
        """All that it needs to go on, once go_on() has come to its end: numbers, and arrays that are copies."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what state() gave; the outcome of the batch under way then is not given again."""
        ...


class Learner(Protocol):
    """Weights and an optimizer's state that an engine keeps where it computes, and changes there.

    In each iteration begin(), outcome() and step() follow each other.
    """

    def begin(self, batch: Batch, following: NDArray[np.bool_] | None) -> None:
        """Begin to compute a batch's gradients, as Engine.gradient does; something else can be done meanwhile."""
        ...

    def outcome(self, record: bool) -> Outcome:
        """What the batch gave, without gradients."""
        ...

    def finite(self) -> bool:
        """Whether the gradients of the last batch are, or after a step the weights."""
        ...

    def gradients(self) -> Weights:
        """The last batch's gradients."""
        ...

    def step(self) -> None:
        """Take the optimizer's step with them."""
        ...

    def weights(self) -> Weights:
        """The weights after the last step; they do not change later."""
        ...

    def state(self) -> OptimizerState:
        """The optimizer's state after the last step; nor does it."""
        ...

    @property
    def taken(self) -> OptimizerState:
        """The same without moments, which may take a while to get."""
        ...


def same_results(one: str, other: str) -> bool:
    """Whether two engines, given by their names, have the same results."""
    return one == other or any({one, other} <= alike for alike in SAME_RESULTS)


class Engine:
    """Computes batches; holds workers or buffers, but no state that a result depends on.

    package: what it computes with, as it is imported; remedy: what to do where it is not installed.
    """

    Config: ClassVar[type[EngineConfig]] = EngineConfig
    package: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(self, config: RunConfig, wiring: Wiring | None = None) -> None:
        self._config, self._wiring = config, all_dense(config.sizes) if wiring is None else wiring

    @classmethod
    def provides(cls, model: type[Model]) -> frozenset[str]:
        """What it can compute of a model: GRADIENT, STREAM."""
        raise NotImplementedError

    @classmethod
    def keeps_state(cls) -> bool:
        """Whether its streams are of the kind KeptStream."""
        return False

    @classmethod
    def check_state(cls, config: RunConfig, wiring: Wiring, state: Mapping[str, Any]) -> None:
        """Raise ValueError unless a KeptStream can be taken up from what may be its state, whoever wrote it."""

    @classmethod
    def bytes_per_synapse(cls, needs: str) -> int:
        """Memory that a plastic synapse takes, about, where the training needs GRADIENT or STREAM."""
        return 40

    @classmethod
    def cores(cls, engine: Mapping[str, Any]) -> int:
        """Cores that a run takes with these keys of the engine."""
        return int(engine["n_workers"])

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError if it does not compute what the training needs."""
        model, needs = variant("neuron", config.neuron.name), variant("training", config.training.name).needs
        refusal = f"neuron={config.neuron.name} does not go with it: {model.refusals.get(needs, '')}"
        require(needs in model.computes, "training", config.training.name, refusal)
        provided = cls.provides(model)
        fitting = [name for name in VARIANTS["training"] if variant("training", name).needs in provided]
        remedy = f"needs training={fitting[0]}" if fitting else f"cannot compute neuron={config.neuron.name}"
        require(needs in provided, "engine", config.engine.name, remedy)

    @classmethod
    def check_possible(cls, config: RunConfig) -> None:
        """Raise ConfigError if it is not installed, or what is to be computed is beyond it."""
        check_limits(config)
        constraint = f"needs {cls.package}, which is not installed; {cls.remedy}"
        require(find_spec(cls.package) is not None, "engine", config.engine.name, constraint)

    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch and return its gradients.

        following: bool (n_in,), input spikes in step 1 of the sequence that follows the batch, to lose the same
            gradient term as a continuous NEST simulation; None for the whole gradient.
        record: return a recording too.
        """
        raise NotImplementedError

    def begin(
        self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool
    ) -> Callable[[], Outcome] | None:
        """Begin what gradient() does, if something else can be done meanwhile; returns what waits for the outcome."""
        return None

    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch without learning; readouts are those that gradient() would return."""
        raise NotImplementedError

    def learner(
        self, weights: Weights, optimizer: Optimizer, state: OptimizerState, constraints: Constraints
    ) -> Learner | None:
        """Somewhere to keep weights and change them, if the engine has one for all that they keep to."""
        return None

    def stream(self, weights: Weights) -> Stream:
        """Begin a simulation that goes on and on."""
        raise NotImplementedError

    def compile(self, weights: Weights) -> None:
        """Have on disk what would otherwise be compiled in each of several processes."""

    def close(self) -> None:
        """Give workers back."""


def engine_class(config: RunConfig) -> type[Engine]:
    """The class of the engine that the config names."""
    return variant("engine", config.engine.name)


def make_engine(config: RunConfig, wiring: Wiring | None = None) -> Engine:
    """The engine that the config names; what it computes with is imported here.

    wiring: the run's synapses; None: all of them, whatever the config says.
    """
    return engine_class(config)(config, wiring)
