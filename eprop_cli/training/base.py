"""What every way of training shares: records, initial weights, and the check of a batch's result."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eprop_cli.archives import check_arrays, check_in_range
from eprop_cli.columns import EPOCH
from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity import weights as connectivity
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.connectivity.mask import Mask, Wiring, all_dense, checked_lists
from eprop_cli.connectivity.projections import RANDOM, aligned
from eprop_cli.connectivity.rule import FROM_WEIGHTS
from eprop_cli.engines.base import Outcome, engine_class
from eprop_cli.engines.nest.draws import draw_with_nest
from eprop_cli.errors import TrainingError, require
from eprop_cli.losses import confusion, firing_rate
from eprop_cli.models.draws import Drawn, draw_with_numpy, draws
from eprop_cli.phases import EARLY_STOPPING, PHASES, TEST, TRAINING, VALIDATION, Progress
from eprop_cli.registry import variant
from eprop_cli.schema import MOST_COUNT, NON_NEGATIVE, POSITIVE, Group, key, one_of
from eprop_cli.tasks.base import CheckedTask
from eprop_cli.values import Batch, Checkpoint, Recording, Row, Table, Weights

# Ways of evaluation: training's simulation goes on without learning, or nothing is touched.
INLINE, ASIDE = "inline", "aside"
# Evaluation that touches nothing draws from streams of its own, so that it does not change what training draws.
STREAMS = {TRAINING: 0, VALIDATION: 1, EARLY_STOPPING: 2, TEST: 3}
MOST_FLOAT = float(np.finfo(np.float64).max)
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
    n_iter_test: int | None = key(NON_NEGATIVE)  # Config resolves null
    evaluation: str = key(one_of((INLINE, ASIDE)))
    checkpoint_every: int = key(POSITIVE, unit="iterations")
    checkpoint_minutes: float | None = key(NON_NEGATIVE)
    keep_checkpoint: bool


@dataclass(frozen=True)
class Record:
    """What training yields after each batch.

    batch: the inputs, for the figures of a recorded iteration.
    recording: None unless this iteration is one that is recorded.
    weight_changes: columns projection, pre, post, time (ms since training began), weight; None outside training.
    confusion: of what was evaluated, as losses.confusion; None in training, or where there are no classes.
    at_limit: as in Score, of training.
    """

    row: Row
    batch: Batch
    recording: Recording | None = None
    weight_changes: Table | None = None
    confusion: NDArray[np.int64] | None = None
    at_limit: float = 0.0


class Trainer:
    """A way of training. records() can be iterated once; weights() tells where it stands at any time.

    wiring, initial: synapses, and the weights they begin with.
    hold: called before what a checkpoint holds changes in place: no interruption until the next record is taken.
    needs: what it needs of the engine, GRADIENT or STREAM of models.base.
    look_every: iterations between two looks at all weights; more than 1 where it takes time to tell them.
    """

    Config: ClassVar[type[TrainingConfig]] = TrainingConfig
    needs: ClassVar[str]
    look_every: int = 1

    wiring: Wiring
    initial: Weights
    hold: Callable[[], None] = staticmethod(lambda: None)
    simulating: float = 0.0  # seconds spent simulating so far

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        raise NotImplementedError

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError for what this way of training cannot do."""
        batches = config.task.n_iter + config.training.n_iter_test
        require(batches > 0, "task.n_iter", config.task.n_iter, "must be at least 1 unless training.n_iter_test is")

    @classmethod
    def not_resumable(cls, engine: str) -> str:
        """Why it cannot go on from a checkpoint exactly with an engine of that name; empty if it can."""
        return "it keeps no checkpoint"

    @classmethod
    def check_checkpoint(cls, config: RunConfig, checkpoint: Checkpoint) -> None:
        """Raise ValueError, or what comes of a name that is missing, unless it is one to go on from."""

    @classmethod
    def time_passes(cls, config: RunConfig) -> bool:
        """Whether training's time goes on in all phases."""
        return False

    def records(self) -> Iterator[Record]:
        """Train, yielding after each batch."""
        raise NotImplementedError

    def commit(self) -> Checkpoint | None:
        """Take note that all records so far are written; a state to go on from, if there is one at this point."""
        return None

    def weights(self) -> Weights:
        """Weights after what has been trained so far, as a run leaves them."""
        raise NotImplementedError

    def present(self) -> Weights:
        """Weights with which training goes on; others than weights() where earlier ones are kept as better."""
        return self.weights()

    def moments(self) -> Mapping[str, Weights]:
        """What the optimizer keeps per synapse, name -> weights; of some synapses where it takes time to tell them."""
        return {}

    def close(self) -> None:
        """Give workers back; whatever happened before."""


