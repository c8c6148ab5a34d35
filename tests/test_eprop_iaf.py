"""The online family beside NEST's script and test suite, and in both engines."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from small import BARE, ONLINE, config

from eprop_cli.engines.compiled.online import network
from eprop_cli.errors import ConfigError
from eprop_cli.models.eprop_iaf import RESCALED
from eprop_cli.training.base import check_ready, initial_weights, make_trainer

NEST = Path(find_spec("nest").submodule_search_locations[0])
SCRIPT = NEST / "doc/examples/pynest/eprop_plasticity/eprop_supervised_regression_sine-waves.py"
SUITE = NEST / "share/nest/testsuite/pytests/synapses/test_eprop_plasticity.py"
MODELS = ("eprop_iaf", "eprop_iaf_adapt", "eprop_iaf_psc_delta", "eprop_iaf_psc_delta_adapt")
LEARNING = ("in_rec", "rec_rec", "rec_out")


def train(*overrides):
    """Records, weights and initial weights of a run."""
    trainer = make_trainer(config(*overrides))
    try:
        records = list(trainer.records())
        return records, trainer.weights(), trainer.initial
    finally:
        trainer.close()


def losses(records):
    return [record.row.metrics["loss"] for record in records]


def script(model, seed, n_iter, n_batch, sequence, later=0):
    """Losses and weights of NEST's script. later: steps by which the final spikes come later, and the end."""
    source, _, _ = SCRIPT.read_text().partition("# Plot results")
    numbers = {
        "rng_seed = 1 ": f"rng_seed = {seed} ",
        "group_size = 1 ": f"group_size = {n_batch} ",
        "n_iter = 200 ": f"n_iter = {n_iter} ",
        '"sequence": 1000,': f'"sequence": {sequence},',
        'model_nrn_rec = "eprop_iaf"': f'model_nrn_rec = "{model}"',
        '"extension_sim": 3,': f'"extension_sim": {2 if later else 3},',
        'duration["task"] + duration["delays"]]': f'duration["task"] + duration["delays"] + {later}]',
        "from IPython.display import Image": "Image = None",
    }
    for old, new in numbers.items():
        assert old in source
        source = source.replace(old, new)
    found = {}
    exec(compile(source, SCRIPT, "exec"), found)
    sums = [weights["weight_matrix"].sum() for weights in found["weights_post_train"].values()]
    return found["loss"], sums


@pytest.mark.nest
@pytest.mark.parametrize(
    ("model", "seed", "n_batch", "sequence"),
    [
        pytest.param("eprop_iaf", 1, 1, 1000, marks=pytest.mark.slow),
        ("eprop_iaf", 3, 2, 170),
        ("eprop_iaf_adapt", 2, 1, 120),
        ("eprop_iaf_psc_delta", 2, 2, 130),
        ("eprop_iaf_psc_delta_adapt", 5, 1, 150),
    ],
)
def test_losses_are_those_of_the_shipped_script(model, seed, n_batch, sequence):
    expected, sums = script(model, seed, 3, n_batch, sequence, later=1)
    numbers = ("task.n_iter=3", f"task.n_batch={n_batch}", f"task.steps.sequence={sequence}", f"seed={seed}")
    for engine in ("nest", "compiled"):
        records, weights, _ = train(f"experiment=sine_waves_{model}", f"engine={engine}", *numbers, *BARE)
        np.testing.assert_allclose(losses(records), expected, rtol=1e-10)
        found = [weights[key].sum() for key in LEARNING]
        np.testing.assert_allclose(found, sums, rtol=0.0, atol=1e-10)


def reference_losses():
    """(model, optimizer) -> losses in NEST's own test suite."""
    block = SUITE.read_text().partition('"neuron_model,optimizer,loss_nest_reference",')[2].partition("],\n)\n")[0]
    return {(model, optimizer): values for model, optimizer, values in ast.literal_eval(block.strip() + "]")}


# What NEST's test has other than its script.
SUITE_NUMBERS = (
    "task.n_iter=5", "task.steps.sequence=100", "neuron.rec.surrogate_gradient_width=0.03",
    "synapse.optimize_each_step=true",
)  # fmt: skip
SUITE_OWN = {
    "eprop_iaf": ("optimizer=adam", "optimizer.eta=1e-4", "optimizer.epsilon=1e-7"),
    "eprop_iaf_adapt": (
        "neuron.rec.adapt_beta=0.0174",
        "neuron.rec.adapt_tau=2000",
        f"synapse.rescale=[{','.join(RESCALED)}]",
    ),
}


