"""Train with iterations that are pure functions: an engine gives a batch's gradient, an optimizer here takes the step.

What follows from it: the same result however a batch is shared out, evaluation that touches nothing, exact resume.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.base import PLASTIC, exists
from eprop_cli.engines.base import Outcome, make_engine
from eprop_cli.errors import require
from eprop_cli.models.base import GRADIENT
from eprop_cli.optimizers.base import OptimizerState, set_moments
from eprop_cli.phases import EARLY_STOPPING, PHASES, TEST, TRAINING, VALIDATION, Progress, phases
from eprop_cli.schema import POSITIVE, key, one_of, to_dict
from eprop_cli.training.base import (
    Bookkeeper,
    Record,
    Trainer,
    TrainingConfig,
    check_finite,
    initial_weights,
    make_task,
    timed,
)
from eprop_cli.values import Batch, Checkpoint, Table, Weights

# Evaluation draws from streams of its own, so that it does not change what training draws.
STREAMS = {VALIDATION: 1, EARLY_STOPPING: 2, TEST: 3}


@dataclass(kw_only=True)
class DataParallelConfig(TrainingConfig):
    """Keys of conf/training/data_parallel.yaml."""

    as_continuous: bool
    select_weights: str = key(one_of(("last", "best")))
    checkpoint_every: int = key(POSITIVE, unit="iterations")
    keep_checkpoint: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        validated = self.do_early_stopping or self.select_weights == "last"
        remedy = "needs validation; set training.do_early_stopping=true (stop_crit=0 never stops)"
        require(validated, "training.select_weights", self.select_weights, remedy)


class DataParallel(Trainer):
    """training=data_parallel."""

    Config = DataParallelConfig
    needs = GRADIENT
    resumable = True

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        self._config = config
        self._config_text = json.dumps(to_dict(config))  # of each checkpoint; takes milliseconds
        self._streams = {phase: _stream(config.seed, number) for phase, number in STREAMS.items()}
        self._streams[TRAINING] = np.random.RandomState(config.seed)
        self._drawn = dict.fromkeys(PHASES, 0)  # batches of each phase
        self._progress = Progress()
        self.initial = self._weights = initial_weights(config, self._streams[TRAINING])
        self._task = make_task(config, self._streams[TRAINING])
        self._optimizer = config.make_optimizer()
        self._state = self._optimizer.initial_state(self.initial)
        set_moments(self._state, config.synapse.init_optimizer)
        self._upcoming: Batch | None = None  # the next training batch, where it has to be known already
        self._before_upcoming: dict[str, Any] | None = None  # state of the training stream before it was drawn
        self._best: Weights = {}  # those of the lowest validation loss, where they are asked for
        self._lowest = math.inf
        self._rows, self._phase = 0, TRAINING
        self._engine = make_engine(config)
        if checkpoint is not None:
            self._restore(checkpoint)

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError where sequences are not independent of each other."""
        reset = config.kernel.eprop_reset_neurons_on_update
        remedy = "must be true with training=data_parallel, where sequences are independent; or use training=continuous"
        require(reset, "kernel.eprop_reset_neurons_on_update", reset, remedy)

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
        return self._best or self._weights

    def close(self) -> None:
        """Stop the engine's workers."""
        self._engine.close()

    def _train(self, book: Bookkeeper) -> Record:
        iteration = self._progress.iteration
        batch, following = self._next_batch()
        record = book.wants(self._progress)
        outcome: Outcome = timed(self, lambda: self._engine.gradient(self._weights, batch, following, record))
        row = book.row(iteration, TRAINING, outcome.readout, batch, outcome.n_spikes)
        assert outcome.gradients is not None
        with np.errstate(all="ignore"):  # what is not finite is told below
            weights, state = self._optimizer.optimize(self._state, self._weights, outcome.gradients)
        check_finite(weights, PLASTIC, f" in iteration {iteration}")
        self._weights, self._state = weights, state
        return Record(row, batch, outcome.recording, self._sampled_weights(iteration))

    def _evaluate(self, book: Bookkeeper, phase: str) -> Record:
        batch = self._draw(phase)
        weights = self.weights() if phase == TEST else self._weights
        outcome: Outcome = timed(self, lambda: self._engine.evaluate(weights, batch))
        row = book.row(self._progress.iteration, phase, outcome.readout, batch, outcome.n_spikes)
        if (
            phase == VALIDATION
            and self._config.training.select_weights == "best"
            and row.metrics["loss"] < self._lowest
        ):
            self._best, self._lowest = self._weights, row.metrics["loss"]
        return Record(row, batch)

    def _draw(self, phase: str) -> Batch:
        batch = self._task.batch_at(self._streams[phase], phase, self._drawn[phase])
        self._drawn[phase] += 1
        return batch

    def _next_batch(self) -> tuple[Batch, NDArray[np.bool_] | None]:
        """The next training batch, and with as_continuous the input spikes in step 1 of the one after it."""
        if not self._config.training.as_continuous:
            return self._draw(TRAINING), None
        batch = self._upcoming or self._draw(TRAINING)
        self._before_upcoming = self._streams[TRAINING].get_state(legacy=False)
        self._upcoming = self._draw(TRAINING)
        return batch, self._upcoming.spikes[0, 1]

    def _sampled_weights(self, iteration: int) -> Table | None:
        """The weights that are recorded, as a continuous simulation would first use them."""
        n = self._config.recording.n_record_w
        if not n:
            return None
        timing, n_batch = self._config.timing, self._config.task.n_batch
        parts = []
        for projection in PLASTIC:
            n_post = n if projection.endswith("rec") else self._config.task.n_out
            weights = self._weights[projection][:n_post, :n]
            post, pre = np.nonzero(exists(projection, *weights.shape))
            parts.append(
                (np.full(len(pre), projection), pre.astype(np.int32), post.astype(np.int32), weights[post, pre])
            )
        projections, pres, posts, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        times = np.full(len(values), timing.ms(iteration * n_batch * timing.sequence))
        return {"projection": projections, "pre": pres, "post": posts, "time": times, "weight": values}

    def _capture(self) -> Checkpoint:
        """Everything that the rest of the run depends on. Arrays are not copied: nothing changes them in place."""
        streams = {phase: stream.get_state(legacy=False) for phase, stream in self._streams.items()}
        if self._before_upcoming is not None:
            streams[TRAINING] = self._before_upcoming
        state = self._state
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
        groups = {"initial": self.initial, "weights": self._weights, "best": self._best}
        groups |= state.moments
        checkpoint |= {f"{group}_{key}": value for group, arrays in groups.items() for key, value in arrays.items()}
        for phase, stream in streams.items():
            checkpoint |= {f"stream_{phase}_key": stream["state"]["key"], f"stream_{phase}_pos": stream["state"]["pos"]}
            checkpoint |= {f"stream_{phase}_has_gauss": stream["has_gauss"], f"stream_{phase}_gauss": stream["gauss"]}
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        def group(prefix: str) -> Weights:
            return {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}

        self._rows = int(checkpoint["rows"])
        self._progress = Progress(
            int(checkpoint["iteration"]), bool(checkpoint["stopped"]), float(checkpoint["metric"])
        )
        self.initial, self._weights = group("initial_"), group("weights_")
        self._best, self._lowest = group("best_"), float(checkpoint["lowest"])
        moments = {name: group(f"{name}_") for name in self._optimizer.moments}
        numbers = {name: float(checkpoint[name]) for name in self._state.numbers}
        self._state = OptimizerState(int(checkpoint["step"]), moments, numbers)
        self._drawn = {phase: int(checkpoint[f"drawn_{phase}"]) for phase in PHASES}
        for phase, stream in self._streams.items():
            key, pos = checkpoint[f"stream_{phase}_key"], int(checkpoint[f"stream_{phase}_pos"])
            gauss = int(checkpoint[f"stream_{phase}_has_gauss"]), float(checkpoint[f"stream_{phase}_gauss"])
            stream.set_state(("MT19937", key, pos, *gauss))


def _stream(seed: int, number: int) -> np.random.RandomState:
    """A random stream that is independent of RandomState(seed) and of other numbers'."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, number])))
