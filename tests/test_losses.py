import math

import numpy as np
import pytest

from eprop_cli.columns import HIGHER, LOWER, judged, rate_column
from eprop_cli.losses import (
    CrossEntropy,
    MeanSquaredError,
    accuracy,
    correlation,
    firing_rate,
    nrmse,
    recall_error,
)

cross_entropy, mean_squared_error = CrossEntropy.value, MeanSquaredError.value

N_BATCH, N_STEPS = 3, 5


def one_hot(labels, n_out=2, n_steps=N_STEPS):
    """Targets (n_out, n_batch, n_steps) of the given classes."""
    return np.repeat(np.eye(n_out)[:, labels][:, :, None], n_steps, axis=2)


@pytest.mark.parametrize("n_out", [2, 3, 7])
def test_a_uniform_softmax_has_the_logarithm_of_the_number_of_readouts(n_out):
    readout = np.full((n_out, N_BATCH, N_STEPS), 1 / n_out)
    assert cross_entropy(readout, one_hot([0, 1, 1], n_out)) == pytest.approx(math.log(n_out), rel=1e-14)


def test_a_perfect_prediction_has_no_cross_entropy():
    target = one_hot([0, 1, 1])
    assert cross_entropy(target, target) == 0.0  # with 0 log 0 in it


def test_cross_entropy_of_a_certain_mistake_is_infinite():
    assert cross_entropy(one_hot([1, 1, 1]), one_hot([0, 1, 1])) == math.inf


def test_cross_entropy_in_closed_form():
    readout = np.array([[[0.25, 0.5]], [[0.75, 0.5]]])  # one sequence of two steps
    target = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert cross_entropy(readout, target) == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_cross_entropy_of_targets_that_are_not_certain():
    readout, target = np.array([[[0.5]], [[0.5]]]), np.array([[[0.3]], [[0.7]]])
    assert cross_entropy(readout, target) == pytest.approx(math.log(2))


def test_mean_squared_error_in_closed_form():
    readout = np.zeros((2, 3, 4))
    readout[0, 0] = 2.0  # four steps with an error of 2 in one of three sequences
    readout[1, 2, 1] = -3.0
    assert mean_squared_error(readout, np.zeros((2, 3, 4))) == pytest.approx(0.5 * (4 * 4 + 9) / 3 / 2)
    assert mean_squared_error(readout, readout) == 0.0


def test_accuracy_takes_the_mean_over_time():
    readout = np.array([[[0.9, 0.4, 0.4], [0.4, 0.4, 0.4]], [[0.1, 0.6, 0.6], [0.6, 0.6, 0.6]]])  # means 0.567, 0.4
    assert accuracy(readout, one_hot([0, 0], n_steps=3)) == 0.5
    assert accuracy(readout, one_hot([0, 1], n_steps=3)) == 1.0
    assert accuracy(readout, one_hot([1, 0], n_steps=3)) == 0.0
    assert recall_error(readout, one_hot([0, 0], n_steps=3)) == 0.5


def test_firing_rate():
    assert firing_rate(30, 10, 1500.0) == pytest.approx(2.0)
    assert firing_rate(0, 10, 1500.0) == 0.0


def waves(n_out=1, n_batch=N_BATCH, n_steps=8):
    """Targets of mean 0 and variance 1: steps of 1 and -1 in turn."""
    return np.broadcast_to(np.resize([1.0, -1.0], n_steps), (n_out, n_batch, n_steps)).copy()


def test_nrmse_in_closed_form():
    target = waves()
    assert nrmse(target, target) == 0.0
    assert nrmse(np.zeros_like(target), target) == 1.0  # what a constant at the mean gives
    assert nrmse(-target, target) == 2.0
    assert nrmse(target + 0.25, target) == pytest.approx(0.25)
    assert nrmse(10 * target + 3, 10 * target + 1) == pytest.approx(0.2)  # units and means do not matter


