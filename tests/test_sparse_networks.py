"""Networks with some of the synapses: engines agree, threads and resumes change no bit, memory is that of synapses."""

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from scipy.sparse import csc_array
from small import BARE, SMALL, config

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.engines.base import make_engine
from eprop_cli.errors import ConfigError
from eprop_cli.figures.weights import MOST_CELLS, weight_matrices
from eprop_cli.runs.reader import NeuronGroup, Projection, Run
from eprop_cli.training.base import initial_network, make_task, make_trainer

GRADIENTS = ("training=data_parallel", *BARE, *SMALL)
LARGER = ("neuron.n_reg=60", "neuron.n_ad=60", "task.n_in=20", "task.n_cues=3", "synapse.weight_scale.in_rec=3")
NETWORKS = {
    "bernoulli": ["connectivity.rec_rec={rule: bernoulli, p: 0.1}"],
    "everything sparse": [
        "connectivity.in_rec={rule: fixed_indegree, indegree: 9}",
        "connectivity.rec_rec={rule: fixed_outdegree, outdegree: 12}",
        "connectivity.rec_out={rule: bernoulli, p: 0.5}",
        "connectivity.out_rec={rule: bernoulli, p: 0.5}",
    ],
    "N-MNIST": ["connectivity=neuromorphic_mnist"],
    "feed-forward": ["connectivity.rec_rec=none"],
    "autapses": ["connectivity.rec_rec={rule: bernoulli, p: 0.2, allow_autapses: true}"],
    "no feedback": ["connectivity.rec_rec={rule: bernoulli, p: 0.1}", "connectivity.feedback=none"],
    "dense with symmetric feedback": ["connectivity.feedback=symmetric"],
}


def on(engine, *overrides):
    return config(*GRADIENTS, f"engine={engine}", *overrides)


def begun(settings):
    rng = np.random.RandomState(settings.seed)
    wiring, weights = initial_network(settings, rng)
    return wiring, weights, make_task(settings, rng).batch_at(rng, "training", 0)


def outcome(settings, wiring, weights, batch, record=False):
    with closing(make_engine(settings, wiring)) as engine:
        return engine.gradient(weights, batch, None, record)


def relative(values, others):
    largest = np.abs(others).max(initial=0.0)
    return np.abs(values - others).max(initial=0.0) / (largest or 1.0)


# Exactness


@pytest.mark.nest
@pytest.mark.usefixtures("nest_here")
@pytest.mark.parametrize("network", NETWORKS)
def test_nest_has_the_same_synapses_and_gradients(network):
    overrides = [*LARGER, *NETWORKS[network], "task.n_batch=2"]
    settings = on("compiled", *overrides)
    wiring, weights, batch = begun(settings)
    ours = outcome(settings, wiring, weights, batch)
    nests = outcome(on("nest", *overrides), wiring, weights, batch)
    assert ours.n_spikes == nests.n_spikes
    assert sum(ours.n_spikes.values()) > 100
    assert relative(ours.readout, nests.readout) <= 1e-12
    for projection in PLASTIC:
        assert ours.gradients[projection].shape == weights[projection].shape
        assert relative(ours.gradients[projection], nests.gradients[projection]) <= 1e-12, projection


def test_a_list_of_all_synapses_is_the_dense_network():
    dense = on("compiled", *LARGER, "task.n_batch=3")
    wiring, weights, batch = begun(dense)
    listed = {name: mask.listed() for name, mask in wiring.items()}
    taken = {name: listed[name].take(values) for name, values in weights.items()}
    one, other = (outcome(dense, *network, batch) for network in ((wiring, weights), (listed, taken)))
    np.testing.assert_array_equal(one.readout, other.readout)
    for projection in PLASTIC:
        matrix = listed[projection].matrix(other.gradients[projection])
        assert relative(matrix, one.gradients[projection]) <= 1e-12


@pytest.mark.parametrize("network", ["bernoulli", "everything sparse"])
def test_any_number_of_threads_gives_the_same_bits(network):
    found = []
    for n in (1, 2, 3):
        settings = on("compiled", *LARGER, *NETWORKS[network], "task.n_batch=5", f"engine.n_workers={n}")
        found.append(outcome(settings, *begun(settings)))
    for other in found[1:]:
        np.testing.assert_array_equal(other.readout, found[0].readout)
        np.testing.assert_equal(other.gradients, found[0].gradients)


@pytest.mark.nest
def test_a_continuous_simulation_trains_the_same_synapses():
    rule = "connectivity.rec_rec={rule: bernoulli, p: 0.4}"
    overrides = [*BARE, *SMALL, rule, "task.n_batch=2", "task.n_iter=3", "training.n_iter_test=0"]
    continuous = make_trainer(config(*overrides, "training=continuous"))
    losses = [record.row.metrics["loss"] for record in continuous.records()]
    trained = continuous.weights()
    continuous.close()
    parallel = make_trainer(
        config(*overrides, "training=data_parallel", "training.as_continuous=true", "engine=compiled")
    )
    others = [record.row.metrics["loss"] for record in parallel.records()]
    np.testing.assert_allclose(losses, others, rtol=1e-12)
    parallel.close()
    for projection in PLASTIC:
        np.testing.assert_allclose(trained[projection], parallel.weights()[projection], atol=1e-9)