def make_trainer(config: RunConfig, checkpoint: Checkpoint | None = None) -> Trainer:
    """The trainer that the config names, at its beginning or where a checkpoint left off."""
    trainer = variant("training", config.training.name)(config, checkpoint)
    assert isinstance(trainer, Trainer)
    return trainer


def make_task(config: RunConfig, rng: np.random.RandomState, wiring: Wiring | None = None) -> CheckedTask:
    """The task that the config names, once it has drawn what its batches share.

    rng: as the initial weights left it. wiring: the run's synapses; None: all of them.
    """
    task = CheckedTask(config.task, probabilities=config.loss.needs_classes, resets=config.model.resets)
    seed, own = getattr(config.task, "seed", config.seed), None
    if seed != config.seed:  # where a run with that seed would stand, which changes no synapses of trained weights
        own = np.random.RandomState(seed)
        rules, wiring = config.connectivity.rules, all_dense(config.sizes) if wiring is None else wiring
        known = {name: mask for name, mask in wiring.items() if rules[name].when == FROM_WEIGHTS}
        initial_network(replace(config, seed=seed), own, known)
    task.prepare(rng, own)
    return task


def initial_network(
    config: RunConfig, rng: np.random.RandomState | None = None, known: Mapping[str, Mask] | None = None
) -> tuple[Wiring, Weights]:
    """The synapses and weights that training begins with; raises ConfigError if they do not fit the config.

    rng: as a run begins with it, if None. known: the synapses of a run that is resumed.
    """
    rng = np.random.RandomState(config.seed) if rng is None else rng
    arguments = config.connectivity, config.synapse, config.sizes, config.seed, rng, known, config.model.rescaled
    wiring, weights = connectivity.initial_network(*arguments)
    if known is not None:
        return wiring, weights
    constraints = config.constraints(wiring)
    if config.synapse.weights_from is None:
        weights = constraints.begin(weights)
    else:
        constraints.check(weights, config.synapse.weights_from)
        weights = constraints.keep(weights)
    optimizer = config.optimizer
    own = {name: f"optimizer.bounds.{name}" for name in PLASTIC if getattr(optimizer.bounds, name) is not None}
    connectivity.check_bounds(weights, {name: optimizer.bounds_of(name) for name in PLASTIC}, own)
    return wiring, weights


def initial_weights(config: RunConfig, rng: np.random.RandomState) -> Weights:
    """The weights that training begins with."""
    return initial_network(config, rng)[1]


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
    if config.resume is None:  # otherwise the checkpoint has them, and where they came from may be gone
        rng = np.random.RandomState(config.seed)
        initial_network(config, rng)
        make_task(config, rng).close()
    return config


@dataclass(frozen=True)
class Score:
    """What a batch came to: metrics and firing rates by column, and as losses.confusion where there are classes.

    at_limit: fraction of the learning window in which readouts are where nothing can be learned: a softmax of
        exactly 1, or potentials at V_min.
    """

    n_sequences: int
    metrics: dict[str, float]
    rates: dict[str, float]
    confusion: NDArray[np.int64] | None
    at_limit: float


