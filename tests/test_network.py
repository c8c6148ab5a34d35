import numpy as np
import pytest
from small import BARE, SEQUENCE, SMALL, config

from eprop_cli.connectivity.mask import all_dense
from eprop_cli.engines.nest.kernel import start_kernel
from eprop_cli.engines.nest.network import build_network, force_final_update, present, read_weights
from eprop_cli.engines.nest.recordings import count_spikes, recording_of
from eprop_cli.training.base import initial_weights, make_trainer
from eprop_cli.values import Batch

pytestmark = [pytest.mark.nest, pytest.mark.usefixtures("nest_here")]

EPROP_SYNAPSE = "eprop_synapse_bsshslm_2020"
FEEDBACK = "eprop_learning_signal_connection_bsshslm_2020"
RATE = "rate_connection_delayed"


class Built:
    """A network of a config, with the weights it was built from."""

    def __init__(self, *overrides, plastic=True, weights=None, dynamics=True):
        self.config = config(*overrides)
        self.weights = weights or initial_weights(self.config, np.random.RandomState(1))
        optimizer = self.config.make_optimizer().nest_parameters() | {"batch_size": self.config.task.n_batch}
        self.nest = start_kernel(self.config)
        self.wiring = all_dense(self.config.sizes)
        arguments = self.config, self.wiring, self.weights, optimizer if plastic else None, dynamics
        self.network = build_network(self.nest, *arguments)

    def count(self, pre, post, model):
        return len(self.nest.GetConnections(pre, post, model))

    def simulate(self, batch):
        """Simulate a batch to its end and return the events of each probe."""
        timing, n_steps = self.network.timing, len(batch.spikes) * self.network.timing.sequence
        present(self.network, batch, 0)
        self.nest.Simulate(timing.ms(n_steps + timing.lead))
        return {name: probe.drain(timing.ms(n_steps)) for name, probe in self.network.probes.items()}


def silent(task):
    """A batch without spikes; the first readout should win."""
    spikes = np.zeros((task.n_batch, task.sequence_steps, task.n_in), dtype=bool)
    targets = np.zeros((task.n_out, task.n_batch, task.sequence_steps))
    targets[0] = 1.0
    return Batch(spikes, targets, ((),) * task.n_batch)


def nothing(built_config):
    """Weights that are all zero."""
    drawn = initial_weights(built_config, np.random.RandomState(1))
    return {name: np.zeros_like(values) for name, values in drawn.items()}


@pytest.fixture(scope="module")
def tutorial():
    built = Built("recording.n_record=2")
    network, nest = built.network, built.nest
    populations = {name: network.nodes(name) for name in ("in", "rec", "out")}
    counts = {
        "in_rec": built.count(populations["in"], populations["rec"], EPROP_SYNAPSE),
        "rec_rec": built.count(populations["rec"], populations["rec"], EPROP_SYNAPSE),
        "rec_out": built.count(populations["rec"], populations["out"], EPROP_SYNAPSE),
        "out_rec": built.count(populations["out"], populations["rec"], FEEDBACK),
        "out_out": built.count(populations["out"], populations["out"], RATE),
        "target": built.count(network.gen_rate_target, populations["out"], RATE),
        "generator": built.count(network.gen_spk_in, populations["in"], "static_synapse"),
        "forcing": len(nest.GetConnections(network.gen_spk_final_update)),
        "plastic": len(nest.GetConnections(synapse_model=EPROP_SYNAPSE)),
        "mm_reg": len(nest.GetConnections(network.probes["reg"].recorder)),
        "mm_ad": len(nest.GetConnections(network.probes["ad"].recorder)),
        "mm_out": len(nest.GetConnections(network.probes["out"].recorder)),
        "sr": len(nest.GetConnections(target=network.probes["spikes"].recorder)),
        "sr_in": len(nest.GetConnections(target=network.probes["spikes_in"].recorder)),
    }
    synapses = nest.GetConnections(synapse_model=EPROP_SYNAPSE).get(["source", "target", "weight", "delay"])
    feedback = nest.GetConnections(synapse_model=FEEDBACK).get(["source", "target", "weight"])
    parameters = {
        name: network.nodes(name).get(["tau_m", "C_m", "E_L", "V_m", "I_e", "regular_spike_arrival"])
        for name in ("reg", "ad", "out")
    }
    for name in ("reg", "ad"):
        keys = ["V_th", "t_ref", "c_reg", "f_target", "surrogate_gradient_function"]
        keys += ["surrogate_gradient_height", "surrogate_gradient_width"]
        parameters[name] |= network.nodes(name).get(keys)
    parameters["ad"] |= network.nodes("ad").get(["adapt_tau", "adapt_beta", "adaptation"])
    parameters["out"] |= network.nodes("out").get(["loss"])
    defaults = nest.GetDefaults(EPROP_SYNAPSE)
    kernel = {key: getattr(nest, key) for key in ("resolution", "local_num_threads", "total_num_virtual_procs")}
    for key in ("eprop_update_interval", "eprop_learning_window", "eprop_reset_neurons_on_update"):
        kernel[key] = getattr(nest, key)
    return built, counts, synapses, feedback, parameters, defaults, kernel


