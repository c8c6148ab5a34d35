"""Measure what a synaptic event costs in NEST and in the online network, and the sine-wave experiment; prints a table.

All candidates run alternately on one thread in one process; times are CPU seconds, and ratios are taken within a
repetition, so that a disturbance of the machine hits both sides.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from eprop_cli.engines.compiled.online import (
    Advanced,
    ListedSynapses,
    Neurons,
    OnlineNetwork,
    OptimizerParameters,
    Readouts,
)

DT, CUTOFF = 1.0, 100.0  # ms
NEURON = {
    "C_m": 1.0, "c_reg": 0.3, "E_L": 0.0, "eprop_isi_trace_cutoff": CUTOFF, "f_target": 10.0, "I_e": 0.0,
    "kappa": 0.97, "kappa_reg": 0.97, "surrogate_gradient_function": "piecewise_linear",
    "surrogate_gradient_height": 10.0, "surrogate_gradient_width": 1.0 / 33.3,
    "t_ref": 0.0, "tau_m": 30.0, "V_m": 0.0, "V_th": 0.03,
}  # fmt: skip
READOUT = {"C_m": 1.0, "E_L": 0.0, "I_e": 0.0, "V_m": 0.0, "tau_m": 30.0, "eprop_isi_trace_cutoff": CUTOFF}
DELTA = {"V_reset": -0.5, "V_th": 0.5, "c_reg": 2e-3 / (1.0 - 0.97) ** 2}
OPTIMIZER = {"type": "gradient_descent", "batch_size": 1, "optimize_each_step": False, "Wmin": -100.0, "Wmax": 100.0}
SCALE = 1.0 - 0.97
ETA = 1e-4 * SCALE**2


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each candidate runs")
    parser.add_argument("--neurons", type=int, default=1000, help="presynaptic and postsynaptic neurons")
    parser.add_argument("--fan-out", type=int, default=100, help="synapses of a presynaptic neuron")
    parser.add_argument("--rate", type=float, default=10.0, help="spikes/s of the presynaptic neurons")
    parser.add_argument("--iterations", type=int, default=3, help="of the sine-wave experiment")
    options = parser.parse_args()
    network = (options.neurons, options.fan_out, options.rate)
    events: dict[str, Callable[[], float]] = {
        "NEST static_synapse": lambda: nest_event("iaf_psc_delta", "static_synapse", *network),
        "NEST eprop_synapse_bsshslm_2020": lambda: nest_event(
            "eprop_iaf_bsshslm_2020", "eprop_synapse_bsshslm_2020", *network
        ),
    }
    for model in ("eprop_iaf", "eprop_iaf_adapt"):
        events[f"NEST eprop_synapse, {model}"] = lambda model=model: nest_event(model, "eprop_synapse", *network)  # type: ignore[misc]
        for method in ("walk", "sums" if model == "eprop_iaf" else "maps"):
            events[f"stream, {model}, {method}"] = lambda model=model, method=method: stream_event(  # type: ignore[misc]
                model, method, *network
            )
    show("ns per synaptic event, neurons left out", 1e9, options.repeats, events, "NEST eprop_synapse")
    iterations: dict[str, Callable[[], float]] = {}
    for model in ("eprop_iaf", "eprop_iaf_psc_delta_adapt"):
        iterations[f"NEST, {model}"] = lambda model=model: nest_sine_waves(model, options.iterations)  # type: ignore[misc]
        for method in ("walk", None):
            iterations[f"stream, {model}, {method or 'fastest'}"] = lambda model=model, method=method: (
                stream_sine_waves(  # type: ignore[misc]
                    model, method, options.iterations
                )
            )
    show("ms per iteration of the sine-wave experiment", 1e3, options.repeats, iterations, "NEST")


def show(title: str, unit: float, repeats: int, candidates: dict[str, Callable[[], float]], base: str) -> None:
    """Time candidates alternately; ratios say how many times as fast as NEST's of the same model each is."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, measure in candidates.items():
            times[name].append(measure())
    print(title)
    for name, values in times.items():
        model = name.split(", ")[1] if ", " in name else "eprop_iaf"
        ratios = [there / here for there, here in zip(times[f"{base}, {model}"], values, strict=True)]
        span = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"  {name:45} {statistics.median(values) * unit:9.2f}  {statistics.median(ratios):7.2f} times ({span})")


