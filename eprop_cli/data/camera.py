"""Genuine N-MNIST files without a download: scikit-learn's digits seen by a simulated event camera."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eprop_cli.data.digits import load_images
from eprop_cli.data.neuromorphic_mnist import FOLDERS, N_CLASSES, SIDE
from eprop_cli.errors import require

MAGNIFICATION = 3  # 8 x 8 pixels become 24 x 24
N_FRAMES = 100  # pictures of the moving digit, the first of which gives no events
DURATION = 300_000  # us; three saccades of 100 ms
THRESHOLD = 0.25  # change of brightness, from 0 to 1, that makes an event
# Corners of the triangle along which the camera moves, in pixels (y, x); its sides are the saccades.
CORNERS = np.array([[-2.0, -2.0], [2.0, 0.0], [-2.0, 2.0], [-2.0, -2.0]])


def simulate(folder: Path, n_training: int, n_test: int) -> None:
    """Write FOLDER/Train/0/*.bin to FOLDER/Test/9/*.bin: of each class the first images to Train, the next to Test.

    n_training, n_test: files per class; scikit-learn has between 174 and 183 images of a class.
    """
    images, labels = load_images()
    most = int(np.bincount(labels).min())
    fits = n_training >= 1 and n_test >= 1 and n_training + n_test <= most
    require(fits, "files per class", [n_training, n_test], f"must be at least 1 each, and {most} together at most")
    for label in range(N_CLASSES):
        of_class = np.flatnonzero(labels == label)
        parts = {"training": of_class[:n_training], "test": of_class[n_training : n_training + n_test]}
        for phase, indices in parts.items():
            directory = folder / FOLDERS[phase] / str(label)
            directory.mkdir(parents=True, exist_ok=True)
            for i in indices:
                (directory / f"{i:05d}.bin").write_bytes(pack(record(images[i])))


def record(image: NDArray[np.float64]) -> NDArray[np.int64]:
    """The events that an image makes when the camera moves over it, int64 (4, n_events): x, y, polarity, time (us).

    image: brightness from 0 to 1, (8, 8). A pixel reports once per frame, while what it sees differs from what it
    reported last by the threshold.
    """
    from scipy.ndimage import shift, zoom

    still = np.zeros((SIDE, SIDE))
    inside = slice((SIDE - MAGNIFICATION * 8) // 2, (SIDE + MAGNIFICATION * 8) // 2)
    still[inside, inside] = np.clip(zoom(image, MAGNIFICATION, order=1), 0, 1)
    reported = shift(still, CORNERS[0], order=1)
    events = []
    for frame in range(1, N_FRAMES):
        seen = shift(still, _position(frame), order=1)
        for polarity, sign in ((1, 1.0), (0, -1.0)):
            y, x = np.nonzero(sign * (seen - reported) >= THRESHOLD)
            reported[y, x] += sign * THRESHOLD
            time = np.full(len(x), frame * DURATION // N_FRAMES)
            events.append(np.stack([x, y, np.full(len(x), polarity), time]))
    return np.concatenate(events, axis=1)


def pack(events: NDArray[np.int64]) -> bytes:
    """Events as record() gives them in the 5 bytes each of an N-MNIST file."""
    x, y, polarity, time = events
    columns = [x, y, polarity << 7 | time >> 16, time >> 8 & 0xFF, time & 0xFF]
    return np.stack(columns, axis=1).astype(np.uint8).tobytes()


def _position(frame: int) -> NDArray[np.float64]:
    """How far the picture is shifted in a frame, pixels (y, x)."""
    saccade, part = divmod(3 * frame / N_FRAMES, 1)
    start, stop = CORNERS[int(saccade)], CORNERS[int(saccade) + 1]
    position: NDArray[np.float64] = start * (1 - part) + stop * part
    return position