def test_numbers_of_connections(tutorial):
    assert tutorial[1] == {
        "in_rec": 4000,
        "rec_rec": 9900,  # no autapses
        "rec_out": 200,
        "out_rec": 200,
        "out_out": 2,
        "target": 2,
        "generator": 40,
        "forcing": 140,
        "plastic": 14100,
        "mm_reg": 2,
        "mm_ad": 2,
        "mm_out": 2,
        "sr": 100,
        "sr_in": 40,
    }


def test_every_weight_is_between_the_neurons_it_belongs_to(tutorial):
    built, _, synapses, feedback, *_ = tutorial
    # NEST numbers nodes in the order of their creation: input, regular, adaptive, readout.
    first = {"in": 1, "rec": 41, "out": 141}
    population = {node: name for name, start in first.items() for node in range(start, start + 100)}
    population |= {41 + i: "rec" for i in range(100)} | {141: "out", 142: "out"}
    for table in (synapses, feedback):
        for source, target, weight in zip(table["source"], table["target"], table["weight"], strict=True):
            pre, post = population[source], population[target]
            assert weight == built.weights[f"{pre}_{post}"][target - first[post], source - first[pre]]
    assert set(synapses["delay"]) == {1.0}


def test_neurons_have_the_tutorials_parameters(tutorial):
    parameters = {
        name: {key: next(iter(set(values))) if len(set(values)) == 1 else values for key, values in population.items()}
        for name, population in tutorial[4].items()
    }
    membrane = {"tau_m": 20.0, "C_m": 1.0, "E_L": 0.0, "V_m": 0.0, "I_e": 0.0}
    recurrent = membrane | {
        "regular_spike_arrival": True,
        "V_th": 0.6,
        "t_ref": 5.0,
        "c_reg": 300.0,
        "f_target": 0.01,  # spikes/ms, though it is set in spikes/s
        "surrogate_gradient_function": "piecewise_linear",
        "surrogate_gradient_height": 0.5,
        "surrogate_gradient_width": 0.6,
    }
    adaptive = {"adapt_tau": 2000.0, "adapt_beta": pytest.approx(0.0174241851, rel=1e-7), "adaptation": 0.0}
    readout = membrane | {"regular_spike_arrival": False, "loss": "cross_entropy"}
    for name, expected in {"reg": recurrent, "ad": recurrent | adaptive, "out": readout}.items():
        for key, value in expected.items():
            assert parameters[name][key] == value, (name, key)


def test_synapses_have_the_tutorials_optimizer(tutorial):
    defaults = tutorial[5]
    wanted = {"batch_size": 1, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "eta": 5e-3, "Wmin": -100, "Wmax": 100}
    assert {key: defaults["optimizer"][key] for key in wanted} == wanted
    assert defaults["optimizer"]["optimizer"] == "adam"
    assert defaults["average_gradient"] is True


def test_the_kernel_is_set_up_for_the_task(tutorial):
    assert tutorial[6] == {
        "resolution": 1.0,
        "local_num_threads": 1,
        "total_num_virtual_procs": 1,
        "eprop_update_interval": 2250.0,
        "eprop_learning_window": 150.0,
        "eprop_reset_neurons_on_update": True,
    }


