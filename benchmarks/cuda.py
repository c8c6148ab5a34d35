"""Time whole training steps on a GPU beside the compiled engine's on the same machine.

A step of the networks that the config can describe is an iteration of training=data_parallel: inputs drawn, sent,
simulated forward and backward, the optimizer's step, and the metrics. A step on inputs with the shape of the Spiking
Heidelberg Digits, whose data are not needed here, is the same with the kernels alone: samples are listed once, put
together for each batch and sent; of the CPU then only the kernels are timed, and the adding up of gradients.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hydra import compose, initialize_config_dir

from eprop_cli.config.composed import without_hydra
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.engines.compiled import batch, kernels, synapses
from eprop_cli.engines.cuda import device
from eprop_cli.engines.cuda.inputs import Inputs, from_spikes, joined
from eprop_cli.engines.cuda.simulation import Layout, Shape, Simulation, Step
from eprop_cli.optimizers.base import Rates
from eprop_cli.training.base import make_trainer

# so slow that the network does the same work in all steps
ADAM = Step(Rates(1e-6, (0.9, 0.999, 1e-8)), w_min=-100.0, w_max=100.0)
QUIET = (
    "training=data_parallel",
    "recording=none",
    "plots=none",
    "training.n_iter_test=0",
    "task.input_draws=per_spike",
    "optimizer.eta=1e-6",
)
# Milliseconds of others. mlGeNN's e-prop, which keeps a trace per synapse, trains on batches of 512 of the Spiking
# Heidelberg Digits: the cards are older, and the data real, of which the inputs here have only the shape. NEST runs the
# tutorial on 2 cores of another machine.
OTHERS = {
    "shd 256": "mlGeNN 7290 (Titan V), 3330 (A100)",
    "shd 512": "mlGeNN 18200 (Titan V)",
    "shd 1024": "mlGeNN 51300 (Titan V)",
    "evidence 32": "NEST's tutorial 4060 (2 cores of another machine)",
}


class Measured(NamedTuple):
    """Milliseconds of each step, seconds until the first was over, kernels compiled, and spikes/s of a neuron."""

    steps: list[float]
    first: float
    rate: float


def trained(engine: str, n_steps: int, n_workers: int, overrides: tuple[str, ...], warm_up: int = 3) -> Measured:
    """Iterations of training, after some that are not counted."""
    keys = [*QUIET, f"engine={engine}", f"engine.n_workers={n_workers}", f"task.n_iter={n_steps + warm_up}", *overrides]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = load(without_hydra(compose("config", overrides=keys)))
    began = time.perf_counter()
    with closing(make_trainer(config)) as trainer:
        records = [(time.perf_counter(), record.row.metrics) for record in trainer.records()]
    ends, metrics = [end for end, _ in records], records[-1][1]
    steps = [1e3 * (end - begin) for begin, end in pairwise(ends[warm_up - 1 :])]
    return Measured(steps, ends[0] - began, (metrics["rate_reg"] + metrics["rate_ad"]) / 2)


class Digits:
    """A network of adaptive neurons, and random inputs with the shape of the Spiking Heidelberg Digits."""

    n_in, n_steps, n_out, n_spikes, n_batch, n_pool = 700, 1370, 20, 8000, 512, 600

    def __init__(self, n_rec: int) -> None:
        rng = self._rng = np.random.RandomState(0)
        neurons, readouts = np.zeros((kernels.N_PARAMETERS, n_rec)), np.zeros(kernels.N_PARAMETERS)
        readouts[kernels.ALPHA] = neurons[kernels.ALPHA] = np.exp(-1 / 20)
        readouts[kernels.SCALE] = neurons[kernels.SCALE] = 1.0
        readouts[kernels.V_MIN] = neurons[kernels.V_MIN] = -np.inf
        values = {"V_TH": 0.6, "T_REF": 5, "RHO": np.exp(-1 / 2000), "BETA": 0.0174, "HEIGHT": 0.5, "SLOPE": 1 / 0.6}
        for name, value in (values | {"C_REG": 0.001, "F_TARGET": 0.01}).items():
            neurons[getattr(kernels, name)] = value
        self.weights = rng.standard_normal((self.n_in + n_rec, n_rec))
        self.weights[: self.n_in] *= 2 / np.sqrt(self.n_in)
        self.weights[self.n_in :] *= 0.5 / np.sqrt(n_rec)
        np.fill_diagonal(self.weights[self.n_in :], 0.0)
        self.weights_out = rng.standard_normal((n_rec, self.n_out)) / np.sqrt(n_rec)
        self.feedback = rng.standard_normal((self.n_out, n_rec))
        surrogates = np.array([[0, 0, n_rec]])
        self.network = Layout(self.n_in, self.n_out, neurons, surrogates, readouts, True)
        self._samples: list[Inputs] = []
        for _ in range(self.n_pool):
            spikes = np.zeros((1, self.n_steps, self.n_in), dtype=bool)
            spikes.ravel()[rng.randint(self.n_steps * self.n_in, size=self.n_spikes)] = True
            self._samples.append(from_spikes(spikes, self.n_in + n_rec))
        self._labels = rng.randint(self.n_out, size=self.n_pool)

    def draw(self) -> tuple[Inputs, np.ndarray]:
        """A batch's inputs and classes."""
        chosen = self._rng.permutation(self.n_pool)[: self.n_batch]
        return joined([self._samples[i] for i in chosen]), self._labels[chosen]


