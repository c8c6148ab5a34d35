"""The CUDA kernels against the CPU's: in Numba's simulator, and on a device if there is one."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from simulator import SIMULATED, run_in_the_simulator
from small import config

from eprop_cli.engines.compiled import batch, kernels
from eprop_cli.engines.compiled import neurons as k
from eprop_cli.engines.compiled.synapses import dense, listed
from eprop_cli.optimizers.base import Rates

cuda = pytest.importorskip("numba.cuda")
on_device = pytest.mark.skipif(
    not SIMULATED and not cuda.is_available(), reason="no CUDA device; test_in_the_simulator runs this"
)


def test_in_the_simulator():
    run_in_the_simulator(__file__, Path(__file__).with_name("test_cuda_engine.py"))


@dataclass
class Net:
    """What kernels.run takes. Shapes as there."""

    neurons: np.ndarray
    surrogates: np.ndarray
    readouts: np.ndarray
    softmax: bool
    weights: np.ndarray
    weights_out: np.ndarray
    feedback: np.ndarray
    spikes: np.ndarray
    targets: np.ndarray

    def on_cpu(self, lost=None):
        """Sums of gradients, signal, spike counts."""
        n_batch, n_steps, n_in = self.spikes.shape
        n_rec, n_out = self.weights_out.shape
        lost = np.zeros((n_batch, n_in), bool) if lost is None else lost
        signal, n_spikes = np.empty((n_batch, self.targets.shape[1], n_out)), np.empty((n_batch, n_rec), np.int64)
        gradients, gradients_out = np.empty((n_batch, n_in + n_rec, n_rec)), np.empty((n_batch, n_rec, n_out))
        kernels.run(
            np.arange(n_batch), self.neurons, self.surrogates, self.readouts, self.softmax,
            self.weights, self.weights_out, self.feedback, self.spikes, self.targets, lost, np.arange(0),
            np.empty((n_batch, n_steps, n_out)), signal, n_spikes, np.zeros((n_batch, 0, n_rec), bool),
            np.empty((n_batch, n_steps, 0, 3)), gradients, gradients_out,
        )  # fmt: skip
        return _summed(gradients), _summed(gradients_out), signal, n_spikes

    def on_device(self, lost=None, synapses=None, order="apart", **options):
        """A simulation of the batch, and its outcome."""
        from eprop_cli.engines.cuda.inputs import from_spikes
        from eprop_cli.engines.cuda.simulation import Layout, Shape, Simulation

        n_batch, n_steps, n_in = self.spikes.shape
        n_rec, n_out = self.weights_out.shape
        network = Layout(n_in, n_out, self.neurons, self.surrogates, self.readouts, self.softmax, synapses, order)
        shape = Shape(n_batch, n_steps, self.targets.shape[1])
        simulation = Simulation(network, shape, truncating=lost is not None, **options)
        weights = self.weights if synapses is None else self.weights[_pre(synapses), synapses.posts]
        simulation.set_weights(weights, self.weights_out, self.feedback)
        number = simulation.start(from_spikes(self.spikes, n_in + n_rec), self.targets, lost)
        return simulation, simulation.finish(number)


def _summed(gradients):
    """Sum over the batch, in its order."""
    total = gradients[0].copy()
    for gradient in gradients[1:]:
        total += gradient
    return total


def _pre(synapses):
    return np.repeat(np.arange(len(synapses.rows) - 1), np.diff(synapses.rows))


def random_net(seed, n_in=3, n_rec=5, n_out=2, n_batch=3, n_steps=8, window=4, softmax=False, functions=(0, 0)):
    """A network in which no two neurons are alike and all fire, and a batch for it."""
    if not SIMULATED:  # a device has the time for what is more telling
        n_in, n_rec, n_batch, n_steps, window = 8 * n_in, 13 * n_rec, 7 * n_batch, 20 * n_steps, 20 * window
    rng = np.random.RandomState(seed)
    n_reg = n_rec // 2
    neurons, adaptive = np.zeros((k.N_PARAMETERS, n_rec)), np.arange(n_rec) >= n_reg
    neurons[k.ALPHA] = np.exp(-1 / rng.uniform(5, 40, n_rec))
    neurons[k.SCALE] = rng.uniform(0.8, 1, n_rec)
    neurons[k.DRIVE] = rng.uniform(-0.01, 0.02, n_rec)
    neurons[k.V_MIN] = np.where(rng.rand(n_rec) < 0.5, -0.1, -np.inf)
    neurons[k.V_TH] = rng.uniform(0.3, 0.6, n_rec)
    neurons[k.T_REF] = rng.randint(1, 4, n_rec)
    neurons[k.RHO] = np.exp(-1 / rng.uniform(20, 500, n_rec)) * adaptive
    neurons[k.BETA] = rng.uniform(0, 0.3, n_rec) * adaptive
    neurons[k.HEIGHT] = rng.uniform(0.2, 1, n_rec)
    neurons[k.SLOPE] = 1 / rng.uniform(0.3, 1.5, n_rec)
    neurons[k.C_REG] = rng.uniform(0, 100, n_rec)
    neurons[k.F_TARGET] = rng.uniform(0, 0.1, n_rec)
    readouts = np.zeros(k.N_PARAMETERS)
    readouts[k.ALPHA], readouts[k.V_MIN] = np.exp(-1 / rng.uniform(5, 40)), -1.0
    readouts[k.SCALE], readouts[k.DRIVE], readouts[k.E_L] = 1 - readouts[k.ALPHA], 0.01, -0.2
    weights = np.vstack([rng.randn(n_in, n_rec) / np.sqrt(n_in / 3), rng.randn(n_rec, n_rec) / np.sqrt(n_rec)])
    np.fill_diagonal(weights[n_in:], 0.0)
    spikes = rng.rand(n_batch, n_steps, n_in) < (0.4 if SIMULATED else 0.1)
    spikes[0] = False  # a silent sequence
    surrogates = np.array([[functions[0], 0, n_reg], [functions[1], n_reg, n_rec]])
    return Net(
        neurons, surrogates, readouts, softmax, weights, rng.randn(n_rec, n_out),
        rng.randn(n_out, n_rec), spikes, rng.rand(n_batch, window, n_out),
    )  # fmt: skip


def assert_equal(net, simulation, outcome, expected, rtol=0.0):
    """Gradients, signal and spike counts are the CPU's; equal to the bit where rtol is 0."""
    gradient, gradient_out, signal, n_spikes = expected
    found, found_out = simulation.gradients()
    np.testing.assert_array_equal(outcome.n_spikes, n_spikes)
    for one, other in (
        (found.reshape(gradient.shape), gradient),
        (found_out, gradient_out),
        (simulation.signal(), signal),
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * np.abs(other).max())
    assert n_spikes[1:].sum() > len(n_spikes[0])
    assert np.count_nonzero(gradient) >= gradient.size / 2


