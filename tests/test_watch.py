import json
import os
import platform
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
from small import BARE, SMALL, config
from synthetic_run import batch_row, training_rows, write_run

from eprop_cli.cli import eprop_watch
from eprop_cli.runs import progress as run_progress
from eprop_cli.runs.log import keep_warnings
from eprop_cli.runs.standing import duration, standing
from eprop_cli.sweeps import watching
from eprop_cli.sweeps.multirun import JobOutcome, Multirun, MultirunPlan

MINE = {"pid": os.getpid(), "host": platform.node()}


@pytest.fixture
def watch(monkeypatch, capsys, tmp_path):
    """Runs eprop-watch; gives exit status, lines on stdout, lines on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watching, "POLL", 0.01)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["eprop-watch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            eprop_watch.watch()
        out, err = capsys.readouterr()
        return ending.value.code, out.splitlines(), err.splitlines()

    return call


def change(directory, **record):
    path = Path(directory) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | record))


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of eight jobs: three before, one COMPLETED, one FAILED, one running, two waiting; begun 60 s ago."""
    multirun = Multirun(tmp_path / "sweep" / ".jobs" / "stamp")
    multirun.state.mkdir(parents=True)
    plan = MultirunPlan(["seed", "optimizer.eta"], [], 8, os.getpid(), platform.node(), True, True, "", None)
    path = multirun.state / "plan.json"
    path.write_text(json.dumps(asdict(plan)))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    os.utime(path, (now - 60,) * 2)
    for num in range(3):
        multirun.note(JobOutcome(num, f"before-{num}", "SKIPPED"))
    for num, status, given in (
        (3, "COMPLETED", {}),
        (4, "FAILED", {"error": "the loss became nan", "rows": training_rows(1)}),
        (5, "RUNNING", {"rows": training_rows(2), "slurm_job": "1234_5", **MINE}),
    ):
        command = ["eprop-run", f"seed={num}", "optimizer.eta=0.01", "task.n_iter=4"]
        write_run(multirun.directory / f"job-{num}", "task.n_iter=4", status=status, command=command, **given)
        multirun.note(JobOutcome(num, f"job-{num}", status))
    return multirun


def test_a_sweep_in_the_middle(sweep, watch):
    status, out, err = watch("sweep", "--once")
    assert (status, err) == (0, [])
    # of five jobs two have ended and one is half done: 2.5 took 60 s, so do the others
    running = "iteration 2/4, loss 0.78"
    head = f"sweep: [4/8] 1 running, 2 waiting, 1 failed, ~60 s left | seed=5 eta=0.01: {running}"
    assert out == [
        head,
        f"  seed=5 eta=0.01: {running}, recall error 0.75, ~1 s left",
        f"    job 1234_5 on {platform.node()}; log: sweep/job-5/eprop-run.log",
        "  seed=4 eta=0.01: FAILED (the loss became nan)",
        "    log: sweep/job-4/eprop-run.log",
    ]


def test_it_ends_when_all_have_ended(sweep, watch, monkeypatch):
    looks = []

    def look(directory, of=watching._look):
        looks.append(1)
        if len(looks) == 3:
            change(directory / "job-5", status="COMPLETED")
        if len(looks) == 5:
            sweep.remove()
        return of(directory)

    monkeypatch.setattr(watching, "_look", look)
    status, out, _ = watch("sweep")
    assert status == 1  # one has failed
    assert out[5:] == [
        "[5/8] seed=5 eta=0.01: COMPLETED, loss 0.78, recall error 0.75",
        "ended: 2 of 3 COMPLETED",
    ]


def test_jobs_that_ended_since_are_counted_one_by_one(sweep, capsys):
    change(sweep.directory / "job-4", status="COMPLETED", error=None)
    watching.Teller().tell(watching.progress(sweep.directory))
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "[4/8] seed=3 eta=0.01",
        "[5/8] seed=4 eta=0.01",
    ]


def test_a_run(watch, tmp_path):
    write_run("run", rows=training_rows(2), status="RUNNING", **MINE)
    status, out, _ = watch("run", "--once")
    assert status == 0
    assert out[1:] == [
        "  run: iteration 2/3, loss 0.78, recall error 0.75, ~0 s left",
        f"    process {os.getpid()} on {platform.node()}; log: run/eprop-run.log",
    ]
    change("run", pid=2**22 + 1)  # beyond what Linux gives
    assert standing(Path("run")).status == "KILLED"
    assert watch("run")[0] == 1
    change("run", status="COMPLETED")
    assert watch("run")[0] == 0


