"""Files and arguments of any content are read, or refused in one line; benchmarks.fuzz, cuts and soak take longer."""

import os
import random

import pytest

from benchmarks import cuts, soak
from benchmarks.fuzz import ARGUMENTS as RUN
from benchmarks.fuzz import EXECUTED, argue, attempt, make_run
from eprop_cli import api

ATTEMPTS, ARGUMENTS = 300, 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] * (first > 0)) for first in range(0, ATTEMPTS, 25)]
)
def test_files(whole, tmp_path, monkeypatch, first):
    monkeypatch.chdir(whole.parent)
    config = api.compose([*RUN, "task.n_iter=5"])
    for seed in range(first, first + 25):
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
    return cuts.make_longer(whole, tmp_path_factory.mktemp("longer") / "run")


@pytest.mark.parametrize("seed", range(10))
def test_a_file_that_was_cut_off_is_refused_or_makes_no_difference(whole, longer, tmp_path, seed):
    chosen = random.Random(seed)
    file = chosen.choice([file for file in cuts.files(whole) if file.name != "sweep.json"])
    assert cuts.cut(whole, longer, tmp_path / "run", file, chosen) in ("refused", "resumed exactly")


def test_many_runs_in_a_process_leave_nothing_over(tmp_path):
    made = soak.Soak(tmp_path, seed=1)
    made.step()  # what is loaded once
    before = soak.left_over(tmp_path)
    for _ in range(12):
        made.step()
    assert soak.left_over(tmp_path) == before
    assert sum(made.counts.values()) == 13
