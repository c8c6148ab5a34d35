"""The compiled kernels against the equations of Bellec et al. (2020), written out as they stand there."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from small import SMALL, config

from eprop_cli.connectivity.base import PLASTIC
from eprop_cli.engines.compiled import compiling, kernels
from eprop_cli.engines.compiled import neurons as k
from eprop_cli.engines.compiled.engine import CompiledEngine
from eprop_cli.engines.compiled.parameters import neuron_parameters, readout_parameters, surrogates
from eprop_cli.models.bsshslm_2020 import SURROGATE_GRADIENTS
from eprop_cli.training.base import initial_weights, make_task
from eprop_cli.values import Batch

# Surrogate gradient functions of x = (v - A) / width, as NEST documents them
SURROGATES = {
    "piecewise_linear": lambda x: np.maximum(0.0, 1.0 - np.abs(x)),
    "exponential": lambda x: np.exp(-np.abs(x)),
    "fast_sigmoid_derivative": lambda x: (1.0 + np.abs(x)) ** -2.0,
    "arctan_derivative": lambda x: 1.0 / (1.0 + x**2),
}


Filled = namedtuple("Filled", "potential signal n_spikes fired dynamics gradients gradients_out")


@dataclass
class Net:
    """What kernels.run takes. Shapes as there; n_reg neurons have the first surrogate gradient function."""

    neurons: np.ndarray
    readouts: np.ndarray
    weights: np.ndarray
    weights_out: np.ndarray
    feedback: np.ndarray
    spikes: np.ndarray
    targets: np.ndarray
    softmax: bool = True
    functions: tuple[int, int] = (0, 0)
    n_reg: int = 0

    @property
    def stretches(self):
        """Surrogate gradient functions as the kernels take them: function, start, stop."""
        n_rec = self.neurons.shape[1]
        ends = (0, self.n_reg), (self.n_reg, n_rec)
        return np.array([(f, *end) for f, end in zip(self.functions, ends, strict=True) if end[0] < end[1]])

    def run(self, lost=None):
        """What the kernels make of it, all neurons recorded."""
        n_batch, n_steps, n_in = self.spikes.shape
        n_rec, n_out = self.weights_out.shape
        simulated = Filled(
            potential=np.empty((n_batch, n_steps, n_out)),
            signal=np.empty((n_batch, self.targets.shape[1], n_out)),
            n_spikes=np.empty((n_batch, n_rec), dtype=np.int64),
            fired=np.zeros((n_batch, n_steps, n_rec), dtype=bool),
            dynamics=np.empty((n_batch, n_steps, n_rec, 3)),
            gradients=np.empty((n_batch, n_in + n_rec, n_rec)),
            gradients_out=np.empty((n_batch, n_rec, n_out)),
        )
        kernels.run(
            np.arange(n_batch), self.neurons, self.stretches, self.readouts, self.softmax,
            self.weights, self.weights_out, self.feedback, self.spikes, self.targets,
            np.zeros((n_batch, n_in), dtype=bool) if lost is None else lost, np.arange(n_rec), *simulated,
        )  # fmt: skip
        return simulated


@dataclass
class Forward:
    """Arriving and emitted spikes, surrogate gradients, readout signals of one sequence; axis 0 is time."""

    arriving: np.ndarray
    emitted: np.ndarray
    psi: np.ndarray
    signal: np.ndarray


def forward(net, b):
    """Simulate sequence b."""
    p, n_steps, n_rec = net.neurons, net.spikes.shape[1], net.neurons.shape[1]
    surrogates = [SURROGATES[SURROGATE_GRADIENTS[function]] for function in net.functions]
    regular = np.arange(n_rec) < net.n_reg
    v, a, z, refractory, y = (np.zeros(n_rec) for _ in range(5))
    y = np.zeros(net.weights_out.shape[1])
    found = Forward(*([] for _ in range(4)))
    for t in range(n_steps):
        arriving = np.concatenate([net.spikes[b, t], z]) * (t > 0)
        v = p[k.ALPHA] * v + p[k.SCALE] * (arriving @ net.weights) + p[k.DRIVE] - p[k.V_TH] * z
        v = np.maximum(v, p[k.V_MIN])
        a = p[k.RHO] * a + z
        threshold = p[k.V_TH] + p[k.BETA] * a
        refractory = np.maximum(refractory - 1, 0)
        x = (v - threshold) * p[k.SLOPE]
        psi = p[k.HEIGHT] * np.where(regular, surrogates[0](x), surrogates[1](x)) * (refractory == 0)
        z = ((v >= threshold) & (refractory == 0)).astype(float)
        refractory = refractory + p[k.T_REF] * z
        r = net.readouts
        y = np.maximum(r[k.ALPHA] * y + r[k.SCALE] * (z @ net.weights_out) + r[k.DRIVE], r[k.V_MIN])
        signal = np.exp(y + r[k.E_L]) / np.exp(y + r[k.E_L]).sum() if net.softmax else y + r[k.E_L]
        for kept, values in zip(vars(found).values(), (arriving, z, psi, signal), strict=True):
            kept.append(values)
    return Forward(*map(np.array, vars(found).values()))


def eligibility_gradients(net, b, found, last_error=True):
    """Gradients of sequence b with an eligibility trace per synapse (Methods: LIF and ALIF neurons).

    last_error: whether the readouts' error in the last step counts.
    """
    p, kappa = net.neurons, net.readouts[k.ALPHA]
    n_steps, window = len(found.psi), net.targets.shape[1]
    rate = p[k.C_REG] * (found.emitted.sum(axis=0) / n_steps - p[k.F_TARGET]) / n_steps
    epsilon_v, epsilon_a, filtered, gradient = (np.zeros(net.weights.shape) for _ in range(4))
    filtered_z, gradient_out = np.zeros(net.weights_out.shape[0]), np.zeros(net.weights_out.shape)
    for t in range(n_steps):
        epsilon_v = p[k.ALPHA] * epsilon_v + found.arriving[t][:, None]
        e = found.psi[t] * (epsilon_v - p[k.BETA] * epsilon_a)
        epsilon_a = found.psi[t] * epsilon_v + (p[k.RHO] - found.psi[t] * p[k.BETA]) * epsilon_a
        filtered = kappa * filtered + (1 - kappa) * e
        filtered_z = kappa * filtered_z + found.emitted[t]
        error = np.zeros(net.targets.shape[2])
        if t >= n_steps - window and (last_error or t < n_steps - 1):
            error = found.signal[t] - net.targets[b, t - n_steps + window]
        gradient += (error @ net.feedback) * filtered + rate * e
        gradient_out += filtered_z[:, None] * error
    return gradient, gradient_out


def random_net(seed, softmax=True, regular_spike_arrival=True):
    """A network in which no two neurons are alike, and a batch for it."""
    rng = np.random.RandomState(seed)
    n_batch, n_steps, window, n_in, n_reg, n_rec, n_out = 3, 80, 25, 6, 4, 9, 3
    neurons = np.zeros((k.N_PARAMETERS, n_rec))
    adaptive = np.arange(n_rec) >= n_reg
    neurons[k.ALPHA] = np.exp(-1 / rng.uniform(5, 40, n_rec))
    neurons[k.SCALE] = 1.0 if regular_spike_arrival else 1 - neurons[k.ALPHA]
    neurons[k.DRIVE] = rng.uniform(-0.01, 0.02, n_rec)
    neurons[k.V_MIN] = np.where(rng.rand(n_rec) < 0.3, -0.3, -np.inf)
    neurons[k.V_TH] = rng.uniform(0.3, 0.9, n_rec)
    neurons[k.T_REF] = rng.randint(1, 7, n_rec)
    neurons[k.RHO] = np.exp(-1 / rng.uniform(20, 500, n_rec)) * adaptive
    neurons[k.BETA] = rng.uniform(0, 0.3, n_rec) * adaptive
    neurons[k.HEIGHT] = rng.uniform(0.2, 1, n_rec)
    neurons[k.SLOPE] = 1 / rng.uniform(0.3, 1.5, n_rec)
    neurons[k.C_REG] = rng.uniform(0, 100, n_rec)
    neurons[k.F_TARGET] = rng.uniform(0, 0.1, n_rec)
    readouts = np.zeros(k.N_PARAMETERS)
    readouts[k.ALPHA], readouts[k.V_MIN] = np.exp(-1 / rng.uniform(5, 40)), -np.inf
    readouts[k.SCALE], readouts[k.DRIVE], readouts[k.E_L] = 1 - readouts[k.ALPHA], 0.01, -0.2
    strength = 1.0 if regular_spike_arrival else 10.0
    weights = strength * rng.randn(n_in + n_rec, n_rec) / 3
    np.fill_diagonal(weights[n_in:], 0.0)
    targets = rng.rand(n_batch, window, n_out)
    return Net(
        neurons, readouts, weights, rng.randn(n_rec, n_out), rng.randn(n_out, n_rec),
        rng.rand(n_batch, n_steps, n_in) < 0.15, targets, softmax, (seed % 4, (seed + 1) % 4), n_reg,
    )  # fmt: skip


def single(weight=0.1, spike=10, n_steps=60, window=20, target=0.0, feedback=1.0, **parameters):
    """One input that fires once, one neuron with tau_m 20 steps, one linear readout that the neuron does not reach."""
    neurons = np.zeros((k.N_PARAMETERS, 1))
    rows = {
        k.ALPHA: np.exp(-1 / 20),
        k.SCALE: 1.0,
        k.V_MIN: -np.inf,
        k.V_TH: 0.6,
        k.T_REF: 5.0,
        k.HEIGHT: 0.5,
        k.SLOPE: 1 / 0.6,
    }
    for row, value in (rows | {getattr(k, name): value for name, value in parameters.items()}).items():
        neurons[row] = value
    readouts = np.zeros(k.N_PARAMETERS)
    readouts[k.ALPHA], readouts[k.SCALE], readouts[k.V_MIN] = np.exp(-1 / 20), 1.0, -np.inf
    spikes = np.zeros((1, n_steps, 1), dtype=bool)
    spikes[0, spike] = True
    targets = np.full((1, window, 1), target)
    weights = np.array([[weight], [0.0]])
    return Net(neurons, readouts, weights, np.zeros((1, 1)), np.array([[feedback]]), spikes, targets, softmax=False)


def relative(values, others):
    """Largest difference in units of the largest value."""
    return np.abs(values - others).max() / np.abs(others).max()


# Against the equations


@pytest.mark.parametrize("regular_spike_arrival", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_eligibility_traces(seed, softmax, regular_spike_arrival):
    net = random_net(seed, softmax, regular_spike_arrival)
    simulated = net.run()
    for b in range(len(net.spikes)):
        found = forward(net, b)
        np.testing.assert_array_equal(simulated.fired[b], found.emitted.astype(bool))
        np.testing.assert_array_equal(simulated.n_spikes[b], found.emitted.sum(axis=0))
        assert 10 < simulated.n_spikes[b].sum() < 500
        assert relative(simulated.dynamics[b, :, :, k.KEPT_PSI], found.psi) <= 1e-13
        assert relative(simulated.signal[b], found.signal[-net.targets.shape[1] :]) <= 1e-13
        gradient, gradient_out = eligibility_gradients(net, b, found)
        assert relative(simulated.gradients[b], gradient) <= 1e-13
        assert relative(simulated.gradients_out[b], gradient_out) <= 1e-13


@pytest.mark.parametrize("seed", range(4))
def test_inputs_that_lose_a_term_lack_the_last_error(seed):
    net = random_net(seed)
    lost = np.random.RandomState(seed).rand(3, 6) < 0.4
    lost[2] = False
    whole, truncated = net.run(), net.run(lost)
    for b in range(3):
        gradient, _ = eligibility_gradients(net, b, forward(net, b), last_error=False)
        rows = np.flatnonzero(lost[b])
        others = np.setdiff1d(np.arange(len(gradient)), rows)
        np.testing.assert_array_equal(truncated.gradients[b][others], whole.gradients[b][others])
        np.testing.assert_array_equal(truncated.gradients_out[b], whole.gradients_out[b])
        if len(rows):
            assert relative(truncated.gradients[b][rows], gradient[rows]) <= 1e-13
            assert relative(truncated.gradients[b][rows], whole.gradients[b][rows]) > 1e-4


@pytest.mark.parametrize("loss", ["cross_entropy", "mean_squared_error"])
@pytest.mark.parametrize("regular_spike_arrival", ["true", "false"])
@pytest.mark.parametrize("average_gradient", ["true", "false"])
def test_the_engine_scales_gradients_by_arrival_window_and_batch(loss, regular_spike_arrival, average_gradient):
    settings = config(
        *SMALL, "training=data_parallel", "task.n_batch=3", f"neuron.out.loss={loss}",
        f"neuron.rec.regular_spike_arrival={regular_spike_arrival}", f"synapse.average_gradient={average_gradient}",
        "neuron.reg.tau_m=[10, 20, 30, 40]", "neuron.ad.tau_m=[5, 15, 25, 100]", "synapse.weight_scale.in_rec=10",
        "neuron.ad.adapt_tau=[20, 100, 500, 2000]", "neuron.rec.E_L=-0.1",
    )  # fmt: skip
    rng = np.random.RandomState(1)
    weights, batch = initial_weights(settings, rng), make_task(settings, rng).batch_at(rng, "training", 0)
    engine = CompiledEngine(settings)
    gradients = engine.gradient(weights, batch, None, False).gradients
    engine.close()
    net = Net(
        neuron_parameters(settings.model), readout_parameters(settings.model),
        *(part.weights.reshape(part.n_pre, -1) for part in engine._network(weights)[4:]),
        batch.spikes, batch.targets[:, :, -30:].transpose(1, 2, 0), loss == "cross_entropy", n_reg=4,
    )  # fmt: skip
    decay = np.exp(-1 / np.array([10, 20, 30, 40, 5, 15, 25, 100]))
    arrival = np.ones(8) if regular_spike_arrival == "true" else 1 - decay
    count = 3 * (30 if average_gradient == "true" else 1)
    rec, out = np.zeros((16, 8)), np.zeros((8, 2))
    for b in range(3):
        gradient, gradient_out = eligibility_gradients(net, b, forward(net, b))
        rec, out = rec + gradient * arrival / count, out + gradient_out * (1 - np.exp(-1 / 20)) / count
    np.fill_diagonal(rec[8:], 0.0)
    expected = {"in_rec": rec[:8].T, "rec_rec": rec[8:].T, "rec_out": out.T}
    for projection in PLASTIC:
        assert relative(gradients[projection], expected[projection]) <= 1e-13, projection


# Closed forms


@pytest.mark.parametrize("n", [61, 2 * k.BLOCK + 1])
@pytest.mark.parametrize("function", SURROGATE_GRADIENTS)
def test_surrogate_gradients(function, n):
    x, last = np.linspace(-3, 3, 61)[np.arange(n) % 61], n - 20
    neurons, psi = np.zeros((k.N_PARAMETERS, n)), np.full((1, n), np.nan)
    neurons[k.HEIGHT], neurons[k.SLOPE], neurons[k.SCALE], neurons[k.V_MIN] = 0.7, 2.0, 1.0, -9.0
    blocks = k.blocks(neurons, np.array([(SURROGATE_GRADIENTS.index(function), 0, n)]))
    values, state = k.parameters(neurons, blocks), k.at_rest(blocks)
    state[k.places(blocks, np.arange(last, n)) + k.REFRACTORY * k.APART] = 2.0
    k.advance(0, blocks, values, x / 2.0, state, psi, np.empty(n + 1, np.int64))
    np.testing.assert_allclose(psi[0, :last], 0.7 * SURROGATES[function](x[:last]), rtol=1e-14, atol=1e-16)
    assert psi[0, 30] == 0.7  # its height, at threshold
    assert not psi[0, last:].any()


@pytest.mark.parametrize("alike", [True, False])
def test_neighbours_are_taken_together(alike):
    n = 2 * k.BLOCK + 3
    neurons = np.ones((k.N_PARAMETERS, n))
    neurons[k.ALPHA, k.BLOCK + 1 :] = 1.0 if alike else np.arange(n - k.BLOCK - 1)
    blocks = k.blocks(neurons, np.array([(1, 0, n - 2), (0, n - 2, n)]))
    starts, sizes = [0, k.BLOCK, 2 * k.BLOCK, n - 2], [k.BLOCK, k.BLOCK, 1, 2]
    assert blocks[:, 0].tolist() == [1, 1, 1, 0]
    assert blocks[:, 1].tolist() == starts
    assert (blocks[:, 2] - blocks[:, 1]).tolist() == sizes
    assert blocks[:, 3].tolist() == ([0] * 4 if alike else [0, 1, 2, 3])
    found = k.parameters(neurons, blocks).reshape(4, k.N_PARAMETERS, k.APART)
    for b, (_, start, stop, first) in enumerate(blocks):
        np.testing.assert_array_equal(found[first, :, : stop - start], neurons[:, start:stop], err_msg=str(b))


def test_a_surrogate_gradient_function_for_each_population():
    net = random_net(0)
    net.functions = (0, 2)
    psi = net.run().dynamics[:, :, :, k.KEPT_PSI]
    for functions, own in {(0, 0): slice(4), (2, 2): slice(4, None)}.items():
        net.functions = functions
        np.testing.assert_array_equal(psi[:, :, own], net.run().dynamics[:, :, own, k.KEPT_PSI])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [(0, 0, 8)]),  # neighbours with the same function are one stretch
        (["neuron.ad.surrogate_gradient_function=exponential"], [(0, 0, 4), (1, 4, 8)]),
        (["neuron.n_reg=0", "neuron.ad.surrogate_gradient_function=arctan_derivative"], [(3, 0, 4)]),
        (["neuron.n_ad=0", "neuron.n_reg=3"], [(0, 0, 3)]),
    ],
)
def test_stretches_of_neurons_with_the_same_surrogate_gradient(overrides, expected):
    assert [tuple(stretch) for stretch in surrogates(config(*SMALL, *overrides).model)] == expected


def test_a_potential_leaks_away():
    simulated = single(weight=0.1, spike=10).run()
    expected = np.r_[np.zeros(10), 0.1 * np.exp(-np.arange(50) / 20)]
    np.testing.assert_allclose(simulated.dynamics[0, :, 0, k.KEPT_V], expected, rtol=1e-13)
    np.testing.assert_allclose(
        simulated.dynamics[0, :, 0, k.KEPT_PSI], 0.5 * (1 - np.abs(expected - 0.6) / 0.6), rtol=1e-13, atol=1e-15
    )


def test_a_constant_current_charges_the_membrane():
    simulated = single(weight=0.0, DRIVE=0.01).run()
    alpha = np.exp(-1 / 20)
    expected = 0.01 * (1 - alpha ** np.arange(1, 61)) / (1 - alpha)
    np.testing.assert_allclose(simulated.dynamics[0, :, 0, k.KEPT_V], expected, rtol=1e-13)


def test_a_potential_is_not_below_its_bound():
    potential = single(weight=-1.0, V_MIN=-0.25).run().dynamics[0, :, 0, k.KEPT_V]
    np.testing.assert_allclose(potential[10:], -0.25 * np.exp(-np.arange(50) / 20), rtol=1e-13)


@pytest.mark.parametrize("t_ref", [1, 2, 5])
def test_a_neuron_that_is_driven_hard_fires_whenever_it_may(t_ref):
    net = single(weight=10.0, T_REF=t_ref)
    net.spikes[:] = True
    assert np.flatnonzero(net.run().fired[0, :, 0]).tolist() == list(range(1, 60, t_ref))  # the spike of step 0 is lost


def test_each_spike_raises_the_threshold():
    net = single(weight=50.0, T_REF=2.0, RHO=0.9, BETA=0.5)
    net.spikes[:] = True
    simulated = net.run()
    fired = np.flatnonzero(simulated.fired[0, :, 0])
    assert len(fired) > 20
    a = sum(np.where(np.arange(60) > t, 0.9 ** np.maximum(np.arange(60.0) - t - 1, 0), 0.0) for t in fired)
    np.testing.assert_allclose(simulated.dynamics[0, :, 0, k.KEPT_A], a, rtol=1e-13)


def test_the_gradient_of_one_input_spike():
    # The readout stays at 0, so that the error is -target in each of the last 20 steps, and the spike never crosses.
    simulated = single(weight=0.1, spike=10, target=-2.0, feedback=3.0).run()
    kappa = alpha = np.exp(-1 / 20)
    t = np.arange(10, 60)
    potential = 0.1 * alpha ** (t - 10)
    psi = 0.5 * potential / 0.6  # of the piecewise linear function, below threshold
    begin = np.maximum(t, 40)  # the first error that a trace of step t meets
    learning = 3.0 * 2.0 * (kappa ** (begin - t) - kappa ** (60 - t))  # (1 - kappa) times a geometric series
    assert simulated.gradients[0, 0, 0] == pytest.approx(np.sum(psi * alpha ** (t - 10) * learning), rel=1e-13)
    assert simulated.gradients[0, 1, 0] == 0.0  # the neuron itself did not fire


def test_the_gradient_of_rate_regularisation_alone():
    simulated = single(weight=0.1, spike=10, C_REG=5.0, F_TARGET=0.02).run()
    alpha = np.exp(-1 / 20)
    psi = 0.5 / 0.6 * 0.1 * alpha ** np.arange(50)
    expected = 5.0 * (0 - 0.02) / 60 * np.sum(psi * alpha ** np.arange(50))
    assert simulated.gradients[0, 0, 0] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("spike", [1, 10, 45, 59])
def test_the_gradient_of_one_spike_that_reaches_a_readout(spike):
    simulated = single(weight=0.7, spike=spike, target=-2.0).run()
    assert np.flatnonzero(simulated.fired[0, :, 0]).tolist() == [spike]
    kappa = np.exp(-1 / 20)
    begin = max(spike, 40)
    expected = 2.0 * (kappa ** (begin - spike) - kappa ** (60 - spike)) / (1 - kappa)
    assert simulated.gradients_out[0, 0, 0] == pytest.approx(expected, rel=1e-13)


def test_a_spike_in_step_0_is_dropped():
    simulated = single(weight=10.0, spike=0, target=1.0).run()
    for values in (simulated.fired, simulated.gradients, simulated.gradients_out, simulated.potential):
        assert not values.any()


def test_two_like_readouts_share_the_probability():
    net = random_net(1)
    net.weights_out[:] = net.weights_out[:, :1]
    np.testing.assert_allclose(net.run().signal, 1 / 3, rtol=1e-14)


# The engine


def batch_of(settings, seed=1):
    rng = np.random.RandomState(seed)
    return initial_weights(settings, rng), make_task(settings, rng).batch_at(rng, "training", 0)


@pytest.mark.parametrize("n_threads", [2, 3, 5])
def test_any_number_of_threads_gives_the_same(n_threads):
    found = []
    for n_workers in (1, n_threads):
        settings = config(*SMALL, "training=data_parallel", "task.n_batch=5", f"engine.n_workers={n_workers}")
        weights, batch = batch_of(settings)
        engine = CompiledEngine(settings)
        found.append(engine.gradient(weights, batch, np.arange(8) < 4, True))
        engine.close()
    one, several = found
    np.testing.assert_array_equal(several.readout, one.readout)
    assert several.n_spikes == one.n_spikes
    np.testing.assert_equal(several.gradients, one.gradients)
    np.testing.assert_equal(several.recording, one.recording)


def test_neither_recording_nor_learning_changes_a_result():
    settings = config(*SMALL, "training=data_parallel", "task.n_batch=2", "recording=full")
    weights, batch = batch_of(settings)
    engine = CompiledEngine(settings)
    recorded, plain = (engine.gradient(weights, batch, None, record) for record in (True, False))
    evaluated = engine.evaluate(weights, batch)
    engine.close()
    for outcome in (plain, evaluated):
        np.testing.assert_array_equal(outcome.readout, recorded.readout)
        assert outcome.n_spikes == recorded.n_spikes
        assert outcome.recording is None
    np.testing.assert_equal(plain.gradients, recorded.gradients)
    assert evaluated.gradients is None


def test_what_goes_in_stays_as_it_is():
    settings = config(*SMALL, "training=data_parallel", "task.n_batch=2")
    weights, batch = batch_of(settings)
    batch = Batch(batch.spikes.copy(), batch.targets.copy(), batch.windows)
    for values in (*weights.values(), batch.spikes, batch.targets):
        values.flags.writeable = False
    engine = CompiledEngine(settings)
    outcome = engine.gradient(weights, batch, np.ones(8, dtype=bool), True)
    engine.close()
    for projection in PLASTIC:
        assert not np.shares_memory(outcome.gradients[projection], weights[projection])
        assert outcome.gradients[projection].any()


def test_kernels_are_compiled_also_where_they_cannot_be_kept(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(compiling.numba, "njit", njit)
    assert compiling.compiled(len) == (len, {"nogil": True, "error_model": "numpy"})
