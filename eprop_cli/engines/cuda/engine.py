"""Losses and gradients from a GPU, equal to the compiled engine's: what surrounds the CUDA kernels.

The compiled engine is the base: networks are packed alike, and iterations that are recorded are simulated there, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.connectivity.constraints import Constraints
from eprop_cli.connectivity.mask import Wiring
from eprop_cli.engines.base import Learner, Outcome
from eprop_cli.errors import ConfigError, reason, require
from eprop_cli.models.base import GRADIENT, Model
from eprop_cli.optimizers.base import Optimizer, OptimizerState, learning_rate, shrinking
from eprop_cli.registry import is_known
from eprop_cli.values import Batch, Weights

REMEDY = "pip install '.[cuda]' in the checkout"
try:
    from eprop_cli.engines.compiled.batch import Circuit, Simulated, summation
    from eprop_cli.engines.compiled.engine import CompiledEngine
    from eprop_cli.engines.compiled.recording import window_targets
    from eprop_cli.engines.compiled.synapses import Synapses
    from eprop_cli.engines.cuda import device
    from eprop_cli.engines.cuda.device import Floats
    from eprop_cli.engines.cuda.inputs import from_spikes
    from eprop_cli.engines.cuda.simulation import Layout, Lists, Shape, Simulation, Step
except (ImportError, ConfigError) as error:
    raise ConfigError("engine", "cuda", f"needs numba-cuda ({reason(error)}); {REMEDY}") from error

NOTHING = np.empty(0)


class CudaEngine(CompiledEngine):
    """engine=cuda. One network's weights are on the device at a time: a learner's, or those it was last given."""

    package = "numba_cuda"
    remedy = REMEDY

    def __init__(self, config: RunConfig, wiring: Wiring | None = None) -> None:
        super().__init__(config, wiring)
        self._network_there: Layout | None = None
        self._simulation: Simulation | None = None
        self._truncating = False  # whether it has room for gradients without the last learning signal
        self._holder: CudaLearner | None = None  # whose weights are on the device

    @classmethod
    def provides(cls, model: type[Model]) -> frozenset[str]:
        """Gradients only: the steps of a stream are too small to be shared out."""
        return super().provides(model) & {GRADIENT}

    @classmethod
    def keeps_state(cls) -> bool:
        """It has no streams."""
        return False

    @classmethod
    def check_possible(cls, config: RunConfig) -> None:
        """Raise ConfigError if there is no device, or none that computes as the CPU does."""
        super().check_possible(config)
        without = "or use engine=compiled, which needs none"
        why = device.why_not()
        require(
            not why, "engine", config.engine.name, f"needs a CUDA device and its driver ({why}); install it, {without}"
        )
        try:
            device.check_arithmetic()
        except Exception as error:  # whatever a driver, or what compiles for it, may raise
            constraint = f"cannot use the CUDA device ({reason(error)}); {REMEDY} brings what fits, {without}"
            raise ConfigError("engine", config.engine.name, constraint) from error

    @device.clear_errors()
    def gradient(self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """Simulate a batch forward and backward; what is to be recorded, on the CPU besides."""
        simulation = self._with_weights(weights, batch, following is not None)
        number = self.start(simulation, batch, following)
        outcome = replace(self.outcome(simulation, number), gradients=self.gradients(simulation))
        return self.recorded(weights, batch, following, outcome) if record else outcome

    def begin(
        self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, record: bool
    ) -> Callable[[], Outcome] | None:
        """Nothing: without a learner there is no waiting for the device."""
        return None

    @device.clear_errors()
    def evaluate(self, weights: Weights, batch: Batch) -> Outcome:
        """Simulate a batch forward only."""
        simulation = self._with_weights(weights, batch, False)
        return self.outcome(simulation, self.start(simulation, batch, None, learning=False))

    def learner(
        self, weights: Weights, optimizer: Optimizer, state: OptimizerState, constraints: Constraints
    ) -> Learner | None:
        """One on the device, if it can take the optimizer's steps there."""
        known = is_known("optimizer", optimizer.config.name) and optimizer.rates(state, 0.0) is not None
        if not known or not constraints.none or not self._wiring["rec_out"].is_dense:
            return None
        self._describe(weights)
        return CudaLearner(self, weights, optimizer, state)

    def compile(self, weights: Weights) -> None:
        """Do nothing: each process compiles for itself, as none can use a device that it was forked with."""

    def simulation(self, batch: Batch, truncating: bool) -> Simulation:
        """What simulates such batches; it has its memory until another is asked for."""
        n_batch, n_steps, _ = batch.spikes.shape
        shape = Shape(n_batch, n_steps, self._config.task.learning_window_steps)
        if self._simulation is None or self._simulation.shape != shape or (truncating and not self._truncating):
            self.hand_over(None)
            assert self._network_there is not None
            self._simulation = None  # before there are two
            self._simulation = Simulation(self._network_there, shape, truncating=truncating)
            self._truncating = truncating
        return self._simulation

    def hand_over(self, holder: "CudaLearner | None") -> None:
        """Let the device's weights be a learner's, or nobody's; whose they were keeps them."""
        if self._holder is not None:
            self._holder.leave()
        self._holder = holder

    def put(self, simulation: Simulation, weights: Weights) -> None:
        """Put weights on the device."""
        packed, n_rec, n_out = self._network(weights), self._model.n_rec, self._config.task.n_out
        out, feedback = _matrix(packed.out, n_rec, n_out), _matrix(packed.feedback, n_out, n_rec)
        simulation.set_weights(packed.rec.weights, out, feedback)

    def put_moments(self, simulation: Simulation, state: OptimizerState) -> None:
        """Put an optimizer's moments on the device."""
        for name, moments in state.moments.items():
            onto_out = np.ascontiguousarray(moments["rec_out"].T)
            simulation.set_moments({name: self._onto_rec(moments).weights, f"{name}_out": onto_out})

    def in_shapes(self, onto_rec: Floats, onto_out: Floats) -> Weights:
        """Values of synapses as a simulation has them, in the shapes of the weights."""
        out = self._wiring["rec_out"]
        flat = onto_out.reshape(-1) if out.is_dense else onto_out[out.pre, out.lists[1]]
        n_synapses = sum(self._wiring[name].size for name in ("in_rec", "rec_rec"))
        listed = onto_rec if self._lists is None else onto_rec[:n_synapses]  # the device has one at least
        return self._gradients(_simulated(NOTHING, NOTHING, listed, flat))

    def start(
        self, simulation: Simulation, batch: Batch, following: NDArray[np.bool_] | None, learning: bool = True
    ) -> int:
        """Begin to compute a batch; returns its number."""
        lost = None if following is None else np.vstack([batch.spikes[1:, 1] > 0, following])
        network, targets = simulation.network, np.ascontiguousarray(window_targets(batch, simulation.shape.window))
        number = simulation.start(from_spikes(batch.spikes, network.n_in + network.n_rec), targets, lost, learning)
        if learning:
            averaged = self._config.synapse.average_gradient
            simulation.average(len(batch.spikes) * (simulation.shape.window if averaged else 1))
        return number

    def outcome(self, simulation: Simulation, number: int) -> Outcome:
        """What a batch gave, but for its gradients."""
        n_spikes = simulation.finish(number).n_spikes
        return Outcome(*self._metrics(_simulated(simulation.signal(), n_spikes)))

    def gradients(self, simulation: Simulation) -> Weights:
        """The last batch's gradients, in the shapes of the weights."""
        return self.in_shapes(*simulation.gradients())

    def recorded(
        self, weights: Weights, batch: Batch, following: NDArray[np.bool_] | None, outcome: Outcome
    ) -> Outcome:
        """An outcome with the recording of the batch, which the CPU makes."""
        return replace(outcome, recording=super().gradient(weights, batch, following, True).recording)

    @property
    def in_blocks(self) -> bool:
        """Whether an optimizer on the CPU would go through these weights by blocks, which is an order of sums."""
        return self._lists is not None

    def _describe(self, weights: Weights) -> None:
        if self._network_there is None:
            self._network_there = _described(self._network(weights), self._config.task.n_out)

    def _with_weights(self, weights: Weights, batch: Batch, truncating: bool) -> Simulation:
        """What simulates a batch, with weights in it."""
        self._describe(weights)
        simulation = self.simulation(batch, truncating)
        if self._holder is None or not self._holder.has(weights):
            self.hand_over(None)
            self.put(simulation, weights)
        return simulation


