"""What all tests share: NEST without its banner, and eprop-run as a user starts it."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

os.environ.setdefault("PYNEST_QUIET", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # NEST's threads spin otherwise, for minutes on a busy machine

if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    # Under nohup what is started here would ignore it, too; of a handler it knows nothing.
    signal.signal(signal.SIGHUP, lambda *_: None)

EPROP_RUN = str(Path(sys.executable).with_name("eprop-run"))


@pytest.fixture(autouse=True)
def _no_hydra_left_over():
    GlobalHydra.instance().clear()


@pytest.fixture
def eprop_run(tmp_path):
    """Run eprop-run in a process of its own, in an empty directory."""

    def run(*overrides, cwd=tmp_path, timeout=300, **options):
        command = [EPROP_RUN, *map(str, overrides)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, **options)

    return run


@pytest.fixture
def watchers(monkeypatch):
    """Functions that run() calls with each row once it has been written; in place of what it would print."""
    functions = []

    @contextmanager
    def reporter(_config, _done):
        yield lambda row: [function(row) for function in functions]

    monkeypatch.setattr("eprop_cli.runs.run.reporter", reporter)
    return functions
