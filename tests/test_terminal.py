"""What all commands share at the terminal."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from eprop_cli import __version__
from eprop_cli.terminal import WIDTH, narrow
from eprop_cli.versions import version_line

COMMANDS = sorted(entry.name for entry in importlib.metadata.distribution("eprop-cli").entry_points)


def output(command, option):
    path = Path(sys.executable).with_name(command)
    environment = os.environ | {"COLUMNS": str(WIDTH)}
    done = subprocess.run([path, option], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    return done.stdout


def test_there_are_commands():
    assert {"eprop-run", "eprop-plot", "eprop-compare", "eprop-verify"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command):
    numpy, python = importlib.metadata.version("numpy"), platform.python_version()
    line = output(command, "--version")
    assert line.startswith(f"{command} {__version__} (NEST 3.")
    assert line.endswith(f"NumPy {numpy}, Python {python})\n")
    assert "Numba 0." in line


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("eprop_cli.versions.SHOWN", {"NEST": "no-such-package", "NumPy": "numpy"})
    assert version_line("eprop-run").startswith(f"eprop-run {__version__} (no NEST, NumPy ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_on_a_terminal(command):
    lines = output(command, "--help").splitlines()
    assert len(lines) > 10
    assert [line for line in lines if len(line) > WIDTH] == []


def test_long_lines_are_folded_and_no_word_is_lost(capsys):
    words = [f"word{n}" for n in range(40)]
    with narrow():
        print("  short   line")
        print(*words)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "  short   line"
    assert max(map(len, others)) <= WIDTH
    assert " ".join(others).split() == words
