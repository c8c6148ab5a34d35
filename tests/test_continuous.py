"""Continuous training beside the tutorial that ships in NEST's wheel."""

import csv

import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.engines.nest.shipped import find_script, losses
from eprop_cli.runs.reader import Run
from eprop_cli.runs.run import Ending, run
from eprop_cli.training.continuous import Continuous

pytestmark = pytest.mark.nest

# Validation every second iteration; 0.6 stops early where one of two sequences is right.
NUMBERS = {
    "n_iter_validate_every": 2,
    "n_iter_early_stop": 2,
    "n_iter_test": 3,
    "stop_crit": 0.6,
    "do_early_stopping": True,
}


@pytest.mark.parametrize("n_batch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_phases_and_losses_are_those_of_the_shipped_tutorial(n_batch, tmp_path, eprop_run):
    settings = {"task.n_batch": n_batch, "task.n_iter": 5} | {
        f"training.{key}": value for key, value in NUMBERS.items()
    }
    (tmp_path / "script").mkdir()
    expected = losses(find_script("tutorial_3_10"), settings, tmp_path / "script")

    overrides = [f"{key}={value}" for key, value in settings.items()]
    ending = eprop_run(*overrides, "plots=none", "hydra.run.dir=run")
    assert ending.returncode == 0, ending.stderr
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == [phase for phase, _ in expected]
    assert {"training", "validation", "test"} <= {row["phase"] for row in rows}
    losses_here = [float(row["loss"]) for row in rows]
    np.testing.assert_allclose(losses_here, [loss for _, loss in expected], rtol=1e-12)


def test_validation_and_test_leave_the_weights_alone():
    validated = Continuous(
        config(*SMALL, *BARE, "task.n_iter=0", "training.n_iter_test=4", "training.do_early_stopping=true")
    )
    assert [record.row.phase for record in validated.records()] == ["test"] * 4
    weights = validated.weights()
    for projection, initial in validated.initial.items():
        np.testing.assert_array_equal(weights[projection], initial, err_msg=projection)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_losses(threads):
    rows = [record.row for record in Continuous(config(*SMALL, *BARE, f"engine.local_num_threads={threads}")).records()]
    one = [record.row for record in Continuous(config(*SMALL, *BARE)).records()]
    np.testing.assert_allclose([row.metrics["loss"] for row in rows], [row.metrics["loss"] for row in one], rtol=1e-12)


def test_a_learning_rate_of_zero_changes_nothing():
    trainer = Continuous(config(*SMALL, *BARE, "optimizer.eta=0"))
    assert len(list(trainer.records())) == 5
    weights = trainer.weights()
    for projection, initial in trainer.initial.items():
        np.testing.assert_array_equal(weights[projection], initial, err_msg=projection)


def test_a_weight_that_became_nan_fails_the_run_though_its_losses_are_finite(tmp_path):
    ending = run(config("experiment=smoke", *BARE, "neuron.ad.gamma=1e9", "task.n_iter=1"), tmp_path)
    assert ending == Ending("FAILED", 1, "a weight of in_rec became infinite or NaN by iteration 1")
    assert np.isfinite(Run(tmp_path).record["last_row"]["loss"])
