"""Train with iterations that are pure functions: an engine gives a batch's gradient, an optimizer here takes the step.

What follows from it: the same result however a batch is shared out, evaluation that touches nothing, exact resume.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.archives import check_arrays, check_in_range
from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.connectivity.mask import NEIGHBOURS, neighbours, sampled
from eprop_cli.engines.base import Learner, Outcome, make_engine
from eprop_cli.errors import require
from eprop_cli.models.base import GRADIENT
from eprop_cli.optimizers.base import OptimizerState, set_moments
from eprop_cli.phases import PHASES, TEST, TRAINING, VALIDATION, Progress, phases
from eprop_cli.schema import MOST_COUNT, key, one_of, to_dict
from eprop_cli.training.base import (
    ASIDE,
    MOST_FLOAT,
    Bookkeeper,
    Record,
    Trainer,
    TrainingConfig,
    check_begun,
    check_finite,
    initial_network,
    make_task,
    random_streams,
    restore_stream,
    restored_wiring,
    stream_state,
    timed,
    total_confusion,
    wiring_state,
)
from eprop_cli.values import Batch, Checkpoint, Table, Weights

AHEAD_BYTES = 2**27  # of a batch in this memory, up to which the next one is drawn while it is computed


@dataclass(kw_only=True)
class DataParallelConfig(TrainingConfig):
    """Keys of conf/training/data_parallel.yaml."""

    as_continuous: bool
    select_weights: str = key(one_of(("last", "best")))

    def __post_init__(self) -> None:
        super().__post_init__()
        validated = self.do_early_stopping or self.select_weights == "last"
        remedy = "needs validation; set training.do_early_stopping=true (stop_crit=0 never stops)"
        require(validated, "training.select_weights", self.select_weights, remedy)


class DataParallel(Trainer):
    """training=data_parallel."""

    Config = DataParallelConfig
    needs = GRADIENT

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        self._config = config
        self._config_text = json.dumps(to_dict(config))  # of each checkpoint; takes milliseconds
        self._streams = random_streams(config.seed)
        self._drawn = dict.fromkeys(PHASES, 0)  # batches of each phase
        self._progress = Progress()
        known = None if checkpoint is None else restored_wiring(checkpoint, config.sizes)
        self.wiring, self.initial = initial_network(config, self._streams[TRAINING], known)
        self._constraints = config.constraints(self.wiring)
        self._in_place = any(not self.wiring[projection].is_dense for projection in NEIGHBOURS)
        self._weights = self.initial
        if self._in_place:  # what is to stay must be another array
            self._weights = neighbours({name: values.copy() for name, values in self.initial.items()})
            self.initial = {name: _narrow(values) for name, values in self.initial.items()}
        self._task = make_task(config, self._streams[TRAINING], self.wiring)
        self._optimizer = config.make_optimizer()
        self._state = self._optimizer.initial_state({projection: self._weights[projection] for projection in PLASTIC})
        set_moments(self._state, self.wiring, config.synapse.init_optimizer)
        self._upcoming: Batch | None = None  # the next training batch, where it has to be known already
        self._before_upcoming: dict[str, Any] | None = None  # state of the training stream before it was drawn
        self._best: Weights = {}  # those of the lowest validation loss, where they are asked for
        self._lowest = math.inf
        self._rows, self._phase = 0, TRAINING
        self._engine = make_engine(config, self.wiring)
        if checkpoint is not None:
            self._restore(checkpoint)
        # where weights and moments are, if it is not here
        self._learner = self._engine.learner(self._weights, self._optimizer, self._state, self._constraints)
        if self._learner is not None:
            self._weights, self._state = {}, self._learner.taken

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError where sequences are not independent of each other."""
        evaluation, remedy = config.training.evaluation, f"is always {ASIDE} with training=data_parallel; leave it out"
        require(evaluation == ASIDE, "training.evaluation", evaluation, remedy)
        reset = config.kernel.eprop_reset_neurons_on_update
        remedy = "must be true with training=data_parallel, where sequences are independent; or use training=continuous"
        require(reset, "kernel.eprop_reset_neurons_on_update", reset, remedy)

    @classmethod
    def not_resumable(cls, engine: str) -> str:
        """It can, whatever the engine."""
        return ""

    @classmethod
    def check_checkpoint(cls, config: RunConfig, checkpoint: Checkpoint) -> None:
        """Raise ValueError unless a checkpoint has all that _restore() takes, in the ranges that it can have."""
        wiring, arrays = check_begun(config, checkpoint)
        shapes = {name: wiring[name].shape for name in (*PLASTIC, FEEDBACK)}
        optimizer = config.make_optimizer()
        numbers = optimizer.initial_state({name: np.zeros(0) for name in PLASTIC}).numbers
        weights = ("initial", "weights", *(("best",) if any(name.startswith("best_") for name in arrays) else ()))
        schema: dict[str, tuple[str, tuple[int, ...]]] = {"step": ("iu", ()), "lowest": ("f", ())}
        schema |= dict.fromkeys(numbers, ("f", ()))
        large = {f"{group}_{name}": ("f", shape) for group in weights for name, shape in shapes.items()}
        moments = {f"{group}_{name}": ("f", shapes[name]) for group in optimizer.moments for name in PLASTIC}
        check_arrays(arrays, schema | large | moments)
        check_in_range(arrays, ("step",), 0, min(int(arrays["rows"]), MOST_COUNT))
        check_in_range(arrays, [*large, *numbers], -MOST_FLOAT, MOST_FLOAT)
        check_in_range(arrays, moments, -math.inf, math.inf)
        for name, (lowest, highest) in optimizer.ranges.items():
            check_in_range(arrays, [each for each in (*moments, *numbers) if each.startswith(name)], lowest, highest)

    def records(self) -> Iterator[Record]:
        """Train, yielding each batch."""
        config, book = self._config, Bookkeeper(self._config)
        for phase in phases(config.training, config.criterion, config.task.n_iter, self._progress):
            record = self._train(book) if phase == TRAINING else self._evaluate(book, phase)
            self._progress.metric = record.row.metrics[config.training.stop_metric]
            self._phase = phase
            self._rows += 1
            yield record

    def commit(self) -> Checkpoint | None:
        """The state after a training iteration; evaluations are simply done again after a resume."""
        return self._capture() if self._phase == TRAINING else None

    def weights(self) -> Weights:
        """Weights after the last whole training iteration, or the best of those that were validated."""
        return self._best or self.present()

    def moments(self) -> Mapping[str, Weights]:
        """The state of the optimizer."""
        return self._state.moments if self._learner is None else self._learner.state().moments

    def close(self) -> None:
        """Stop the engine's workers."""
        self._engine.close()
        self._task.close()

    def _train(self, book: Bookkeeper) -> Record:
        iteration, record = self._progress.iteration, book.wants(self._progress)
        batch, following = self._next_batch()
        outcome: Outcome = timed(self, lambda: self._computed(batch, following, record))
        score = book.score(outcome, batch)
        row = book.row(iteration, TRAINING, [score], self._task.epochs(iteration))
        if self._learner is not None:
            self._step_there(iteration)
        else:
            assert outcome.gradients is not None
            self._step({name: outcome.gradients[name] for name in self._constraints.learning}, iteration)
        return Record(row, batch, outcome.recording, self._sampled_weights(iteration), at_limit=score.at_limit)

    def _computed(self, batch: Batch, following: NDArray[np.bool_] | None, record: bool) -> Outcome:
        """What a batch gave; the next one is drawn meanwhile, where the engine does not need this thread."""
        if self._learner is not None:
            self._learner.begin(batch, following)
            self._draw_meanwhile()
            return self._learner.outcome(record)
        outcome = self._engine.begin(self._weights, batch, following, record)
        if outcome is None:
            return self._engine.gradient(self._weights, batch, following, record)
        if batch.spikes.nbytes + batch.targets.nbytes <= AHEAD_BYTES:
            self._draw_meanwhile()
        return outcome()

    def _draw_meanwhile(self) -> None:
        """Draw the batch after this one, if there is to be one."""
        is_another = self._progress.iteration < self._config.task.n_iter
        if self._upcoming is None and is_another and self._task.is_alone(TRAINING):
            self._try_to_draw_upcoming()

    def _step_there(self, iteration: int) -> None:
        """Change the weights where they are."""
        assert self._learner is not None
        when = f" in iteration {iteration}"
        if not self._learner.finite():  # beforehand: weights are not kept
            check_finite(self._learner.gradients(), PLASTIC, when, "gradient")
        self.hold()
        self._learner.step()
        self._state = self._learner.taken
        if not self._learner.finite():
            check_finite(self._learner.weights(), PLASTIC, when)

    def present(self) -> Weights:
        """The weights that are trained, wherever they are."""
        return self._weights if self._learner is None else self._learner.weights()

    def _step(self, gradients: Weights, iteration: int) -> None:
        """Change the weights."""
        when = f" in iteration {iteration}"
        if not self._in_place:
            with np.errstate(all="ignore"):  # what is not finite is told below
                weights, state = self._optimizer.optimize(self._state, self._weights, gradients)
            check_finite(weights, PLASTIC, when)
            self._weights, self._state = self._constraints.keep(weights), state
            return
        check_finite(gradients, self._constraints.learning, when, "gradient")  # beforehand: weights are not kept
        self.hold()
        with np.errstate(all="ignore"):
            self._state = self._optimizer.optimize_in_place(self._state, self._weights, gradients)
        self._constraints.keep(self._weights)
        check_finite(self._weights, PLASTIC, when)

    def _evaluate(self, book: Bookkeeper, phase: str) -> Record:
        weights = self.weights() if phase == TEST else self.present()
        scores = []
        for _ in range(self._task.n_batches(phase)):
            batch = self._draw(phase)
            outcome: Outcome = timed(self, lambda batch=batch: self._engine.evaluate(weights, batch))
            scores.append(book.score(outcome, batch))
        iteration = self._progress.iteration
        row = book.row(iteration, phase, scores, self._task.epochs(iteration))
        if (
            phase == VALIDATION
            and self._config.training.select_weights == "best"
            and row.metrics["loss"] < self._lowest
        ):
            changing = self._in_place and self._learner is None
            best = {name: values.copy() for name, values in weights.items()} if changing else weights
            self._best, self._lowest = best, row.metrics["loss"]
        return Record(row, batch, confusion=total_confusion(scores))

    def _draw(self, phase: str) -> Batch:
        return self._task.draw(self._streams[phase], phase, self._drawn)

    def _next_batch(self) -> tuple[Batch, NDArray[np.bool_] | None]:
        """The next training batch, and with as_continuous the input spikes in step 1 of the one after it."""
        batch = self._upcoming or self._draw(TRAINING)
        self._upcoming = self._before_upcoming = None
        if not self._config.training.as_continuous:
            return batch, None
        return batch, self._draw_upcoming().spikes[0, 1] > 0

    def _try_to_draw_upcoming(self) -> None:
        """Draw the batch after the next; what goes wrong is told when its turn comes, and not an iteration too soon."""
        before = self._streams[TRAINING].get_state(legacy=False)
        try:
            self._draw_upcoming()
        except Exception:
            self._streams[TRAINING].set_state(before)
            self._before_upcoming = None

    def _draw_upcoming(self) -> Batch:
        """The batch after the next."""
        self._before_upcoming = self._streams[TRAINING].get_state(legacy=False)
        self._upcoming = self._draw(TRAINING)
        return self._upcoming

    def _sampled_weights(self, iteration: int) -> Table | None:
        """The weights that are recorded, as a continuous simulation would first use them."""
        n = self._config.recording.n_record_w
        if not n:
            return None
        timing, n_batch = self._config.timing, self._config.task.n_batch
        return sampled(self.wiring, self.present(), n, timing.ms(iteration * n_batch * timing.sequence))

    def _capture(self) -> Checkpoint:
        """Everything that the rest of the run depends on. Arrays are not copied: nothing changes them in place."""
        streams = {phase: stream.get_state(legacy=False) for phase, stream in self._streams.items()}
        if self._before_upcoming is not None:
            streams[TRAINING] = self._before_upcoming
        state, learner = self._state, self._learner
        checkpoint: Checkpoint = {
            "config": self._config_text,
            "rows": self._rows,
            "iteration": self._progress.iteration,
            "stopped": self._progress.stopped,
            "metric": self._progress.metric,
            "step": state.step,
            **state.numbers,
            "lowest": self._lowest,
            **{f"drawn_{phase}": number for phase, number in self._drawn.items()},
        }
        if self._upcoming is not None:  # it is drawn again
            checkpoint[f"drawn_{TRAINING}"] -= 1
        groups: dict[str, Mapping[str, Any]] = {"initial": self.initial, "weights": self._weights, "best": self._best}
        groups |= state.moments
        if learner is not None:
            groups["weights"] = {name: _Later(learner.weights, name) for name in self.initial}
            for moment in self._optimizer.moments:
                get = partial(_moments, learner, moment)
                groups[moment] = {name: _Later(get, name) for name in PLASTIC}
        checkpoint |= wiring_state(self.wiring)
        checkpoint |= {f"{group}_{key}": value for group, arrays in groups.items() for key, value in arrays.items()}
        for phase, stream in streams.items():
            checkpoint |= stream_state(phase, stream)
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        def group(prefix: str) -> Weights:
            return {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}

        self._rows = int(checkpoint["rows"])
        self._progress = Progress(
            int(checkpoint["iteration"]), bool(checkpoint["stopped"]), float(checkpoint["metric"])
        )
        self.initial, self._weights = group("initial_"), neighbours(group("weights_"))
        self._best, self._lowest = group("best_"), float(checkpoint["lowest"])
        moments = {name: group(f"{name}_") for name in self._optimizer.moments}
        numbers = {name: float(checkpoint[name]) for name in self._state.numbers}
        self._state = OptimizerState(int(checkpoint["step"]), moments, numbers)
        self._drawn = {phase: int(checkpoint[f"drawn_{phase}"]) for phase in PHASES}
        for phase, stream in self._streams.items():
            restore_stream(stream, phase, checkpoint)


@dataclass(frozen=True)
class _Later:
    """An array among some that take a while to get, and are not before they are written."""

    get: Callable[[], Weights]
    name: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.get()[self.name], dtype=dtype)


def _moments(learner: Learner, name: str) -> Weights:
    """Those of an optimizer's moments with a name."""
    return learner.state().moments[name]


def _narrow(values: NDArray[np.float64]) -> NDArray[Any]:
    """Values in half the memory, if nothing is lost by it: weights are drawn in single precision."""
    narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values
