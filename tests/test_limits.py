import numpy as np
import pytest
from small import BARE, SMALL, config

from eprop_cli.engines.limits import check_limits
from eprop_cli.engines.nest import engine as nest_engine
from eprop_cli.errors import ConfigError
from eprop_cli.training.base import check_ready, make_trainer

PARALLEL = ("training=data_parallel",)
COMPILED = (*PARALLEL, "engine=compiled")
FIRST_STEP = "must not make neurons fire in the first step; lower it, or raise V_th"
EACH_FIRST_STEP = "must not make neurons fire in the first step of a sequence; lower it, or raise V_th"
DASK = ("engine.backend=dask", "engine.scheduler=tcp://127.0.0.1:8786")


def steps(n):
    """Overrides for a sequence of n steps."""
    return (
        f"task.steps={{cue: 1, spacing: 0, bg_noise: 0, recall: {n - 1}}}", "task.n_cues=1",
        "task.steps.learning_window=2", "neuron.out.loss=mean_squared_error", "task.input_spike_prob=0.9",
        "synapse.weight_scale.in_rec=10",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (steps(4), "task.sequence_steps=4: must be at least 5; make the sequence longer"),
        (["neuron.rec.V_m=0.7"], f"neuron.reg.V_m=0.7: {FIRST_STEP}"),
        (["neuron.ad.V_m=0.7", *PARALLEL], f"neuron.ad.V_m=0.7: {FIRST_STEP}"),
        (
            ["neuron.ad.adaptation=-200", *COMPILED],
            "neuron.ad.adaptation=-200.0: must not make neurons fire in the first step; raise it",
        ),
        (["neuron.reg.E_L=1e9"], f"neuron.reg.E_L=1000000000.0: {FIRST_STEP}"),
        (["neuron.ad.I_e=0.65"], f"neuron.ad.I_e=0.65: {FIRST_STEP}"),
        (["neuron.rec.I_e=0.65", *PARALLEL], f"neuron.reg.I_e=0.65: {EACH_FIRST_STEP}"),
        (["neuron.ad.I_e=0.65", *COMPILED], f"neuron.ad.I_e=0.65: {EACH_FIRST_STEP}"),
        (
            ["neuron.ad.E_L=0.7", *PARALLEL],
            "neuron.ad.E_L=0.7: must be below V_th (0.6), or neurons fire in the first step of each sequence",
        ),
    ],
    ids=str,
)
def test_what_an_engine_cannot_compute_is_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        check_ready(config(*SMALL, *overrides))
    assert str(error.value) == message


def test_dask_is_asked_for(monkeypatch):
    monkeypatch.setattr(nest_engine, "find_spec", lambda package: None if package == "distributed" else package)
    with pytest.raises(ConfigError) as error:
        check_ready(config(*SMALL, *PARALLEL, *DASK))
    told = "needs distributed, which is not installed; pip install '.[dask]' in the checkout"
    assert str(error.value) == f"engine.backend=dask: {told}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["neuron.rec.V_m=0.62"],  # has leaked to below 0.6 after a step
        ["neuron.rec.I_e=0.6", *PARALLEL],  # leads to 0.585 in a step
        ["neuron.rec.E_L=0.7"],
        ["neuron.n_ad=0", "neuron.ad.V_m=0.7"],
        ["neuron.n_reg=0", "neuron.reg.V_m=0.7"],
    ],
    ids=str,
)
def test_what_does_not_fire_at_once_is_accepted(overrides):
    check_limits(config(*SMALL, *overrides))


@pytest.mark.nest
def test_the_shortest_sequence_is_computed_alike():
    losses = []
    for overrides in ([], [*COMPILED, "training.as_continuous=true", "training.n_iter_test=0"]):
        settings = config(*SMALL, *BARE, *steps(5), *overrides)
        check_ready(settings)
        trainer = make_trainer(settings)
        losses.append([record.row.metrics["loss"] for record in trainer.records()])
        trainer.close()
    np.testing.assert_allclose(*losses, rtol=1e-12)
    assert len(set(losses[0])) == 5