def test_a_run_of_which_nothing_is_heard(tmp_path):
    directory = write_run(tmp_path / "run", rows=training_rows(2), status="RUNNING", **MINE)
    os.utime(directory / "metrics.csv", (time.time() - 600,) * 2)
    assert standing(directory).words() == "iteration 2/3, loss 0.78, recall error 0.75, nothing new for ~10 min"


def test_of_a_test_the_means(tmp_path):
    rows = [*training_rows(3), *(batch_row(3, "test", loss, 0.5, 0.5, 1.0, 1.0, 1.0) for loss in (0.25, 0.75))]
    assert standing(write_run(tmp_path / "run", rows=rows)).words() == "COMPLETED, loss 0.5, recall error 0.5"


@pytest.mark.parametrize(("name", "message"), [("no", "no: no such directory"), (".", ".: no run directory in there")])
def test_where_there_is_no_run(watch, name, message):
    status, out, err = watch(name)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"eprop-watch: {message}")


def test_durations():
    given = (3, 89, 100, 5000, 6000, 200_000)
    assert [duration(seconds) for seconds in given] == ["~3 s", "~89 s", "~2 min", "~83 min", "~2 h", "~2 days"]


def test_a_terminal_has_a_line_that_is_written_over(sweep, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    teller = watching.Teller()
    teller.tell(watching.progress(sweep.directory))
    teller.close()
    ended, failed, live = capsys.readouterr().out.split("\n")
    assert ended.endswith("[4/8] seed=3 eta=0.01: COMPLETED, loss 0.76, recall error 0.75")
    assert failed.endswith("[4/8] seed=4 eta=0.01: FAILED (the loss became nan)")
    *_, line, empty = live.split("\r\x1b[2K")
    assert line == "[4/8] 1 running, 2 waiting, 1 failed, ~60 s left | seed=5 eta=0.01: iteration 2"
    assert empty == ""


def test_the_log_says_versions_config_and_warnings_while_the_run_goes_on(eprop_run, tmp_path):
    (tmp_path / "warns.py").write_text(
        "import warnings\nfrom eprop_cli.tasks.sine_waves import SineWaves\n\n"
        "class Warns(SineWaves):\n    def batch(self, rng):\n        warnings.warn('odd numbers')\n"
        "        return super().batch(rng)\n"
    )
    task = ("task=sine_waves", "task.name=warns:Warns", "task.steps.sequence=100", "task.periods=[50,20]")
    quick = ("training=data_parallel", "engine=compiled", "task.n_iter=1", "training.n_iter_test=0", *BARE)
    done = eprop_run(*task, *quick, "neuron.n_reg=4", "neuron.n_ad=4", "hydra.run.dir=run")
    assert done.returncode == 0
    log = (tmp_path / "run" / "eprop-run.log").read_text()
    assert "command: eprop-run task=sine_waves task.name=warns:Warns" in log
    assert f"versions: python {platform.python_version()}, eprop-cli " in log
    assert "\n  neuron.n_reg=4\n" in log
    assert "UserWarning: odd numbers" in log
    assert "odd numbers" in done.stderr
    assert "odd numbers" not in done.stdout


def test_the_log_has_rows_where_a_terminal_has_a_bar(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(run_progress.log_to_file, "propagate", True)
    caplog.set_level("INFO")
    with run_progress.reporter(config(*SMALL, "task.n_iter=1")) as report:
        report(batch_row(1, "training", 0.5, 0.5, 0.5, 1.0, 1.0, 1.0))
    assert [record.name for record in caplog.records if "iteration 1/1: loss 0.5" in record.getMessage()] == [
        "eprop_cli.file"
    ]


def test_warnings_are_kept_once(monkeypatch, caplog):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *a, **k: shown.append(str(a[0])))
    monkeypatch.setattr(run_progress.log_to_file, "propagate", True)
    keep_warnings()
    keep_warnings()
    warnings.showwarning(UserWarning("odd"), UserWarning, "file.py", 3)
    assert shown == ["odd"]
    assert [record.getMessage() for record in caplog.records] == ["UserWarning: odd (file.py:3)"]