# Training


def train(*overrides, n_iter=4):
    trainer = make_trainer(on("compiled", f"task.n_iter={n_iter}", "training.n_iter_test=0", *overrides))
    losses = [record.row.metrics["loss"] for record in trainer.records()]
    trainer.close()
    return trainer, losses


RULE = "connectivity.rec_rec={rule: bernoulli, p: 0.4}"


def test_a_resumed_run_has_the_same_bits(tmp_path):
    from eprop_cli.runs.checkpoint import load_checkpoint, save_checkpoint

    overrides = [RULE, "task.n_batch=2", "optimizer.clip_norm=0.01"]
    whole, _ = train(*overrides)
    first, _ = train(*overrides, n_iter=2)
    save_checkpoint(tmp_path, first.commit())
    settings = on("compiled", *overrides, "task.n_iter=4", "training.n_iter_test=0")
    resumed = make_trainer(settings, load_checkpoint(tmp_path))
    for _ in resumed.records():
        pass
    resumed.close()
    assert resumed.wiring["rec_rec"].same_as(whole.wiring["rec_rec"])
    np.testing.assert_equal(resumed.weights(), whole.weights())
    np.testing.assert_equal(resumed.commit()["initial_rec_rec"], whole.initial["rec_rec"])


@pytest.mark.parametrize("optimizer", ["adam", "gradient_descent"])
def test_steps_in_place_have_the_bits_of_steps_of_arrays(optimizer):
    settings = on("compiled", RULE, f"optimizer={optimizer}", "optimizer.weight_decay=0.1", "optimizer.eta=0.1")
    rng, made = np.random.RandomState(0), settings.make_optimizer()
    weights = {name: rng.randn(100_000) for name in PLASTIC}
    in_place = {name: values.copy() for name, values in weights.items()}
    state, other = made.initial_state(weights), made.initial_state(weights)
    for _ in range(3):
        gradients = {name: rng.randn(100_000) for name in PLASTIC}
        weights, state = made.optimize(state, weights, gradients)
        other = made.optimize_in_place(other, in_place, gradients)
    np.testing.assert_equal(in_place, weights)
    assert (other.step, other.numbers) == (state.step, state.numbers)
    np.testing.assert_equal(other.moments, state.moments)


@pytest.mark.parametrize("rule", [RULE, "connectivity.rec_rec=dense"])
def test_constraints_hold_after_training(rule):
    eager = ["optimizer.eta=0.2", "task.n_batch=2"]
    trainer, _ = train(rule, *eager, "connectivity.excitatory_fraction={inputs: 0.5, recurrent: 0.75}")
    for projection, n_in_pairs in (("in_rec", 8), ("rec_rec", 4), ("rec_out", 4)):
        matrix = trainer.wiring[projection].matrix(trainer.weights()[projection])
        fraction = 0.5 if projection == "in_rec" else 0.75
        for begin in range(0, 8, n_in_pairs):
            middle = begin + round(fraction * n_in_pairs)
            assert (matrix[:, begin:middle] >= 0).all()
            assert (matrix[:, middle : begin + n_in_pairs] <= 0).all()
    assert any((trainer.weights()[p] == 0).sum() > 8 for p in PLASTIC)  # some were held back
    trainer, _ = train(rule, *eager, "connectivity.feedback=symmetric")
    weights, wiring = trainer.weights(), trainer.wiring
    forward, backward = (wiring[name].matrix(weights[name]) for name in ("rec_out", FEEDBACK))
    np.testing.assert_array_equal(backward, forward.T)
    trainer, _ = train(rule, *eager, "connectivity.plastic.in_rec=false", "optimizer.eta_factor.rec_out=0")
    for projection, changes in (("in_rec", False), ("rec_rec", True), ("rec_out", False)):
        assert (trainer.weights()[projection] != trainer.initial[projection]).any() == changes
    trainer, _ = train(rule, *eager, "optimizer.bounds.in_rec=[-9, 0.9]", "synapse.weight_scale.in_rec=0.1")
    assert trainer.weights()["in_rec"].max() == 0.9 or trainer.weights()["in_rec"].max() < 0.9


def test_half_the_learning_rate_is_half_the_step():
    (whole, _), (half, _) = (train(RULE, f"optimizer.eta_factor.rec_rec={factor}", n_iter=1) for factor in (1, 0.5))
    steps = [each.weights()["rec_rec"] - each.initial["rec_rec"] for each in (whole, half)]
    np.testing.assert_allclose(steps[0], 2 * steps[1], atol=1e-15)


# Errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("connectivity.excitatory_fraction.recurrent=0.8", "needs training=data_parallel; NEST cannot do it"),
        ("connectivity.feedback=symmetric", "needs training=data_parallel; NEST cannot do it"),
        ("connectivity.plastic.in_rec=false", "must be true, or needs training=data_parallel"),
        ("optimizer.eta_factor.in_rec=0.5", "needs training=data_parallel"),
        ("optimizer.bounds.in_rec=[-1,1]", "needs training=data_parallel"),
    ],
)
def test_nest_says_what_it_cannot_do(override, message):
    with pytest.raises(ConfigError) as error:
        config("training=continuous", override)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("connectivity.feedback=random_", "connectivity.feedback=random_: must be one of random, symmetric, none"),
        ("connectivity.excitatory_fraction.recurrent=1.2", "must be a probability, from 0 to 1"),
        ("optimizer.bounds.in_rec=[1,-1]", "must be [low, high], low below high, or null"),
        ("optimizer.bounds.in_rec=[-0.01,0.01]", "optimizer.bounds.in_rec=-0.01: must not be above the smallest"),
        ("connectivity.out_rec={rule: bernoulli, p: 0.5}", ""),
    ],
)
def test_constraints_that_cannot_be_are_refused(override, message):
    with pytest.raises(ConfigError) as error:
        initial_network(on("compiled", override, *(() if message else ("connectivity.feedback=symmetric",))))
    assert message in str(error.value)


def test_moments_of_synapses_that_do_not_exist_are_refused():
    entries = "synapse.init_optimizer=[{projection: rec_rec, pre: 0, post: [1, 2], m: 0.0, v: 0.0}]"
    with pytest.raises(ConfigError, match="names synapses of rec_rec from neuron 0 that connectivity does not give"):
        make_trainer(on("compiled", "connectivity.rec_rec=none", entries))


# Memory, files and figures


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
from eprop_cli.cli.eprop_run import main
main()
"""


@pytest.mark.slow
def test_a_network_that_dense_would_take_50_gb_runs_in_4(tmp_path):
    network = ["neuron.n_reg=40000", "neuron.n_ad=40000", "connectivity.rec_rec={rule: bernoulli, p: 0.0001}"]
    run = ["training=data_parallel", "engine=compiled", "experiment=smoke", "task.n_iter=1", "training.n_iter_test=0"]
    command = [sys.executable, "-c", LIMITED, *run, *network, "hydra.run.dir=run"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    found = Run(tmp_path / "run")
    assert found.weights["rec_rec"].after.nnz == pytest.approx(640_000, rel=0.01)
    assert set(found.spikes("last").groupby("population")["neuron"].max()) <= set(range(1000))
    assert (tmp_path / "run/figures/weight_matrices.png").exists()


def test_the_memory_of_a_network_is_told_before_it_is_taken():
    from eprop_cli.engines.limits import check_limits

    settings = config("training=data_parallel", "engine=compiled", "neuron.n_reg=80000")
    with pytest.raises(ConfigError, match=r"neuron.n_reg=80000: must be lower, or connectivity.rec_rec sparser: 6.41e"):
        check_limits(settings)
    check_limits(config("training=data_parallel", "engine=compiled", "neuron.n_reg=80000", "connectivity.rec_rec=none"))


def test_a_run_gives_sparse_weights_or_matrices(tmp_path):
    from eprop_cli.runs.run import run

    (tmp_path / "run").mkdir()
    settings = config(
        "training=data_parallel", "engine=compiled", *SMALL, RULE, "task.n_iter=2", "training.n_iter_test=0"
    )
    assert run(settings, tmp_path / "run").exit_status == 0
    weights = Run(tmp_path / "run").weights
    recurrent = weights["rec_rec"]
    assert isinstance(recurrent.after, csc_array)
    assert recurrent.is_sparse
    wiring, initial = initial_network(settings)
    np.testing.assert_array_equal(recurrent.dense().before, wiring["rec_rec"].matrix(initial["rec_rec"]))
    assert (recurrent.dense().after != recurrent.dense().before).any()
    assert weights["rec_out"].sparse().after.shape == (2, 8)
    assert {path.name for path in (tmp_path / "run/figures").iterdir()} >= {"weight_matrices.png"}


def test_the_picture_of_a_large_network_is_bounded():
    rng = np.random.RandomState(0)
    row, column = rng.randint(0, 10_000, (2, 20_000))
    large = csc_array((rng.randn(20_000), (row, column)), shape=(10_000, 10_000))
    weights = {
        "in_rec": Projection(csc_array(large[:, :40]), csc_array(large[:, :40])),
        "rec_rec": Projection(large, large),
        "rec_out": Projection(np.zeros((2, 10_000)), np.zeros((2, 10_000))),
    }
    figure = weight_matrices(weights, [NeuronGroup("in", "input", 40), NeuronGroup("reg", "regular", 10_000)])
    sizes = [image.get_array().shape for ax in figure.axes[:6] for image in ax.images]
    assert all(max(size) <= MOST_CELLS for size in sizes)