@on_device
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("functions", [(0, 2), (3, 0)])
def test_squared_error_equals_the_cpu_to_the_bit(functions, resident):
    net = random_net(1, functions=functions)
    simulation, outcome = net.on_device(resident=resident)
    assert_equal(net, simulation, outcome, net.on_cpu())


@on_device
def test_cross_entropy_equals_the_cpu_but_for_exp():
    net = random_net(2, softmax=True, functions=(1, 1))
    expected = net.on_cpu()
    simulation, outcome = net.on_device(resident=True)
    assert_equal(net, simulation, outcome, expected, rtol=1e-12)
    signal = expected[2]
    np.testing.assert_allclose(outcome.terms, -np.sum(net.targets * np.log(signal), axis=2), rtol=1e-12)
    np.testing.assert_allclose(outcome.means, signal.mean(axis=1), rtol=1e-12)


@on_device
def test_lost_inputs_and_pieces_of_any_size():
    net = random_net(3)
    n_batch, _, n_in = net.spikes.shape
    lost = np.zeros((n_batch, n_in), bool)
    lost[1, 0] = lost[2, 1:] = True
    expected = net.on_cpu(lost)
    assert np.any(expected[0] != net.on_cpu()[0])
    for n_piece in (2, n_batch):
        simulation, outcome = net.on_device(lost, n_piece=n_piece)
        assert_equal(net, simulation, outcome, expected)