def network(n: int, fan_out: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Targets (n, fan_out) of each presynaptic neuron, sorted, and weights small enough that few neurons fire."""
    rng = np.random.default_rng(1)
    targets = np.sort([rng.choice(n, fan_out, replace=False) for _ in range(n)], axis=1)
    return targets, rng.normal(0.0, 1e-3, targets.shape)


def presynaptic(n: int, n_steps: int, rate: float) -> NDArray[np.bool_]:
    """Poisson-like spikes (n_steps, n)."""
    return np.random.default_rng(2).random((n_steps, n)) < rate * DT / 1000.0


def nest_event(model: str, synapse: str, n: int, fan_out: int, rate: float) -> float:
    """CPU seconds per synaptic event in NEST; the same network without synapses is subtracted."""
    targets, weights = network(n, fan_out)
    seconds, events = 0.0, 0
    for connected in (True, False):
        spent, count = _nest_network(model, synapse if connected else None, targets, weights, rate)
        seconds += spent if connected else -spent
        events += count if connected else 0
    return seconds / (events * fan_out)


def _nest_network(
    model: str, synapse: str | None, targets: NDArray[np.int64], weights: NDArray[np.float64], rate: float
) -> tuple[float, int]:
    """Make the network, let it settle for a second, and time the next two: CPU seconds and presynaptic spikes."""
    import nest

    settle, timed = 1000, 2000
    _reset(nest)
    if "bsshslm" in model:
        nest.set(eprop_update_interval=1000.0, eprop_learning_window=1000.0, eprop_reset_neurons_on_update=True)
    n, fan_out = targets.shape
    spikes = presynaptic(n, settle + timed, rate)
    generators, parrots = nest.Create("spike_generator", n), nest.Create("parrot_neuron", n)
    generators.set([{"spike_times": np.flatnonzero(spikes[:, i]) + 1.0} for i in range(n)])
    nest.Connect(generators, parrots, "one_to_one", {"delay": DT})
    keep = {"C_m", "E_L", "I_e", "t_ref", "tau_m", "V_m", "V_th"}
    eprop = set(NEURON) if model.startswith("eprop") else keep
    if "bsshslm" in model:
        eprop = set(nest.GetDefaults(model)) & eprop
    neurons = nest.Create(model, n, {key: value for key, value in NEURON.items() if key in eprop})
    if synapse is not None:
        parameters: dict[str, object] = {"synapse_model": synapse}
        if synapse.startswith("eprop"):
            optimizer = {**OPTIMIZER, "eta": ETA}
            nest.SetDefaults(synapse, {"optimizer": optimizer})
        nest.Connect(
            np.repeat(np.array(parrots.tolist()), fan_out), np.array(neurons.tolist())[targets.ravel()], "one_to_one",
            {**parameters, "weight": weights.ravel(), "delay": np.full(weights.size, DT)},
        )  # fmt: skip
    nest.Simulate(settle * DT)
    start = time.process_time()
    nest.Simulate(timed * DT)
    return time.process_time() - start, int(spikes[settle - 2 : settle + timed - 2].sum())


def stream_event(model: str, method: str, n: int, fan_out: int, rate: float) -> float:
    """CPU seconds per synaptic event of the stream; the running sums count in, the same network without input not."""
    settle, timed = 1000, 2000
    targets, weights = network(n, fan_out)
    spikes = presynaptic(n, settle + timed, rate)
    parameters = {**NEURON, "model": model} | ({"adapt_beta": 0.1} if model.endswith("adapt") else {})
    none = ListedSynapses(np.zeros(n + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0))
    total = 0.0
    for connected, way in ((True, method), (False, "walk")):  # walking without synapses: neurons alone
        inputs = ListedSynapses(np.arange(n + 1) * fan_out, targets.ravel().astype(np.uint32), weights.ravel())
        stream = OnlineNetwork(
            Neurons(**parameters), Readouts(**READOUT), OptimizerParameters(**OPTIMIZER),  # type: ignore[arg-type]
            inputs if connected else ListedSynapses(np.zeros(n + 1, np.int64), none.targets, none.weights), none, none,
            np.zeros((n, 1)), ETA, method=way,
        )  # fmt: skip
        _advance(stream, spikes[:settle], np.zeros(settle))
        start = time.process_time()
        _advance(stream, spikes[settle:], np.zeros(timed))
        total += (1.0 if connected else -1.0) * (time.process_time() - start)
    return total / (int(spikes[settle:].sum()) * fan_out)


def _advance(stream: OnlineNetwork, spikes: NDArray[np.bool_], target: NDArray[np.float64]) -> Advanced:
    return stream.advance(spikes.astype(np.uint8), target[:, np.newaxis], np.ones(len(target)), ETA)


class SineWaves:
    """The shipped sine-wave experiment, drawn in its script's order; weights are (n_post, n_pre)."""

    def __init__(self, model: str, seed: int = 1, n_steps: int = 1000, n: int = 100) -> None:
        rng = np.random.RandomState(seed)
        w = [np.float32(rng.randn(n, n).T / np.sqrt(n)) for _ in range(2)]
        np.fill_diagonal(w[1], 0.0)
        w_out = np.float32(rng.randn(n, 1).T / np.sqrt(n)) * SCALE
        feedback = np.float32(rng.randn(n, 1) / np.sqrt(n))
        self.neuron = {**NEURON, "c_reg": 300.0 / n_steps}
        if model == "eprop_iaf":
            w, feedback = [x * SCALE for x in w], feedback * SCALE
        elif "delta" in model:
            self.neuron |= {**DELTA, "c_reg": 2.0 / n_steps / SCALE**2}
            feedback = feedback / SCALE
        if model == "eprop_iaf_adapt":
            self.neuron["adapt_beta"] = 0.0
        self.model, self.weights, self.feedback = model, (*w, w_out), feedback
        self.spikes = rng.rand(n_steps, n) < 0.05
        amplitudes, phases = rng.uniform(0.5, 2.0, 4), rng.uniform(0.0, 2.0 * np.pi, 4)
        target = np.zeros(n_steps)
        for a, phase, period in zip(amplitudes, phases, (1000, 500, 333, 200), strict=True):
            target += a * np.sin(np.linspace(phase, phase + 2.0 * np.pi * (n_steps // period), n_steps))
        target -= target[0]
        self.target = target / max(np.abs(target).max(), 1e-6)

    def stream(self, method: str | None) -> OnlineNetwork:
        """The experiment's network."""
        beta = {"adapt_beta": 1.0} if self.model == "eprop_iaf_psc_delta_adapt" else {}  # NEST's default
        w_in, w_rec, w_out = (w.T for w in self.weights)
        return OnlineNetwork(
            Neurons(**{**self.neuron, **beta, "model": self.model}), Readouts(**READOUT),  # type: ignore[arg-type]
            OptimizerParameters(**OPTIMIZER),  # type: ignore[arg-type]
            ListedSynapses.from_matrix(w_in), ListedSynapses.from_matrix(w_rec, ~np.eye(len(w_rec), dtype=np.bool_)),
            ListedSynapses.from_matrix(w_out), self.feedback, ETA, method=method,
        )  # fmt: skip


def stream_sine_waves(model: str, method: str | None, n_iter: int) -> float:
    """CPU seconds per iteration."""
    task = SineWaves(model)
    stream = task.stream(method)
    start = time.process_time()
    for _ in range(n_iter):
        _advance(stream, task.spikes, task.target)
    return (time.process_time() - start) / n_iter


def nest_sine_waves(model: str, n_iter: int) -> float:
    """CPU seconds per iteration, simulated as the script does, recorders of readouts included."""
    import nest

    _reset(nest)
    task = SineWaves(model)
    n_steps, n = task.spikes.shape
    generators, parrots = nest.Create("spike_generator", n), nest.Create("parrot_neuron", n)
    neurons, readout = (
        nest.Create(model, n, {**task.neuron, "flush_event_send_interval": 1000.0}),
        nest.Create("eprop_readout", 1, READOUT),
    )
    times = np.arange(n_iter * n_steps, dtype=float)
    target, window = nest.Create("step_rate_generator"), nest.Create("step_rate_generator")
    recorder = nest.Create("multimeter", {"record_from": ["readout_signal"], "interval": DT})
    nest.SetDefaults("eprop_synapse", {"optimizer": {**OPTIMIZER, "eta": ETA}})
    nest.Connect(generators, parrots, "one_to_one", {"delay": DT})
    ends: Sequence[tuple[object, object]] = ((parrots, neurons), (neurons, neurons), (neurons, readout))
    for (pre, post), w in zip(ends, task.weights, strict=True):
        synapse = {"synapse_model": "eprop_synapse", "weight": w, "delay": DT}
        nest.Connect(pre, post, {"rule": "all_to_all", "allow_autapses": False}, synapse)
    feedback = {"synapse_model": "eprop_learning_signal_connection", "weight": task.feedback, "delay": DT}
    nest.Connect(readout, neurons, "all_to_all", feedback)
    for generator, port in ((window, 1), (target, 2)):
        rate = {"synapse_model": "rate_connection_delayed", "delay": DT, "receptor_type": port}
        nest.Connect(generator, readout, "all_to_all", rate)
    nest.Connect(recorder, readout)
    fired = np.tile(task.spikes, (n_iter, 1))
    generators.set([{"spike_times": np.flatnonzero(fired[:, i]) + 1.0} for i in range(n)])
    target.set(amplitude_times=times + 2.0, amplitude_values=np.tile(task.target, n_iter))
    window.set(amplitude_times=[2.0], amplitude_values=[1.0])
    nest.Simulate(2.0)
    start = time.process_time()
    nest.Simulate(n_iter * n_steps * DT)
    return (time.process_time() - start) / n_iter


def _reset(nest: object) -> None:
    nest.ResetKernel()  # type: ignore[attr-defined]
    nest.verbosity = nest.VerbosityLevel.ERROR  # type: ignore[attr-defined]
    nest.set(resolution=DT, local_num_threads=1)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
