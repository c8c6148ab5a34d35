import math

import numpy as np
import pytest

from eprop_cli.losses import accuracy, cross_entropy, firing_rate, mean_squared_error

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
    assert mean_squared_error(readout, np.zeros((2, 3, 4))) == pytest.approx(0.5 * (4 * 4 + 9) / 3)
    assert mean_squared_error(readout, readout) == 0.0


def test_accuracy_takes_the_mean_over_time():
    readout = np.array([[[0.9, 0.4, 0.4], [0.4, 0.4, 0.4]], [[0.1, 0.6, 0.6], [0.6, 0.6, 0.6]]])  # means 0.567, 0.4
    assert accuracy(readout, one_hot([0, 0], n_steps=3)) == 0.5
    assert accuracy(readout, one_hot([0, 1], n_steps=3)) == 1.0
    assert accuracy(readout, one_hot([1, 0], n_steps=3)) == 0.0


def test_firing_rate():
    assert firing_rate(30, 10, 1500.0) == pytest.approx(2.0)
    assert math.isnan(firing_rate(0, 0, 1500.0))