class CudaLearner:
    """A run's weights on the device, where the optimizer takes its steps; what is asked for is fetched once."""

    def __init__(self, engine: CudaEngine, weights: Weights, optimizer: Optimizer, state: OptimizerState) -> None:
        self._engine, self._optimizer, self._state = engine, optimizer, state
        self._feedback = weights[FEEDBACK]
        self._there: Simulation | None = None  # where weights and moments are; None: only here
        # what is on the device, here; None once it has changed
        self._weights: Weights | None = weights
        self._moments: Mapping[str, Weights] | None = state.moments
        self._batch: tuple[int, Batch, NDArray[np.bool_] | None]

    @device.clear_errors()
    def begin(self, batch: Batch, following: NDArray[np.bool_] | None) -> None:
        """Begin to compute a batch's gradients."""
        simulation = self._engine.simulation(batch, following is not None)
        if self._there is not simulation:
            self._engine.hand_over(self)
            self._engine.put(simulation, self.weights())
            self._engine.put_moments(simulation, self.state())
            self._there = simulation
        self._batch = self._engine.start(simulation, batch, following), batch, following

    @device.clear_errors()
    def outcome(self, record: bool) -> Outcome:
        """What the batch gave; its gradients stay on the device."""
        number, batch, following = self._batch
        outcome = self._engine.outcome(self._simulation, number)
        return self._engine.recorded(self.weights(), batch, following, outcome) if record else outcome

    @device.clear_errors()
    def finite(self) -> bool:
        """Whether the gradients of the last batch are, or after a step the weights."""
        return self._simulation.finite()

    @device.clear_errors()
    def gradients(self) -> Weights:
        """The last batch's gradients."""
        return self._engine.gradients(self._simulation)

    @device.clear_errors()
    def step(self) -> None:
        """Take the optimizer's step with them."""
        config, clip = self._optimizer.config, 1.0
        eta = learning_rate(config.schedule, config.eta, self._state.step)
        rates = self._optimizer.rates(self._state, eta)
        assert rates is not None
        if config.clip_norm is not None:
            factor = shrinking(self.gradients(), config.clip_norm, self._engine.in_blocks)
            clip = 1.0 if factor is None else factor
        common = Step(rates, decay=eta * config.weight_decay, clip=clip)
        steps = []
        for name in PLASTIC:
            low, high = config.bounds_of(name)
            steps.append(replace(common, w_min=low, w_max=high, factor=getattr(config.eta_factor, name)))
        self._weights = self._moments = None
        self._simulation.optimize(*steps)
        self._state = self._optimizer.advanced(replace(self._state, moments={}))

    @device.clear_errors()
    def weights(self) -> Weights:
        """The weights after the last step."""
        if self._weights is None:
            self._weights = self._engine.in_shapes(*self._simulation.weights()) | {FEEDBACK: self._feedback}
        return self._weights

    @device.clear_errors()
    def state(self) -> OptimizerState:
        """The optimizer's state after the last step."""
        if self._moments is None:
            kept, names = self._simulation.moments(), self._optimizer.moments
            self._moments = {name: self._engine.in_shapes(kept[name], kept[f"{name}_out"]) for name in names}
        return replace(self._state, moments=self._moments)

    @property
    def taken(self) -> OptimizerState:
        """The optimizer's state without its moments, which are on the device."""
        return replace(self._state, moments={})

    def has(self, weights: Weights) -> bool:
        """Whether these are the weights on the device."""
        return self._there is not None and weights is self._weights

    def leave(self) -> None:
        """Keep here what is on the device, which something else will be."""
        if self._there is not None:
            self.weights()
            self.state()
            self._there = None

    @property
    def _simulation(self) -> Simulation:
        assert self._there is not None
        return self._there


def _described(packed: Circuit, n_out: int) -> Layout:
    """A network as the CUDA kernels take it."""
    rec, n_in = packed.rec, packed.rec.n_pre - packed.neurons.shape[1]
    synapses = None if rec.dense else Lists(rec.row, rec.post[: len(rec.weights)])
    parameters = packed.neurons, packed.surrogates, packed.readouts, packed.softmax
    return Layout(n_in, n_out, *parameters, synapses, summation(packed))


def _matrix(packed: Synapses, n_pre: int, n_post: int) -> Floats:
    """Weights (n_pre, n_post), 0 where there is no synapse."""
    if packed.dense:
        return packed.weights.reshape(n_pre, n_post)
    matrix = np.zeros((n_pre, n_post))
    rows = np.repeat(np.arange(n_pre), np.diff(packed.row))
    matrix[rows, packed.post[: len(rows)]] = packed.weights
    return matrix


def _simulated(signal: Floats, n_spikes: Any, gradient: Floats = NOTHING, gradient_out: Floats = NOTHING) -> Simulated:
    """What came of a batch, as the compiled engine has it."""
    nothing: Any = NOTHING
    return Simulated(nothing, signal, n_spikes, nothing, nothing, gradient, gradient_out)
