"""Neuromorphic MNIST: handwritten digits as an event camera saw them (Orchard et al. 2015), read as NEST's script does.

A file holds 5 bytes per event: x, y, then 1 bit polarity and 23 bits of time in microseconds, the highest first.
"""

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data.events import Events, make_events
from eprop_cli.data.samples import BrokenSampleError
from eprop_cli.errors import ConfigError, UserError, reason

SIDE = 34  # pixels
N_PIXELS = 2 * SIDE * SIDE  # OFF, then ON
N_CLASSES = 10
LONGEST = 336040  # us, longest recording of the data set
OVERFLOW = 240  # y of an event that only says that the camera's clock ran over
EVENT_BYTES = 5
BLOCKLIST = "doc/examples/pynest/eprop_plasticity/NMNIST_pixels_blocklist.txt"  # within NEST's package
FOLDERS = {"training": "Train", "test": "Test"}


class NeuromorphicMnist:
    """One folder of files, DIR/0/*.bin to DIR/9/*.bin, by class, then by name, as a source.

    pixels: int (n_in,), which pixel each input neuron is; by default all that NEST's script uses (1196).
    n_steps: time steps of a sample. Events of the last half step of the longest recording are in step n_steps.
    Raises ConfigError where the folder is missing or incomplete.
    """

    n_classes = N_CLASSES

    def __init__(self, folder: Path, n_steps: int = 300, pixels: NDArray[np.int64] | None = None) -> None:
        pixels = active_pixels() if pixels is None else pixels
        self.n_steps, self.n_in = n_steps, len(pixels)
        self._neuron = np.full(N_PIXELS, -1)
        self._neuron[pixels] = np.arange(self.n_in)
        self.files = list_files(folder)

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> tuple[Events, int]:
        """Spikes and label; events of pixels without an input neuron are left out."""
        path, label = self.files[index]
        pixel, time = read_events(path)
        neuron = self._neuron[pixel]
        step = np.rint(time * float(self.n_steps) / LONGEST).astype(np.int64)
        return make_events(step[neuron >= 0], neuron[neuron >= 0]), label


def read_events(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixel and time of the events of a file, int64 (n_events,) each.

    pixel: 34 * 34 * polarity + 34 * y + x. time: us. As in NEST's script, overflow marks are left out and move no time.
    Raises BrokenSampleError where the file cannot be read, is empty, cut short, or not of this format.
    """
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise BrokenSampleError(f"{path}: {error.strerror}") from error
    if not len(content) or len(content) % EVENT_BYTES:
        raise BrokenSampleError(f"{path}: {len(content)} bytes; an N-MNIST file holds {EVENT_BYTES} bytes per event")
    x, y, high, middle, low = content.reshape(-1, EVENT_BYTES).astype(np.int64).T
    seen = y != OVERFLOW
    time = (high & 0x7F) << 16 | middle << 8 | low
    if (x[seen] >= SIDE).any() or (y[seen] >= SIDE).any() or (time[seen] > LONGEST).any():
        expected = f"an N-MNIST file has {SIDE} x {SIDE} pixels and {LONGEST} us at most"
        raise BrokenSampleError(f"{path}: holds an event outside of the recording; {expected}")
    pixel = (high >> 7) * SIDE * SIDE + y * SIDE + x
    return pixel[seen], time[seen]


def list_files(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder with their labels, in the order of NEST's script: by class, then by name."""
    found = []
    for label in range(N_CLASSES):
        files = sorted((folder / str(label)).glob("*.bin"))
        if not files:
            raise missing(folder, f"no *.bin in {folder / str(label)}")
        found += [(path, label) for path in files]
    return found


def missing(folder: Path, why: str) -> ConfigError:
    """What to say where the data set is not there."""
    what = "Neuromorphic MNIST (N-MNIST, Orchard et al. 2015; Mendeley Data 468j46mzdv; about 1.4 GB unpacked)"
    where = f"put its Train/0/*.bin ... Test/9/*.bin into {folder.parent}"
    return ConfigError("task.data", folder.parent, f"{why}: {what} is needed; {where}, or take task.data=simulated")


def active_pixels(blocklist: Path | None = None) -> NDArray[np.int64]:
    """The pixels that NEST's script uses, int64 (1196,): all but those of the list that NEST is shipped with.

    blocklist: that file, if NEST is installed without its examples. Raises UserError if there is none.
    """
    try:
        blocked = np.loadtxt(blocklist or _shipped_blocklist(), dtype=np.int64, ndmin=1)
        return np.setdiff1d(np.arange(N_PIXELS), blocked)
    except (OSError, ValueError) as error:
        raise UserError(
            f"N-MNIST: cannot read the list of unused pixels of NEST's examples ({reason(error)})"
        ) from error


def _shipped_blocklist() -> Path:
    found = importlib.util.find_spec("nest")  # finds NEST without importing it
    for folder in (found and found.submodule_search_locations) or ():
        return Path(folder) / BLOCKLIST
    raise UserError("N-MNIST: the list of unused pixels comes with NEST, which is not installed")