def test_weights_are_read_back_as_they_were_set():
    built = Built(*SMALL)
    read = read_weights(built.nest, built.network, built.wiring, built.weights)
    np.testing.assert_equal(read, built.weights)
    assert all(read[name] is not built.weights[name] for name in read)


def test_a_list_of_time_constants_has_one_for_each_neuron():
    built = Built(*SMALL, "neuron.reg.tau_m=[10, 20, 30, 40]", "neuron.ad.adapt_tau=[500, 600, 700, 800]")
    assert built.network.nodes("reg").get("tau_m") == (10.0, 20.0, 30.0, 40.0)
    assert built.network.nodes("ad").get("adapt_tau") == (500.0, 600.0, 700.0, 800.0)
    assert len(set(built.network.nodes("ad").get("adapt_beta"))) == 4


def test_regression_has_no_connections_among_readouts():
    built = Built(*SMALL, "neuron.out.loss=mean_squared_error")
    assert built.network.nodes("out").get("loss") == ("mean_squared_error",) * 2
    assert not built.count(built.network.nodes("out"), built.network.nodes("out"), None)


def test_a_network_for_evaluation_cannot_learn():
    built = Built(*SMALL, plastic=False)
    network = built.network
    assert built.count(network.nodes("in"), network.nodes("rec"), "static_synapse") == 64
    assert built.count(network.nodes("rec"), network.nodes("rec"), "static_synapse") == 56
    assert built.count(network.nodes("rec"), network.nodes("out"), "static_synapse") == 16
    for model in (EPROP_SYNAPSE, FEEDBACK, RATE):
        assert not len(built.nest.GetConnections(synapse_model=model))


# Populations and recorders that are not there


ALWAYS = {"spikes", "out"}


@pytest.mark.parametrize(
    ("overrides", "probes"),
    [
        ([], {*ALWAYS, "spikes_in", "reg", "ad", "weights"}),
        (["recording=none"], ALWAYS),
        (["recording.n_record=0"], {*ALWAYS, "spikes_in", "weights"}),
        (["recording.n_record_w=0"], {*ALWAYS, "spikes_in", "reg", "ad"}),
        (["recording.spikes=false"], {*ALWAYS, "reg", "ad", "weights"}),
        (["neuron.n_ad=0"], {*ALWAYS, "spikes_in", "reg", "weights"}),
        (["neuron.n_reg=0"], {*ALWAYS, "spikes_in", "ad", "weights"}),
    ],
    ids=lambda value: " ".join(sorted(value)) or "default",
)
def test_recorders_are_those_asked_for(overrides, probes):
    assert set(Built(*SMALL, *overrides).network.probes) == probes


def test_evaluation_records_nothing_but_spikes_and_readouts():
    assert set(Built(*SMALL, plastic=False, dynamics=False).network.probes) == ALWAYS


@pytest.mark.parametrize("override", ["recording=none", "recording.n_record=0", "recording.n_record_w=0"])
def test_recording_changes_no_loss(override):
    losses = [
        [record.row.metrics["loss"] for record in make_trainer(config(*SMALL, *overrides)).records()]
        for overrides in ([], [override])
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("missing", "present_one"), [("reg", "ad"), ("ad", "reg")])
def test_one_population_is_enough(missing, present_one):
    """On both engines, in both ways of training; with equal losses and no nan."""
    parallel = ["training=data_parallel", "training.n_iter_test=0", "training.as_continuous=true"]
    found = {}
    for ways in ([], [*parallel, "engine=nest"], [*parallel, "engine=compiled"]):
        trainer = make_trainer(config(*SMALL, f"neuron.n_{missing}=0", *ways, "task.n_iter=3", *BARE))
        try:
            rows = [record.row for record in trainer.records()]
            weights = trainer.weights()
        finally:
            trainer.close()
        for row in rows:
            assert set(row.metrics) == {"loss", "accuracy", "recall_error", f"rate_{present_one}"}
            assert np.isfinite(list(row.metrics.values())).all()
            assert row.metrics[f"rate_{present_one}"] > 0
        assert {name: values.shape for name, values in weights.items()} == {
            "in_rec": (4, 8), "rec_rec": (4, 4), "rec_out": (2, 4), "out_rec": (4, 2),
        }  # fmt: skip
        assert all(np.isfinite(values).all() for values in weights.values())
        assert (weights["in_rec"] != trainer.initial["in_rec"]).any()
        found[" ".join(ways)] = [row.metrics["loss"] for row in rows]
    first, *others = found.values()
    assert len(set(first)) == 3
    for losses in others:
        np.testing.assert_allclose(losses, first, rtol=1e-10)


