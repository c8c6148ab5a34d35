import itertools
import logging

import pytest
from small import config
from synthetic_run import REGRESSION, batch_row, regression_row

from eprop_cli.runs import progress
from eprop_cli.runs.progress import Terminal, describe, reporter


def row(iteration, phase="training", error=0.25):
    return batch_row(iteration, phase, 0.69314, 1 - error, error, 10.04, 12.5, 1.0)


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the run began, to be set."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


def logged(caplog, clock, n_iter, seconds):
    """Iterations of which a line tells, if each takes some seconds."""
    caplog.set_level("INFO")
    with reporter(config(f"task.n_iter={n_iter}")) as report:
        for iteration in range(1, n_iter + 1):
            clock[0] += seconds
            report(row(iteration))
    return [int(message.split()[1].split("/")[0]) for message in caplog.messages]


def test_a_line_every_ten_seconds_and_at_the_end(caplog, clock):
    assert logged(caplog, clock, 35, 1.0) == [1, 11, 21, 31, 35]


def test_every_iteration_where_they_take_long(caplog, clock):
    assert logged(caplog, clock, 4, 60.0) == [1, 2, 3, 4]


def test_a_long_run_does_not_fill_its_log(caplog, clock):
    told = logged(caplog, clock, 20_000, 4.0)  # almost a day
    assert len(told) < 350
    assert max(b - a for a, b in itertools.pairwise(told)) * 4.0 <= 0.02 * 80_000 + 4.0


def test_lines_say_what_they_are_about(caplog, clock):
    caplog.set_level("INFO")
    with reporter(config("task.n_iter=9", "training=data_parallel")) as report:
        for number, phase in enumerate(("validation", "training", "test")):
            clock[0] = 100.0 * number
            report(row(number, phase))
    said = "loss 0.6931, recall error 0.250, rates 10.0 (regular) and 12.5 (adaptive) spikes/s"
    assert caplog.messages == [
        f"iteration 0/9 (validation): {said}",
        f"iteration 1/9: {said}",
        f"test batch 1/4: {said}",
    ]


def test_a_test_counts_its_own_batches_and_ends_with_a_line(caplog, clock):
    caplog.set_level("INFO")
    with reporter(config("task.n_iter=1", "training=data_parallel", "training.n_iter_test=3")) as report:
        for phase in ("training", "test", "test", "test"):
            clock[0] += 1.0
            report(row(1, phase))
    assert [message.split(":")[0] for message in caplog.messages] == ["iteration 1/1", "test batch 3/3"]


def test_regression_has_no_recall_error():
    said = describe(regression_row(1, "training", 12.5, 0.5, 0.75, 10.04, 12.5, 1.0), REGRESSION)
    assert said == "loss 12.5000, nRMSE 0.500, rates 10.0 (regular) and 12.5 (adaptive) spikes/s"


def test_one_population_has_one_rate():
    columns = [column for column in REGRESSION if column.name != "rate_ad"]
    said = describe(regression_row(1, "training", 12.5, 0.5, 0.75, 10.04, 12.5, 1.0), columns)
    assert said == "loss 12.5000, nRMSE 0.500, rate 10.0 (regular) spikes/s"


def test_the_terminal_is_what_standard_output_is_at_that_moment(capsys):
    handler = Terminal()
    handler.emit(logging.makeLogRecord({"msg": "%d rows", "args": (3,)}))
    assert capsys.readouterr().out == "3 rows\n"
