import math

import pandas as pd
import pytest
from small import SMALL, config

from eprop_cli.errors import ConfigError
from eprop_cli.objectives import OBJECTIVES

METRICS = pd.DataFrame(
    [
        ("training", 0.9, 0.50),
        ("validation", 0.8, 0.40),
        ("training", 0.2, 0.25),
        ("training", 0.6, 0.75),
        ("validation", 0.7, 0.30),
        ("early_stopping", 0.0, 0.00),
        ("test", 0.5, 0.125),
        ("test", 0.25, 0.375),
    ],
    columns=["phase", "loss", "recall_error"],
)
VALUES = {
    "loss": 0.6,
    "best_loss": 0.2,
    "recall_error": 0.75,
    "val_loss": 0.7,
    "val_error": 0.30,
    "test_loss": 0.375,
    "test_error": 0.25,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_value(name):
    assert OBJECTIVES[name].value(METRICS) == VALUES[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_rows_there_is_none(name):
    assert math.isnan(OBJECTIVES[name].value(METRICS.iloc[:0]))


def test_a_loss_that_is_nan_is_seen():
    metrics = METRICS.assign(loss=[math.nan] * len(METRICS))
    assert all(math.isnan(OBJECTIVES[name].value(metrics)) for name in ("loss", "best_loss", "test_loss"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objective=val_los"],
            "objective=val_los: must be one of loss, best_loss, recall_error, val_loss, val_error, test_loss, "
            "test_error",
        ),
        (["objective=test_error"], "objective=test_error: needs a test; set training.n_iter_test, e.g. to 4"),
        (["objective=val_loss"], "objective=val_loss: needs validation; set training.do_early_stopping=true"),
        (
            ["objective=recall_error", "neuron.out.loss=mean_squared_error"],
            "objective=recall_error: needs classes; set neuron.out.loss=cross_entropy, or choose a loss",
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
    ],
)
def test_the_remedies_help(overrides):
    assert config(*SMALL, *overrides).objective == overrides[0].split("=")[1]