def test_initial_moments_are_those_of_the_synapses():
    entries = "[{projection: rec_rec, pre: 1, post: [5, 2], m: 0.5, v: 0.25},{projection: rec_out, pre: 7, post: [0], m: 3, v: 4}]"  # noqa: E501
    trainer = make_trainer(config(*SMALL, f"synapse.init_optimizer={entries}"))
    network, nest = trainer._stream._network, trainer._stream._nest
    rec = network.nodes("rec").tolist()
    moments = {}
    for synapse in nest.GetConnections(synapse_model=EPROP_SYNAPSE):
        optimizer = synapse.get("optimizer")
        if optimizer["m"] or optimizer["v"]:
            moments[synapse.source, synapse.target] = optimizer["m"], optimizer["v"]
    assert moments == {
        (rec[1], rec[5]): (0.5, 0.25),
        (rec[1], rec[2]): (0.5, 0.25),
        (rec[7], network.nodes("out").tolist()[0]): (3.0, 4.0),
    }


# What the network does


def test_without_input_everything_stays_at_rest():
    built = Built(*SMALL, "neuron.rec.E_L=0.125", "neuron.rec.V_m=0.125", "recording.n_record=4")
    events = built.simulate(silent(built.config.task))
    assert len(events["reg"]["V_m"]) == 4 * SEQUENCE
    for population in ("reg", "ad"):
        np.testing.assert_allclose(events[population]["V_m"], 0.125, rtol=1e-12)
    assert (events["out"]["V_m"] == 0).all()
    assert not len(events["spikes"]["times"])
    np.testing.assert_allclose(events["out"]["readout_signal"][-60:], 0.5, rtol=1e-12)  # two readouts, 30 steps each


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_a_spike_moves_the_neuron_it_is_connected_to_and_leaks_away(dt):
    given = [*SMALL, f"kernel.resolution={dt}", "recording.n_record=4", "neuron.rec.tau_m=10"]
    weights = nothing(config(*given))
    weights["in_rec"][2, 5] = 0.5  # pA, from input 5 to regular neuron 2; below threshold
    built = Built(*given, weights=weights)
    batch = silent(built.config.task)
    batch.spikes[0, 40, 5] = True
    recorded = recording_of(built.network, built.simulate(batch), 0, dt)["reg"]
    potential = np.zeros((4, SEQUENCE))
    potential[recorded["neuron"], np.rint(recorded["time"] / dt).astype(int)] = recorded["V_m"]
    expected = np.zeros((4, SEQUENCE))
    expected[2, 40:] = 0.5 * np.exp(-dt / 10 * np.arange(60))
    np.testing.assert_allclose(potential, expected, rtol=1e-12, atol=1e-15)


def test_a_spike_of_a_recurrent_neuron_reaches_its_targets_and_readouts():
    given = [*SMALL, "recording.n_record=4"]
    weights = nothing(config(*given))
    weights["in_rec"][1, 0] = 0.7  # regular neuron 1 fires once when input 0 does,
    weights["rec_rec"][6, 1] = 0.3  # excites adaptive neuron 2
    weights["rec_out"][1, 1] = 2.0  # and readout 1
    built = Built(*given, weights=weights)
    batch = silent(built.config.task)
    batch.spikes[0, 40, 0] = True
    events = built.simulate(batch)
    assert count_spikes(built.network, events["spikes"]) == {"reg": 1, "ad": 0}
    tables = recording_of(built.network, events, 0, 1.0)
    spikes = {
        (str(p), int(n), float(t))
        for p, n, t in zip(*(tables["spikes"][k] for k in ("population", "neuron", "time")), strict=True)
    }
    assert spikes == {("in", 0, 40.0), ("reg", 1, 40.0)}
    for population, neuron, jump in [("ad", 2, 0.3), ("out", 1, 2.0 * (1 - np.exp(-1 / 20)))]:
        table = tables[population]
        moved = table["V_m"] != 0
        assert set(table["neuron"][moved]) == {neuron}
        np.testing.assert_allclose(table["V_m"][moved], jump * np.exp(-np.arange(moved.sum()) / 20), rtol=1e-9)


