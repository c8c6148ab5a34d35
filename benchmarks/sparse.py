"""Time and memory of sequences on sparse networks; prints a table and can write a CSV.

Networks: 40 inputs to every neuron, recurrent neurons with a given number of synapses to random others, half of the
neurons adaptive, driven to about 10 spikes/s. One sequence per thread, forward and then gradient; the best of some
repetitions; memory at its peak since the program began. The dense reference network is compared with the kernels that
keep a gradient per sequence. With --nest both engines compute the same sequence of evidence accumulation, on the
same network, in one thread each.
"""

import argparse
import csv
import resource
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure

from eprop_cli.config.composed import without_hydra
from eprop_cli.config.files import conf_dir
from eprop_cli.config.load import load
from eprop_cli.engines.base import make_engine
from eprop_cli.engines.compiled import kernels, synapses
from eprop_cli.engines.compiled import neurons as k
from eprop_cli.engines.compiled.batch import Circuit, Simulator, summation
from eprop_cli.engines.compiled.events import events
from eprop_cli.engines.nest.engine import Share, simulate_share
from eprop_cli.figures.style import BLUE, GREEN, PURPLE, VERMILLION
from eprop_cli.training.base import initial_network, make_task

N_IN, N_OUT, N_STEPS, WINDOW = 40, 2, 2250, 150
REFERENCE_BATCH = 32
WALL, CPU = range(2)
INDEGREE = 100  # of the networks that NEST computes, too
INPUT_STRENGTH, RECURRENT_STRENGTH, INPUT_RATE = 1.5, 0.5, 0.01  # the last in spikes per step


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--n-rec", type=int, nargs="+", default=[100, 1000, 10_000], help="recurrent neurons")
    parser.add_argument("--synapses", type=int, nargs="+", default=[100, 1000], help="of each recurrent neuron")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--order", choices=["tiled", "streamed"], help="of summation; the faster one if not given")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--nest", type=int, nargs="+", default=[], help="recurrent neurons, with 100 synapses each")
    parser.add_argument("--figure", type=Path, help="where to draw time and memory over synapses, on logarithmic axes")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    options = parser.parse_args()
    rows = [
        measure(n_rec, min(fan_out, n_rec - 1), n_threads, options.repeat, options.order)
        for n_rec in options.n_rec
        for fan_out in sorted({min(fan_out, n_rec - 1) for fan_out in options.synapses})
        for n_threads in options.threads
    ]
    reference = [compare(n_threads, options.repeat) for n_threads in options.threads]
    nest = [against_nest(n_rec) for n_rec in options.nest]
    for table in (rows, reference, nest):
        if table:
            show(table)
    if options.figure:
        draw(rows, nest, options.figure)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 0


def measure(n_rec: int, fan_out: int, n_threads: int, repeat: int, order: str | None) -> dict[str, str]:
    """Time sequences on a sparse network, one per thread."""
    rng = np.random.default_rng(1)
    network = sparse_network(rng, n_rec, fan_out)
    spikes, targets = batch(rng, n_threads)
    inputs, simulator = events(spikes), Simulator(n_threads)
    forward = best(lambda: simulator.run(network, inputs, targets, learn=False), repeat) / n_threads
    whole = best(lambda: simulator.run(network, inputs, targets, order=order), repeat) / n_threads
    backward = whole - forward
    n_spikes = simulator.run(network, inputs, targets, learn=False).n_spikes.sum() / n_threads
    simulator.close()
    n_events = n_spikes * fan_out + len(inputs.neuron) / n_threads * n_rec
    return {
        "n_rec": str(n_rec),
        "synapses": str(fan_out),
        "threads": str(n_threads),
        "order": order or summation(network),
        "spikes/s": f"{n_spikes / n_rec / (N_STEPS / 1000):.1f}",
        "s/sequence": f"{whole[WALL]:.4f}",
        "forward CPU s": f"{forward[CPU]:.4f}",
        "backward CPU s": f"{backward[CPU]:.4f}",
        "forward ns/event": f"{1e9 * forward[CPU] / n_events:.2f}",
        "backward ns/event": f"{1e9 * backward[CPU] / n_events:.2f}",
        "B/synapse": f"{held(network) / len(network.rec.weights):.1f}",
        "psi MB": f"{n_threads * N_STEPS * n_rec * 8 / 1e6:.0f}",
        "peak MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}",
    }