@dataclass
class Bookkeeper:
    """Turns outcomes into rows, and decides which iterations are recorded."""

    config: RunConfig
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._metrics = self.config.metrics
        self._has_classes, self._has_epochs = self.config.has_classes, self.config.task_class.has_epochs
        self._populations = self.config.model.populations
        self._timing = self.config.timing
        self._softmax, self._least = self.config.loss.softmax, getattr(self.config.neuron.out, "V_min", None)

    def wants(self, progress: Progress) -> bool:
        """Whether the training iteration under way is to be recorded. That it is the last is known beforehand."""
        chosen, iteration = self.config.recording.iterations, progress.iteration
        first = iteration == 1 and "first" in chosen
        last = (iteration == self.config.task.n_iter or progress.stopped) and "last" in chosen
        return first or last or iteration in chosen

    def score(self, outcome: Outcome, batch: Batch) -> Score:
        """What a batch came to."""
        timing = self._timing
        target = batch.targets[:, :, -timing.learning_window :]
        metrics = {metric.column.name: metric.value(outcome.readout, target) for metric in self._metrics}
        duration = timing.ms(len(batch.spikes) * timing.sequence)
        rates = {
            f"rate_{population.name}": firing_rate(outcome.n_spikes[population.name], population.size, duration)
            for population in self._populations
        }
        told_apart = confusion(outcome.readout, target) if self._has_classes else None
        return Score(len(batch.spikes), metrics, rates, told_apart, self._at_limit(outcome.readout))

    def _at_limit(self, readout: NDArray[np.float64]) -> float:
        largest = readout.max(axis=0)
        if self._softmax:
            clamped = self._least is not None and len(readout) > 1  # all of them: their softmax is the same
            return float(np.mean(largest == readout.min(axis=0) if clamped else largest == 1.0))
        return 0.0 if self._least is None else float(np.mean(readout <= self._least))

    def row(self, iteration: int, phase: str, scores: Sequence[Score], epoch: float) -> Row:
        """The row of batches that were evaluated together; raises TrainingError if their loss is not finite.

        What is known of each batch is a mean over its sequences, and the row has that over all of them.
        epoch: epochs of training so far.
        """
        metrics, rates = (_mean(scores, [getattr(score, each) for score in scores]) for each in ("metrics", "rates"))
        if not math.isfinite(metrics["loss"]):
            raise TrainingError(f"the loss became {metrics['loss']} in {phase} iteration {iteration}")
        now = time.perf_counter()
        seconds, self.began = now - self.began, now
        epochs = {EPOCH.name: epoch} if self._has_epochs else {}
        return Row(iteration, phase, metrics | epochs | rates, seconds)


def total_confusion(scores: Sequence[Score]) -> NDArray[np.int64] | None:
    """The confusions of several batches together."""
    found = [score.confusion for score in scores if score.confusion is not None]
    return np.sum(found, axis=0, dtype=np.int64) if found else None


def _mean(scores: Sequence[Score], values: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of some values over the sequences of several batches."""
    if len(scores) == 1:
        return values[0]
    n = sum(score.n_sequences for score in scores)
    pairs = list(zip(scores, values, strict=True))
    return {name: sum(score.n_sequences * each[name] for score, each in pairs) / n for name in values[0]}


def random_streams(seed: int) -> dict[str, np.random.RandomState]:
    """A random stream for each phase: RandomState(seed) for training, the others independent of any seed's."""
    streams = {TRAINING: np.random.RandomState(seed)}
    for phase, number in STREAMS.items():
        if phase != TRAINING:
            streams[phase] = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, number])))
    return streams


def stream_state(phase: str, state: Mapping[str, Any]) -> Checkpoint:
    """The state of a phase's random stream, as get_state(legacy=False) gives it, for a checkpoint."""
    key, pos = state["state"]["key"], state["state"]["pos"]
    return {f"stream_{phase}_{name}": value for name, value in (("key", key), ("pos", pos))} | {
        f"stream_{phase}_{name}": state[name] for name in ("has_gauss", "gauss")
    }


def restore_stream(stream: np.random.RandomState, phase: str, checkpoint: Checkpoint) -> None:
    """Set a phase's random stream to what a checkpoint has."""
    key, pos = checkpoint[f"stream_{phase}_key"], int(checkpoint[f"stream_{phase}_pos"])
    gauss = int(checkpoint[f"stream_{phase}_has_gauss"]), float(checkpoint[f"stream_{phase}_gauss"])
    stream.set_state(("MT19937", key, pos, *gauss))


