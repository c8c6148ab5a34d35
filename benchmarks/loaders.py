"""How fast samples are read: each loader on files of the real size that are made for the purpose."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from eprop_cli.data import Part, Samples, Shuffled, Source
from eprop_cli.data.camera import simulate
from eprop_cli.data.digits import Digits, Encoding
from eprop_cli.data.events import spikes
from eprop_cli.data.neuromorphic_mnist import EVENT_BYTES, LONGEST, SIDE, NeuromorphicMnist
from eprop_cli.data.shd import FILES, SpikingHeidelbergDigits, synthetic, write

N_BATCH = 100
CACHE_BYTES = 2**30


def loaders(n_samples: int = 400) -> list[dict[str, str]]:
    """Samples per second of each loader: from files, from the cache, and to dense rasters."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for name, make in SOURCES.items():
            source = make(Path(directory), n_samples)
            source = Part(source, np.arange(min(n_samples, len(source))))
            row = {"benchmark": "loading samples", "candidate": name, "events per sample": f"{_events(source):.0f}"}
            with _samples(source) as samples:
                row |= {"read": f"{_speed(samples):.0f} /s", "cached": f"{_speed(samples):.0f} /s"}
                row["cached, as raster"] = f"{_speed(samples, source):.0f} /s"
                row["cache"] = f"{samples.cache.nbytes / len(source) / 1000:.1f} kB per sample"
            rows.append(row)
    return rows


def _speed(samples: Samples, dense: Source | None = None) -> float:
    """Samples per second of one epoch."""
    began, n = time.perf_counter(), 0
    for index in range(samples.orders["training"].n_batches):
        loaded = samples.load("training", index)
        n += len(loaded.events)
        if dense is not None:
            cut = [events.before(dense.n_steps) for events in loaded.events]
            spikes(cut, dense.n_steps, dense.n_in)
    return n / (time.perf_counter() - began)


@contextmanager
def _samples(source: Source) -> Iterator[Samples]:
    order = Shuffled(len(source), N_BATCH, seed=1)
    samples = Samples({"training": source}, {"training": order}, cache_bytes=CACHE_BYTES, ahead=False)
    try:
        yield samples
    finally:
        samples.close()


def _events(source: Source) -> float:
    return float(np.mean([len(source.sample(i)[0]) for i in range(10)]))


def _camera(directory: Path, n_samples: int) -> Source:
    simulate(directory / "camera", min(170, -(-n_samples // 10)), 1)
    return NeuromorphicMnist(directory / "camera" / "Train")


def _neuromorphic_mnist(directory: Path, n_samples: int) -> Source:
    """Files with as many events as those of the data set, 4200 on average, anywhere."""
    rng = np.random.RandomState(1)
    for i in range(n_samples):
        time = np.sort(rng.randint(LONGEST, size=4200))
        x, y, on = rng.randint(SIDE, size=4200), rng.randint(SIDE, size=4200), rng.randint(2, size=4200)
        content = np.stack([x, y, on << 7 | time >> 16, time >> 8 & 0xFF, time & 0xFF], axis=1)
        assert content.shape[1] == EVENT_BYTES
        path = directory / "nmnist" / str(i % 10) / f"{i:05d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.astype(np.uint8).tobytes())
    return NeuromorphicMnist(directory / "nmnist")


def _shd(directory: Path, n_samples: int) -> Source:
    path = directory / FILES["training"]
    write(path, synthetic(n_samples, seed=1), [0] * n_samples)
    return SpikingHeidelbergDigits(path)


SOURCES: dict[str, Callable[[Path, int], Source]] = {
    "N-MNIST": _neuromorphic_mnist,
    "simulated camera": _camera,
    "SHD, 8000 spikes, bins of 1 ms": _shd,
    "digits, latency": lambda _directory, _n: Digits(Encoding()),
    "digits, Poisson": lambda _directory, _n: Digits(Encoding("poisson")),
}
