"""What every way of training shares: records, initial weights, and the check of a batch's result."""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity import weights as connectivity
from eprop_cli.engines.base import engine_class
from eprop_cli.engines.nest.draws import draw_with_nest
from eprop_cli.errors import TrainingError, require
from eprop_cli.losses import firing_rate
from eprop_cli.models.draws import Drawn, draw_with_numpy, draws
from eprop_cli.phases import Progress
from eprop_cli.registry import variant
from eprop_cli.schema import NON_NEGATIVE, POSITIVE, Group, key
from eprop_cli.tasks.base import CheckedTask
from eprop_cli.values import Batch, Checkpoint, Recording, Row, Table, Weights

GENERATORS = {"numpy": draw_with_numpy, "nest": draw_with_nest}  # of parameters that differ from neuron to neuron


@dataclass(kw_only=True)
class TrainingConfig(Group):
    """The keys that every way of training has: when to validate, stop and test. Batches and iterations are counted."""

    GROUP = "training"

    name: str
    do_early_stopping: bool
    n_iter_validate_every: int = key(POSITIVE)
    n_iter_early_stop: int = key(POSITIVE)
    stop_metric: str
    stop_crit: float
    n_iter_test: int = key(NON_NEGATIVE)


@dataclass(frozen=True)
class Record:
    """What training yields after each batch.

    batch: the inputs, for the figures of a recorded iteration.
    recording: None unless this iteration is one that is recorded.
    weight_changes: columns projection, pre, post, time (ms since training began), weight; None outside training.
    """

    row: Row
    batch: Batch
    recording: Recording | None = None
    weight_changes: Table | None = None


class Trainer:
    """A way of training. records() can be iterated once; weights() tells where it stands at any time.

    needs: what it needs of the engine, GRADIENT or STREAM of models.base.
    resumable: whether it can go on from a checkpoint exactly; not_resumable: why not.
    """

    Config: ClassVar[type[TrainingConfig]] = TrainingConfig
    needs: ClassVar[str]
    resumable: ClassVar[bool] = False
    not_resumable: ClassVar[str] = "it keeps no checkpoint"

    initial: Weights
    simulating: float = 0.0  # seconds spent simulating so far

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        raise NotImplementedError

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError for what this way of training cannot do."""
        batches = config.task.n_iter + config.training.n_iter_test
        require(batches > 0, "task.n_iter", config.task.n_iter, "must be at least 1 unless training.n_iter_test is")

    @classmethod
    def check_checkpoint(cls, config: RunConfig, checkpoint: Checkpoint) -> None:
        """Raise ValueError, or what comes of a name that is missing, unless it is one to go on from."""

    def records(self) -> Iterator[Record]:
        """Train, yielding after each batch."""
        raise NotImplementedError

    def commit(self) -> Checkpoint | None:
        """Take note that all records so far are written; a state to go on from, if there is one at this point."""
        return None

    def weights(self) -> Weights:
        """Weights after what has been trained so far."""
        raise NotImplementedError

    def close(self) -> None:
        """Give workers back; whatever happened before."""


def make_trainer(config: RunConfig, checkpoint: Checkpoint | None = None) -> Trainer:
    """The trainer that the config names, at its beginning or where a checkpoint left off."""
    trainer = variant("training", config.training.name)(config, checkpoint)
    assert isinstance(trainer, Trainer)
    return trainer


def make_task(config: RunConfig, rng: np.random.RandomState) -> CheckedTask:
    """The task that the config names, once it has drawn what its batches share. rng: as the initial weights left it."""
    task = CheckedTask(config.task, probabilities=config.loss.needs_classes, resets=config.model.resets)
    seed, own = getattr(config.task, "seed", config.seed), None
    if seed != config.seed:  # where a run with that seed would stand
        own = np.random.RandomState(seed)
        initial_weights(config, own)
    task.prepare(rng, own)
    return task


def initial_weights(config: RunConfig, rng: np.random.RandomState) -> Weights:
    """The weights that training begins with; raises ConfigError if they do not fit the config."""
    task, resumed = config.task, config.resume is not None
    weights = connectivity.initial_weights(config.synapse, task.n_in, config.model.n_rec, task.n_out, rng, resumed)
    if not resumed:
        connectivity.check_bounds(weights, config.optimizer.Wmin, config.optimizer.Wmax)
    return weights


def draw_parameters(config: RunConfig, earlier: Mapping[str, Any] | None = None) -> RunConfig:
    """The config with all parameters that differ from neuron to neuron drawn; raises UserError.

    earlier: values that were drawn before, by key, to be taken again.
    """
    sizes = {population.name: population.size for population in config.model.populations}
    neuron = copy.deepcopy(config.neuron)
    for draw in draws(neuron, sizes):
        if earlier is not None and draw.key in earlier:
            drawn = Drawn(earlier[draw.key], draw.distribution)
        else:
            drawn = GENERATORS[draw.distribution["generator"]](draw, config.seed)
        setattr(draw.group, draw.name, drawn)
    return replace(config, neuron=neuron)


def check_ready(config: RunConfig) -> RunConfig:
    """Find out all that can be known before a run begins; raises UserError."""
    config = draw_parameters(config)
    engine_class(config).check_possible(config)
    initial_weights(config, np.random.RandomState(config.seed))
    return config


@dataclass
class Bookkeeper:
    """Turns readouts into rows, and decides which iterations are recorded."""

    config: RunConfig
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._metrics = self.config.metrics
        self._populations = self.config.model.populations
        self._timing = self.config.timing

    def wants(self, progress: Progress) -> bool:
        """Whether the training iteration under way is to be recorded. That it is the last is known beforehand."""
        chosen, iteration = self.config.recording.iterations, progress.iteration
        first = iteration == 1 and "first" in chosen
        last = (iteration == self.config.task.n_iter or progress.stopped) and "last" in chosen
        return first or last or iteration in chosen

    def row(
        self, iteration: int, phase: str, readout: NDArray[np.float64], batch: Batch, n_spikes: dict[str, int]
    ) -> Row:
        """The row of a batch; raises TrainingError if its loss is not finite."""
        timing = self._timing
        target = batch.targets[:, :, -timing.learning_window :]
        values = {metric.column.name: metric.value(readout, target) for metric in self._metrics}
        if not math.isfinite(values["loss"]):
            raise TrainingError(f"the loss became {values['loss']} in {phase} iteration {iteration}")
        duration = timing.ms(len(batch.spikes) * timing.sequence)
        for population in self._populations:
            rate = firing_rate(n_spikes[population.name], population.size, duration)
            values[f"rate_{population.name}"] = rate
        now = time.perf_counter()
        seconds, self.began = now - self.began, now
        return Row(iteration, phase, values, seconds)


def check_finite(weights: Weights, projections: tuple[str, ...], when: str = "") -> None:
    """Raise TrainingError for weights that nothing can be computed with."""
    for projection in projections:
        if not np.isfinite(weights[projection]).all():
            raise TrainingError(f"a weight of {projection} became infinite or NaN{when}")


def timed(trainer: Trainer, simulate: Any) -> Any:
    """What a function returns, its time added to the trainer's."""
    began = time.perf_counter()
    result = simulate()
    trainer.simulating += time.perf_counter() - began
    return result
