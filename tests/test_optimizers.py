import copy
import math

import numpy as np
import pytest
from small import config

from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.connectivity.mask import all_dense
from eprop_cli.connectivity.synapses import InitialMoments
from eprop_cli.optimizers.base import OptimizerState, learning_rate, set_moments

SIZES = {"in": 4, "rec": 3, "out": 2}
SHAPES = {"in_rec": (3, 4), "rec_rec": (3, 3), "rec_out": (2, 3), "out_rec": (3, 2)}


def optimizer(*overrides, name="adam"):
    return config("training=data_parallel", f"optimizer={name}", *overrides).make_optimizer()


def arrays(rng, projections=PLASTIC):
    drawn = {projection: rng.randn(*SHAPES[projection]) for projection in projections}
    np.fill_diagonal(drawn["rec_rec"], 0.0)
    return drawn


@pytest.fixture
def weights():
    return arrays(np.random.RandomState(0), SHAPES)


@pytest.fixture
def gradients():
    rng = np.random.RandomState(1)
    return [arrays(rng) for _ in range(30)]


def take(given, weights, gradients, entries=()):
    state = given.initial_state(weights)
    set_moments(state, all_dense(SIZES), entries)
    for gradient in gradients:
        weights, state = given.optimize(state, weights, gradient)
    return weights, state