def test_nrmse_of_several_readouts_is_their_root_mean_square():
    target = waves(2)
    readout = target + np.array([3.0, 4.0])[:, None, None]
    assert nrmse(readout, target) == pytest.approx(math.sqrt((9 + 16) / 2))


def test_nrmse_leaves_out_readouts_whose_target_is_constant():
    target = waves(2)
    target[1] = 7.0
    assert nrmse(target + 0.5, target) == pytest.approx(0.5)
    assert nrmse(np.zeros((1, 2, 3)), np.ones((1, 2, 3))) == 0.0


def test_correlation_in_closed_form():
    target = waves()
    assert correlation(3 * target + 2, target) == pytest.approx(1.0)
    assert correlation(-target, target) == pytest.approx(-1.0)
    assert correlation(np.resize([1.0, 1.0, -1.0, -1.0], target.shape), target) == pytest.approx(0.0)
    assert correlation(np.ones_like(target), target) == 0.0
    assert correlation(target, np.ones_like(target)) == 0.0


def test_correlation_is_averaged_over_readouts():
    target = waves(2)
    readout = np.stack([target[0], -target[1]])
    assert correlation(readout, target) == pytest.approx(0.0)
    readout[1] = 5.0
    assert correlation(readout, target) == pytest.approx(0.5)


# The columns that each loss brings


def values(loss, readout, target, has_classes=False):
    return {metric.column.name: metric.value(readout, target) for metric in loss.metrics(len(target), has_classes)}


def test_where_there_are_classes_there_is_an_accuracy():
    target = one_hot([0, 1, 1])
    uniform = np.full_like(target, 0.5)
    assert values(CrossEntropy(), uniform, target, True) == {
        "loss": pytest.approx(math.log(2)), "accuracy": pytest.approx(1 / 3), "recall_error": pytest.approx(2 / 3),
    }  # fmt: skip
    assert values(MeanSquaredError(), target, target, True) == {"loss": 0.0, "accuracy": 1.0, "recall_error": 0.0}


def test_one_readout_has_no_loss_of_its_own():
    target = waves()
    assert values(MeanSquaredError(), target, target) == {"loss": 0.0, "nrmse": 0.0, "correlation": pytest.approx(1.0)}


def test_the_losses_of_several_readouts_are_theirs_and_average_to_the_loss():
    target = waves(3, n_steps=4)
    readout = target + np.array([0.0, 1.0, -2.0])[:, None, None]
    found = values(MeanSquaredError(), readout, target)
    assert list(found) == ["loss", "loss_0", "loss_1", "loss_2", "nrmse", "correlation"]
    assert [found[f"loss_{k}"] for k in range(3)] == pytest.approx([0.0, 0.5 * 4 * 1, 0.5 * 4 * 4])
    assert found["loss"] == pytest.approx(sum(found[f"loss_{k}"] for k in range(3)) / 3)


def test_columns_know_which_way_is_better_and_what_is_possible():
    classes = {metric.column.name: metric.column for metric in CrossEntropy().metrics(2, True)}
    regression = {metric.column.name: metric.column for metric in MeanSquaredError().metrics(2, False)}
    better = {name: column.better for name, column in (classes | regression).items()}
    assert {name for name, way in better.items() if way == HIGHER} == {"accuracy", "correlation"}
    assert set(better.values()) == {LOWER, HIGHER}
    bounds = {name: (column.least, column.most) for name, column in (classes | regression).items()}
    assert bounds["accuracy"] == bounds["recall_error"] == (0.0, 1.0)
    assert bounds["nrmse"] == (0.0, None)
    assert bounds["correlation"] == (-1.0, 1.0)
    assert rate_column("reg", "regular").better == ""


def test_judged_are_the_loss_and_an_error():
    judged_names = [
        [column.name for column in judged([metric.column for metric in loss.metrics(2, has_classes)])]
        for loss, has_classes in ((CrossEntropy(), True), (MeanSquaredError(), True), (MeanSquaredError(), False))
    ]
    assert judged_names == [["loss", "recall_error"], ["loss", "recall_error"], ["loss", "nrmse"]]
