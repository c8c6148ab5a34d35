"""What all tests share: a clean slate, and the commands as a user starts them."""

import gc
import os
import signal
import sys
from contextlib import contextmanager

import pytest
from forked import all_is_imported, run_command
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from small import Here

from eprop_cli.sweeps.callback import MULTIRUN


def pytest_collection_finish():
    """What is imported by now stays: looking through it for what may go takes the garbage collector a tenth of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    all_is_imported()


def pytest_sessionfinish():
    """At the end pytest looks for what may go five times; once is enough."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _settings_of_nobody(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))


@pytest.fixture(autouse=True)
def _no_variable_left_over():
    """What a command sets in this process is not there for the next, which could not be forked with it (forked.py)."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _no_hydra_left_over():
    GlobalHydra.instance().clear()
    JobRuntime.instance().set(MULTIRUN, None)


@pytest.fixture(autouse=True)
def _hangups_reach_what_a_test_starts():
    """Under nohup SIGHUP is ignored, which processes inherit; a handler they do not, and pytest goes on as before."""
    before = signal.getsignal(signal.SIGHUP)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def eprop_run(tmp_path):
    """Run eprop-run in a process of its own, in an empty directory."""

    def run(*arguments, cwd=tmp_path, **options):
        return run_command(*arguments, cwd=cwd, **options)

    return run


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Run a command by its name and entry point in this process: exit status, what is on stdout and on stderr."""

    def run(name, entry, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            entry()
        return ending.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def in_lines(in_process):
    """As in_process, with lines in place of texts."""

    def run(*command):
        status, out, err = in_process(*command)
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def nest_here(monkeypatch):
    """NEST simulates in this process, not in workers, each of which takes a second to start."""
    monkeypatch.setattr("eprop_cli.engines.nest.engine.Workers", Here)


@pytest.fixture
def watchers(monkeypatch):
    """Functions that run() calls with each row once it has been written; in place of what it would print."""
    functions = []

    @contextmanager
    def reporter(_config, _done):
        yield lambda row: [function(row) for function in functions]

    monkeypatch.setattr("eprop_cli.runs.run.reporter", reporter)
    return functions


@pytest.fixture
def package(tmp_path):
    """Makes a package, made_up, of files given as path -> source."""

    def make(files):
        for name, source in files.items():
            path = tmp_path / "made_up" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / "made_up"

    return make
