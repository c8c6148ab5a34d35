"""Train in one simulation that goes on and on, as NEST's tutorial does: weights change as spikes pass.

A batch is known when the next one has begun. Where the engine's stream keeps its state, a run can go on from it: from
where training's last batch is all but over, before it is known which phase comes next.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from eprop_cli.archives import check_arrays, check_in_range
from eprop_cli.config.config import Config as RunConfig
from eprop_cli.connectivity.projections import SYMMETRIC
from eprop_cli.engines.base import KeptStream, Outcome, engine_class, make_engine
from eprop_cli.errors import require
from eprop_cli.models.base import GRADIENT, STREAM
from eprop_cli.phases import PHASES, TEST, TRAINING, Progress, phases
from eprop_cli.registry import variant
from eprop_cli.schema import to_dict
from eprop_cli.training.base import (
    ASIDE,
    INLINE,
    MOST_FLOAT,
    Bookkeeper,
    Record,
    Score,
    Trainer,
    check_begun,
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
from eprop_cli.values import Batch, Checkpoint, Weights

LOOK_STEPS = 256_000  # time steps between two looks at NEST's weights, which then take about 1 % of the time


class Continuous(Trainer):
    """training=continuous."""

    needs = STREAM

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        self._config = config
        self._streams = random_streams(config.seed)
        if config.training.evaluation == INLINE:  # as in the tutorial
            self._streams = dict.fromkeys(PHASES, self._streams[TRAINING])
        known = None if checkpoint is None else restored_wiring(checkpoint, config.sizes)
        self.wiring, self.initial = initial_network(config, self._streams[TRAINING], known)
        self._task = make_task(config, self._streams[TRAINING], self.wiring)
        self._drawn = dict.fromkeys(PHASES, 0)
        self._progress, self._rows = Progress(), 0
        if checkpoint is not None:
            self.initial = _group(checkpoint, "initial_")
        self._engine = make_engine(config, self.wiring)
        self._keeps = self._engine.keeps_state()
        steps = config.task.n_batch * config.timing.sequence
        self.look_every = 1 if self._keeps else math.ceil(LOOK_STEPS / steps)
        self._stream = self._engine.stream(self.initial)
        self._pending: tuple[int, str, Batch] | None = None  # iteration, phase, batch that has begun
        if checkpoint is not None:
            self._restore(checkpoint)
        self._config_text = json.dumps(to_dict(config))  # of each checkpoint; takes milliseconds
        self._mark: Checkpoint | None = self._capture() if self._keeps else None

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ConfigError for what the optimizers of synapses do not have."""
        # The compiled engine's streams do as NEST does, and no more.
        can_change = GRADIENT in variant("neuron", config.neuron.name).computes
        other = "needs training=data_parallel" if can_change else f"cannot be had with neuron={config.neuron.name}"
        remedy = f"{other}; NEST's own optimizer does not have it"
        optimizer = config.optimizer
        require(config.make_optimizer().nest_type is not None, "optimizer", optimizer.name, remedy)
        require(optimizer.weight_decay == 0, "optimizer.weight_decay", optimizer.weight_decay, remedy)
        require(optimizer.clip_norm is None, "optimizer.clip_norm", optimizer.clip_norm, remedy)
        rates, bounds = vars(optimizer.eta_factor), vars(optimizer.bounds)
        require(set(rates.values()) == {1.0}, "optimizer.eta_factor", rates, remedy)
        require(set(map(str, bounds.values())) == {"None"}, "optimizer.bounds", bounds, remedy)
        for name, learns in vars(config.connectivity.plastic).items():
            require(learns, f"connectivity.plastic.{name}", learns, f"must be true, or {other}")
        feedback, remedy_here = config.connectivity.feedback, f"{other}; NEST cannot do it"
        require(feedback != SYMMETRIC, "connectivity.feedback", feedback, remedy_here)
        for name, fraction in vars(config.connectivity.excitatory_fraction).items():
            require(fraction is None, f"connectivity.excitatory_fraction.{name}", fraction, remedy_here)
        aside = config.training.evaluation == ASIDE
        remedy = f"needs a copy of the simulation, which engine={config.engine.name} cannot make; set it to {INLINE}"
        possible = not aside or engine_class(config).keeps_state()
        require(possible, "training.evaluation", config.training.evaluation, remedy)
        remedy = "needs training.evaluation=aside (engine=compiled) or training=data_parallel; or set it to false"
        require(aside or not config.task.evaluates_splits, "task.whole_split", True, remedy)
        remedy_here = "where synapses count the sequences of a batch; or choose training=data_parallel"
        for name, value in config.task.short_batches.items():
            remedy = f"must be {value} with training=continuous, {remedy_here}"
            require(not config.model.resets, f"task.{name}", getattr(config.task, name), remedy)
        super().check(config)

    @classmethod
    def not_resumable(cls, engine: str) -> str:
        """Where the engine cannot tell the state of the simulation."""
        if variant("engine", engine).keeps_state():
            return ""
        return (
            "a continuous run cannot be continued exactly, as NEST does not give out the state of its synapses; "
            "start again with training=data_parallel, which can"
        )

    @classmethod
    def check_checkpoint(cls, config: RunConfig, checkpoint: Checkpoint) -> None:
        """Raise ValueError unless a checkpoint has all that _restore() takes, in the ranges that it can have."""
        wiring, arrays = check_begun(config, checkpoint)
        initial = {f"initial_{name}": ("f", mask.shape) for name, mask in wiring.items()}
        check_arrays(arrays, initial)
        check_in_range(arrays, initial, -MOST_FLOAT, MOST_FLOAT)
        engine_class(config).check_state(config, wiring, arrays)

    @classmethod
    def time_passes(cls, config: RunConfig) -> bool:
        """Inline it does."""
        return bool(config.training.evaluation == INLINE)

    def records(self) -> Iterator[Record]:
        """Train, yielding each batch as soon as the simulation has passed its end."""
        config, book, progress = self._config, Bookkeeper(self._config), self._progress
        turns = phases(config.training, config.criterion, config.task.n_iter, progress)
        while True:
            mark = self._capture() if self._keeps and self._pending and self._pending[1] == TRAINING else None
            phase = next(turns, None)
            if phase is None:
                break
            if phase != TRAINING and config.training.evaluation == ASIDE:
                # As if nothing came between two training batches; after the last one none is to follow.
                following = None if phase == TEST else config.learning_rate(progress.iteration)
                outcome = timed(self, lambda following=following: self._kept.end(following))
                yield from self._known(book, outcome, mark)
                yield self._evaluate(book, phase)
                continue
            batch = self._draw(phase)
            record = phase == TRAINING and book.wants(progress)
            rate = config.learning_rate(progress.iteration - 1) if phase == TRAINING else 0.0
            outcome = timed(self, lambda batch=batch, rate=rate, record=record: self._stream.begin(batch, rate, record))
            begun = progress.iteration, phase, batch
            # With a test the end of the batch before was another one than where training goes on for longer.
            ended = phase == TEST and not progress.stopped
            yield from self._known(book, outcome, None if ended else mark)
            self._pending = begun
            timed(self, self._stream.go_on)
        yield from self._known(book, timed(self, self._stream.finish), mark)

    def commit(self) -> Checkpoint | None:
        """The state in which the last training batch was about to end; what was evaluated since is done again."""
        return self._mark

    def weights(self) -> Weights:
        """Weights as the synapses hold them; one that has not transmitted since its last batch lags behind."""
        return self._stream.weights()

    def moments(self) -> Mapping[str, Weights]:
        """As the synapses hold them."""
        return self._stream.moments()

    def close(self) -> None:
        """Give back what the engine holds."""
        self._engine.close()
        self._task.close()

    @property
    def _kept(self) -> KeptStream:
        return cast(KeptStream, self._stream)

    def _draw(self, phase: str) -> Batch:
        return self._task.draw(self._streams[phase], phase, self._drawn)

    def _evaluate(self, book: Bookkeeper, phase: str) -> Record:
        """The record of an evaluation that touches nothing."""
        scores = []
        for _ in range(self._task.n_batches(phase)):
            batch = self._draw(phase)
            outcome: Outcome = timed(self, lambda batch=batch: self._kept.evaluate(batch))
            scores.append(book.score(outcome, batch))
        return self._record(book, self._progress.iteration, phase, batch, scores)

    def _known(self, book: Bookkeeper, outcome: Outcome | None, mark: Checkpoint | None) -> Iterator[Record]:
        """The record of the pending batch, if there is one, for which the outcome has come."""
        if self._pending is None or outcome is None:
            return
        pending, self._pending = self._pending, None
        iteration, phase, batch = pending
        record = self._record(book, iteration, phase, batch, [book.score(outcome, batch)])
        record = replace(record, recording=outcome.recording, weight_changes=outcome.weight_changes)
        if mark is not None:
            self._mark = mark | {"rows": self._rows, "metric": self._progress.metric}
        yield record

    def _record(self, book: Bookkeeper, iteration: int, phase: str, batch: Batch, scores: list[Score]) -> Record:
        row = book.row(iteration, phase, scores, self._task.epochs(iteration))
        self._progress.metric = row.metrics[self._config.training.stop_metric]
        self._rows += 1
        confusion = None if phase == TRAINING else total_confusion(scores)
        return Record(row, batch, confusion=confusion, at_limit=scores[0].at_limit if phase == TRAINING else 0.0)

    def _capture(self) -> Checkpoint:
        """Everything that the rest of the run depends on, before a phase begins."""
        progress = self._progress
        checkpoint: Checkpoint = {
            "config": self._config_text,
            "rows": self._rows,
            "iteration": progress.iteration,
            "stopped": progress.stopped,
            "metric": progress.metric,
            **{f"drawn_{phase}": number for phase, number in self._drawn.items()},
            **{f"initial_{projection}": values for projection, values in self.initial.items()},
            **wiring_state(self.wiring),
            **self._kept.state(),
        }
        for phase, stream in self._streams.items():
            checkpoint |= stream_state(phase, stream.get_state(legacy=False))
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._rows = int(checkpoint["rows"])
        self._progress = Progress(
            int(checkpoint["iteration"]), bool(checkpoint["stopped"]), float(checkpoint["metric"])
        )
        self._drawn = {phase: int(checkpoint[f"drawn_{phase}"]) for phase in PHASES}
        for phase, stream in self._streams.items():
            restore_stream(stream, phase, checkpoint)
        self._kept.restore(checkpoint)


def _group(checkpoint: Checkpoint, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): np.asarray(v) for name, v in checkpoint.items() if name.startswith(prefix)}
