"""A run that was interrupted or killed and then resumed ends as one that was not."""

import functools
import json
import os
import shutil
import signal
from dataclasses import replace

import pandas as pd
import pytest
from small import BARE, ONLINE, SMALL, Here, config

from eprop_cli.engines.nest import engine as nest
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import run
from eprop_cli.training.base import check_ready

PARALLEL = (*SMALL, *BARE, "training=data_parallel", "task.n_batch=2", "recording.n_record_w=2")
COMPILED = (*PARALLEL, "engine=compiled", "task.n_iter=6", "training.n_iter_test=2")
VALIDATED = ("training.do_early_stopping=true", "training.n_iter_validate_every=2", "training.n_iter_early_stop=2")
STREAM = (*ONLINE, "engine=compiled", "plots=none", "task.n_iter=6", "task.n_batch=2", "recording.n_record_w=2")
STEP = ("optimizer.schedule={name: step, step_every: 2}", "optimizer.weight_decay=0.1", "optimizer.clip_norm=1e-4")
WAYS = {
    "compiled": COMPILED,
    "validated": (*COMPILED, *VALIDATED, "training.stop_crit=0"),
    "best": (*COMPILED, *VALIDATED, "training.stop_crit=0", "training.select_weights=best"),
    "stopped early": (*COMPILED, *VALIDATED, "training.stop_crit=1", "seed=3"),
    "as continuous": (*COMPILED, *VALIDATED, "training.stop_crit=0", "training.as_continuous=true"),
    "cosine": (*COMPILED, "optimizer.schedule={name: cosine, warmup: 2, cosine_iter: 6}"),
    "gradient descent": (*COMPILED, "optimizer=gradient_descent", *STEP),
    "recorded": (*COMPILED, "recording=default"),
    "several workers": (*COMPILED, "engine.n_workers=2"),
    "stream": STREAM,
    "stream, tested": (*STREAM, "optimizer=adam", "optimizer.eta=1e-3", "training.n_iter_test=2"),
    "stream, validated": (*STREAM, *VALIDATED, "training.stop_crit=0"),
    "stream, stopped early": (*STREAM, *VALIDATED, "training.stop_crit=1000", "training.evaluation=aside"),
    "nest": (*PARALLEL, "engine=nest", "task.n_iter=4", "training.n_iter_test=1", "training.as_continuous=true"),
}
ITERATION = 3  # in which it happens


@pytest.fixture(autouse=True, scope="module")
def _without_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nest, "Workers", Here)
        yield


@pytest.fixture
def during(watchers):
    """Has something done when the row of training iteration ITERATION has been written."""

    def when_trained(act):
        watchers[:] = [lambda row: act() if (row.iteration, row.phase) == (ITERATION, "training") else None]

    return when_trained


composed = functools.cache(config)  # it takes longer than training


def train(directory, *overrides):
    directory.mkdir(exist_ok=True)
    return run(composed(*overrides), directory)


def resume(directory, *overrides):
    return run(replace(composed(*overrides), resume=str(directory)), directory)


def rows(directory):
    """metrics.csv without its seconds."""
    return [line.rsplit(",", 1)[0] for line in (directory / "metrics.csv").read_text().splitlines()]


def assert_same(directory, other):
    assert rows(directory) == rows(other)
    assert (directory / "weights.npz").read_bytes() == (other / "weights.npz").read_bytes()
    for table in other.rglob("*.parquet"):
        there = directory / table.relative_to(other)
        pd.testing.assert_frame_equal(pd.read_parquet(there), pd.read_parquet(table), check_exact=True)
    assert Run(directory).status == Run(other).status == "COMPLETED"


@pytest.fixture(
    scope="module", params=[pytest.param(way, marks=pytest.mark.nest) if way == "nest" else way for way in WAYS]
)
def way(request):
    return WAYS[request.param]


