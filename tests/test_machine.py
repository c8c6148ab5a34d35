"""A machine that is not as ours: what its user has set, and what lies about there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import EPROP_RUN
from small import BARE, SMALL
from synthetic_run import write_run
from test_workers import double, make

from eprop_cli.config.arguments import with_quotes
from eprop_cli.engines.nest import workers
from eprop_cli.engines.nest.workers import _not_importable
from eprop_cli.runs.directory import hold

COMPILED = (*SMALL, "training=data_parallel", "engine=compiled", "task.n_iter=1", "task.n_batch=2")
LIBRARY = ("random", "signal", "queue", "socket", "types", "copy", "json", "logging", "numbers")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline"])
def test_no_figure_needs_a_display(tmp_path, backend):
    write_run(tmp_path / "run")
    environment = os.environ | {"MPLBACKEND": backend}
    for command, *arguments in (("eprop-plot", "run", "--dpi", "20"), ("eprop-compare", "run", "--dpi", "20")):
        path = Path(EPROP_RUN).with_name(command)
        done = subprocess.run([path, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "compare.png").exists()


@pytest.fixture
def full_of_modules(tmp_path):
    for name in LIBRARY:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the library')\n")
    return tmp_path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no way to leave the working directory out")
def test_workers_find_the_library(full_of_modules, monkeypatch):
    monkeypatch.chdir(full_of_modules)
    made = make("n_workers=1", "max_retries=0")
    try:
        assert made.map(double, [1, 2], builds=1) == [2, 4]
    finally:
        made.close()
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no way to leave the working directory out")
def test_jobs_find_the_library(full_of_modules, eprop_run):
    done = eprop_run("-m", *COMPILED, *BARE, "seed=1,2", "hydra.sweep.dir=sweep")
    assert (done.returncode, done.stderr) == (0, "")


def stop_once(path):
    """Stop this process for ever, unless the file at path is there already."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return "done"


def test_a_stopped_worker_is_replaced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(workers, "STOPPED_AFTER", 0.5)
    made = make("n_workers=1")
    try:
        assert made.map(stop_once, [tmp_path / "once"], builds=1) == ["done"]
    finally:
        made.close()
    assert "was stopped by a signal and does not go on; another takes its place" in caplog.text


def test_a_worker_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(workers, "STOPPED_AFTER", 0.2)
    made = make("n_workers=1")
    try:
        assert made.map(time.sleep, [1.0], builds=1) == [None]
    finally:
        made.close()


def test_a_module_that_workers_do_not_find_is_named():
    error = RuntimeError("deserialization")
    error.__cause__ = ModuleNotFoundError("No module named 'mine'", name="mine")
    assert _not_importable(error) == "mine"
    assert _not_importable(RuntimeError("x")) is None


@pytest.mark.parametrize("name", ["ü", "日本/путь", "läuft gut", "./a-ü_b"])
def test_paths_of_any_letters_need_no_quotes(name):
    assert with_quotes([f"hydra.run.dir={name}"]) == [f"hydra.run.dir='{name}'"]


def test_what_has_a_meaning_to_hydra_is_left_alone():
    given = ["seed=1,2", "plots.figures=[ü]", "x='ü'", "-m", "--cfg", "job", "task.x=${ü}", "a={b: ü}", "resume=a"]
    assert with_quotes(given) == given


def test_a_run_in_a_directory_of_any_letters(eprop_run, tmp_path):
    done = eprop_run(*COMPILED, *BARE, "hydra.run.dir=ü/日本")
    assert (done.returncode, done.stderr) == (0, "")
    done = eprop_run("resume=ü/日本", "task.n_iter=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "ü" / "日本" / "run.json").read_text())["last_row"]["iteration"] == 2


def test_of_several_resumes_at_once_one_goes_on(eprop_run, tmp_path):
    assert eprop_run(*COMPILED, *BARE, "hydra.run.dir=run").returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    held = hold(tmp_path / "run")  # as the first of them does
    done = eprop_run("resume=run", "task.n_iter=2")
    os.close(held)
    line = "eprop-run: resume=run: is being resumed by another process; wait for it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert eprop_run("resume=run", "task.n_iter=2").returncode == 0


def test_a_run_with_a_cosine_schedule_is_trained_longer(eprop_run):
    cosine = "optimizer.schedule.name=cosine"
    assert eprop_run(*COMPILED, *BARE, cosine, "hydra.run.dir=run").returncode == 0
    done = eprop_run("resume=run", "task.n_iter=2")
    assert (done.returncode, done.stderr) == (0, "")
