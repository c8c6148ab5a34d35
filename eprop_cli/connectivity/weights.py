"""Draw initial weights, or take trained ones from a run directory."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eprop_cli.archives import DAMAGES, NUMBERS, Header, read_archive, read_array
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC, clear
from eprop_cli.connectivity.synapses import FROM_FILE, SynapseConfig
from eprop_cli.errors import ConfigError, require
from eprop_cli.formats import check_format
from eprop_cli.values import Weights

MOST = 1e9  # pA; far beyond, sums of weights are no numbers


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
        weights = clear(_load(source, {projection: drawn.shape for projection, drawn in weights.items()}))
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
    wanted = shape if projection == FEEDBACK else shape[::-1]

    def check(header: Header) -> None:
        constraint = f"must be an array of numbers of shape {wanted}, (n_post, n_pre)"
        fits = header.dtype.kind in NUMBERS and header.shape == wanted
        require(fits, key, f"{FROM_FILE}{path}", constraint)

    try:
        found = read_array(Path(path), check)
    except DAMAGES as error:
        raise ConfigError(key, f"{FROM_FILE}{path}", "must be a readable .npy file") from error
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


def _load(source: str, shapes: Mapping[str, tuple[int, ...]]) -> Weights:
    """Trained weights; raises ConfigError unless they are numbers, of the shapes that the network needs."""
    path = Path(source)
    key = "synapse.weights_from"
    names = {key: f"{key}_after" for key in PLASTIC} | {FEEDBACK: FEEDBACK}

    def check(headers: Mapping[str, Header]) -> None:
        for projection, name in names.items():
            shape, kind = headers[name].shape, headers[name].dtype
            constraint = f"has {projection} weights of shape {shape}, but the network needs {shapes[projection]}"
            require(shape == shapes[projection], key, source, constraint)
            require(kind.kind in NUMBERS, key, source, f"has {projection} weights that are no numbers ({kind})")

    try:
        require(path.exists(), key, source, "does not exist; give a run directory or its weights.npz")
        path = path / "weights.npz" if path.is_dir() else path
        file = read_archive(path, check)
        check_format(int(file["format"]) if "format" in file else 1, path)
    except DAMAGES as error:
        constraint = "must be a run directory or its weights.npz, whole and readable"
        raise ConfigError(key, source, constraint) from error
    weights = {projection: np.asarray(file[name], dtype=np.float64) for projection, name in names.items()}
    for projection, values in weights.items():
        finite = np.isfinite(values)
        require(bool(finite.all()), key, source, f"makes weights of {projection} infinite or NaN")
        most = float(np.abs(values).max(initial=0.0))
        require(most <= MOST, key, source, f"has weights of {projection} of up to {most:g}; at most {MOST:g} pA")
    autapses = weights["rec_rec"].diagonal()
    require(not autapses.any(), key, source, "has rec_rec weights of neurons with themselves, which must be 0")
    return weights
