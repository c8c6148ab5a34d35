"""Files and arguments of any content are read, or refused in one line; benchmarks.fuzz goes on for longer."""

import os
import random
import shutil

import pytest

from benchmarks.fuzz import ARGUMENTS as RUN
from benchmarks.fuzz import EXECUTED, argue, attempt, contents, make_run
from eprop_cli import api
from eprop_cli.errors import UserError

ATTEMPTS, ARGUMENTS = 300, 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("first", range(0, ATTEMPTS, 50))
def test_files(whole, tmp_path, monkeypatch, first):
    monkeypatch.chdir(whole.parent)
    config = api.compose([*RUN, "task.n_iter=5"])
    for seed in range(first, first + 50):
        try:
            attempt(whole, tmp_path, seed, config)
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error


def test_arguments(whole, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for seed in range(ARGUMENTS):
        try:
            argue(seed)
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error
    assert not os.path.exists(EXECUTED)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def longer(whole, tmp_path_factory):
    """The run, trained on undisturbed."""
    directory = shutil.copytree(whole, tmp_path_factory.mktemp("longer") / "run")
    (directory / "sweep.json").unlink()
    assert resumed(directory) is None
    return directory


def resumed(directory):
    """Train a run for longer; returns why it was refused, if it was."""
    try:
        api.run([f"resume={directory}", "task.n_iter=4"])
    except UserError as error:
        return str(error)
    return None


def table(directory):
    return [line.rsplit(",", 1)[0] for line in (directory / "metrics.csv").read_text().splitlines()]


@pytest.mark.parametrize("seed", range(25))
def test_a_file_that_was_cut_off_is_refused_or_makes_no_difference(whole, longer, tmp_path, seed):
    directory = shutil.copytree(whole, tmp_path / "run")
    (directory / "sweep.json").unlink()
    chosen = random.Random(seed)
    path = chosen.choice(sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".log"))
    path.write_bytes(path.read_bytes()[: chosen.randrange(path.stat().st_size)])
    before = contents(directory)
    refused = resumed(directory)
    if refused is None:
        assert table(directory) == table(longer)
        assert (directory / "weights.npz").read_bytes() == (longer / "weights.npz").read_bytes()
    else:
        assert "\n" not in refused
        assert contents(directory) == before