@pytest.fixture(scope="module")
def undisturbed(way, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    assert train(directory, *way).exit_status == 0
    return directory


def test_an_interrupted_run_goes_on_exactly(way, undisturbed, during, tmp_path):
    during(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(tmp_path, *way).exit_status == 143
    during(lambda: None)
    there = rows(tmp_path)
    assert there == rows(undisturbed)[: len(there)]
    assert there[-1].startswith(f"{ITERATION},training,")
    assert resume(tmp_path, *way).exit_status == 0
    assert_same(tmp_path, undisturbed)


def train_and_kill(directory, during, *overrides):
    """Leave in directory what a run leaves that is killed in the middle of a row."""
    during(lambda: shutil.copytree(directory.with_name("running"), directory))
    train(directory.with_name("running"), *overrides)
    during(lambda: None)
    with (directory / "metrics.csv").open("a") as file:
        file.write("4,trai")


def test_a_killed_run_goes_on_exactly(way, undisturbed, during, tmp_path):
    every = "training.checkpoint_every=2"
    train_and_kill(tmp_path / "run", during, *way, every)
    assert resume(tmp_path / "run", *way, every).exit_status == 0
    assert_same(tmp_path / "run", undisturbed)


def test_a_run_killed_before_its_first_checkpoint_goes_on_exactly(during, tmp_path):
    way = (*WAYS["validated"], "training.checkpoint_every=10")
    train_and_kill(tmp_path / "run", during, *way)
    assert resume(tmp_path / "run", *way).exit_status == 0
    assert_same(tmp_path / "run", tmp_path / "running")


def test_a_completed_run_is_trained_longer(way, undisturbed, tmp_path):
    assert train(tmp_path, *way, "task.n_iter=2").exit_status == 0
    assert resume(tmp_path, *way).exit_status == 0
    assert_same(tmp_path, undisturbed)


def test_the_trained_weights_it_began_with_may_be_gone(tmp_path):
    assert train(tmp_path / "source", *COMPILED, "task.n_iter=1").exit_status == 0
    way = (*COMPILED, f"synapse.weights_from={tmp_path / 'source'}")
    assert train(tmp_path / "undisturbed", *way).exit_status == 0
    assert train(tmp_path / "run", *way, "task.n_iter=2").exit_status == 0
    shutil.rmtree(tmp_path / "source")
    resumed = replace(config(*way), resume=str(tmp_path / "run"))
    check_ready(resumed)
    assert run(resumed, tmp_path / "run").exit_status == 0
    assert_same(tmp_path / "run", tmp_path / "undisturbed")


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("way", "n_iter", "why"),
    [
        ("compiled", 6, "to train longer, raise task.n_iter"),
        ("stopped early", 20, f"it stopped early, in iteration {ITERATION}"),
    ],
)
def test_a_run_without_anything_left_to_do_is_left_alone(way, n_iter, why, tmp_path, caplog):
    assert train(tmp_path, *WAYS[way]).exit_status == 0
    before = contents(tmp_path)
    caplog.set_level("INFO")
    assert resume(tmp_path, *WAYS[way], f"task.n_iter={n_iter}").exit_status == 0
    assert contents(tmp_path) == before
    assert caplog.messages[-1] == f"Nothing to do: {tmp_path} is COMPLETED; {why}"


def test_a_run_that_stopped_early_was_trained_until_then(tmp_path):
    train(tmp_path, *WAYS["stopped early"])
    assert [row.split(",")[:2] for row in rows(tmp_path)[-3:]] == [[str(ITERATION), "training"]] + [
        [str(ITERATION), "test"]
    ] * 2


def test_the_record_keeps_the_first_start_and_lists_all_sessions(tmp_path, during):
    during(lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tmp_path, *COMPILED)
    during(lambda: None)
    start = Run(tmp_path).record["start"]
    resume(tmp_path, *COMPILED)
    resume(tmp_path, *COMPILED, "task.n_iter=7")
    record = Run(tmp_path).record
    first, second, third = (session["start"] for session in record["sessions"])
    assert start == record["start"] == first < second < third < record["stop"]
    assert record["sessions"][2]["versions"] == record["versions"]
    assert record["error"] is None


def test_seconds_add_up(tmp_path, during, caplog):
    during(lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tmp_path, *COMPILED)
    during(lambda: None)
    (tmp_path / "run.json").write_text(
        json.dumps(Run(tmp_path).record | {"seconds": {"build": 100.0, "simulate": 200.0}})
    )
    caplog.set_level("INFO")
    resume(tmp_path, *COMPILED)
    seconds = Run(tmp_path).record["seconds"]
    assert 100 <= seconds["build"] < 200
    assert 200 < seconds["simulate"] < 400
    assert seconds["other"] > 0
    total = sum(seconds.values())
    duration = f"{total:.1f} s ({total - 300:.1f} s since it was resumed)"
    assert caplog.messages[-3].startswith(f"COMPLETED: 6 iterations in {duration}, test loss ")


def test_an_interruption_before_the_next_row_leaves_the_record_at_the_last(tmp_path, during, monkeypatch, caplog):
    during(lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tmp_path, *COMPILED)
    row = Run(tmp_path).record["last_row"]
    assert row["iteration"] == ITERATION
    monkeypatch.setattr("eprop_cli.runs.run.make_trainer", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    caplog.set_level("INFO")
    assert resume(tmp_path, *COMPILED).exit_status == 130
    assert Run(tmp_path).record["last_row"] == row
    result, _, go_on, _ = caplog.messages[-4:]
    assert result.startswith(f"INTERRUPTED: {ITERATION} iterations in ")
    assert go_on.startswith("Continue: eprop-run ")


def test_a_directory_named_like_a_partition_is_resumed(tmp_path, during):
    directory = tmp_path / "seed=1"
    during(lambda: os.kill(os.getpid(), signal.SIGINT))
    train(directory, *COMPILED)
    during(lambda: None)
    assert resume(directory, *COMPILED).exit_status == 0


def test_damaged_weight_changes_are_told_and_nothing_else_is_touched(tmp_path):
    train(tmp_path, *COMPILED)
    changes = tmp_path / "recordings" / "weights.parquet"
    changes.write_bytes(b"rubbish")
    checkpoint = (tmp_path / "checkpoint.npz").read_bytes()
    ending = resume(tmp_path, *COMPILED, "task.n_iter=7")
    assert (ending.status, ending.exit_status) == ("FAILED", 1)
    assert ending.error.startswith(f"{changes}: is damaged: ")
    assert (tmp_path / "checkpoint.npz").read_bytes() == checkpoint