@on_device
@pytest.mark.parametrize("resident", [True, False])
def test_sparse_synapses_have_the_gradient_of_dense_ones_with_weight_0(resident):
    from eprop_cli.engines.cuda.simulation import Lists

    net = random_net(4)
    exists = np.random.RandomState(5).rand(*net.weights.shape) < 0.7
    exists[1] = False  # a neuron without synapses
    net.weights[~exists] = 0.0
    synapses = Lists(np.append(0, np.cumsum(exists.sum(axis=1))), np.nonzero(exists)[1].astype(np.uint32))
    gradient, gradient_out, _, n_spikes = net.on_cpu()
    simulation, outcome = net.on_device(synapses=synapses, resident=resident)
    found, found_out = simulation.gradients()
    np.testing.assert_array_equal(found, gradient[exists])
    np.testing.assert_array_equal(found_out, gradient_out)
    np.testing.assert_array_equal(outcome.n_spikes, n_spikes)


@on_device
@pytest.mark.parametrize("order", ["tiled", "streamed"])
def test_sums_of_sparse_gradients_have_the_order_of_the_cpu(order):
    from eprop_cli.engines.cuda.simulation import Lists

    net = random_net(11, n_batch=4, n_steps=14, window=5)
    net.spikes[1:, -1] = True  # spikes emitted in the last step arrive nowhere
    exists = np.random.RandomState(5).rand(*net.weights.shape) < 0.8
    row, post = np.append(0, np.cumsum(exists.sum(axis=1))), np.nonzero(exists)[1].astype(np.uint32)
    rec = listed(row, post, net.weights[exists])
    parts = rec, dense(net.weights_out), dense(net.feedback)
    network = batch.Circuit(net.neurons, net.surrogates, net.readouts, net.softmax, *parts)
    watched = np.arange(net.neurons.shape[1])
    expected = batch.Simulator(1).run(network, net.spikes, net.targets, order=order, watched=watched)
    assert expected.fired[:, -1].any()
    net.weights[:] = 0.0
    synapses = Lists(rec.row, rec.post)
    net.weights[_pre(synapses), rec.post] = rec.weights
    simulation, outcome = net.on_device(synapses=synapses, order=order, n_piece=3)
    found, found_out = simulation.gradients()
    np.testing.assert_array_equal(outcome.n_spikes, expected.n_spikes)
    np.testing.assert_array_equal(found, expected.gradient)
    np.testing.assert_array_equal(found_out.ravel(), expected.gradient_out)
    assert expected.n_spikes.max() > 4


@on_device
def test_batches_started_again_and_again_give_the_same():  # from the third on, as a graph
    from eprop_cli.engines.cuda.inputs import from_spikes

    net = random_net(3)
    expected = net.on_cpu()
    for resident in (True,) if SIMULATED else (True, False):  # there is no graph in the simulator
        simulation, outcome = net.on_device(resident=resident)
        inputs = from_spikes(net.spikes, net.spikes.shape[2] + net.neurons.shape[1])
        for _ in range(1 if SIMULATED else 6):
            outcome = simulation.finish(simulation.start(inputs, net.targets))
            assert_equal(net, simulation, outcome, expected)


@on_device
def test_one_neuron_and_more_readouts_than_threads():
    net = random_net(6, n_rec=1, n_out=5, n_in=1, n_batch=2, n_steps=6, window=3)
    net.weights[:, 0] = 0.7
    assert_equal(net, *net.on_device(), net.on_cpu())


@on_device
def test_batches_in_flight_do_not_disturb_each_other():
    from eprop_cli.engines.cuda.inputs import from_spikes

    net = random_net(7, n_steps=6, window=3, softmax=True)
    n_batch, n_in = net.spikes.shape[0], net.spikes.shape[2]
    classes = np.arange(n_batch) % net.targets.shape[2]
    net.targets[:] = np.eye(net.targets.shape[2])[classes][:, None]
    other = replace(net, spikes=net.spikes[::-1].copy())
    simulation, _ = net.on_device()
    inputs = [from_spikes(each.spikes, n_in + net.neurons.shape[1]) for each in (net, other)]
    numbers = [
        simulation.start(each, classes, learning=learning) for each, learning in zip(inputs, (False, True), strict=True)
    ]
    outcomes = [simulation.finish(number) for number in numbers]
    expected = net.on_cpu(), other.on_cpu()
    for outcome, (*_, n_spikes) in zip(outcomes, expected, strict=True):
        np.testing.assert_array_equal(outcome.n_spikes, n_spikes)
    assert_equal(other, simulation, outcomes[1], expected[1], rtol=1e-12)


