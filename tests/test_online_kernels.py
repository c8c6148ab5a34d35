import math

import numpy as np
import pytest

from eprop_cli.engines.compiled.online import ListedSynapses, Neurons, OnlineNetwork, OptimizerParameters, Readouts
from eprop_cli.engines.compiled.online.kernels import CUMULATED

N_IN, N_REC, N_OUT, N_STEPS = 12, 9, 2, 300
MODELS = ["eprop_iaf", "eprop_iaf_adapt", "eprop_iaf_psc_delta", "eprop_iaf_psc_delta_adapt"]
SURROGATES = ["piecewise_linear", "exponential", "fast_sigmoid_derivative", "arctan_derivative"]
DESCENT = {"type": "gradient_descent", "batch_size": 1, "optimize_each_step": False, "Wmin": -1.0, "Wmax": 1.0}
ADAM = {**DESCENT, "type": "adam", "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-8}
ETA = 1e-3


class Case:
    """A random network and its inputs; weights are (n_pre, n_post), exist says where there are synapses."""

    def __init__(
        self,
        seed=0,
        model="eprop_iaf",
        optimizer=DESCENT,
        cutoff=math.inf,
        sparse=False,
        n_steps=N_STEPS,
        rate=0.04,
        **changed,
    ):
        rng = np.random.default_rng(seed)
        e_l = float(rng.choice([0.0, -65.0]))
        self.model, self.optimizer = model, optimizer
        self.neuron = {
            "C_m": 1.0, "E_L": e_l, "I_e": 0.001, "V_m": e_l + 0.1, "V_th": e_l + 0.6, "V_min": e_l - 0.5, "t_ref": 3.0,
            "tau_m": 20.0, "c_reg": 3.0, "f_target": 10.0, "kappa": 0.9, "kappa_reg": 0.95,
            "surrogate_gradient_function": SURROGATES[seed % 4], "surrogate_gradient_height": 0.5,
            "surrogate_gradient_width": 0.6,
        }  # fmt: skip
        if "psc" in model:
            self.neuron |= {"V_reset": e_l - 0.1, "refractory_input": bool(seed % 2)}
        if model.endswith("adapt"):
            self.neuron |= {"adapt_beta": 0.2, "adapt_tau": 50.0}
        self.neuron |= changed
        self.readout = {"C_m": 1.0, "E_L": 0.2, "I_e": 0.002, "V_m": 0.2, "tau_m": 30.0}
        if math.isfinite(cutoff):
            self.neuron["eprop_isi_trace_cutoff"] = self.readout["eprop_isi_trace_cutoff"] = cutoff
        shapes = {"in": (N_IN, N_REC), "rec": (N_REC, N_REC), "out": (N_REC, N_OUT)}
        self.weights = {
            key: np.clip(rng.normal(0.0, size, shapes[key]), -0.99, 0.99)
            for key, size in {"in": 0.33, "rec": 0.2, "out": 0.25}.items()
        }
        part = {"in": 0.5, "rec": 0.3, "out": 0.7} if sparse else {"in": 1.0, "rec": 1.0, "out": 1.0}
        self.exist = {key: rng.random(shapes[key]) < part[key] for key in shapes}
        np.fill_diagonal(self.exist["rec"], False)
        self.feedback = rng.normal(size=(N_REC, N_OUT))
        self.inputs = (rng.random((n_steps, N_IN)) < rate).astype(np.uint8)
        self.inputs[rng.random((n_steps, N_IN)) < rate / 10] = 2  # two spikes that coincide
        self.targets = rng.normal(size=(n_steps, N_OUT))
        self.window = (rng.random(n_steps) < 0.6).astype(float)

    def stream(self, method=None):
        projections = [ListedSynapses.from_matrix(self.weights[key], self.exist[key]) for key in self.weights]
        neurons = Neurons(model=self.model, **self.neuron)
        readouts, optimizer = Readouts(**self.readout), OptimizerParameters(**self.optimizer)
        return OnlineNetwork(neurons, readouts, optimizer, *projections, self.feedback, ETA, method=method)

    def advance(self, stream, start=0, stop=None, eta=ETA, **options):
        part = slice(start, stop)
        return stream.advance(self.inputs[part], self.targets[part], self.window[part], eta, **options)


RECORDED_REC = ["V_m", "surrogate_gradient", "learning_signal", "V_th_adapt", "adaptation"]
RECORDED_OUT = ["V_m", "readout_signal", "target_signal", "error_signal"]


def nest_simulate(case, etas, final_steps=0):
    """Simulate the case in NEST; etas: (steps, eta) pairs. Returns readouts' and neurons' signals and weights."""
    import nest

    nest.ResetKernel()
    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.set(resolution=1.0, local_num_threads=1)
    n_steps = len(case.inputs)
    times = np.arange(n_steps) + 2.0
    generators, parrots = nest.Create("spike_generator", N_IN), nest.Create("parrot_neuron", N_IN)
    neurons, readouts = nest.Create(case.model, N_REC, case.neuron), nest.Create("eprop_readout", N_OUT, case.readout)
    targets, window = nest.Create("step_rate_generator", N_OUT), nest.Create("step_rate_generator")
    of_neurons = RECORDED_REC if case.model.endswith("adapt") else RECORDED_REC[:3]
    recorders = [
        nest.Create("multimeter", {"interval": 1.0, "record_from": names, "start": 2.0, "stop": 2.0 + n_steps})
        for names in (of_neurons, RECORDED_OUT)
    ]
    nest.SetDefaults("eprop_synapse", {"optimizer": {**case.optimizer, "eta": etas[0][1]}})
    nest.Connect(generators, parrots, "one_to_one", {"delay": 1.0})
    ends = {"in": (parrots, neurons), "rec": (neurons, neurons), "out": (neurons, readouts)}
    for key, (pre, post) in ends.items():
        i, j = np.nonzero(case.exist[key])
        synapses = {
            "synapse_model": "eprop_synapse", "weight": case.weights[key][i, j], "delay": np.ones(len(i))
        }  # fmt: skip
        nest.Connect(np.array(pre.tolist())[i], np.array(post.tolist())[j], "one_to_one", synapses)
    feedback = {"synapse_model": "eprop_learning_signal_connection", "delay": 1.0, "weight": case.feedback}
    nest.Connect(readouts, neurons, "all_to_all", feedback)
    for source, rule, port in ((targets, "one_to_one", 2), (window, "all_to_all", 1)):
        rate = {"synapse_model": "rate_connection_delayed", "delay": 1.0, "receptor_type": port}
        nest.Connect(source, readouts, rule, rate)
    for recorder, recorded in zip(recorders, (neurons, readouts), strict=True):
        nest.Connect(recorder, recorded)
    for i in range(N_IN):
        fired = np.flatnonzero(case.inputs[:, i])
        generators[i].set(spike_times=fired + 1.0, spike_multiplicities=case.inputs[fired, i].astype(int))
    for k in range(N_OUT):
        targets[k].set(amplitude_times=times, amplitude_values=case.targets[:, k])
    window.set(amplitude_times=times, amplitude_values=case.window)
    if final_steps:
        last = nest.Create("spike_generator", 1, {"spike_times": [n_steps + 1.0]})
        nest.Connect(last, parrots + neurons, "all_to_all", {"weight": 1000.0})
    nest.Simulate(2.0)
    for steps, eta in etas:
        nest.SetDefaults("eprop_synapse", {"optimizer": {**case.optimizer, "eta": eta}})
        nest.Simulate(float(steps))
    if final_steps:
        nest.Simulate(float(final_steps))
    weights = []
    for key, (pre, post) in ends.items():
        found = nest.GetConnections(pre, post, "eprop_synapse").get(["source", "target", "weight"])
        matrix = np.full(case.weights[key].shape, np.nan)
        matrix[np.array(found["source"]) - pre.tolist()[0], np.array(found["target"]) - post.tolist()[0]] = found[
            "weight"
        ]
        weights.append(matrix[case.exist[key]])
    signals = []
    for recorder, recorded in zip(recorders, (neurons, readouts), strict=True):
        events = recorder.events
        signals.append(
            {
                name: np.stack([events[name][events["senders"] == sender] for sender in recorded.tolist()], axis=1)
                for name in recorder.record_from
            }
        )
    return signals[0], signals[1], weights


CASES = {
    "dense": (Case(0, "eprop_iaf", cutoff=100.0), 0),
    "adam": (Case(1, "eprop_iaf", ADAM, cutoff=30.0, sparse=True), 0),
    "final": (Case(2, "eprop_iaf", cutoff=5.0, sparse=True), 3),
    "batch_size": (Case(3, "eprop_iaf", {**DESCENT, "batch_size": 7}, cutoff=2.0), 0),
    "each_step": (Case(4, "eprop_iaf", {**ADAM, "optimize_each_step": True}), 0),
    "long": (Case(5, "eprop_iaf", sparse=True, rate=0.012, n_steps=900), 0),
    "adapt": (Case(0, "eprop_iaf_adapt"), 3),
    "adapt_adam": (Case(1, "eprop_iaf_adapt", {**ADAM, "batch_size": 7}, cutoff=30.0, sparse=True), 0),
    "adapt_cutoff": (Case(6, "eprop_iaf_adapt", cutoff=1.0), 0),
    "delta": (Case(2, "eprop_iaf_psc_delta", cutoff=1.0, t_ref=0.0), 1),
    "delta_kept": (Case(3, "eprop_iaf_psc_delta", ADAM, sparse=True), 0),
    "delta_adapt": (Case(0, "eprop_iaf_psc_delta_adapt", cutoff=30.0), 0),
    "delta_adapt_kept": (Case(7, "eprop_iaf_psc_delta_adapt", {**DESCENT, "batch_size": 100}, sparse=True), 0),
}


@pytest.mark.nest
@pytest.mark.parametrize("name", CASES)
def test_walking_gives_nests_bits_and_the_fast_ways_nests_values(name):
    case, final_steps = CASES[name]
    change = len(case.inputs) // 2
    second = ETA if case.optimizer["optimize_each_step"] else ETA / 2  # else NEST's weights lag behind
    of_neurons, of_readouts, weights = nest_simulate(
        case, [(change, ETA), (len(case.inputs) - change, second)], final_steps
    )
    for method in ("walk", None):
        stream = case.stream(method)
        parts = [
            case.advance(stream, 0, change, recorded=np.arange(N_REC)),
            case.advance(stream, change, eta=second, recorded=np.arange(N_REC), final_steps=final_steps),
        ]
        assert sum(part.n_spikes.sum() for part in parts) > 10
        fast = 1e-8 if case.optimizer["type"] == "adam" else 1e-11  # Adam divides small gradients by their size
        tolerance = {"rtol": 0.0, "atol": 0.0 if method == "walk" else fast}
        assert len(of_readouts["V_m"]) >= len(case.inputs) - 1  # NEST's recorders lag by a step
        for signal, expected in of_readouts.items():
            found = np.concatenate([getattr(part, signal) for part in parts])[: len(expected)]
            np.testing.assert_allclose(found, expected, err_msg=signal, **tolerance)
        for signal, expected in of_neurons.items():
            found = np.concatenate([part.dynamics[signal] for part in parts])[: len(expected)]
            if signal == "learning_signal":  # where NEST has erased the row, it records that of another one
                same = np.isclose(found, expected, **tolerance)
                assert np.mean(same[case.window[: len(expected)] == 1.0]) > 0.98
                continue
            np.testing.assert_allclose(found, expected, err_msg=signal, **tolerance)
        for found, expected, key in zip(stream.weights(), weights, case.weights, strict=True):
            assert np.abs(expected - case.weights[key][case.exist[key]]).max() > 1e-4
            np.testing.assert_allclose(found, expected, err_msg=key, **tolerance)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("cutoff", [1, 2, 3, 100, 1000])
@pytest.mark.parametrize(("kappa", "kappa_reg", "tau_m"), [(0.97, 0.97, 30.0), (0.9, 0.99, 5.0), (0.8, 0.6, 100.0)])
def test_sums_and_maps_agree_with_the_walk(kappa, kappa_reg, tau_m, cutoff, rate):
    """With a batch that never ends weights stay, and all gradients are added up."""
    options = {"kappa": kappa, "kappa_reg": kappa_reg, "tau_m": tau_m, "optimizer": {**DESCENT, "batch_size": 10**9}}
    for model, methods in {"eprop_iaf": ["sums", "maps"], "eprop_iaf_adapt": ["maps"]}.items():
        case = Case(3, model, cutoff=float(cutoff), n_steps=1500, rate=rate, **options)
        walked = case.stream("walk")
        assert case.advance(walked).n_spikes.sum() > 10
        for method in methods:
            stream = case.stream(method)
            case.advance(stream)
            for which in ("synapses", "out_synapses"):
                found, expected = (getattr(each.state, which)[CUMULATED] for each in (stream, walked))
                assert np.count_nonzero(expected) > 0.3 * expected.size
                np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-12 * np.abs(expected).max())


