"""Time whole training steps on a GPU beside the compiled engine's kernels: python -m benchmarks.cuda.

A step is what a training iteration takes: inputs drawn or put together, sent, simulated forward and backward, the
optimizer's step, and the metrics. On the GPU, a batch is drawn while the one before is computed.
"""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import hydra
import numpy as np

from eprop_cli.cli import without_hydra
from eprop_cli.config import conf_dir, load
from eprop_cli.engines import compiled, kernels
from eprop_cli.engines.cuda.device import check_arithmetic
from eprop_cli.engines.cuda.inputs import Inputs, from_spikes, joined
from eprop_cli.engines.cuda.simulation import Network, Outcome, Shape, Simulation, Step, Synapses
from eprop_cli.tasks import make_task
from eprop_cli.weights import initial_weights

# so slow that the network does the same work in all steps
ADAM = Step(eta=1e-6, alpha=1e-6, beta_1=0.9, beta_2=0.999, epsilon=1e-8, w_min=-100.0, w_max=100.0)

# Milliseconds of others. mlGeNN's e-prop, which keeps a trace per synapse, trains on batches of 512 of the Spiking
# Heidelberg Digits: the cards are older, and the data real, of which the inputs here have only the shape. NEST runs the
# tutorial on 2 cores of another machine.
OTHERS = {
    "mlGeNN": {"shd 256": "7290 (Titan V), 3330 (A100)", "shd 512": "18200 (Titan V)", "shd 1024": "51300 (Titan V)"},
    "NEST": {"evidence 32": "8600"},
}


@dataclass(frozen=True)
class Problem:
    """A network with weights, as kernels.run takes them or flat where they are sparse, and batches for it.

    draw: makes a batch's inputs and the classes of its sequences.
    """

    network: Network
    shape: Shape
    weights: np.ndarray
    weights_out: np.ndarray
    feedback: np.ndarray
    draw: Callable[[], tuple[Inputs, np.ndarray]]


def evidence(n_batch: int, n_rec: int = 100, filler: int = 0) -> Problem:
    """Evidence accumulation with the tutorial's parameters, inputs drawn spike by spike.

    filler: of the inputs, if they are for another network.
    """
    size = [f"task.n_batch={n_batch}", f"neuron.n_reg={n_rec // 2}", f"neuron.n_ad={n_rec - n_rec // 2}"]
    config = _config("training=data_parallel", "engine=compiled", "task.input_draws=per_spike", *size)
    task, rng = make_task(config.task), np.random.RandomState(1)
    weights, weights_out, feedback = compiled._packed(initial_weights(config, rng))
    network = Network(
        config.task.n_in, config.task.n_out, compiled._neuron_parameters(config), compiled._surrogates(config),
        compiled._readout_parameters(config), True,
    )  # fmt: skip
    shape = Shape(n_batch, config.task.sequence_steps, config.task.learning_window_steps)

    def draw() -> tuple[Inputs, np.ndarray]:
        batch = task.batch(rng)
        return from_spikes(batch.spikes, filler or network.n_in + n_rec), batch.targets[:, :, -1].argmax(axis=0)

    return Problem(network, shape, weights, weights_out, feedback, draw)


