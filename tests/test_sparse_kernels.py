"""Sparse synapses, and gradients with little memory, against the dense kernels and the equations."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from eprop_cli.connectivity.mask import of_matrix
from eprop_cli.engines.compiled import kernels, synapses
from eprop_cli.engines.compiled import neurons as k
from eprop_cli.engines.compiled.batch import Circuit, Simulator, summation
from eprop_cli.engines.compiled.events import events, listed, raster

N_IN, N_OUT, N_STEPS, WINDOW = 15, 6, 150, 40
ORDERS = ("apart", "tiled", "streamed")


@dataclass(frozen=True)
class Case:
    """A network as matrices with masks, and a batch for it; shapes as in kernels.run."""

    neurons: np.ndarray
    surrogates: np.ndarray
    readouts: np.ndarray
    softmax: bool
    weights: np.ndarray
    weights_out: np.ndarray
    feedback: np.ndarray
    masks: tuple[np.ndarray, np.ndarray, np.ndarray]
    spikes: np.ndarray
    targets: np.ndarray

    def sparse(self):
        """The network with only the synapses of the masks."""
        matrices = self.weights, self.weights_out, self.feedback
        parts = [sparse(matrix, mask) for matrix, mask in zip(matrices, self.masks, strict=True)]
        return Circuit(self.neurons, self.surrogates, self.readouts, self.softmax, *parts)

    def dense(self):
        """The network with all synapses."""
        parts = [synapses.dense(matrix) for matrix in (self.weights, self.weights_out, self.feedback)]
        return Circuit(self.neurons, self.surrogates, self.readouts, self.softmax, *parts)

    def reference(self, lost=None):
        """What the dense kernels make of it: potential, signal, n_spikes, fired, dynamics, sums of gradients."""
        n_batch, n_rec = len(self.spikes), self.neurons.shape[1]
        lost = np.zeros((n_batch, N_IN), dtype=bool) if lost is None else lost
        filled = (
            np.empty((n_batch, N_STEPS, N_OUT)), np.empty((n_batch, WINDOW, N_OUT)),
            np.empty((n_batch, n_rec), dtype=np.int64), np.zeros((n_batch, N_STEPS, n_rec), dtype=bool),
            np.empty((n_batch, N_STEPS, 2, 3)), np.empty((n_batch, *self.weights.shape)),
            np.empty((n_batch, *self.weights_out.shape)),
        )  # fmt: skip
        kernels.run(
            np.arange(n_batch), self.neurons, self.surrogates, self.readouts, self.softmax,
            self.weights, self.weights_out, self.feedback, self.spikes, self.targets, lost, np.array([1, n_rec - 1]),
            *filled,
        )  # fmt: skip
        return *filled[:5], filled[5].sum(axis=0), filled[6].sum(axis=0)


def case(n_rec, p=1.0, softmax=True, seed=0, n_batch=3):
    """Regular and adaptive neurons of which no two are alike; weights are 0 where masks are False."""
    rng = np.random.default_rng(seed)
    n_reg = n_rec // 3
    adaptive = np.arange(n_rec) >= n_reg
    neurons = np.zeros((k.N_PARAMETERS, n_rec))
    neurons[k.ALPHA] = np.exp(-1 / rng.uniform(5, 40, n_rec))
    neurons[k.SCALE] = rng.uniform(0.5, 1.0, n_rec)
    neurons[k.DRIVE] = rng.uniform(-0.01, 0.02, n_rec)
    neurons[k.V_MIN] = np.where(rng.random(n_rec) < 0.3, -0.3, -np.inf)
    neurons[k.V_TH] = rng.uniform(0.3, 0.9, n_rec)
    neurons[k.T_REF] = rng.integers(1, 7, n_rec)
    neurons[k.RHO] = np.exp(-1 / rng.uniform(20, 500, n_rec)) * adaptive
    neurons[k.BETA] = rng.uniform(0, 0.3, n_rec) * adaptive
    neurons[k.HEIGHT], neurons[k.SLOPE] = rng.uniform(0.2, 1, n_rec), 1 / rng.uniform(0.3, 1.5, n_rec)
    neurons[k.C_REG], neurons[k.F_TARGET] = rng.uniform(0, 100, n_rec), rng.uniform(0, 0.1, n_rec)
    readouts = np.zeros(k.N_PARAMETERS)
    readouts[k.ALPHA], readouts[k.V_MIN] = np.exp(-1 / 20), -np.inf
    readouts[k.SCALE], readouts[k.DRIVE], readouts[k.E_L] = 1 - readouts[k.ALPHA], 0.01, -0.2
    shapes = {(N_IN + n_rec, n_rec): p, (n_rec, N_OUT): max(p, 0.3), (N_OUT, n_rec): max(p, 0.3)}
    masks = tuple(rng.random(shape) < density for shape, density in shapes.items())
    weights = rng.standard_normal(masks[0].shape) * masks[0]
    weights[:N_IN] /= np.sqrt(N_IN * p)
    weights[N_IN:] /= 2 * np.sqrt(n_rec * p)
    weights_out, feedback = (rng.standard_normal(mask.shape) * mask for mask in masks[1:])
    spikes = rng.random((n_batch, N_STEPS, N_IN)) < 0.15
    targets = rng.random((n_batch, WINDOW, N_OUT))
    surrogates = np.array([[seed % 4, 0, n_reg], [(seed + 1) % 4, n_reg, n_rec]])
    return Case(neurons, surrogates, readouts, softmax, weights, weights_out, feedback, masks, spikes, targets)


def sparse(values, mask):
    """The synapses of a matrix (n_pre, n_post) at which a mask of the same shape is True."""
    return synapses.listed(*of_matrix(mask.T).lists, values[mask])


def matrix(network, values, n_post):
    """Values of synapses as a matrix (n_pre, n_post), 0 where there is none."""
    if network.dense:
        return values.reshape(network.n_pre, n_post)
    found = np.zeros((network.n_pre, n_post))
    found[np.repeat(np.arange(network.n_pre), np.diff(network.row)), network.post[: len(values)]] = values
    return found


def simulate(network, given, n_threads=1, everyone=False, **options):
    if everyone:
        options["watched"] = np.arange(given.neurons.shape[1])
    simulator = Simulator(n_threads)
    found = simulator.run(network, given.spikes, given.targets, **options)
    simulator.close()
    return found


def relative(values, others):
    """Largest difference in units of the largest value."""
    return np.abs(values - others).max() / np.abs(others).max()


def assert_same(network, given, found, reference):
    """Spikes and potentials equal to the bit; gradients to 1e-12 of the largest, where there are synapses."""
    for ours, theirs in zip(found[:5], reference[:5], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert 0.005 < reference[3].mean() < 0.4
    for projection, ours, theirs in ((network.rec, *found[5:6], reference[5]), (network.out, found[6], reference[6])):
        mask = matrix(projection, np.ones(len(ours)), theirs.shape[1])
        assert relative(matrix(projection, ours, theirs.shape[1]), theirs * mask) <= 1e-12


# Against the dense kernels


@pytest.mark.parametrize("order", ["tiled", "streamed"])
def test_blocks_of_neurons_that_are_alike_share_parameters(order):
    given = case(1300, 0.05, seed=2, n_batch=1)
    alike = [0] * 700 + [700] * 599 + [1299]  # they differ within a block, and by one neuron
    given.neurons[:] = given.neurons[:, alike]
    found = simulate(given.sparse(), given, everyone=True, recorded=np.array([1, 1299]), order=order)
    assert_same(given.sparse(), given, found, given.reference())


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("order", ["tiled", "streamed"])
@pytest.mark.parametrize(("n_rec", "p"), [(20, 1.0), (20, 0.2), (100, 0.3), (130, 0.02), (500, 0.05), (500, 1.0)])
def test_sparse_synapses_are_zeros_left_out(n_rec, p, order, softmax):
    given = case(n_rec, p, softmax, seed=n_rec)
    network, recorded = given.sparse(), np.array([1, n_rec - 1])
    found = simulate(network, given, recorded=recorded, everyone=True, order=order)
    assert not network.rec.dense
    assert_same(network, given, found, given.reference())


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n_rec", [20, 64, 100])
def test_dense_synapses(n_rec, order, softmax):
    given = case(n_rec, 1.0, softmax, seed=n_rec + 1)
    found = simulate(given.dense(), given, recorded=np.array([1, n_rec - 1]), everyone=True, order=order)
    assert_same(given.dense(), given, found, given.reference())


@pytest.mark.parametrize("order", ORDERS)
def test_inputs_that_lose_a_term(order):
    given = case(70, 1.0 if order == "apart" else 0.3, seed=4)
    network = given.dense() if order == "apart" else given.sparse()
    lost = np.random.default_rng(1).random((3, N_IN)) < 0.4
    lost[1] = False
    found, whole = (simulate(network, given, lost=rows, order=order) for rows in (lost, None))
    reference = given.reference(lost)[5]
    mask = matrix(network.rec, np.ones(len(found.gradient)), 70)
    assert relative(matrix(network.rec, found.gradient, 70), reference * mask) <= 1e-12
    ends = network.rec.row[N_IN]
    assert relative(found.gradient[:ends], whole.gradient[:ends]) > 1e-4
    np.testing.assert_array_equal(found.gradient[ends:], whole.gradient[ends:])


def test_neurons_without_synapses_and_networks_without_any():
    given = case(40, 0.2, seed=2)
    given.masks[0][[3, N_IN + 5]] = False
    given.weights[[3, N_IN + 5]] = 0.0
    network = given.sparse()
    for order in ("tiled", "streamed"):
        found = simulate(network, given, recorded=np.array([1, 39]), everyone=True, order=order)
        assert_same(network, given, found, given.reference())
    given.masks[0][:] = False
    found = simulate(given.sparse(), given)
    assert found.gradient.shape == (0,)


# Against the equations


def test_gradients_are_those_of_a_trace_per_synapse():
    given = case(20, 0.4, seed=7, n_batch=2)
    found = simulate(given.sparse(), given, recorded=np.arange(20), everyone=True)
    gradient, gradient_out = np.zeros(given.weights.shape), np.zeros(given.weights_out.shape)
    p, kappa = given.neurons, given.readouts[k.ALPHA]
    for b in range(2):
        z, psi = found.fired[b].astype(float), found.dynamics[b, :, :, k.KEPT_PSI]
        arriving = np.hstack([given.spikes[b], np.vstack([np.zeros(20), z[:-1]])])
        arriving[0] = 0.0
        rate = p[k.C_REG] * (z.mean(axis=0) - p[k.F_TARGET]) / N_STEPS
        epsilon_v, epsilon_a, filtered = (np.zeros(given.weights.shape) for _ in range(3))
        filtered_z = np.zeros(20)
        for t in range(N_STEPS):
            epsilon_v = p[k.ALPHA] * epsilon_v + arriving[t][:, None]
            e = psi[t] * (epsilon_v - p[k.BETA] * epsilon_a)
            epsilon_a = psi[t] * epsilon_v + (p[k.RHO] - psi[t] * p[k.BETA]) * epsilon_a
            filtered, filtered_z = kappa * filtered + (1 - kappa) * e, kappa * filtered_z + z[t]
            error, inside = np.zeros(N_OUT), t - N_STEPS + WINDOW
            if inside >= 0:
                error = found.signal[b, inside] - given.targets[b, inside]
            gradient += (error @ given.feedback) * filtered + rate * e
            gradient_out += filtered_z[:, None] * error
    assert relative(found.gradient, gradient[given.masks[0]]) <= 1e-12
    assert relative(found.gradient_out, gradient_out[given.masks[1]]) <= 1e-12


def test_means_have_the_factor_of_arriving_spikes():
    given = case(30, 0.3, seed=3)
    for network in (given.sparse(), given.dense()):
        simulator = Simulator(2)
        sums, means = (simulator.run(network, given.spikes, given.targets) for _ in range(2))
        simulator.average(network, means, 120)
        simulator.close()
        expected = matrix(network.rec, sums.gradient, 30) * (given.neurons[k.SCALE] / 120)
        np.testing.assert_array_equal(matrix(network.rec, means.gradient, 30), expected)
        np.testing.assert_array_equal(means.gradient_out, sums.gradient_out * (given.readouts[k.SCALE] / 120))


# Threads


@pytest.mark.parametrize("order", ORDERS)
def test_any_number_of_threads_gives_the_same_bits(order):
    given = case(150, 1.0 if order == "apart" else 0.2, seed=5, n_batch=5)
    network = given.dense() if order == "apart" else given.sparse()
    lost = np.random.default_rng(2).random((5, N_IN)) < 0.2
    one, *others = (
        simulate(network, given, n, lost=lost, recorded=np.array([0]), everyone=True, order=order) for n in (1, 2, 3)
    )
    assert one.gradient.any()
    for other in others:
        for ours, theirs in zip(other, one, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_simulator_takes_batches_of_any_shape():
    simulator = Simulator(2)
    for n_rec in (20, 50, 20):
        given = case(n_rec, 0.3, seed=n_rec)
        again = simulator.run(given.sparse(), given.spikes, given.targets)
        np.testing.assert_array_equal(again.gradient, simulate(given.sparse(), given).gradient)
    simulator.close()


def test_evaluation_gives_the_same_signals():
    given = case(50, 0.3, seed=8)
    network = given.sparse()
    recorded = np.array([3, 40])
    learned = simulate(network, given, 2, recorded=recorded)
    evaluated = simulate(network, given, 2, recorded=recorded, learn=False)
    for name in ("potential", "signal", "n_spikes", "dynamics"):
        np.testing.assert_array_equal(getattr(evaluated, name), getattr(learned, name))
    assert not evaluated.gradient.size


@pytest.mark.parametrize("n_threads", [1, 2])
def test_memory_for_gradients_does_not_grow_with_the_batch(n_threads, monkeypatch):
    monkeypatch.setattr("eprop_cli.engines.compiled.batch.TOGETHER_BYTES", 0)  # as if the network were large
    peaks = []
    for n_batch in (2, 16):
        given = case(600, 0.5, seed=6, n_batch=n_batch)  # what threads list meanwhile is little beside its synapses
        network, simulator = given.sparse(), Simulator(n_threads)
        simulator.run(network, given.spikes, given.targets)
        tracemalloc.start()
        simulator.run(network, given.spikes, given.targets)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        simulator.close()
    assert peaks[0] > network.rec.weights.nbytes
    assert peaks[1] - peaks[0] < network.rec.weights.nbytes  # and not 14 times that


def test_a_thread_may_take_several_sequences_before_they_are_summed(monkeypatch):
    given = case(60, 0.5, seed=6, n_batch=7)
    expected = {}
    for each in (0, 3 * 8 * N_STEPS * 60):  # one, three
        monkeypatch.setattr("eprop_cli.engines.compiled.batch.TOGETHER_BYTES", each)
        for n_threads in (1, 2):
            found = simulate(given.sparse(), given, n_threads)
            for name, values in found._asdict().items():
                np.testing.assert_array_equal(values, expected.setdefault(name, values), err_msg=name)


# Synapses, events, order of summation


def test_events_in_any_order_are_the_raster():
    given = case(30, 0.3, seed=9)
    expected = events(given.spikes)
    order = np.random.default_rng(0).permutation(np.count_nonzero(given.spikes))
    found = listed(*(axis[order] for axis in np.nonzero(given.spikes)), given.spikes.shape)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(raster(found), given.spikes)
    simulator = Simulator(1)
    for network in (given.sparse(), given.dense()):
        by_event, by_raster = (simulator.run(network, spikes, given.targets) for spikes in (found, given.spikes))
        np.testing.assert_array_equal(by_event.gradient, by_raster.gradient)
    simulator.close()


def test_the_order_of_summation_follows_density():
    assert summation(case(100).dense()) == "apart"
    assert summation(case(500).dense()) == "tiled"
    assert summation(case(500, 0.8).sparse()) == "tiled"
    assert summation(case(500, 0.2).sparse()) == "streamed"
