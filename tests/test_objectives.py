import math

import pandas as pd
import pytest
from small import SMALL, config

from eprop_cli.columns import HIGHER, LOWER
from eprop_cli.errors import ConfigError
from eprop_cli.objectives import parse_objective

METRICS = pd.DataFrame(
    [
        ("training", 0.9, 0.50, 0.5),
        ("validation", 0.8, 0.40, 0.6),
        ("training", 0.2, 0.25, 0.75),
        ("training", 0.6, 0.75, 0.25),
        ("validation", 0.7, 0.30, 0.7),
        ("early-stopping", 0.0, 0.00, 1.0),
        ("test", 0.5, 0.125, 0.875),
        ("test", 0.25, 0.375, 0.625),
    ],
    columns=["phase", "loss", "recall_error", "accuracy"],
)
BETTER = {"loss": LOWER, "recall_error": LOWER, "accuracy": HIGHER}
VALUES = {
    "loss": 0.6,
    "best_loss": 0.2,
    "mean2_loss": 0.4,
    "mean99_accuracy": 0.5,
    "mean2_val_error": 0.35,
    "median3_loss": 0.6,
    "median2_loss": 0.4,
    "median99_loss": 0.6,
    "recall_error": 0.75,
    "error": 0.75,
    "best_error": 0.25,
    "accuracy": 0.25,
    "best_accuracy": 0.75,
    "val_loss": 0.7,
    "val_error": 0.30,
    "best_val_loss": 0.7,
    "best_val_accuracy": 0.7,
    "median2_val_error": 0.35,
    "test_loss": 0.375,
    "test_error": 0.25,
    "test_accuracy": 0.75,
    "best_test_loss": 0.25,
}


@pytest.mark.parametrize("name", VALUES)
def test_value(name):
    assert parse_objective(name, BETTER).value(METRICS) == pytest.approx(VALUES[name], rel=1e-15)


@pytest.mark.parametrize("name", VALUES)
def test_without_rows_there_is_none(name):
    assert math.isnan(parse_objective(name, BETTER).value(METRICS.iloc[:0]))


def test_a_loss_that_is_nan_is_seen():
    metrics = METRICS.assign(loss=[math.nan] * len(METRICS))
    names = ("loss", "best_loss", "median3_loss", "test_loss")
    assert all(math.isnan(parse_objective(name, BETTER).value(metrics)) for name in names)


CHOICES = "must be a metric (loss, recall_error, accuracy), or val_, test_, best_, mean10_ or median5_ of one"


@pytest.mark.parametrize(
    "name",
    ["", "val_los", "val_", "best_", "median_loss", "median0_loss", "val_best_loss", "best_median3_loss",
     "test_val_loss", "loss ", "nrmse", "seconds"],
)  # fmt: skip
def test_what_is_no_objective_is_refused(name):
    with pytest.raises(ConfigError) as refused:
        parse_objective(name, BETTER)
    assert str(refused.value) == f"objective={name}: {CHOICES}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objective=val_los"],
            "objective=val_los: must be a metric (loss, accuracy, recall_error, rate_reg, rate_ad), or val_, test_, "
            "best_, mean10_ or median5_ of one",
        ),
        (["objective=test_error"], "objective=test_error: needs a test; set training.n_iter_test, e.g. to 4"),
        (["objective=val_loss"], "objective=val_loss: needs validation; set training.do_early_stopping=true"),
        (
            ["objective=best_val_error"],
            "objective=best_val_error: needs validation; set training.do_early_stopping=true",
        ),
        (
            ["objective=median3_test_loss"],
            "objective=median3_test_loss: needs a test; set training.n_iter_test, e.g. to 4",
        ),
        (
            ["objective=nrmse"],
            "objective=nrmse: must be a metric (loss, accuracy, recall_error, rate_reg, rate_ad), or val_, test_, "
            "best_, mean10_ or median5_ of one",
        ),
        (
            ["objective=rate_ad", "neuron.n_ad=0"],
            "objective=rate_ad: must be a metric (loss, accuracy, recall_error, rate_reg), or val_, test_, best_, "
            "mean10_ or median5_ of one",
        ),
    ],
)
def test_an_objective_that_a_run_will_not_have_is_refused(overrides, message):
    with pytest.raises(ConfigError) as refused:
        config(*SMALL, *overrides)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=test_loss", "training.n_iter_test=1"],
        ["objective=val_error", "training.do_early_stopping=true"],
        ["objective=best_loss", "neuron.out.loss=mean_squared_error"],
        ["objective=recall_error", "neuron.out.loss=mean_squared_error"],  # the task has classes whatever the loss
        ["objective=median5_val_accuracy", "training.do_early_stopping=true"],
        ["objective=rate_reg"],
    ],
)
def test_the_remedies_help(overrides):
    assert config(*SMALL, *overrides).objective == overrides[0].split("=")[1]
