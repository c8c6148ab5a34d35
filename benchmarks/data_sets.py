"""How fast training on data sets is: SHD-shaped batches beside published figures, and the loaders alone."""

import time

import numpy as np

from benchmarks.loaders import loaders
from eprop_cli.api import compose
from eprop_cli.config.config import Config
from eprop_cli.data.events import bins, counts, make_events
from eprop_cli.data.shd import synthetic
from eprop_cli.engines.base import make_engine
from eprop_cli.training.base import initial_network
from eprop_cli.values import Batch

N_BATCH, N_STEPS, N_SPIKES = 512, 1370, 8000
SIZES = (256, 512, 1024)
# Published for mlGeNN's e-prop on SHD, seconds per batch of 512, for each of SIZES.
PUBLISHED = {"Titan V": (7.29, 18.2, 51.3), "A100": (3.33, None, None)}
CAVEATS = "here synthetic spikes of its shape, on a CPU, in float64; published: the real data, on a GPU"


def data_sets(
    sizes: tuple[int, ...] = SIZES, threads: tuple[int, ...] = (1, 2), repeats: int = 1
) -> list[dict[str, str]]:
    """Seconds per batch of 512 SHD-shaped samples of each network size, then samples per second of the loaders."""
    rows = []
    for n_ad in sizes:
        row = {"benchmark": f"SHD-shaped batch of {N_BATCH}: {CAVEATS}", "candidate": f"{n_ad} adaptive neurons"}
        for n_workers in threads:
            row[f"{n_workers} threads"] = f"{seconds_per_batch(_config(n_ad, n_workers), repeats):.2f} s"
        for device, values in PUBLISHED.items():
            value = dict(zip(SIZES, values, strict=True)).get(n_ad)
            row[f"mlGeNN, {device}"] = f"{value} s" if value is not None else ""
        rows.append(row)
    return rows + loaders()


def seconds_per_batch(config: Config, repeats: int) -> float:
    """The least of some repetitions, once kernels are compiled and memory is in place."""
    rng = np.random.RandomState(config.seed)
    wiring, weights = initial_network(config, rng)
    engine, batch, taken = make_engine(config, wiring), shd_shaped(config), []
    try:
        few = Batch(batch.spikes[:2], batch.targets[:, :2], batch.windows[:2])
        engine.gradient(weights, few, None, False)
        for _ in range(repeats):
            began = time.perf_counter()
            engine.gradient(weights, batch, None, False)
            taken.append(time.perf_counter() - began)
    finally:
        engine.close()
    return min(taken)


def shd_shaped(config: Config) -> Batch:
    """A batch with as many spikes and steps as samples of SHD have; other batches repeat its samples."""
    task = config.task
    samples = synthetic(64, seed=1, n_spikes=N_SPIKES)
    events = [make_events(bins(times * 1000.0, 1.0), units) for times, units, _ in samples]
    chosen = np.arange(task.n_batch) % len(events)
    labels = np.array([samples[i][2] for i in chosen])
    targets = np.broadcast_to(np.eye(task.n_out)[:, labels][:, :, None], (task.n_out, task.n_batch, N_STEPS))
    raster = counts([events[i] for i in chosen], N_STEPS, task.n_in)
    return Batch(raster, targets, ((),) * task.n_batch)


def _config(n_ad: int, n_workers: int) -> Config:
    size = f"task.steps.sequence={N_STEPS}", f"task.n_batch={N_BATCH}", "task.bin=1.0"
    return compose(["experiment=shd", *size, f"neuron.n_ad={n_ad}", f"engine.n_workers={n_workers}", "plots=none"])