def test_generators_are_set_to_the_batch():
    built = Built(*SMALL, "task.n_batch=2", "kernel.resolution=0.5")
    batch = silent(built.config.task)
    batch.spikes[0, 3, 1] = batch.spikes[1, 10, 1] = True
    batch.targets[:, 1] = batch.targets[::-1, 1]
    present(built.network, batch, 0)
    times = [list(values) for values in built.network.gen_spk_in.get("spike_times")]
    assert times == [[], [0.5 * (3 + 1), 0.5 * (110 + 1)], *[[]] * 6]
    target = built.network.gen_rate_target.get(["amplitude_times", "amplitude_values"])
    assert [list(values) for values in target["amplitude_times"]] == [[2.0, 52.0]] * 2  # total_offset is 4 steps
    assert [list(values) for values in target["amplitude_values"]] == [[1.0, 0.0], [0.0, 1.0]]


def test_the_forced_update_makes_every_presynaptic_neuron_fire():
    built = Built(*SMALL, weights=nothing(config(*SMALL)))
    timing = built.network.timing
    present(built.network, silent(built.config.task), 0)
    force_final_update(built.network, timing.sequence)
    built.nest.Simulate(timing.ms(timing.sequence + timing.lead))
    for name, population in [("spikes_in", built.network.nodes("in")), ("spikes", built.network.nodes("rec"))]:
        events = built.network.probes[name].recorder.events
        assert sorted(events["senders"]) == population.tolist()
        assert set(events["times"]) == {SEQUENCE + 4.0}


# Recordings


@pytest.fixture(scope="module")
def records():
    """Records of both ways of training, with everything recorded in iterations 1 and 3."""
    found = {}
    for training in ("continuous", "data_parallel"):
        overrides = [*SMALL, f"training={training}", "task.n_iter=4", "task.n_batch=2", "recording.n_record=3"]
        trainer = make_trainer(config(*overrides, "recording.iterations=[1,3]", "kernel.resolution=0.5"))
        try:
            found[training] = [record for record in trainer.records() if record.row.phase == "training"]
        finally:
            trainer.close()
    return found


both = pytest.mark.parametrize("training", ["continuous", "data_parallel"])


@both
def test_only_the_iterations_asked_for_are_recorded(records, training):
    assert [record.recording is not None for record in records[training]] == [True, False, True, False]


@both
@pytest.mark.parametrize(("population", "n"), [("reg", 3), ("ad", 3), ("out", 2)])
def test_tables_have_a_row_per_sequence_step_and_neuron(records, training, population, n):
    for record in (records[training][0], records[training][2]):
        table = record.recording[population]
        sequence, step, neuron = (axis.ravel() for axis in np.indices((2, SEQUENCE, n)))
        np.testing.assert_array_equal(table["sequence"], sequence)
        np.testing.assert_array_equal(table["time"], 0.5 * step)
        np.testing.assert_array_equal(table["neuron"], neuron)
        assert all(len(column) == 2 * SEQUENCE * n for column in table.values())
        assert all(np.isfinite(column).all() for column in table.values())


@both
def test_recorded_input_spikes_are_those_presented(records, training):
    for record in (records[training][0], records[training][2]):
        table = record.recording["spikes"]
        own = table["population"] == "in"
        sequence, step, neuron = np.nonzero(record.batch.spikes)
        np.testing.assert_array_equal(table["sequence"][own], sequence)
        np.testing.assert_array_equal(table["time"][own], 0.5 * step)
        np.testing.assert_array_equal(table["neuron"][own], neuron)


