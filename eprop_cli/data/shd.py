"""Spiking Heidelberg Digits (Cramer et al. 2020): spoken digits as spikes of a cochlea model, in HDF5 files.

Layout: spikes/times (s) and spikes/units, a list per sample; labels; extra/speaker.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data.events import Events, bins, make_events
from eprop_cli.data.samples import BrokenSampleError
from eprop_cli.errors import ConfigError, UserError, reason, require

N_CHANNELS = 700
N_CLASSES = 20
FILES = {"training": "shd_train.h5", "test": "shd_test.h5"}
TIMES, UNITS, LABELS, SPEAKER = "spikes/times", "spikes/units", "labels", "extra/speaker"


class SpikingHeidelbergDigits:
    """One file as a source; a sample is read when it is asked for.

    bin_ms: duration of a time step in ms. n_steps: time steps of a sample; what comes later is left out.
    labels, speaker: int64 (n_samples,).
    Raises ConfigError where the file is missing, UserError where it is not in this layout.
    """

    n_in, n_classes = N_CHANNELS, N_CLASSES

    def __init__(self, path: Path, bin_ms: float = 1.0, n_steps: int = 1000) -> None:
        require(bin_ms > 0, "task.bin", bin_ms, "must be above 0 ms")
        require(n_steps >= 1, "task.steps.sequence", n_steps, "must be at least 1 time step")
        self.path, self.bin_ms, self.n_steps = path, bin_ms, n_steps
        self._file: Any = None
        try:
            spikes = self._open()
            self.labels = spikes[LABELS][:].astype(np.int64)
            self.speaker = spikes[SPEAKER][:].astype(np.int64)
            lengths = [len(spikes[name]) for name in (TIMES, UNITS, SPEAKER)]
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path}: not a file of the Spiking Heidelberg Digits ({reason(error)})") from error
        if not len(self.labels) or lengths != [len(self.labels)] * 3:
            raise UserError(f"{path}: {TIMES}, {UNITS}, {LABELS} and {SPEAKER} must be of one length, above 0")

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int) -> tuple[Events, int]:
        """Spikes and label of a recording."""
        try:
            spikes = self._open()
            time, unit = spikes[TIMES][index].astype(np.float64), spikes[UNITS][index].astype(np.int64)
        except (OSError, ValueError) as error:
            raise self._broken(index, reason(error)) from error
        if len(time) != len(unit) or not len(time):
            raise self._broken(index, f"{len(time)} times and {len(unit)} units")
        if not (np.isfinite(time).all() and time.min() >= 0):
            raise self._broken(index, "a time is negative or not a number")
        if unit.max() >= N_CHANNELS:
            raise self._broken(index, f"unit {unit.max()} is outside of the {N_CHANNELS} channels")
        return make_events(bins(time * 1000.0, self.bin_ms), unit).before(self.n_steps), int(self.labels[index])

    def _broken(self, index: int, why: str) -> BrokenSampleError:
        return BrokenSampleError(f"{self.path}: sample {index} is broken: {why}")

    def _open(self) -> Any:
        if self._file is None:
            if not self.path.is_file():
                raise missing(self.path)
            self._file = _h5py().File(self.path, "r")
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # another process opens the file for itself


def missing(path: Path) -> ConfigError:
    """What to say where the data set is not there."""
    what = "the Spiking Heidelberg Digits (SHD, Cramer et al. 2020; about 0.3 GB unpacked, from zenkelab.org)"
    where = f"put {' and '.join(FILES.values())} into {path.parent}"
    return ConfigError("task.data", path.parent, f"has no {path.name}: {what} are needed; {where}")


def write(path: Path, samples: list[tuple[NDArray[Any], NDArray[Any], int]], speaker: list[int]) -> None:
    """Write a file in this layout, times as float16 like the original.

    samples: times (s), units and label of each. speaker: of each sample.
    """
    h5py = _h5py()
    with h5py.File(path, "w") as file:
        for name, dtype, column in ((TIMES, np.float16, 0), (UNITS, np.uint16, 1)):
            values = file.create_dataset(name, (len(samples),), h5py.vlen_dtype(dtype))
            for i, sample in enumerate(samples):
                values[i] = np.asarray(sample[column], dtype)
        file[LABELS] = np.array([label for _, _, label in samples], np.uint16)
        file[SPEAKER] = np.array(speaker, np.uint16)


def synthetic(n_samples: int, seed: int, n_spikes: int = 8000) -> list[tuple[NDArray[Any], NDArray[Any], int]]:
    """Samples to write() of about the size of the real ones: in each class, other channels are busy at other times.

    n_spikes: of each sample, within its first second.
    """
    rng = np.random.RandomState(seed)
    samples = []
    for _ in range(n_samples):
        label = int(rng.randint(N_CLASSES))
        time = np.sort(rng.random_sample(n_spikes))
        centre = N_CHANNELS * (0.5 + 0.4 * np.sin(2 * np.pi * (time + label / N_CLASSES)))
        unit = np.clip(np.rint(rng.normal(centre, 60.0)), 0, N_CHANNELS - 1)
        samples.append((time, unit.astype(np.uint16), label))
    return samples


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError("SHD: h5py is not installed; pip install h5py") from error
    return h5py