def test_sums_are_refused_where_they_are_not_exact():
    with pytest.raises(ValueError, match="sums need neurons without adaptation"):
        Case(0, "eprop_iaf_adapt").stream("sums")
    with pytest.raises(ValueError, match="decay slowly"):
        Case(0, kappa=0.0).stream("sums")


def test_traces_without_filter_are_added_up_by_maps():
    case = Case(0, kappa=0.0, kappa_reg=0.0)
    walked, stream = case.stream("walk"), case.stream()
    np.testing.assert_allclose(case.advance(stream).V_m, case.advance(walked).V_m, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("method", ["walk", None])
@pytest.mark.parametrize("model", MODELS)
def test_a_stream_goes_on_from_its_state_bit_for_bit(model, method):
    case = Case(3, model, {**ADAM, "batch_size": 3}, cutoff=40.0, sparse=True)
    whole, first, second = (case.stream(method) for _ in range(3))
    expected = case.advance(whole)
    case.advance(first, 0, 133)
    second.state.load({name: array.copy() for name, array in first.state.arrays().items()})
    np.testing.assert_array_equal(case.advance(second, 133).V_m, expected.V_m[133:])
    for name, array in whole.state.arrays().items():
        np.testing.assert_array_equal(second.state.arrays()[name], array, err_msg=name)
    assert any(
        np.any(found != case.weights[key][case.exist[key]])
        for found, key in zip(second.weights(), case.weights, strict=True)
    )


def test_a_state_of_another_network_is_refused():
    arrays = Case(0, sparse=True).stream().state.arrays()
    with pytest.raises(ValueError, match="belongs to another network"):
        Case(0).stream().state.load(arrays)


@pytest.mark.parametrize("optimizer", [DESCENT, ADAM], ids=["gradient_descent", "adam"])
def test_a_frozen_copy_does_not_learn_and_touches_nothing(optimizer):
    case = Case(1, optimizer=optimizer)
    stream, undisturbed = case.stream(), case.stream()
    for each in (stream, undisturbed):
        case.advance(each, 0, 100)
    frozen = stream.frozen()
    before = frozen.weights()
    case.advance(frozen, 100, eta=0.0)
    for found, expected in zip(frozen.weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(case.advance(stream, 100).V_m, case.advance(undisturbed, 100).V_m)


def test_a_changed_eta_acts_from_the_second_update_on():
    case = Case(0)
    case.inputs[:] = 0
    case.inputs[[10, 50, 100, 150], 0] = 1
    stream = case.stream()
    weights = []
    for start, eta in ((0, ETA), (60, 0.0), (120, 0.0)):
        case.advance(stream, start, start + 60, eta=eta)
        weights.append(stream.weights()[0][:N_REC])
    assert np.any(weights[0] != weights[1])
    np.testing.assert_array_equal(weights[1], weights[2])


def test_a_neuron_without_input_stays_at_rest():
    case = Case(0, I_e=0.0, V_m=0.0, E_L=0.0, V_th=0.6, V_min=-1.0)
    case.inputs[:] = 0
    outcome = case.advance(case.stream(), recorded=[4], raster=True)
    assert not outcome.fired.any()
    assert not outcome.n_spikes.any()
    np.testing.assert_array_equal(outcome.dynamics["V_m"], 0.0)
    np.testing.assert_array_equal(outcome.error_signal, (outcome.V_m - case.targets) * case.window[:, np.newaxis])


def test_the_raster_shows_the_spikes_that_are_counted():
    case = Case(1)
    outcome = case.advance(case.stream(), raster=True)
    assert outcome.fired.sum() > 30
    np.testing.assert_array_equal(outcome.fired.sum(axis=0), outcome.n_spikes)


# Losses of NEST's script eprop_supervised_regression_sine-waves.py: (model, seed) -> the first five iterations.
SINE_WAVES = {
    ("eprop_iaf", 1): [
        107.73732072362752,
        106.42253313316886,
        107.37869441301808,
        108.10839027499375,
        107.76400611943626,
    ],
    ("eprop_iaf", 2): [
        93.72775289174575,
        93.29081336763974,
        93.29602010989265,
        93.37478212018877,
        92.56347037618733,
    ],
    ("eprop_iaf_adapt", 1): [
        245.3575336632606,
        85.75944869998479,
        127.11545676693218,
        90.95750095117339,
        81.73264432561811,
    ],
    ("eprop_iaf_psc_delta", 1): [
        102.76578496878753,
        100.93312623942623,
        100.68275465513147,
        98.8406028426196,
        98.36526509623869,
    ],
    ("eprop_iaf_psc_delta_adapt", 1): [
        108.93376904778609,
        107.75535237951335,
        107.90723780680403,
        106.53718038355359,
        106.96640503137422,
    ],
}


@pytest.mark.parametrize(("model", "seed"), SINE_WAVES)
@pytest.mark.parametrize("method", ["walk", None])
def test_the_sine_wave_script_is_reproduced(model, seed, method):
    from benchmarks.online import ETA, SineWaves

    task = SineWaves(model, seed)
    stream, losses = task.stream(method), []
    for _ in range(5):
        outcome = stream.advance(task.spikes.astype(np.uint8), task.target[:, np.newaxis], np.ones(1000), ETA)
        losses.append(0.5 * np.sum((outcome.readout_signal - outcome.target_signal) ** 2))
    assert losses == pytest.approx(SINE_WAVES[model, seed], rel=1e-10)
