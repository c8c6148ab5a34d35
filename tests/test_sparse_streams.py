"""Networks with some of the synapses whose weights change at every spike: engines agree, runs go on to the bit."""

import numpy as np
import pytest
from small import BARE, ONLINE, config

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC
from eprop_cli.engines.limits import memory_needed
from eprop_cli.errors import ConfigError
from eprop_cli.runs.checkpoint import load_checkpoint, save_checkpoint
from eprop_cli.training.base import initial_network, make_trainer

RULE = "connectivity.rec_rec={rule: bernoulli, p: 0.4}"
NETWORKS = {
    "bernoulli": [RULE],
    "everything sparse": [
        "connectivity.in_rec={rule: fixed_indegree, indegree: 5}",
        "connectivity.rec_rec={rule: fixed_outdegree, outdegree: 3}",
        "connectivity.rec_out={rule: bernoulli, p: 0.6}",
        "connectivity.out_rec={rule: bernoulli, p: 0.6}",
    ],
    "feed-forward": ["connectivity.rec_rec=none"],
    "autapses": ["connectivity.rec_rec={rule: bernoulli, p: 0.4, allow_autapses: true}"],
    "no feedback": [RULE, "connectivity.feedback=none"],
}


def train(*overrides, checkpoint=None):
    """The losses of a run, and its trainer."""
    trainer = make_trainer(config(*ONLINE, *overrides), checkpoint)
    losses = [record.row.metrics["loss"] for record in trainer.records()]
    trainer.close()
    return losses, trainer


@pytest.mark.nest
@pytest.mark.parametrize("network", NETWORKS)
def test_the_engines_train_the_same_synapses(network):
    overrides = (*NETWORKS[network], *BARE, "task.n_iter=3", "training.evaluation=inline")
    (expected, nest), (losses, compiled) = (train(f"engine={engine}", *overrides) for engine in ("nest", "compiled"))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    weights, others = nest.weights(), compiled.weights()
    for projection in (*PLASTIC, FEEDBACK):
        assert nest.wiring[projection].same_as(compiled.wiring[projection])
        np.testing.assert_allclose(others[projection], weights[projection], rtol=0.0, atol=1e-9, err_msg=projection)
    learned = np.abs(weights["in_rec"] - nest.initial["in_rec"]).max()
    assert learned > 1e-7


def test_a_list_of_all_synapses_is_the_dense_network():
    overrides = ("engine=compiled", *BARE, "task.n_iter=3")
    expected, dense = train(*overrides)
    losses, listed = train(*overrides, "connectivity.rec_rec={rule: bernoulli, p: 1.0}")
    assert losses == expected
    for projection, values in listed.weights().items():
        np.testing.assert_array_equal(listed.wiring[projection].matrix(values), dense.weights()[projection])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_resumed_run_has_the_same_bits(network, tmp_path):
    # The input is drawn after the weights, once: it must be the same though they are known already.
    overrides = ("engine=compiled", *NETWORKS[network], *BARE, "task.frozen_input=true", "training.evaluation=aside")
    expected, whole = train(*overrides, "task.n_iter=4")
    trainer = make_trainer(config(*ONLINE, *overrides, "task.n_iter=4"))
    records = trainer.records()
    for _ in range(2):
        next(records)
    save_checkpoint(tmp_path, trainer.commit())
    trainer.close()
    checkpoint = load_checkpoint(tmp_path)
    losses, resumed = train(*overrides, "task.n_iter=4", checkpoint=checkpoint)
    assert losses == expected[int(checkpoint["rows"]) :]
    np.testing.assert_equal(resumed.weights(), whole.weights())
    np.testing.assert_equal(resumed.initial, whole.initial)


def test_weights_that_are_listed_are_rescaled_as_well():
    settings = config(*ONLINE, RULE)
    drawn, used = (initial_network(each)[1] for each in (config(*ONLINE, RULE, "synapse.rescale=[]"), settings))
    scale = 1.0 - settings.neuron.rec.kappa
    for projection in (*PLASTIC, FEEDBACK):
        np.testing.assert_allclose(used[projection], scale * drawn[projection], rtol=1e-6)


def test_sampled_weights_and_spikes_are_of_the_first_neurons():
    overrides = (RULE, "plots=none", "engine=compiled", "task.n_iter=1", "recording.n_record_w=3")
    trainer = make_trainer(config(*ONLINE, *overrides, "recording.n_record_spikes=2"))
    (record,) = trainer.records()
    trainer.close()
    changes, mask = record.weight_changes, trainer.wiring["rec_rec"]
    own = changes["projection"] == "rec_rec"
    pre, post = changes["pre"][own], changes["post"][own]
    assert len(pre) == mask.exists()[:3, :3].sum()
    final = trainer.weights()["rec_rec"][mask.find(pre, post)]  # those sampled lack the very last updates
    np.testing.assert_allclose(changes["weight"][own], final, rtol=1e-4)
    assert set(record.recording["spikes"]["neuron"]) <= {0, 1}


def test_moments_of_synapses_that_do_not_exist_are_refused():
    entries = "synapse.init_optimizer=[{projection: rec_rec, pre: 1, post: [2], m: 0.1, v: 0.1}]"
    with pytest.raises(ConfigError, match="connectivity does not give"):
        train("engine=compiled", "optimizer=adam", "connectivity.rec_rec=none", entries)


@pytest.mark.parametrize("engine", ["nest", "compiled"])
@pytest.mark.parametrize(
    "override",
    [
        "connectivity.excitatory_fraction.recurrent=0.8",
        "connectivity.feedback=symmetric",
        "connectivity.plastic.in_rec=false",
        "optimizer.eta_factor.in_rec=0.5",
        "optimizer.bounds.in_rec=[-1,1]",
    ],
)
def test_what_no_stream_can_do_is_refused_without_a_remedy_that_fails(engine, override):
    with pytest.raises(ConfigError, match="cannot be had with neuron=eprop_iaf") as error:
        config(*ONLINE, f"engine={engine}", override)
    assert "data_parallel" not in str(error.value)


def test_memory_is_that_of_the_synapses_there_are():
    dense, sparse = (memory_needed(config(*ONLINE, "neuron.n_rec=10000", *more)) for more in ([], [RULE]))
    assert sparse < 0.5 * dense
