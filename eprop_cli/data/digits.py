"""Handwritten digits that need no download: the 1797 images of 8 x 8 pixels that scikit-learn is shipped with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data.events import Events, make_events
from eprop_cli.data.samples import Part, split
from eprop_cli.errors import UserError, require

N_PIXELS = 64
N_CLASSES = 10
BRIGHTEST = 16.0
ENCODINGS = ("latency", "regular", "poisson")


@dataclass(frozen=True)
class Encoding:
    """How brightness becomes spikes.

    kind: latency (one spike, the brighter the earlier), regular or poisson (spikes at a rate, the brighter the faster).
    n_steps: time steps of a sample. start, stop: steps between which there are spikes, stop excluded.
    rate: spikes per step of the brightest pixel (regular, poisson). seed: of the drawn spikes (poisson).
    off: whether a second input per pixel takes its darkness, so that dark pixels are heard, too.
    """

    kind: str = "latency"
    n_steps: int = 50
    start: int = 1
    stop: int = 50
    rate: float = 0.2
    seed: int = 0
    off: bool = False

    def __post_init__(self) -> None:
        require(self.kind in ENCODINGS, "task.encoding.kind", self.kind, f"must be one of {', '.join(ENCODINGS)}")
        within = 0 <= self.start < self.stop <= self.n_steps
        require(within, "task.encoding.start", self.start, f"must be before stop ({self.stop}), within n_steps")
        require(0 < self.rate <= 1, "task.encoding.rate", self.rate, "must be above 0, at most 1 spike per step")


class Digits:
    """All 1797 digits as a source; n_in is 64, or 128 where darkness has inputs of its own."""

    n_classes = N_CLASSES

    def __init__(self, encoding: Encoding) -> None:
        self.encoding, self.n_steps = encoding, encoding.n_steps
        self.n_in = N_PIXELS * (2 if encoding.off else 1)
        self.images, self.labels = load_images()

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int) -> tuple[Events, int]:
        """Spikes and label of a digit."""
        return self.encoded(self.images[index], index), int(self.labels[index])

    def encoded(self, image: NDArray[np.float64], index: int) -> Events:
        """Spikes of an image (8, 8) of brightness from 0 to 1."""
        brightness = image.reshape(-1)
        if self.encoding.off:
            brightness = np.concatenate([brightness, 1.0 - brightness])
        return encode(brightness, self.encoding, index)


class Shifted:
    """Digits moved by up to some pixels, another way at each index: that of a digit plus any multiple of their number.

    indices: int (n,), of the digits. most: pixels, up and down, left and right. seed: of the shifts.
    """

    n_classes, varies = N_CLASSES, True

    def __init__(self, digits: Digits, indices: NDArray[np.int64], most: float, seed: int) -> None:
        self.n_in, self.n_steps = digits.n_in, digits.n_steps
        self._digits, self._indices, self._most, self._seed = digits, indices, most, seed

    def __len__(self) -> int:
        return len(self._indices)

    def sample(self, index: int) -> tuple[Events, int]:
        """Spikes and label of a digit, the same at every call."""
        from scipy.ndimage import shift

        rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self._seed, index))))
        by = rng.uniform(-self._most, self._most, 2)
        digit = int(self._indices[index % len(self)])
        image = np.clip(shift(self._digits.images[digit], by, order=1), 0.0, 1.0)
        return self._digits.encoded(image, index), int(self._digits.labels[digit])


def parts(encoding: Encoding, seed: int = 0) -> dict[str, Part]:
    """The digits split at random into training (1197), validation (240) and test (360), the same for every network."""
    names = ("test", "validation", "training")
    return dict(zip(names, split(Digits(encoding), (360 / 1797, 240 / 1797), seed), strict=True))


def encode(brightness: NDArray[np.float64], encoding: Encoding, index: int = 0) -> Events:
    """Spikes of inputs of a brightness from 0 to 1, (n_in,); none at 0. index: of the sample, a part of the seed."""
    span = encoding.stop - encoding.start
    if encoding.kind == "latency":
        neuron = np.flatnonzero(brightness)
        step = np.rint((1.0 - brightness[neuron]) * (span - 1)).astype(np.int64)
    else:
        rate = np.broadcast_to(encoding.rate * brightness, (span, len(brightness)))
        if encoding.kind == "regular":
            fires = np.diff(np.floor(np.cumsum(rate, axis=0) + 0.5), axis=0, prepend=0.0) > 0
        else:
            rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((encoding.seed, index))))
            fires = rng.random_sample(rate.shape) < rate
        step, neuron = np.nonzero(fires)
    return make_events(step + encoding.start, neuron)


def load_images() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Brightness from 0 to 1, float64 (1797, 8, 8), and label, int64 (1797,), of scikit-learn's digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("digits: scikit-learn is not installed; pip install scikit-learn") from error
    digits = load_digits()
    return digits.images / BRIGHTEST, digits.target.astype(np.int64)