def sparse(n_rec: int, n_synapses: int, n_batch: int = 32) -> Problem:
    """Evidence accumulation with random synapses: n_synapses of each recurrent neuron, inputs to a tenth of them."""
    n_in = _config().task.n_in
    small, rng, half = evidence(n_batch, filler=n_in + n_rec), np.random.RandomState(2), n_rec // 2
    n_out = small.network.n_out
    lengths = np.repeat([n_rec // 10, n_synapses], [n_in, n_rec])
    posts = [_distinct(rng, n_rec, length) for length in lengths]
    synapses = Synapses(np.append(0, np.cumsum(lengths)), np.concatenate(posts).astype(np.uint32))
    scale = np.repeat([1 / np.sqrt(n_in / 10), 1 / np.sqrt(n_synapses)], [n_in, n_rec])
    network = replace(
        small.network,
        neurons=np.repeat(small.network.neurons[:, [0, -1]], [half, n_rec - half], axis=1),
        surrogates=np.append(small.network.surrogates[:2], half),
        synapses=synapses,
    )
    weights = rng.standard_normal(len(synapses.posts)) * np.repeat(scale, lengths)
    weights_out = rng.standard_normal((n_rec, n_out)) / np.sqrt(n_rec)
    return Problem(network, small.shape, weights, weights_out, rng.standard_normal((n_out, n_rec)), small.draw)


def _distinct(rng: np.random.RandomState, n: int, size: int) -> np.ndarray:
    """Numbers below n in ascending order, none of them twice."""
    return np.sort(rng.randint(n - size + 1, size=size)) + np.arange(size)


def shd(n_rec: int, n_batch: int = 512, n_pool: int = 600) -> Problem:
    """A network of adaptive neurons and random inputs with the shape of the Spiking Heidelberg Digits.

    n_pool: samples in the data set, of which each batch has some, in random order.
    """
    n_in, n_steps, n_out, n_spikes, rng = 700, 1370, 20, 8000, np.random.RandomState(0)
    neurons, readouts = np.zeros((kernels.N_PARAMETERS, n_rec)), np.zeros(kernels.N_PARAMETERS)
    readouts[kernels.ALPHA] = neurons[kernels.ALPHA] = np.exp(-1 / 20)
    readouts[kernels.SCALE] = neurons[kernels.SCALE] = 1.0
    readouts[kernels.V_MIN] = neurons[kernels.V_MIN] = -np.inf
    values = {"V_TH": 0.6, "T_REF": 5, "RHO": np.exp(-1 / 2000), "BETA": 0.0174, "HEIGHT": 0.5, "SLOPE": 1 / 0.6}
    for name, value in (values | {"C_REG": 0.001, "F_TARGET": 0.01}).items():
        neurons[getattr(kernels, name)] = value
    weights = rng.standard_normal((n_in + n_rec, n_rec))
    weights[:n_in] *= 2 / np.sqrt(n_in)
    weights[n_in:] *= 0.5 / np.sqrt(n_rec)
    np.fill_diagonal(weights[n_in:], 0.0)
    network = Network(n_in, n_out, neurons, np.zeros(3, np.int64), readouts, True)
    places = (np.unique(rng.randint(n_steps * n_in, size=n_spikes)) for _ in range(n_pool))
    samples = [_sample(each, n_steps, n_in, n_in + n_rec) for each in places]
    labels = rng.randint(n_out, size=n_pool)

    def draw() -> tuple[Inputs, np.ndarray]:
        chosen = rng.permutation(n_pool)[:n_batch] if n_pool >= n_batch else rng.randint(n_pool, size=n_batch)
        return joined([samples[i] for i in chosen]), labels[chosen]

    weights_out = rng.standard_normal((n_rec, n_out)) / np.sqrt(n_rec)
    shape = Shape(n_batch, n_steps, n_steps)
    return Problem(network, shape, weights, weights_out, rng.standard_normal((n_out, n_rec)), draw)


def _sample(places: np.ndarray, n_steps: int, n_in: int, filler: int) -> Inputs:
    spikes = np.zeros((1, n_steps, n_in), dtype=bool)
    spikes.ravel()[places] = True
    return from_spikes(spikes, filler)


def _config(*overrides: str) -> Any:
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(without_hydra(hydra.compose("config", overrides=list(overrides))))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "evidence 32": partial(evidence, 32),
    "evidence 64": partial(evidence, 64),
    "evidence 512": partial(evidence, 512),
    "shd 256": partial(shd, 256),
    "shd 512": partial(shd, 512),
    "shd 1024": partial(shd, 1024),
    "dense 1000": partial(evidence, 32, 1000),
    "dense 4000": partial(evidence, 32, 4000),
    "sparse 10000 x 1000": partial(sparse, 10000, 1000),
    "sparse 100000 x 100": partial(sparse, 100000, 100),
}


def on_gpu(problem: Problem, n_steps: int) -> tuple[list[float], Simulation]:
    """Milliseconds of each training step, and the simulation in the end."""
    simulation = Simulation(problem.network, problem.shape)
    simulation.set_weights(problem.weights, problem.weights_out, problem.feedback)
    ends, under_way = [], None
    for _ in range(n_steps + 3):
        inputs, classes = problem.draw()
        before, under_way = under_way, (simulation.start(inputs, classes), classes)
        simulation.average(problem.shape.n_batch * problem.shape.window)
        simulation.optimize(ADAM)
        if before is not None:
            metrics(simulation.finish(before[0]), before[1])
        ends.append(time.perf_counter())
    return [1e3 * (end - begin) for begin, end in pairwise(ends[2:])], simulation


def metrics(outcome: Outcome, classes: np.ndarray) -> tuple[float, float, int]:
    """Loss, error and spikes, as a row of metrics.csv has them."""
    return (
        float(outcome.terms.mean()),
        float(np.mean(outcome.means.argmax(axis=1) != classes)),
        int(outcome.n_spikes.sum()),
    )


def waiting(problem: Problem, simulation: Simulation) -> tuple[float, float]:
    """Milliseconds of one batch by itself, from the sending of its spikes to its spike counts; and spikes/s."""
    times = []
    for _ in range(5):
        inputs, classes = problem.draw()
        began = time.perf_counter()
        outcome = simulation.finish(simulation.start(inputs, classes))
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), 1e3 * float(outcome.n_spikes.mean()) / problem.shape.n_steps


