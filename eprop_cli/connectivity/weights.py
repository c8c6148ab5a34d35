"""Draw initial weights, or take trained ones from a run directory."""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.base import FEEDBACK, PLASTIC, clear
from eprop_cli.connectivity.synapses import FROM_FILE, SynapseConfig
from eprop_cli.errors import ConfigError, require
from eprop_cli.formats import check_format
from eprop_cli.values import Weights

NOT_AN_ARCHIVE = (AttributeError, TypeError, zipfile.BadZipFile, zlib.error)  # the first two from a single array


def initial_weights(
    synapse: SynapseConfig, n_in: int, n_rec: int, n_out: int, rng: np.random.RandomState, resumed: bool = False
) -> Weights:
    """Weights that training starts from; always draws from rng, so that later draws do not depend on weights_from.

    resumed: the run's checkpoint has them, and where they came from may be gone.
    Raises ConfigError if they do not fit the network.
    """
    source = synapse.weights_from
    with np.errstate(over="ignore"):  # _check_finite tells
        weights = draw_weights(synapse, n_in, n_rec, n_out, rng)
    if resumed:
        return weights
    if source is not None:
        trained = _load(source)
        for projection, drawn in weights.items():
            shape = trained[projection].shape
            constraint = f"has {projection} weights of shape {shape}, but the network needs {drawn.shape}"
            require(shape == drawn.shape, "synapse.weights_from", source, constraint)
        weights = clear(trained)
    _check_finite(synapse, weights)
    return weights


def check_bounds(weights: Weights, least: float, most: float) -> None:
    """Raise ConfigError unless initial weights lie within the optimizer's bounds."""
    for projection in PLASTIC:
        low, high = float(weights[projection].min()), float(weights[projection].max())
        constraint = f"must not be above the smallest initial weight of {projection} ({low:.4g})"
        require(least <= low, "optimizer.Wmin", least, constraint)
        constraint = f"must not be below the largest initial weight of {projection} ({high:.4g})"
        require(most >= high, "optimizer.Wmax", most, constraint)


def draw_weights(synapse: SynapseConfig, n_in: int, n_rec: int, n_out: int, rng: np.random.RandomState) -> Weights:
    """Draw weights in the tutorials' order: in_rec, rec_rec, rec_out, out_rec; each times its scale.

    Rounded to synapse.dtype_weights and returned as float64 (n_post, n_pre).
    """
    shapes = {"in_rec": (n_in, n_rec), "rec_rec": (n_rec, n_rec), "rec_out": (n_rec, n_out), FEEDBACK: (n_rec, n_out)}
    weights = {}
    for projection, shape in shapes.items():
        distribution = getattr(synapse.weight_distribution, projection)
        if distribution.startswith(FROM_FILE):
            values = _from_file(projection, distribution.removeprefix(FROM_FILE), shape)
        else:
            values = DRAWS[distribution](rng, shape)
        values = getattr(synapse.weight_scale, projection) * values
        # The feedback is drawn post by pre, the others pre by post.
        weights[projection] = _rounded(values if projection == FEEDBACK else values.T, synapse.dtype_weights)
    return clear(weights)


def _normal(rng: np.random.RandomState, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Standard deviation 1 / sqrt(n) of the n neurons along the first axis: of a projection forward, its fan-in."""
    drawn: NDArray[np.float64] = rng.randn(*shape) / np.sqrt(shape[0])
    return drawn


def _glorot_uniform(rng: np.random.RandomState, shape: tuple[int, int]) -> NDArray[np.float64]:
    limit = np.sqrt(3.0 / max(1.0, sum(shape) / 2.0))
    return rng.uniform(-limit, limit, shape)


DRAWS: dict[str, Callable[[np.random.RandomState, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": _normal,
    "standard_normal": lambda rng, shape: rng.randn(*shape),
    "glorot_uniform": _glorot_uniform,
}


def _from_file(projection: str, path: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    """An array of the user's, (n_post, n_pre) as everywhere; returned as it would have been drawn."""
    key = f"synapse.weight_distribution.{projection}"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, *NOT_AN_ARCHIVE) as error:
        raise ConfigError(key, f"{FROM_FILE}{path}", "must be a readable .npy file") from error
    wanted = shape if projection == FEEDBACK else shape[::-1]
    numeric = isinstance(found, np.ndarray) and found.dtype.kind in "fiu"
    constraint = f"must be an array of numbers of shape {wanted}, (n_post, n_pre)"
    require(numeric and found.shape == wanted, key, f"{FROM_FILE}{path}", constraint)
    values: NDArray[np.float64] = found.astype(np.float64)
    return values if projection == FEEDBACK else values.T


def _check_finite(synapse: SynapseConfig, weights: Weights) -> None:
    for projection, values in weights.items():
        key, value = "synapse.weights_from", synapse.weights_from
        if value is None:
            key, value = f"synapse.weight_scale.{projection}", getattr(synapse.weight_scale, projection)
        require(bool(np.isfinite(values).all()), key, value, f"makes weights of {projection} infinite or NaN")


def _rounded(values: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    return np.ascontiguousarray(values.astype(dtype).astype(np.float64))


def _load(source: str) -> Weights:
    path = Path(source)
    key = "synapse.weights_from"
    try:
        require(path.exists(), key, source, "does not exist; give a run directory, its weights.npz, or a .npz of yours")
        with np.load(path / "weights.npz" if path.is_dir() else path, allow_pickle=False) as file:
            check_format(int(file["format"]) if "format" in file else 1, path)
            names = {name: _name(name, file.files) for name in (*PLASTIC, FEEDBACK)}
            missing = ", ".join(name for name, found in names.items() if found is None)
            constraint = f"lacks {missing}; it needs {', '.join(names)}, each of shape (n_post, n_pre), in pA"
            require(not missing, key, source, constraint)
            return {name: np.asarray(file[found], dtype=np.float64) for name, found in names.items()}
    except (OSError, ValueError, LookupError, NotImplementedError, EOFError, *NOT_AN_ARCHIVE) as error:
        constraint = "must be a run directory, its weights.npz, or a .npz of yours, whole and readable"
        raise ConfigError(key, source, constraint) from error


def _name(projection: str, names: Sequence[str]) -> str | None:
    """What a projection is called in a file: as a run calls it after training, or plainly; None if it is not there."""
    return next((name for name in (f"{projection}_after", projection) if name in names), None)
