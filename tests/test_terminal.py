"""What all commands share at the terminal."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from eprop_cli import __version__
from eprop_cli.terminal import WIDTH, leave, narrow
from eprop_cli.versions import version_line

COMMANDS = sorted(entry.name for entry in importlib.metadata.distribution("eprop-cli").entry_points)


def words(command):
    """A command as subprocess takes it."""
    program, *options = command.split()
    return [Path(sys.executable).with_name(program), *options]


def output(command, option):
    environment = os.environ | {"COLUMNS": str(WIDTH)}
    done = subprocess.run(words(f"{command} {option}"), capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "command", ["eprop-run --help", "eprop-run --cfg job", "eprop-run --version", "eprop-plot --help"]
)
def test_a_reader_may_have_had_enough(command, buffered):
    """As head has, or a pager that is left."""
    environment = os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"}
    ours, its = os.pipe()
    os.close(ours)
    done = subprocess.run(words(command), stdout=its, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(its)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failure_stays_one_though_nobody_reads_it(monkeypatch):
    ours, its = os.pipe()
    os.close(ours)
    with os.fdopen(its, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ending:
            leave("eprop-run", lambda: print("what nobody reads") or 1)
    assert ending.value.code == 1


@pytest.mark.parametrize("command", ["eprop-run --help", "eprop-compare --version"])
def test_a_full_disk_is_told_in_one_line(command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words(command), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, f"{command.split()[0]}: No space left on device\n")


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