def on_cpu(problem: Problem, n_threads: int, n_batch: int) -> float:
    """Milliseconds that the compiled engine's kernels take for a batch, from n_batch of its sequences.

    Gradients are added up as the engine does; inputs, optimizer and metrics are left out.
    """
    arguments, gradients = _cpu_arguments(problem, n_batch)
    times = []
    with ThreadPoolExecutor(n_threads) as threads:
        for _ in range(3):
            began = time.perf_counter()
            shares = [np.arange(start, n_batch, n_threads) for start in range(n_threads)]
            list(threads.map(lambda share: kernels.run(share, *arguments), shares))
            gradients.sum(axis=0)
            times.append(1e3 * (time.perf_counter() - began))
    return min(times) * problem.shape.n_batch / n_batch


def _cpu_arguments(problem: Problem, n_batch: int) -> tuple[tuple[Any, ...], np.ndarray]:
    (_, n_steps, window), network = problem.shape, problem.network
    n_in, n_rec, n_out = network.n_in, network.n_rec, network.n_out
    inputs, classes = problem.draw()
    spikes = np.zeros((n_batch, n_steps, n_in), dtype=bool)
    for b in range(n_batch):
        for t in range(n_steps):
            pre = inputs.pre[inputs.first[b, t] : inputs.first[b, t + 1]]
            spikes[b, t, pre[pre < n_in]] = True
    targets = np.repeat(np.eye(n_out)[classes[:n_batch], None], window, axis=1)
    gradients = np.empty((n_batch, n_in + n_rec, n_rec))
    return (
        network.neurons, network.surrogates, network.readouts, network.softmax,
        problem.weights, problem.weights_out, problem.feedback, spikes, targets,
        np.zeros((n_batch, n_in), bool), np.arange(0), np.empty((n_batch, n_steps, n_out)),
        np.empty((n_batch, window, n_out)), np.empty((n_batch, n_rec), np.int64), np.zeros((n_batch, 0, n_rec), bool),
        np.empty((n_batch, n_steps, 0, 3)), gradients, np.empty((n_batch, n_rec, n_out)),
    ), gradients  # fmt: skip


def card() -> str:
    """The GPU's name."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def line(name: str, n_steps: int, threads: list[int]) -> str:
    """What a problem takes on the GPU, and the kernels on so many threads of the CPU."""
    problem = PROBLEMS[name]()
    began = time.perf_counter()
    times, simulation = on_gpu(problem, n_steps)
    whole = time.perf_counter() - began
    alone, rate = waiting(problem, simulation)
    found = [f"training step {statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"]
    found += [f"gradient alone {alone:.2f}", f"{rate:.1f} spikes/s", f"{whole:.1f} s in all, with compiling"]
    del simulation
    for n_threads in threads if problem.network.synapses is None else ():
        n_batch = min(problem.shape.n_batch, 2 * n_threads, 32)
        found.append(f"CPU {n_threads} threads {on_cpu(problem, n_threads, n_batch):.0f} (of {n_batch} sequences)")
    found += [f"{source} {table[name]}" for source, table in OTHERS.items() if name in table]
    return f"{name}: {', '.join(found)}"


def main() -> None:
    """Print a line per problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--steps", type=int, default=20, help="training steps on the GPU")
    parser.add_argument("--threads", type=int, nargs="*", default=[2, 16], help="of the CPU; none: leave it out")
    arguments = parser.parse_args()
    check_arithmetic()
    print(f"card: {card()}; milliseconds of a batch")
    for name in arguments.problems:
        print(line(name, arguments.steps, arguments.threads), flush=True)


if __name__ == "__main__":
    main()
