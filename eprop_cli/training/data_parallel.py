"""Train with iterations that are pure functions: an engine gives a batch's gradient, an optimizer here takes the step.

What follows from it: the same result however a batch is shared out, evaluation that touches nothing, exact resume.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.config.config import Config
from eprop_cli.connectivity.base import PROJECTIONS
from eprop_cli.connectivity.weights import initial_weights
from eprop_cli.engines import make_engine
from eprop_cli.engines.base import Outcome
from eprop_cli.errors import TrainingError
from eprop_cli.optimizers.optimize import OptimizerState, initial_state, optimize
from eprop_cli.phases import EARLY_STOPPING, TEST, TRAINING, VALIDATION, Progress, phases
from eprop_cli.schema import to_dict
from eprop_cli.tasks import make_task
from eprop_cli.timing import Timing
from eprop_cli.training.base import Bookkeeper, Record
from eprop_cli.values import Batch, Checkpoint, Table, Weights

# Evaluation draws from streams of its own, so that it does not change what training draws.
STREAMS = {VALIDATION: 1, EARLY_STOPPING: 2, TEST: 3}


class DataParallel:
    """training=data_parallel."""

    def __init__(self, config: Config, checkpoint: Checkpoint | None = None) -> None:
        self._config = config
        self._config_text = json.dumps(to_dict(config))  # of each checkpoint; takes milliseconds
        self._task = make_task(config.task)
        self._streams = {phase: _stream(config.seed, number) for phase, number in STREAMS.items()}
        self._streams[TRAINING] = np.random.RandomState(config.seed)
        self._progress = Progress()
        self.initial = self._weights = initial_weights(config, self._streams[TRAINING])
        self._optimizer = initial_state(config.optimizer, self.initial, config.synapse.init_optimizer)
        self._upcoming: Batch | None = None  # the next training batch, where it has to be known already
        self._before_upcoming: dict[str, Any] | None = None  # state of the training stream before it was drawn
        self._best: Weights = {}  # those of the lowest validation loss, where they are asked for
        self._lowest = math.inf
        self._rows, self._phase = 0, TRAINING
        self._engine = make_engine(config)
        self.simulating = 0.0
        if checkpoint is not None:
            self._restore(checkpoint)

    def records(self) -> Iterator[Record]:
        """Train, yielding each batch."""
        book = Bookkeeper(self._config)
        for phase in phases(self._config.training, self._config.task.n_iter, self._progress):
            record = self._train(book) if phase == TRAINING else self._evaluate(book, phase)
            self._progress.error = record.row.recall_error
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
        outcome = self._timed(lambda: self._engine.gradient(self._weights, batch, following, record))
        row = book.row(iteration, TRAINING, outcome.readout, batch, outcome.n_spikes)
        assert outcome.gradients is not None
        with np.errstate(all="ignore"):  # what is not finite is told below
            weights, optimizer = optimize(self._config.optimizer, self._optimizer, self._weights, outcome.gradients)
        for projection in PROJECTIONS:
            if not np.isfinite(weights[projection]).all():
                raise TrainingError(f"a weight of {projection} became infinite or NaN in iteration {iteration}")
        self._weights, self._optimizer = weights, optimizer
        return Record(row, batch, outcome.recording, self._sampled_weights(iteration))

    def _evaluate(self, book: Bookkeeper, phase: str) -> Record:
        batch = self._task.batch(self._streams[phase])
        weights = self.weights() if phase == TEST else self._weights
        outcome = self._timed(lambda: self._engine.evaluate(weights, batch))
        row = book.row(self._progress.iteration, phase, outcome.readout, batch, outcome.n_spikes)
        if phase == VALIDATION and self._config.training.select_weights == "best" and row.loss < self._lowest:
            self._best, self._lowest = self._weights, row.loss
        return Record(row, batch)

    def _next_batch(self) -> tuple[Batch, NDArray[np.bool_] | None]:
        """The next training batch, and with as_continuous the input spikes in step 1 of the one after it."""
        stream = self._streams[TRAINING]
        if not self._config.training.as_continuous:
            return self._task.batch(stream), None
        batch = self._upcoming or self._task.batch(stream)
        self._before_upcoming = stream.get_state(legacy=False)
        self._upcoming = self._task.batch(stream)
        return batch, self._upcoming.spikes[0, 1]

    def _timed(self, simulate: Callable[[], Outcome]) -> Outcome:
        began = time.perf_counter()
        outcome = simulate()
        self.simulating += time.perf_counter() - began
        return outcome

    def _sampled_weights(self, iteration: int) -> Table | None:
        """The weights that are recorded, as a continuous simulation would first use them."""
        n = self._config.recording.n_record_w
        if not n:
            return None
        timing = Timing.of(self._config.task, self._config.kernel)
        parts = []
        for projection in PROJECTIONS:
            n_post = n if projection.endswith("rec") else self._config.task.n_out
            weights = self._weights[projection][:n_post, :n]
            exists = np.ones(weights.shape, dtype=bool)
            if projection == "rec_rec":
                np.fill_diagonal(exists, False)
            post, pre = np.nonzero(exists)
            parts.append(
                (np.full(len(pre), projection), pre.astype(np.int32), post.astype(np.int32), weights[post, pre])
            )
        projections, pres, posts, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        times = np.full(len(values), timing.ms(iteration * timing.iteration))
        return {"projection": projections, "pre": pres, "post": posts, "time": times, "weight": values}

    def _capture(self) -> Checkpoint:
        """Everything that the rest of the run depends on. Arrays are not copied: nothing changes them in place."""
        streams = {phase: stream.get_state(legacy=False) for phase, stream in self._streams.items()}
        if self._before_upcoming is not None:
            streams[TRAINING] = self._before_upcoming
        optimizer = self._optimizer
        checkpoint: Checkpoint = {
            "config": self._config_text,
            "rows": self._rows,
            "iteration": self._progress.iteration,
            "stopped": self._progress.stopped,
            "error": self._progress.error,
            "step": optimizer.step,
            "beta_1_power": optimizer.beta_1_power,
            "beta_2_power": optimizer.beta_2_power,
            "lowest": self._lowest,
        }
        groups = {"initial": self.initial, "weights": self._weights, "best": self._best}
        groups |= {"m": optimizer.m, "v": optimizer.v}
        checkpoint |= {f"{group}_{key}": value for group, arrays in groups.items() for key, value in arrays.items()}
        for phase, state in streams.items():
            checkpoint |= {f"stream_{phase}_key": state["state"]["key"], f"stream_{phase}_pos": state["state"]["pos"]}
            checkpoint |= {f"stream_{phase}_has_gauss": state["has_gauss"], f"stream_{phase}_gauss": state["gauss"]}
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        def group(prefix: str) -> Weights:
            return {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}

        self._rows = int(checkpoint["rows"])
        self._progress = Progress(int(checkpoint["iteration"]), bool(checkpoint["stopped"]), float(checkpoint["error"]))
        self.initial, self._weights = group("initial_"), group("weights_")
        self._best, self._lowest = group("best_"), float(checkpoint["lowest"])
        powers = float(checkpoint["beta_1_power"]), float(checkpoint["beta_2_power"])
        self._optimizer = OptimizerState(int(checkpoint["step"]), group("m_"), group("v_"), *powers)
        for phase, stream in self._streams.items():
            key, pos = checkpoint[f"stream_{phase}_key"], int(checkpoint[f"stream_{phase}_pos"])
            gauss = int(checkpoint[f"stream_{phase}_has_gauss"]), float(checkpoint[f"stream_{phase}_gauss"])
            stream.set_state(("MT19937", key, pos, *gauss))


def _stream(seed: int, number: int) -> np.random.RandomState:
    """A random stream that is independent of RandomState(seed) and of other numbers'."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, number])))