@pytest.mark.nest
@pytest.mark.parametrize("engine", ["nest", "compiled"])
@pytest.mark.parametrize("model", MODELS)
def test_losses_are_those_of_nests_own_tests(model, engine):
    (expected,) = [values for (name, _), values in reference_losses().items() if name == model]
    overrides = (f"experiment=sine_waves_{model}", f"engine={engine}", *SUITE_NUMBERS, *SUITE_OWN.get(model, ()))
    records, _, _ = train(*overrides, *BARE)
    assert losses(records) == pytest.approx(expected, rel=1e-8)


ADAM = ("optimizer=adam", "optimizer.eta=1e-3")
CONFIGS = {
    **{model: (f"experiment=sine_waves_{model}",) for model in MODELS},
    **{f"{model}, adam": (f"experiment=sine_waves_{model}", *ADAM, "task.n_batch=2") for model in MODELS},
    "phases": (
        "task.n_batch=2", "training.do_early_stopping=true", "training.n_iter_validate_every=2",
        "training.n_iter_early_stop=2", "training.stop_crit=0", "training.n_iter_test=2",
    ),
    "potentials": (
        "neuron.rec.t_ref=3", "neuron.rec.V_min=-0.02", "neuron.rec.I_e=0.001", "neuron.rec.E_L=-0.1",
        "neuron.out.E_L=0.2", "neuron.out.I_e=0.001", "task.n_out=2",
    ),
    "cutoff of a step": ("neuron.rec.eprop_isi_trace_cutoff=1", "neuron.out.eprop_isi_trace_cutoff=1"),
    "no cutoff": ("neuron.rec.eprop_isi_trace_cutoff=null", "neuron.out.eprop_isi_trace_cutoff=null"),
    "batches of steps": ("synapse.batch_size=7", *ADAM),
    "each step": ("synapse.optimize_each_step=true", "neuron.rec.surrogate_gradient_function=exponential"),
    "kept input": (
        "experiment=sine_waves_eprop_iaf_psc_delta", "neuron.rec.t_ref=3", "neuron.rec.refractory_input=true",
        "neuron.rec.surrogate_gradient_function=arctan_derivative",
    ),
    "fast sigmoid": ("neuron.rec.surrogate_gradient_function=fast_sigmoid_derivative", "kernel.resolution=0.5"),
    "moments": (
        *ADAM,
        "synapse.init_optimizer=[{projection: rec_rec, pre: 0, post: [1, 2], m: 0.1, v: 0.2}, {projection: rec_out, "
        "pre: 3, post: [0], m: 0.1, v: 0.2}, {projection: in_rec, pre: 3, post: [2], m: 0.1, v: 0.2}]",
    ),
}  # fmt: skip


