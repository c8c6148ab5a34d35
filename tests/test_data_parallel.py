"""Data-parallel training on the compiled engine, which the trainer cannot tell from another."""

import itertools
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.errors import ConfigError
from eprop_cli.phases import Progress, phases
from eprop_cli.training.data_parallel import DataParallel

PARALLEL = [*SMALL, *BARE, "training=data_parallel", "engine=compiled", "training.n_iter_test=2"]
VALIDATED = ["training.do_early_stopping=true", "training.n_iter_validate_every=2", "training.stop_crit=0"]

SELECTING = ["task.n_iter=12", "task.n_batch=8", "optimizer.eta=0.05", "seed=5"]  # best after 8 iterations


def train(*overrides):
    """Rows of a run, the weights after each, and the trainer."""
    trainer = DataParallel(config(*PARALLEL, *overrides))
    try:
        steps = [(record.row, trainer._weights) for record in trainer.records()]
    finally:
        trainer.close()
    return [row for row, _ in steps], [weights for _, weights in steps], trainer


def without_seconds(rows):
    return [{key: value for key, value in row.flat().items() if key != "seconds"} for row in rows]


def run_phases(errors, n_iter, **settings):
    """(phase, training iterations so far) of each batch, given the metric of each."""
    progress = Progress()
    given = config(*SMALL, *(f"training.{key}={value}" for key, value in settings.items()))
    found = []
    for error, phase in zip(errors, phases(given.training, given.criterion, n_iter, progress), strict=False):
        found.append((phase, progress.iteration))
        progress.metric = error
    return found, progress


def test_without_validation_there_is_only_training_and_the_test():
    found, progress = run_phases(itertools.repeat(0.0), 3, n_iter_test=2)
    assert found == [("training", 1), ("training", 2), ("training", 3), ("test", 3), ("test", 3)]
    assert not progress.stopped


def test_validation_comes_before_every_so_manyth_iteration():
    found, _ = run_phases(itertools.repeat(1.0), 4, do_early_stopping="true", n_iter_validate_every=2)
    assert found == [
        ("validation", 0), ("training", 1), ("training", 2), ("validation", 2), ("training", 3), ("training", 4),
    ]  # fmt: skip


def test_training_stops_where_the_mean_over_further_batches_is_low_too():
    settings = {"do_early_stopping": "true", "n_iter_validate_every": 1, "n_iter_early_stop": 2, "stop_crit": 0.3}
    # validation, training, validation, early-stopping twice: mean 0.4; again with mean 0.2
    errors = [0.0, 0.5, 0.0, 0.0, 0.8, 0.5, 0.1, 0.1, 0.3]
    found, progress = run_phases([*errors, *[0.0] * 9], 9, n_iter_test=1, **settings)
    further = [("early-stopping", 1)] * 2
    assert found[:6] == [("validation", 0), ("training", 1), ("validation", 1), *further, ("training", 2)]
    # As in the tutorial, the iteration that validation preceded is trained nevertheless.
    further = [("early-stopping", 2)] * 2
    assert found[6:] == [("validation", 2), *further, ("training", 3), ("test", 3)]
    assert progress.stopped


def test_of_a_metric_that_is_better_high_training_stops_above():
    settings = {"do_early_stopping": "true", "n_iter_validate_every": 1, "n_iter_early_stop": 2}
    accuracies = [1.0, 0.5, 0.9, 0.7, 0.5, 0.5, 0.9, 0.8, 0.9]  # mean 0.6 is not above 0.8, 0.85 is
    found, progress = run_phases(accuracies, 9, stop_metric="accuracy", stop_crit=0.8, **settings)
    assert [phase for phase, _ in found] == [
        "validation", "training", "validation", "early-stopping", "early-stopping", "training",
        "validation", "early-stopping", "early-stopping",
    ]  # fmt: skip
    assert not progress.stopped  # the batch after these is not asked for
    found, progress = run_phases([*accuracies, 0.0], 9, stop_metric="accuracy", stop_crit=0.8, **settings)
    assert found[-1] == ("training", 3)
    assert progress.stopped


@pytest.mark.parametrize(
    ("metric", "crit", "stops"),
    [("loss", 1e-6, False), ("loss", 1e6, True), ("accuracy", 0, True), ("rate_reg", None, None)],
)
def test_training_stops_by_any_metric_that_can_be_better(metric, crit, stops):
    settings = ["training.do_early_stopping=true", "training.n_iter_validate_every=1", "task.n_batch=4"]
    settings += ["training.n_iter_early_stop=2", f"training.stop_metric={metric}", "task.n_iter=3"]
    if crit is None:
        with pytest.raises(
            ConfigError, match=r"^training\.stop_metric=rate_reg: must be one of loss, accuracy, recall_er"
        ):
            train(*settings)
        return
    rows, _, _ = train(*settings, f"training.stop_crit={crit}")
    assert ("early-stopping" in {row.phase for row in rows}) is stops
    assert len([row for row in rows if row.phase == "training"]) == (2 if stops else 3)