def against_nest(n_rec: int, indegree: int = INDEGREE) -> dict[str, str]:
    """One sequence forward and backward with either engine: CPU seconds, and the largest difference of a gradient."""
    rule = "dense" if indegree >= n_rec else f"{{rule: fixed_indegree, indegree: {indegree}}}"
    overrides = [
        f"neuron.n_reg={n_rec // 2}",
        f"neuron.n_ad={n_rec // 2}",
        f"connectivity.rec_rec={rule}",
        "task.n_batch=1",
    ]
    overrides += ["task.n_batch=1", "training=data_parallel", "recording=none", "plots=none"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = [compose("config", [*overrides, f"engine={name}"]) for name in ("nest", "compiled")]
    nest, compiled = (load(without_hydra(config)) for config in composed)
    rng = np.random.RandomState(1)
    wiring, drawn = initial_network(nest, rng)
    sequence = make_task(nest, rng).batch_at(rng, "training", 0)
    share = Share(nest, wiring, drawn, (sequence,), True, None, False)
    began = time.process_time()
    (theirs,) = simulate_share(share)
    slow = time.process_time() - began
    engine = make_engine(compiled, wiring)
    fast = best(lambda: engine.gradient(drawn, sequence, None, False), 3)[CPU]
    ours = engine.gradient(drawn, sequence, None, False).gradients
    engine.close()
    n_synapses = sum(wiring[name].size for name in ours)
    differences = [np.abs(ours[name] - theirs.gradients[name]).max() / np.abs(ours[name]).max() for name in ours]
    return {
        "n_rec": str(n_rec),
        "plastic synapses": str(n_synapses),
        "NEST, CPU s": f"{slow:.2f}",
        "NEST, ns/(synapse step)": f"{1e9 * slow / n_synapses / nest.task.sequence_steps:.2f}",
        "compiled, CPU s": f"{fast:.4f}",
        "times as fast": f"{slow / fast:.0f}",
        "largest difference": f"{max(differences):.1e}",
    }


def draw(rows: list[dict[str, str]], nest: list[dict[str, str]], path: Path) -> None:
    """CPU seconds of a sequence over the number of recurrent synapses."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    own = [row for row in rows if row["threads"] == rows[0]["threads"]]
    for fan_out, colour in zip(
        sorted({about(row) for row in own}), cycle((BLUE, VERMILLION, GREEN, PURPLE)), strict=False
    ):
        some = [row for row in own if about(row) == fan_out]
        sizes = [int(row["n_rec"]) * int(row["synapses"]) for row in some]
        for part, style in (("forward", "o--"), ("backward", "s-")):
            times = [float(row[f"{part} CPU s"]) for row in some]
            ax.loglog(sizes, times, style, color=colour, label=f"{part}, {fan_out} synapses a neuron")
    if nest:
        sizes = [int(row["n_rec"]) * min(INDEGREE, int(row["n_rec"])) for row in nest]
        ax.loglog(sizes, [float(row["NEST, CPU s"]) for row in nest], "^:", color="0.3", label="NEST, both together")
    ax.set_xlabel("recurrent synapses")
    ax.set_ylabel("CPU time of a sequence (s)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)


def about(row: dict[str, str]) -> int:
    """Synapses of a neuron, but for the one onto itself that there is not where it has all."""
    return round(int(row["synapses"]), -1)


def held(network: Circuit) -> int:
    """Bytes of synapses, their gradient and Adam's two moments."""
    every = (network.rec, network.out, network.feedback)
    return sum(part.row.nbytes + part.post.nbytes + 4 * part.weights.nbytes for part in every)


def compare(n_threads: int, repeat: int) -> dict[str, str]:
    """Time the reference network's batch, alternately with the kernels that keep a gradient per sequence."""
    rng = np.random.default_rng(1)
    network = dense_network(rng, 100)
    spikes, targets = batch(rng, REFERENCE_BATCH)
    simulator = Simulator(n_threads)
    candidates = (
        lambda: each_apart(network, spikes, targets, simulator),
        lambda: simulator.run(network, spikes, targets),
    )
    for run in candidates:
        run()
    times = np.array([[seconds(run) for run in candidates] for _ in range(10 * repeat)])
    simulator.close()
    apart, together = times.min(axis=0)
    ratio = np.median(times[:, 0] / times[:, 1], axis=0)
    return {
        "reference": f"dense, 100 neurons, batch of {REFERENCE_BATCH}",
        "threads": str(n_threads),
        "a gradient each, ms": f"{1e3 * apart[WALL]:.1f}",
        "one gradient, ms": f"{1e3 * together[WALL]:.1f}",
        "times as fast (median)": f"{ratio[WALL]:.2f}",
        "by CPU time": f"{ratio[CPU]:.2f}",
    }


def each_apart(network: Circuit, spikes: k.Bools, targets: k.Floats, simulator: Simulator) -> k.Floats:
    """The batch with kernels.run, gradients added up."""
    n_batch, n_rec = len(spikes), network.neurons.shape[1]
    filled = (
        np.empty((n_batch, N_STEPS, N_OUT)), np.empty(targets.shape), np.empty((n_batch, n_rec), dtype=np.int64),
        np.zeros((n_batch, 0, n_rec), dtype=bool), np.empty((n_batch, N_STEPS, 0, 3)),
        np.empty((n_batch, N_IN + n_rec, n_rec)), np.empty((n_batch, n_rec, N_OUT)),
    )  # fmt: skip
    matrices = [
        part.weights.reshape(shape)
        for part, shape in ((network.rec, (-1, n_rec)), (network.out, (n_rec, -1)), (network.feedback, (-1, n_rec)))
    ]
    lost, recorded = np.zeros((n_batch, N_IN), dtype=bool), np.empty(0, dtype=np.int64)

    def run(begin: int, end: int) -> None:
        kernels.run(np.arange(begin, end), *network[:4], *matrices, spikes, targets, lost, recorded, *filled)

    simulator.share(run, n_batch, at_least=1)
    return filled[5].sum(axis=0)


def sparse_network(rng: np.random.Generator, n_rec: int, fan_out: int) -> Circuit:
    """All inputs to all neurons, and fan_out recurrent synapses of each neuron, without multapses."""
    drawn = np.concatenate([np.sort(rng.choice(n_rec, fan_out, replace=False)) for _ in range(n_rec)])
    post = np.concatenate([np.tile(np.arange(n_rec), N_IN), drawn]).astype(np.uint32)
    row = np.concatenate([np.arange(N_IN) * n_rec, N_IN * n_rec + np.arange(n_rec + 1) * fan_out])
    return dense_network(rng, n_rec)._replace(rec=synapses.Synapses(row, post, weights(rng, n_rec, fan_out)))


def dense_network(rng: np.random.Generator, n_rec: int) -> Circuit:
    """Evidence accumulation's neurons, every synapse there; with rec only where that is small."""
    neurons = np.zeros((k.N_PARAMETERS, n_rec))
    adaptive = np.arange(n_rec) >= n_rec // 2
    values = {k.ALPHA: np.exp(-1 / 20), k.SCALE: 1.0, k.V_MIN: -np.inf, k.V_TH: 0.6, k.T_REF: 5.0}
    values |= {k.RHO: adaptive * np.exp(-1 / 2000), k.BETA: adaptive * 0.0174, k.HEIGHT: 0.3, k.SLOPE: 1 / 0.6}
    for row, value in (values | {k.C_REG: 300.0, k.F_TARGET: 0.01}).items():
        neurons[row] = value
    readouts = np.zeros(k.N_PARAMETERS)
    readouts[k.ALPHA], readouts[k.SCALE], readouts[k.V_MIN] = np.exp(-1 / 20), 1 - np.exp(-1 / 20), -np.inf
    rec = synapses.dense(weights(rng, n_rec, n_rec).reshape(-1, n_rec) if n_rec <= 1000 else np.empty((0, n_rec)))
    out, feedback = (synapses.dense(rng.standard_normal(shape)) for shape in ((n_rec, N_OUT), (N_OUT, n_rec)))
    return Circuit(neurons, np.array([[0, 0, n_rec]]), readouts, True, rec, out, feedback)


def weights(rng: np.random.Generator, n_rec: int, fan_out: int) -> k.Floats:
    """Input weights and then recurrent ones, flat, of a strength at which neurons fire at about 10 spikes/s."""
    drive = rng.standard_normal(N_IN * n_rec) * INPUT_STRENGTH / np.sqrt(N_IN)
    return np.concatenate([drive, rng.standard_normal(n_rec * fan_out) * RECURRENT_STRENGTH / np.sqrt(fan_out)])


def batch(rng: np.random.Generator, n_batch: int) -> tuple[k.Bools, k.Floats]:
    """Input spikes and targets."""
    labels = np.zeros((n_batch, WINDOW, N_OUT))
    labels[:, :, 0] = 1.0
    return rng.random((n_batch, N_STEPS, N_IN)) < INPUT_RATE, labels


def best(run: Callable[[], object], repeat: int) -> k.Floats:
    """Least seconds of some runs after a first one; wall-clock and CPU time."""
    run()
    return np.min([seconds(run) for _ in range(repeat)], axis=0)


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """How long a run takes, and the CPU time of all threads."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[WALL], time.process_time() - start[CPU]


def show(table: list[dict[str, str]]) -> None:
    """Print a table."""
    widths = {key: max(len(key), *(len(row[key]) for row in table)) for key in table[0]}
    for row in [dict(zip(widths, widths, strict=True)), *table]:
        print("  ".join(row[key].rjust(width) for key, width in widths.items()))


if __name__ == "__main__":
    sys.exit(main())