@on_device
@pytest.mark.parametrize("name", ["adam", "gradient_descent"])
def test_optimizers_equal_the_cpu_to_the_bit(name):
    from eprop_cli.engines.cuda.simulation import Step

    factors = "optimizer.eta_factor={in_rec: 0.5, rec_rec: 1.0, rec_out: 2.0}"
    settings = [
        "training=data_parallel",
        f"optimizer={name}",
        factors,
        "optimizer.weight_decay=0.1",
        "optimizer.eta=0.01",
    ]
    settings += ["optimizer.Wmin=-0.5", "optimizer.Wmax=0.5", "optimizer.bounds.rec_out=[-0.3, 0.4]"]
    optimizer = config(*settings).make_optimizer()
    net = random_net(8, n_steps=6, window=3)
    n_in = net.spikes.shape[2]
    simulation, _ = net.on_device()
    gradient, gradient_out = net.on_cpu()[:2]
    simulation.average(4)
    gradient = gradient * (net.neurons[k.SCALE] / 4)
    gradients = {"in_rec": gradient[:n_in].T, "rec_rec": gradient[n_in:].T.copy()}
    np.fill_diagonal(gradients["rec_rec"], 0.0)
    gradients["rec_out"] = (gradient_out * (net.readouts[k.SCALE] / 4)).T
    weights = {"in_rec": net.weights[:n_in].T, "rec_rec": net.weights[n_in:].T, "rec_out": net.weights_out.T}
    state = optimizer.initial_state(weights)
    for _ in range(2):
        rates = optimizer.rates(state, 0.01)
        step = Step(rates, 0.01 * 0.1, -0.5, 0.5)
        simulation.optimize(replace(step, factor=0.5), step, Step(rates, 0.01 * 0.1, -0.3, 0.4, factor=2.0))
        weights, state = optimizer.optimize(state, weights, gradients)
    found, found_out = simulation.weights()
    expected = np.vstack([weights["in_rec"].T, weights["rec_rec"].T])
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    np.testing.assert_array_equal(found_out, weights["rec_out"].T)
    assert simulation.finite()
    assert np.abs(found).max() == 0.5
    if name == "adam":
        expected = np.vstack([state.moments["v"]["in_rec"].T, state.moments["v"]["rec_rec"].T])
        np.testing.assert_array_equal(simulation.moments()["v"].reshape(expected.shape), expected)
    simulation.optimize(Step(Rates(np.nan)))
    assert not simulation.finite()


@on_device
@pytest.mark.parametrize(
    ("free", "what"), [([10], "the network"), ([10**9, 10], "a sequence"), ([10**9, 10**9, 10], "a batch")]
)
def test_memory_is_asked_for(monkeypatch, free, what):
    from eprop_cli.engines.cuda import simulation
    from eprop_cli.engines.cuda.device import DeviceError

    monkeypatch.setattr(simulation, "free_memory", lambda: free.pop(0))
    with pytest.raises(DeviceError, match=rf"{what} needs .* GB of the device's memory"):
        random_net(9).on_device()


@on_device
def test_arithmetic_is_checked(monkeypatch):
    from eprop_cli.engines.cuda import device

    device.check_arithmetic()
    monkeypatch.setattr(device.np, "array_equal", lambda *arrays: False)
    with pytest.raises(device.DeviceError, match="fuses"):
        device.check_arithmetic()


@on_device
def test_inputs_list_all_spikes_but_those_of_step_0():
    from eprop_cli.engines.cuda.inputs import from_spikes, joined

    spikes = np.random.RandomState(10).rand(3, 5, 7) < 0.3
    together = from_spikes(spikes, 99)
    found = np.zeros_like(spikes)
    for b, t in np.ndindex(3, 5):
        pre = together.pre[together.first[b, t] : together.first[b, t + 1]]
        found[b, t, pre[pre != 99]] = True
        assert (np.diff(pre.astype(int))[: np.count_nonzero(pre != 99) - 1] > 0).all()
    np.testing.assert_array_equal(found[:, 1:], spikes[:, 1:])
    assert not found[:, 0].any()
    apart = joined([from_spikes(each[None], 99) for each in spikes])
    np.testing.assert_array_equal(apart.first, together.first)
    np.testing.assert_array_equal(apart.pre, together.pre)
    twice = from_spikes(2 * spikes.astype(np.uint8), 99)
    np.testing.assert_array_equal(twice.pre[twice.pre != 99], np.repeat(together.pre[together.pre != 99], 2))
