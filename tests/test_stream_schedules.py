"""Learning rates that change from batch to batch in one simulation that goes on: both engines, resumed, evaluated."""

import numpy as np
import pytest
from small import BARE, ONLINE, SMALL, config

from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.engines.compiled.stream import CompiledStream
from eprop_cli.runs.checkpoint import load_checkpoint, save_checkpoint
from eprop_cli.training.base import make_trainer

COSINE = "optimizer.schedule={name: cosine, warmup: 2, cosine_iter: 6, eta_min: 1e-5}"
STEP = "optimizer.schedule={name: step, step_every: 2, step_factor: 0.3}"
STREAM = (*ONLINE, *BARE, "engine=compiled", "task.n_iter=6")
VALIDATED = (
    "training.do_early_stopping=true", "training.n_iter_validate_every=2", "training.stop_crit=0",
    "training.n_iter_test=1",
)  # fmt: skip
ASIDE = (*VALIDATED, "training.evaluation=aside")
ALL_FIRE = ("task.n_batch=3", "neuron.rec.V_th=0.1")


def train(*overrides, checkpoint=None):
    """Losses by phase, and weights."""
    trainer = make_trainer(config(*overrides), checkpoint)
    try:
        losses = [(record.row.phase, record.row.metrics["loss"]) for record in trainer.records()]
        return losses, trainer.weights()
    finally:
        trainer.close()


def of_training(losses):
    return [loss for phase, loss in losses if phase == "training"]


@pytest.mark.parametrize("schedule", [COSINE, STEP])
def test_each_phase_has_its_learning_rate(schedule, monkeypatch):
    given, begin = [], CompiledStream.begin

    def begin_and_tell(stream, batch, eta, record):
        given.append(eta)
        return begin(stream, batch, eta, record)

    monkeypatch.setattr(CompiledStream, "begin", begin_and_tell)
    train(*STREAM, *VALIDATED, "optimizer.eta=1e-3", schedule)
    rescaled = np.array(given) / (1.0 - config(*STREAM).neuron.rec.kappa) ** 2
    half = 1e-5 + 0.99e-3 * 0.5 * (1 + np.sqrt(0.5))  # cosine, a quarter of the way from iteration 2 to 6
    low = 1e-5 + 0.99e-3 * 0.5 * (1 - np.sqrt(0.5))
    rates = [5e-4, 1e-3, 1e-3, half, 0.505e-3, low] if schedule == COSINE else [1e-3, 1e-3, 3e-4, 3e-4, 9e-5, 9e-5]
    expected = [0.0, *rates[:2], 0.0, *rates[2:4], 0.0, *rates[4:], 0.0]  # inline: 0 where nothing is to be learned
    assert rescaled == pytest.approx(expected)


@pytest.mark.nest
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((COSINE,), id="gradient descent"),
        pytest.param((STEP, *VALIDATED), id="validated"),
        pytest.param((STEP, "optimizer=adam", "optimizer.eta=1e-3", "synapse.batch_size=50"), id="adam"),
        pytest.param(
            (COSINE, "optimizer=adam", "optimizer.eta=1e-3", "synapse.optimize_each_step=true"), id="each step"
        ),
    ],
)
def test_the_engines_agree(overrides):
    shared = (*STREAM, "training.evaluation=inline", *overrides)
    (expected, weights), (losses, others) = (train(*shared, f"engine={name}") for name in ("nest", "compiled"))
    assert [phase for phase, _ in losses] == [phase for phase, _ in expected]
    np.testing.assert_allclose([loss for _, loss in losses], [loss for _, loss in expected], rtol=1e-12)
    constant, _ = train(*shared, "optimizer.schedule={name: constant, warmup: 0}")
    assert np.abs(np.array(of_training(losses)) / of_training(constant) - 1)[2:].max() > 1e-9
    for projection in PLASTIC:
        np.testing.assert_allclose(others[projection], weights[projection], rtol=0.0, atol=1e-12, err_msg=projection)


@pytest.mark.nest
@pytest.mark.parametrize(
    "overrides", [(COSINE, *ALL_FIRE), (STEP, "optimizer=gradient_descent")], ids=["adam", "gradient descent"]
)
def test_a_gradient_has_the_learning_rate_of_its_batch(overrides):
    """Also that of a neuron that is silent in the next batch; with Adam all neurons fire here."""
    shared = (*SMALL, *BARE, "task.n_iter=8", *overrides)
    losses, weights = train(*shared)
    parallel = ("training=data_parallel", "training.as_continuous=true", "training.n_iter_test=0", "engine=compiled")
    expected, others = train(*shared, *parallel)
    np.testing.assert_allclose(of_training(losses), of_training(expected), rtol=1e-12)
    for projection in ("rec_rec", "rec_out"):  # what inputs lose at the end depends on a batch that does not come
        np.testing.assert_allclose(weights[projection], others[projection], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("schedule", [COSINE, STEP])
def test_evaluation_aside_touches_nothing(schedule):
    alone, weights = train(*STREAM, schedule)
    losses, others = train(*STREAM, schedule, *ASIDE)
    assert len(losses) == len(alone) + 4
    assert of_training(losses) == of_training(alone)
    np.testing.assert_equal(others, weights)


@pytest.mark.parametrize("ways", [(COSINE,), (COSINE, *ASIDE), (STEP, *VALIDATED)], ids=["plain", "aside", "inline"])
def test_a_resumed_run_has_the_same_bits(ways, tmp_path):
    overrides = (*STREAM, *ways)
    whole, weights = train(*overrides)
    trainer = make_trainer(config(*overrides))
    records = trainer.records()
    for record in records:
        if (record.row.iteration, record.row.phase) == (4, "training"):
            break
    save_checkpoint(tmp_path, trainer.commit())
    trainer.close()
    checkpoint = load_checkpoint(tmp_path, config(*overrides))
    losses, others = train(*overrides, checkpoint=checkpoint)
    assert losses == whole[-len(losses) :]
    assert 0 < len(losses) < len(whole)
    np.testing.assert_equal(others, weights)