def scalar_adam(w, gradients, m=0.0, v=0.0, eta=5e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """One weight, written down from Kingma & Ba (2015), end of section 2, with their epsilon hat."""
    for k, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        w -= eta * math.sqrt(1 - beta_2**k) / (1 - beta_1**k) * m / (math.sqrt(v) + epsilon)
    return w, m, v


@pytest.mark.parametrize("settings", [{}, {"eta": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.01}], ids=str)
def test_adam_is_the_papers_in_every_synapse(weights, gradients, settings):
    given = optimizer(*(f"optimizer.{key}={value}" for key, value in settings.items()))
    after, state = take(given, weights, gradients)
    for projection in PLASTIC:
        for index, before in np.ndenumerate(weights[projection]):
            w, m, v = scalar_adam(before, [gradient[projection][index] for gradient in gradients], **settings)
            assert after[projection][index] == pytest.approx(w, rel=1e-12)
            assert state.moments["m"][projection][index] == pytest.approx(m, rel=1e-12)
            assert state.moments["v"][projection][index] == pytest.approx(v, rel=1e-12)
    assert state.step == len(gradients)
    assert (after["out_rec"] == weights["out_rec"]).all()


def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient(weights, gradients):
    after, _ = take(optimizer("optimizer.epsilon=1e-300"), weights, gradients[:1])
    steps = weights["in_rec"] - after["in_rec"]
    np.testing.assert_allclose(steps, 5e-3 * np.sign(gradients[0]["in_rec"]), rtol=1e-10)


def test_adam_begins_with_initial_moments(weights, gradients):
    entries = [
        InitialMoments(projection="rec_out", pre=2, post=[0, 1], m=0.5, v=0.25),
        InitialMoments(projection="in_rec", pre=3, post=[1], m=-1.0, v=4.0),
    ]
    after, _ = take(optimizer(), weights, gradients, entries)
    for projection, index, m, v in [("rec_out", (1, 2), 0.5, 0.25), ("in_rec", (1, 3), -1.0, 4.0)]:
        w, *_ = scalar_adam(weights[projection][index], [g[projection][index] for g in gradients], m, v)
        assert after[projection][index] == pytest.approx(w, rel=1e-12)
    w, *_ = scalar_adam(weights["in_rec"][0, 3], [g["in_rec"][0, 3] for g in gradients])
    assert after["in_rec"][0, 3] == pytest.approx(w, rel=1e-12)


def test_gradient_descent(weights, gradients):
    after, state = take(optimizer("optimizer.eta=0.25", name="gradient_descent"), weights, gradients[:2])
    for projection in PLASTIC:
        expected = weights[projection] - 0.25 * (gradients[0][projection] + gradients[1][projection])
        np.testing.assert_allclose(after[projection], expected, rtol=1e-12, atol=1e-15)
    assert state == OptimizerState(2, {}, {})


@pytest.mark.parametrize("name", ["adam", "gradient_descent"])
def test_weights_stay_within_their_bounds(weights, gradients, name):
    given = optimizer("optimizer.Wmin=-3", "optimizer.Wmax=2.5", "optimizer.eta=1000", name=name)
    after, _ = take(given, weights, gradients[:1])
    expected = np.where(gradients[0]["in_rec"] > 0, -3.0, 2.5)
    assert (after["in_rec"] == expected).all()


def test_no_autapse_appears_where_zero_is_out_of_bounds(weights, gradients):
    after, _ = take(optimizer("optimizer.Wmin=0.5"), weights, gradients)
    assert (np.diag(after["rec_rec"]) == 0).all()
    assert after["rec_rec"][0, 1] >= 0.5


@pytest.mark.parametrize("name", ["adam", "gradient_descent"])
def test_weight_decay_is_decoupled_from_the_gradient(weights, gradients, name):
    without, _ = take(optimizer(name=name), weights, gradients[:1])
    decayed, _ = take(optimizer("optimizer.weight_decay=0.2", name=name), weights, gradients[:1])
    for projection in PLASTIC:
        expected = without[projection] - 5e-3 * 0.2 * weights[projection]
        np.testing.assert_allclose(decayed[projection], expected, rtol=1e-12, atol=1e-15)


def test_weight_decay_follows_the_schedule(weights):
    nothing = {projection: np.zeros(SHAPES[projection]) for projection in PLASTIC}
    given = optimizer("optimizer.weight_decay=0.2", "optimizer.eta=0.1", "optimizer.schedule.warmup=2")
    after, _ = take(given, weights, [nothing] * 3)
    shrink = (1 - 0.05 * 0.2) * (1 - 0.1 * 0.2) * (1 - 0.1 * 0.2)
    np.testing.assert_allclose(after["in_rec"], shrink * weights["in_rec"], rtol=1e-12)


def test_clipping_scales_the_gradient_of_all_projections_together(weights, gradients):
    norm = math.sqrt(sum((gradients[0][projection] ** 2).sum() for projection in PLASTIC))
    given = optimizer(f"optimizer.clip_norm={norm / 4}", "optimizer.eta=1", name="gradient_descent")
    after, _ = take(given, weights, gradients[:1])
    for projection in PLASTIC:
        expected = weights[projection] - gradients[0][projection] / 4
        np.testing.assert_allclose(after[projection], expected, rtol=1e-12, atol=1e-15)


def test_clipping_leaves_a_small_gradient_alone(weights, gradients):
    plain, _ = take(optimizer(), weights, gradients[:1])
    clipped, _ = take(optimizer("optimizer.clip_norm=1e6"), weights, gradients[:1])
    assert all((plain[projection] == clipped[projection]).all() for projection in PLASTIC)


@pytest.mark.parametrize("name", ["adam", "gradient_descent"])
def test_nothing_given_is_changed(weights, gradients, name):
    given = optimizer("optimizer.weight_decay=0.1", "optimizer.clip_norm=0.1", name=name)
    state = given.initial_state(weights)
    before = copy.deepcopy((weights, vars(state), gradients[0]))
    given.optimize(state, weights, gradients[0])
    np.testing.assert_equal((weights, vars(state), gradients[0]), before)


def rates(n, *overrides):
    given = optimizer("optimizer.eta=0.8", *overrides).config
    return [learning_rate(given.schedule, given.eta, step) for step in range(n)]


def test_a_constant_learning_rate():
    assert rates(3) == [0.8, 0.8, 0.8]


def test_warmup_rises_linearly_to_the_full_rate():
    assert rates(6, "optimizer.schedule.warmup=4") == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_a_step_schedule():
    settings = ["optimizer.schedule.name=step", "optimizer.schedule.step_every=3", "optimizer.schedule.step_factor=0.5"]
    assert rates(7, *settings) == pytest.approx([0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2])


def test_a_cosine_schedule():
    settings = ["optimizer.schedule.name=cosine", "optimizer.schedule.cosine_iter=4", "optimizer.schedule.eta_min=0.2"]
    half = math.sqrt(0.5)
    expected = [0.8, 0.5 + 0.3 * half, 0.5, 0.5 - 0.3 * half, 0.2, 0.2, 0.2]
    assert rates(7, *settings) == pytest.approx(expected)


def test_a_cosine_schedule_begins_after_the_warmup():
    settings = ["optimizer.schedule.name=cosine", "optimizer.schedule.cosine_iter=6", "optimizer.schedule.warmup=2"]
    assert rates(7, *settings) == pytest.approx([0.4, 0.8, *(0.4 * (1 + math.cos(math.pi * k / 4)) for k in range(5))])


def test_a_schedule_is_what_optimize_uses(weights, gradients):
    given = optimizer("optimizer.eta=1", "optimizer.schedule.name=step", "optimizer.schedule.step_every=1")
    descent = optimizer(
        "optimizer.eta=1", "optimizer.schedule.name=step", "optimizer.schedule.step_every=1", name="gradient_descent"
    )
    assert given.config.schedule == descent.config.schedule
    after, _ = take(descent, weights, gradients[:3])
    expected = weights["in_rec"] - sum(0.5**k * gradients[k]["in_rec"] for k in range(3))
    np.testing.assert_allclose(after["in_rec"], expected, rtol=1e-12)


def test_what_nest_is_told():
    bounds = {"Wmin": -100.0, "Wmax": 100.0}
    adam = {"type": "adam", "eta": 0.005, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8} | bounds
    assert optimizer().nest_parameters() == adam
    descent = optimizer("optimizer.eta=0.1", name="gradient_descent").nest_parameters()
    assert descent == {"type": "gradient_descent", "eta": 0.1} | bounds


def test_what_is_kept_per_synapse():
    weights = {projection: np.ones(shape) for projection, shape in SHAPES.items()}
    state = optimizer().initial_state(weights)
    assert set(state.moments) == set(optimizer().moments) == {"m", "v"}
    assert {projection: array.shape for projection, array in state.moments["m"].items()} == {
        projection: SHAPES[projection] for projection in PLASTIC
    }
    assert not optimizer(name="gradient_descent").moments