def test_evaluation_does_not_change_training():
    plain, _, _ = train("training.n_iter_test=0")
    rows, _, _ = train(*VALIDATED)
    assert {row.phase for row in rows} == {"training", "validation", "test"}
    assert without_seconds(row for row in rows if row.phase == "training") == without_seconds(plain)


def test_the_best_weights_are_those_of_the_lowest_validation_loss():
    rows, weights, trainer = train(*VALIDATED, "training.select_weights=best", *SELECTING)
    validations = [index for index, row in enumerate(rows) if row.phase == "validation"]
    best = min(validations, key=lambda index: rows[index].metrics["loss"])
    assert 0 < best < validations[-1]
    for projection, values in trainer.weights().items():
        np.testing.assert_array_equal(values, weights[best][projection])
    assert (trainer.weights()["in_rec"] != weights[-1]["in_rec"]).any()


def test_the_test_is_of_the_weights_that_are_kept():
    rows, _, trainer = train(*VALIDATED, "training.select_weights=best", *SELECTING)
    again = DataParallel(config(*PARALLEL, *SELECTING, "task.n_iter=0"))
    again._weights = trainer.weights()
    tests = [record.row.metrics["loss"] for record in again.records()]
    again.close()
    assert tests == [row.metrics["loss"] for row in rows if row.phase == "test"]


def test_selecting_weights_does_not_change_training():
    last, _, _ = train(*VALIDATED)
    best, _, _ = train(*VALIDATED, "training.select_weights=best")
    kept = [[row for row in rows if row.phase != "test"] for rows in (last, best)]
    assert without_seconds(kept[0]) == without_seconds(kept[1])


def test_selected_weights_survive_a_checkpoint():
    settings = [*VALIDATED, "training.select_weights=best", *SELECTING]
    whole, _, trainer = train(*settings)
    broken, resumed = DataParallel(config(*PARALLEL, *settings)), None
    rows = []
    for record in broken.records():
        rows.append(record.row)
        checkpoint = broken.commit()
        if record.row.phase == "training" and record.row.iteration == 9:
            resumed = DataParallel(config(*PARALLEL, *settings), checkpoint)
            break
    broken.close()
    rows += [record.row for record in resumed.records()]
    resumed.close()
    assert without_seconds(rows) == without_seconds(whole)
    for projection, values in trainer.weights().items():
        np.testing.assert_array_equal(resumed.weights()[projection], values)


@pytest.mark.parametrize("n_record_w", [0, 2])
def test_sampled_weights_are_those_of_the_first_neurons(n_record_w):
    trainer = DataParallel(config(*PARALLEL, f"recording.n_record_w={n_record_w}", "task.n_iter=2"))
    records = [record for record in trainer.records() if record.row.phase == "training"]
    trainer.close()
    if not n_record_w:
        assert [record.weight_changes for record in records] == [None, None]
        return
    changes = records[-1].weight_changes
    assert set(changes["time"]) == {200.0}  # ms, when the second of two sequences has ended
    found = {}
    for projection, pre, post, weight in zip(
        *(changes[key] for key in ("projection", "pre", "post", "weight")), strict=True
    ):
        found[str(projection), int(pre), int(post)] = weight
    weights = trainer.weights()
    assert found == {
        (projection, pre, post): weights[projection][post, pre]
        for projection in ("in_rec", "rec_rec", "rec_out")
        for pre in range(2)
        for post in range(2)
        if projection != "rec_rec" or pre != post
    }


@pytest.fixture
def compiled():
    trainer = DataParallel(config(*SMALL, *BARE, "training=data_parallel", "engine=compiled", "task.n_iter=2"))
    yield trainer
    trainer.close()


def test_the_next_batch_is_drawn_while_one_is_computed(compiled, monkeypatch):
    gradient, drawn, drew = compiled._engine.gradient, [], threading.Event()

    def draw(phase):
        drawn.append(phase)
        if len(drawn) == 2:
            drew.set()
        return DataParallel._draw(compiled, phase)

    def waits(*arguments):
        assert drew.wait(timeout=60)
        return gradient(*arguments)

    monkeypatch.setattr(compiled, "_draw", draw)
    monkeypatch.setattr(compiled._engine, "gradient", waits)
    records = compiled.records()
    next(records)
    assert drawn == ["training", "training"]  # none for an iteration that does not come
    next(records)
    assert drawn == ["training", "training"]


def test_large_batches_are_drawn_when_they_are_needed(compiled, monkeypatch):
    monkeypatch.setattr("eprop_cli.training.data_parallel.AHEAD_BYTES", 0)
    next(compiled.records())
    assert compiled._upcoming is None


def test_a_batch_that_is_under_way_ends_when_the_engine_is_closed(compiled):
    engine, begun = compiled._engine, threading.Event()
    batch = compiled._draw("training")
    sequences = engine._simulator._map

    def close_meanwhile(*arguments):
        begun.set()
        engine._simulator._closing = True  # as close() says, from another thread
        return sequences(*arguments)

    engine._simulator._map = close_meanwhile
    with pytest.raises(CancelledError):
        engine.begin(compiled.weights(), batch, None, False)()
    assert begun.is_set()