def wiring_state(wiring: Wiring) -> Checkpoint:
    """The synapses of projections that do not have all of them, for a checkpoint."""
    listed = {projection: mask.lists for projection, mask in wiring.items() if not mask.is_dense}
    rows = {f"row_{projection}": row for projection, (row, _) in listed.items()}
    return rows | {f"post_{projection}": post for projection, (_, post) in listed.items()}


def restored_wiring(checkpoint: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Mask]:
    """The synapses of a run that goes on. sizes: of in, rec, out."""
    wiring = {}
    for projection, mask in all_dense(sizes).items():
        if (row := checkpoint.get(f"row_{projection}")) is not None:
            post = checkpoint[f"post_{projection}"]
            row, post = row.astype(np.int64, copy=False), post.astype(np.uint32, copy=False)
            mask = Mask(mask.n_pre, mask.n_post, row, post)
        wiring[projection] = mask
    return wiring


def check_begun(config: RunConfig, checkpoint: Checkpoint) -> tuple[Wiring, dict[str, NDArray[Any]]]:
    """The synapses and all arrays of a checkpoint; raises ValueError unless it has what every way of training keeps."""
    arrays = {name: np.asarray(value) for name, value in checkpoint.items()}
    counts = ("rows", "iteration", *(f"drawn_{phase}" for phase in PHASES))
    schema: dict[str, tuple[str, tuple[int, ...]]] = {"config": ("U", ()), "stopped": ("b", ()), "metric": ("f", ())}
    schema |= dict.fromkeys(counts, ("iu", ()))
    for phase in PHASES:
        schema |= {f"stream_{phase}_key": ("u", (624,)), f"stream_{phase}_pos": ("iu", ())}
        schema |= {f"stream_{phase}_has_gauss": ("iu", ()), f"stream_{phase}_gauss": ("f", ())}
    check_arrays(arrays, schema)
    check_in_range(arrays, counts, 0, MOST_COUNT)
    check_in_range(arrays, ("iteration",), 0, int(arrays["rows"]))
    check_in_range(arrays, (f"stream_{phase}_pos" for phase in PHASES), 0, 624)
    check_in_range(arrays, (f"stream_{phase}_has_gauss" for phase in PHASES), 0, 1)
    check_in_range(arrays, (f"stream_{phase}_gauss" for phase in PHASES), -MOST_FLOAT, MOST_FLOAT)
    return _checked_wiring(config, arrays), arrays


def _checked_wiring(config: RunConfig, arrays: Mapping[str, NDArray[Any]]) -> Wiring:
    """The synapses in a checkpoint; raises ValueError unless the config's rules may have given them."""
    sizes, rules = config.sizes, config.connectivity.rules
    for projection, mask in all_dense(sizes).items():
        if f"row_{projection}" in arrays:
            row, post = arrays[f"row_{projection}"], arrays[f"post_{projection}"]
            listed = checked_lists(projection, row, post, mask.n_pre, mask.n_post)
            if rules[projection].without_self and (listed.pre == listed.lists[1]).any():
                raise ValueError(f"its synapses of {projection} have some of a neuron with itself")
    wiring = restored_wiring(arrays, sizes)
    agreed = aligned(wiring, config.connectivity.feedback)
    for projection, mask in wiring.items():
        fits = mask.is_dense == agreed[projection].is_dense and mask.same_as(agreed[projection])
        drawn = projection != FEEDBACK or config.connectivity.feedback == RANDOM
        if drawn and rules[projection].is_all:
            fits = fits and mask.size == all_dense(sizes)[projection].size
        if not fits:
            raise ValueError(f"its synapses of {projection} are not those of the config")
    return wiring


def check_finite(weights: Weights, projections: tuple[str, ...], when: str = "", what: str = "weight") -> None:
    """Raise TrainingError for weights, or what else they are, that nothing can be computed with."""
    for projection in projections:
        if not np.isfinite(weights[projection]).all():
            raise TrainingError(f"a {what} of {projection} became infinite or NaN{when}")


def timed(trainer: Trainer, simulate: Any) -> Any:
    """What a function returns, its time added to the trainer's."""
    began = time.perf_counter()
    result = simulate()
    trainer.simulating += time.perf_counter() - began
    return result