@both
def test_recorded_spikes_give_the_rates_of_the_row(records, training):
    for record in (records[training][0], records[training][2]):
        population = record.recording["spikes"]["population"]
        for name, rate in {name: record.row.metrics[f"rate_{name}"] for name in ("reg", "ad")}.items():
            assert (population == name).sum() / (4 * 2 * SEQUENCE * 0.5e-3) == pytest.approx(rate)
            assert rate > 0


@both
def test_recorded_readouts_give_the_loss_of_the_row(records, training):
    for record in (records[training][0], records[training][2]):
        table = record.recording["out"]
        window = table["time"] >= 0.5 * (SEQUENCE - 30)
        signal, target = table["readout_signal"][window], table["target_signal"][window]
        np.testing.assert_array_equal(target.reshape(2, 30, 2).transpose(2, 0, 1), record.batch.targets[:, :, -30:])
        loss = -np.log(signal[target == 1]).mean()
        assert loss == pytest.approx(record.row.metrics["loss"], rel=1e-12)
        np.testing.assert_allclose(table["error_signal"][window], signal - target, rtol=1e-12)


def test_both_ways_of_training_record_the_same(records):
    first = {training: found[0].recording for training, found in records.items()}
    assert first["continuous"].keys() == first["data_parallel"].keys()
    for name, table in first["continuous"].items():
        # The last learning signals of a sequence reach a continuous simulation's neurons in the next one.
        chosen = slice(None) if name == "spikes" else np.rint(table["time"] / 0.5) >= 3
        for column, values in table.items():
            other = first["data_parallel"][name][column]
            if values.dtype.kind == "f":
                np.testing.assert_allclose(other[chosen], values[chosen], rtol=1e-12, atol=1e-14, err_msg=column)
            else:
                np.testing.assert_array_equal(other, values, err_msg=f"{name} {column}")


@both
@pytest.mark.parametrize("every", [5, 50])
def test_a_longer_interval_records_every_so_manyth_row(records, training, every):
    overrides = [*SMALL, f"training={training}", "task.n_iter=1", "task.n_batch=2", "recording.n_record=3"]
    trainer = make_trainer(config(*overrides, "kernel.resolution=0.5", f"recording.interval={0.5 * every}"))
    try:
        thin = next(iter(trainer.records())).recording
    finally:
        trainer.close()
    full = records[training][0].recording
    for population in ("reg", "ad", "out"):
        chosen = np.rint(full[population]["time"] / 0.5).astype(int) % every == 0
        for column, values in full[population].items():
            np.testing.assert_array_equal(thin[population][column], values[chosen], err_msg=f"{population} {column}")
    np.testing.assert_equal(thin["spikes"], full["spikes"])


def test_recorders_are_empty_after_each_iteration():
    trainer = make_trainer(config(*SMALL, "task.n_iter=5"))
    kept = []
    for _ in trainer.records():
        probes = trainer._stream._network.probes
        kept.append({name: probe.recorder.n_events for name, probe in probes.items()})
        assert all(len(probe._kept["times"]) < 200 for probe in probes.values())
    assert len(kept) == 5
    assert all(count == 0 for counts in kept for count in counts.values())


def test_weight_changes_are_of_the_sampled_synapses():
    for training in ("continuous", "data_parallel"):
        trainer = make_trainer(config(*SMALL, f"training={training}", "task.n_iter=3", "recording.n_record_w=2"))
        try:
            changes = [r.weight_changes for r in trainer.records() if r.row.phase == "training"]
        finally:
            trainer.close()
        joined = {key: np.concatenate([table[key] for table in changes]) for key in changes[0]}
        found = set(zip(map(str, joined["projection"]), map(int, joined["pre"]), map(int, joined["post"]), strict=True))
        pairs = [(pre, post) for pre in range(2) for post in range(2)]
        assert found <= {
            (name, *pair)
            for name in ("in_rec", "rec_rec", "rec_out")
            for pair in pairs
            if name != "rec_rec" or pair[0] != pair[1]
        }
        assert {name for name, *_ in found} == {"in_rec", "rec_rec", "rec_out"}, training