def digits_on_gpu(n_rec: int, n_steps: int) -> Measured:
    """Training steps; a batch is put together while the one before is computed."""
    digits = Digits(n_rec)
    began = time.perf_counter()
    simulation = Simulation(digits.network, Shape(digits.n_batch, digits.n_steps, digits.n_steps))
    simulation.set_weights(digits.weights, digits.weights_out, digits.feedback)
    ends: list[float] = []
    before: tuple[int, np.ndarray] | None = None
    rate = 0.0
    for _ in range(n_steps + 4):
        inputs, classes = digits.draw()
        number = simulation.start(inputs, classes)
        simulation.average(digits.n_batch * digits.n_steps)
        simulation.optimize(ADAM)
        if before is not None:  # loss, error and spikes, as a row of metrics.csv has them
            outcome = simulation.finish(before[0])
            float(outcome.terms.mean()), float(np.mean(outcome.means.argmax(axis=1) != before[1]))
            rate = 1e3 * float(outcome.n_spikes.mean()) / digits.n_steps
            ends.append(time.perf_counter())
        before = number, classes
    return Measured([1e3 * (end - begin) for begin, end in pairwise(ends[2:])], ends[0] - began, rate)


def digits_on_cpu(n_rec: int, n_workers: int) -> Measured:
    """The compiled engine's kernels on some sequences, scaled to a batch."""
    digits, n_batch = Digits(n_rec), 2 * n_workers
    inputs, classes = digits.draw()
    spikes = np.zeros((n_batch, digits.n_steps, digits.n_in), dtype=bool)
    for b, t in np.ndindex(n_batch, digits.n_steps):
        pre = inputs.pre[inputs.first[b, t] : inputs.first[b, t + 1]]
        spikes[b, t, pre[pre < digits.n_in]] = True
    targets = np.repeat(np.eye(digits.n_out)[classes[:n_batch], None], digits.n_steps, axis=1)
    parts = (synapses.dense(part) for part in (digits.weights, digits.weights_out, digits.feedback))
    own = digits.network
    network = batch.Circuit(own.neurons, own.surrogates, own.readouts, own.softmax, *parts)
    with closing(batch.Simulator(n_workers)) as simulator:
        ends = [time.perf_counter()]
        for _ in range(3):
            simulator.run(network, spikes, targets)
            ends.append(time.perf_counter())
    times = [1e3 * (end - begin) * digits.n_batch / n_batch for begin, end in pairwise(ends)]
    return Measured(times[1:], 1e-3 * times[0], 0.0)


def _evidence(n_batch: int, n_rec: int = 100, *more: str) -> tuple[str, ...]:
    return f"task.n_batch={n_batch}", f"neuron.n_reg={n_rec // 2}", f"neuron.n_ad={n_rec - n_rec // 2}", *more


def _sparse(n_rec: int, n_synapses: int) -> tuple[str, ...]:
    return _evidence(32, n_rec, f"connectivity.rec_rec={{rule: fixed_indegree, indegree: {n_synapses}}}")


EVIDENCE: dict[str, tuple[str, ...]] = {
    "evidence 32": _evidence(32),
    "evidence 64": _evidence(64),
    "evidence 512": _evidence(512),
    "dense 1000": _evidence(32, 1000),
    "dense 4000": _evidence(32, 4000),
    "sparse 10000 x 1000": _sparse(10_000, 1000),
    "sparse 100000 x 100": _sparse(100_000, 100),
}
DIGITS = {"shd 256": 256, "shd 512": 512, "shd 1024": 1024}
PROBLEMS = (*list(EVIDENCE)[:3], *DIGITS, *list(EVIDENCE)[3:])


TITLE = "milliseconds of a training step on a GPU"
N_STEPS = 20


def cuda(problems: Sequence[str], threads: Sequence[int], asked: bool) -> list[dict[str, str]]:
    """Training steps on a GPU and on so many threads of the CPU, a row per problem.

    asked: end with a line and exit status 2 where there is no GPU, rather than say so in a row.
    """
    if why := device.why_not():
        told = f"cuda: needs a CUDA device and its driver ({why})"
        if asked:
            print(f"benchmarks: {told}", file=sys.stderr)
            sys.exit(2)
        return [{"benchmark": TITLE, "candidate": told}]
    device.check_arithmetic()
    return [row(name, threads) for name in problems or PROBLEMS]


def row(name: str, threads: Sequence[int]) -> dict[str, str]:
    """What a step of a problem takes."""
    if name in DIGITS:
        found, on_cpu = digits_on_gpu(DIGITS[name], N_STEPS), partial(digits_on_cpu, DIGITS[name])
    else:
        found, on_cpu = trained("cuda", N_STEPS, 1, EVIDENCE[name]), partial(_trained_on_cpu, EVIDENCE[name])
    steps = found.steps
    told = {"benchmark": TITLE, "candidate": name, device.name(): f"{statistics.median(steps):.2f}"}
    told |= {"range": f"{min(steps):.2f}-{max(steps):.2f}", "the first": f"{1e3 * found.first:.0f}"}
    told["spikes/s of a neuron"] = f"{found.rate:.1f}"
    for n_threads in threads:
        told[f"CPU, {n_threads} threads"] = f"{min(on_cpu(n_threads).steps):.1f}"
    return told | {"others": OTHERS.get(name, "")}


def _trained_on_cpu(overrides: tuple[str, ...], n_workers: int) -> Measured:
    return trained("compiled", 2, n_workers, overrides, warm_up=1)