@pytest.mark.nest
@pytest.mark.parametrize("way", ["fast", "walk"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_engines_agree(name, way, monkeypatch):
    own = CONFIGS[name]
    overrides = [*(key for key in ONLINE if not (own[0].startswith("experiment") and key.startswith("experiment")))]
    overrides += [*own, "task.n_iter=4", "plots=none", "recording.n_record_w=0"]
    nest, weights, initial = train("engine=nest", *overrides)
    if way == "walk":
        monkeypatch.setattr(network, "_method", lambda *_: network.METHODS["walk"])
    compiled, others, _ = train("engine=compiled", *overrides)
    # Adam divides small gradients by their own size, and so makes much of rounding, unless the sums are NEST's too.
    tolerance = 1e-6 if way == "fast" and "optimizer=adam" in own else 1e-10
    assert [record.row.phase for record in compiled] == [record.row.phase for record in nest]
    for record, other in zip(nest, compiled, strict=True):
        assert list(other.row.metrics.values()) == pytest.approx(list(record.row.metrics.values()), rel=1e-10)
        assert (record.recording is None) == (other.recording is None)
        if record.recording is not None:
            assert_same_tables(record.recording, other.recording, tolerance)
    for projection in LEARNING:
        assert np.abs(weights[projection] - initial[projection]).max() > 1e-7
        np.testing.assert_allclose(
            others[projection], weights[projection], rtol=0.0, atol=tolerance, err_msg=projection
        )


@pytest.mark.nest
def test_the_engines_agree_on_digits():
    given = ("experiment=digits_eprop_iaf", "neuron.n_rec=20", "task.n_batch=4", "task.n_iter=3", *BARE)
    given += ("task.whole_split=false", "training.n_iter_test=0", "training.evaluation=inline")
    (nest, weights, _), (compiled, others, _) = (train(f"engine={name}", *given) for name in ("nest", "compiled"))
    assert losses(compiled) == pytest.approx(losses(nest), rel=1e-10)
    for projection in ("in_rec", "rec_out"):
        np.testing.assert_allclose(others[projection], weights[projection], rtol=0.0, atol=1e-10)


def assert_same_tables(tables, others, tolerance):
    assert tables.keys() == others.keys()
    for name, table in tables.items():
        assert table.keys() == others[name].keys()
        for column, values in table.items():
            found = others[name][column]
            if column == "learning_signal":  # where NEST has erased a row, it records that of another one
                assert np.isclose(found, values, rtol=0.0, atol=tolerance).mean() > 0.95
            elif values.dtype.kind == "f":
                np.testing.assert_allclose(found, values, rtol=0.0, atol=tolerance, err_msg=f"{name} {column}")
            else:
                np.testing.assert_array_equal(found, values, err_msg=f"{name} {column}")


@pytest.mark.parametrize("model", MODELS)
def test_rescaling_can_be_switched_off(model):
    plain, rescaled = (config(f"experiment=sine_waves_{model}", *given) for given in (("synapse.rescale=[]",), ()))
    drawn, used = (initial_weights(each, np.random.RandomState(1)) for each in (plain, rescaled))
    assert plain.model.learning_rate(1e-4) == 1e-4
    assert rescaled.model.learning_rate(1e-4) == pytest.approx(9e-8)
    assert plain.model.parameters("rec")["c_reg"] == plain.neuron.rec.c_reg
    np.testing.assert_allclose(used["rec_out"], 0.03 * drawn["rec_out"], rtol=1e-6)
    factor = {"eprop_iaf": 0.03, "eprop_iaf_adapt": 1.0}.get(model, 1 / 0.03)
    np.testing.assert_allclose(used["out_rec"], factor * drawn["out_rec"], rtol=1e-6)


def test_trained_weights_are_not_rescaled(tmp_path):
    shapes = {"in_rec": (10, 12), "rec_rec": (10, 10), "rec_out": (1, 10)}
    arrays = {f"{key}_after": np.full(shape, 0.5) for key, shape in shapes.items()} | {"out_rec": np.ones((10, 1))}
    np.fill_diagonal(arrays["rec_rec_after"], 0)
    np.savez(tmp_path / "weights.npz", **arrays)
    weights = initial_weights(config(*ONLINE, f"synapse.weights_from={tmp_path}"), np.random.RandomState(1))
    assert (weights["in_rec"] == 0.5).all()


STOPPING = ("training.do_early_stopping=true", "training.n_iter_validate_every=2", "training.n_iter_test=2")


def test_evaluation_aside_touches_nothing():
    overrides = (*ONLINE, "engine=compiled", "task.n_iter=4", *BARE)
    alone, weights, _ = train(*overrides)
    records, others, _ = train(*overrides, *STOPPING, "training.stop_crit=0", "training.evaluation=aside")
    training = [record for record in records if record.row.phase == "training"]
    assert len(records) == 8
    assert losses(training) == losses(alone)
    for projection in LEARNING:
        np.testing.assert_array_equal(others[projection], weights[projection])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["neuron=eprop_iaf"], "synapse=bsshslm_2020: does not go with neuron=eprop_iaf; choose synapse=eprop_synapse"),
        (["synapse=eprop_synapse"], "synapse=eprop_synapse: does not go with neuron=bsshslm_2020; choose synapse=bss"),
        ([*ONLINE, "training=data_parallel"], "training=data_parallel: neuron=eprop_iaf does not go with it: each"),
        ([*ONLINE, "neuron.out.loss=cross_entropy"], "neuron.out.loss=cross_entropy: does not fit task=sine_waves"),
        (
            ["neuron=eprop_iaf", "synapse=eprop_synapse", "neuron.out.loss=cross_entropy"],
            "neuron.out.loss=cross_entropy: needs a softmax, which neuron=eprop_iaf does not have; choose mean_squared",
        ),
        ([*ONLINE, "neuron.rec.kappa=1.0"], "neuron.rec.kappa=1.0: must be below 1 where synapse.rescale has anything"),
        ([*ONLINE, "neuron.rec.kappa=1.5"], "neuron.rec.kappa=1.5: must be from 0 to 1"),
        ([*ONLINE, "neuron.rec.t_ref=0.5"], "neuron.rec.t_ref=0.5: must be a multiple of kernel.resolution (1.0 ms)"),
        ([*ONLINE, "neuron.rec.V_min=0.1"], "neuron.rec.V_min=0.1: must be below V_th (0.03)"),
        ([*ONLINE, "synapse.rescale=[out_in]"], "synapse.rescale=out_in: must be one of in_rec, rec_rec, rec_out"),
        ([*ONLINE, "engine=compiled", "engine.n_workers=2", "task.n_batch=2"], "engine.n_workers=2: must be 1 with"),
        ([*ONLINE, "training.evaluation=aside"], "training.evaluation=aside: needs a copy of the simulation, which"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_refused_in_a_line(overrides, message):
    with pytest.raises(ConfigError) as refusal:
        check_ready(config(*overrides))
    assert re.match(re.escape(message), str(refusal.value)), str(refusal.value)
