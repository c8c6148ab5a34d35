import csv
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import asdict

import pytest
from synthetic_run import write_run

from eprop_cli.runs.comparison import SUMMARY
from eprop_cli.sweeps import closing
from eprop_cli.sweeps.closing import close
from eprop_cli.sweeps.multirun import JobOutcome, Multirun, MultirunPlan
from eprop_cli.sweeps.preparation import stop


@pytest.fixture(autouse=True)
def _small_figures_and_no_waiting(monkeypatch, tmp_path):
    monkeypatch.setattr(closing, "DPI", 20)
    monkeypatch.setattr(closing, "GRACE", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def multirun(tmp_path):
    """Begin a multirun of some jobs (None: of a search) in the directory sweep."""

    def begin(n_jobs):
        multirun = Multirun(tmp_path / "sweep" / ".jobs" / "stamp")
        multirun.state.mkdir(parents=True)
        plan = MultirunPlan(
            ["seed"], [], n_jobs, os.getpid(), platform.node(), tied=True, fresh=True, launcher="", beginning=None
        )
        (multirun.state / "plan.json").write_text(json.dumps(asdict(plan)))
        return multirun

    return begin


def job(multirun, num, *overrides, noted=None, **run):
    """Leave the run of a job, and a note of what became of it."""
    name = f"seed-{num}"
    record = json.loads(
        (write_run(multirun.directory / name, f"seed={num}", *overrides, **run) / "run.json").read_text()
    )
    multirun.note(JobOutcome(num, name, noted or record["status"], record["error"]))


def table(multirun):
    with (multirun.directory / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_completed(multirun, capsys):
    multirun = multirun(2)
    job(multirun, 0)
    job(multirun, 1)
    assert close(multirun, None) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["Files: sweep/sweep.csv, sweep/sweep.png", "Jobs: 2 COMPLETED"]
    rows = table(multirun)
    assert list(rows[0]) == ["index", "run", "seed", *SUMMARY]
    assert [(row["run"], row["seed"], row["status"], row["final_loss"]) for row in rows] == [
        ("seed-0", "0", "COMPLETED", "0.77"),
        ("seed-1", "1", "COMPLETED", "0.77"),
    ]
    assert (multirun.directory / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert not (multirun.directory / ".jobs").exists()


def test_one_failed(multirun, capsys):
    multirun = multirun(2)
    job(multirun, 0)
    job(multirun, 1, status="FAILED", error="the loss became nan in training iteration 2")
    assert close(multirun, None) == 1
    printed = capsys.readouterr().out.splitlines()
    assert "2: the loss became nan in training iteration 2" in printed
    assert printed[-3:] == [
        "Jobs: 1 COMPLETED, 1 FAILED",
        "Not COMPLETED: seed-1",
        "Run what is not COMPLETED, and nothing else: eprop-run resume=sweep",
    ]
    assert [row["error"] for row in table(multirun)] == ["", "the loss became nan in training iteration 2"]


def test_a_reader_that_has_had_enough_costs_nothing_but_lines(multirun, monkeypatch):
    multirun = multirun(1)
    job(multirun, 0)
    ours, its = os.pipe()
    os.close(ours)
    with os.fdopen(its, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert close(multirun, None) == 0
    assert [row["status"] for row in table(multirun)] == ["COMPLETED"]
    assert not (multirun.directory / ".jobs").exists()


def test_a_signal_once_all_is_written_ends_it_at_once(multirun):
    multirun = multirun(1)
    multirun.remove()
    with pytest.raises(KeyboardInterrupt):
        stop(multirun, signal.SIGINT)
    assert not (multirun.directory / ".jobs").exists()


def test_skipped_jobs_were_completed_before(multirun, capsys):
    multirun = multirun(2)
    job(multirun, 0, noted="SKIPPED")
    job(multirun, 1)
    assert close(multirun, None) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Jobs: 1 COMPLETED, 1 SKIPPED (COMPLETED before)"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped(multirun, capsys, number, status):
    multirun = multirun(3)
    job(multirun, 0, status="INTERRUPTED", error="interrupted")
    multirun.note(JobOutcome(1, "seed-1"))
    multirun.stop(number)
    assert close(multirun, KeyboardInterrupt()) == status
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "Jobs: 1 INTERRUPTED, 2 NOT STARTED",
        "Not COMPLETED: seed-0",
        "Run what is not COMPLETED, and nothing else: eprop-run resume=sweep",
    ]


def test_a_job_that_could_not_say_more_than_that_it_began(multirun, capsys):
    gone = subprocess.Popen(["true"])
    gone.wait()
    multirun = multirun(1)
    job(multirun, 0, status="RUNNING", pid=gone.pid, host=platform.node())
    assert close(multirun, RuntimeError("a worker was killed")) == 1
    assert "Jobs: 1 FAILED" in capsys.readouterr().out
    assert [row["status"] for row in table(multirun)] == ["KILLED"]
    assert not (multirun.directory / ".jobs").exists()


def test_jobs_that_still_run_keep_what_they_share(multirun, capsys):
    multirun = multirun(1)
    job(multirun, 0, status="RUNNING", pid=4711, host="node7")
    assert close(multirun, RuntimeError("the cluster does not answer")) == 1
    assert "Jobs: 1 RUNNING" in capsys.readouterr().out
    assert multirun.outcomes == [JobOutcome(0, "seed-0", "RUNNING")]


def test_of_a_search_the_table_has_what_its_jobs_returned(multirun, capsys):
    multirun = multirun(None)
    job(multirun, 0, "objective=best_loss")
    job(multirun, 1, "objective=best_loss", status="FAILED", error="broken")
    assert close(multirun, None) == 1
    assert [row["objective"] for row in table(multirun)] == ["0.77", ""]
    assert list(table(multirun)[0])[-len(SUMMARY) - 1 :] == ["objective", *SUMMARY]
    assert capsys.readouterr().out.splitlines()[-1] == "Go on with the search: eprop-run resume=sweep"


def test_config_files_that_were_chosen_are_columns(multirun):
    multirun = multirun(2)
    job(multirun, 0, "optimizer=adam")
    job(multirun, 1, "optimizer=gradient_descent")
    close(multirun, None)
    assert [row["optimizer"] for row in table(multirun)] == ["adam", "gradient_descent"]


def test_where_no_job_trained_there_is_no_figure(multirun, capsys):
    multirun = multirun(1)
    job(multirun, 0, rows=[], status="FAILED", error="task.n_batch=0: must be at least 1")
    assert close(multirun, None) == 1
    assert "Files: sweep/sweep.csv\n" in capsys.readouterr().out
    assert not (multirun.directory / "sweep.png").exists()


def test_the_command_is_quoted_for_the_shell(multirun, tmp_path, capsys, monkeypatch):
    multirun = multirun(1)
    multirun.note(JobOutcome(0, "seed-0"))
    (tmp_path / "sweep").rename(tmp_path / "my sweep")
    close(Multirun(tmp_path / "my sweep" / ".jobs" / "stamp"), None)
    assert capsys.readouterr().out.splitlines()[-1].endswith(": eprop-run 'resume=my sweep'")
