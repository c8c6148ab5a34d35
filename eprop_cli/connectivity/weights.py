"""Draw initial weights, or take trained ones from a run directory."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eprop_cli.connectivity.base import PROJECTIONS, Synapse
from eprop_cli.errors import ConfigError, require
from eprop_cli.models.bsshslm_2020 import n_rec
from eprop_cli.values import Weights

if TYPE_CHECKING:
    from eprop_cli.config.config import Config

NOT_AN_ARCHIVE = (AttributeError, TypeError, zipfile.BadZipFile, zlib.error)  # the first two from a single array


def initial_weights(config: Config, rng: np.random.RandomState) -> Weights:
    """Weights that training starts from; always draws from rng, so that later draws do not depend on weights_from.

    Raises ConfigError if they do not fit the network, or lie outside the optimizer's bounds.
    """
    source = config.synapse.weights_from
    with np.errstate(over="ignore"):  # _check_finite tells
        weights = draw_weights(config.synapse, config.task.n_in, n_rec(config.neuron), config.task.n_out, rng)
    if config.resume is not None:  # its checkpoint has them, and where they came from may be gone
        return weights
    if source is not None:
        trained = _load(source)
        for projection, drawn in weights.items():
            shape = trained[projection].shape
            constraint = f"has {projection} weights of shape {shape}, but the network needs {drawn.shape}"
            require(shape == drawn.shape, "synapse.weights_from", source, constraint)
        weights = trained
    _check_finite(config.synapse, weights)
    optimizer = config.optimizer
    for projection in PROJECTIONS:
        least, most = float(weights[projection].min()), float(weights[projection].max())
        constraint = f"must not be above the smallest initial weight of {projection} ({least:.4g})"
        require(optimizer.Wmin <= least, "optimizer.Wmin", optimizer.Wmin, constraint)
        constraint = f"must not be below the largest initial weight of {projection} ({most:.4g})"
        require(optimizer.Wmax >= most, "optimizer.Wmax", optimizer.Wmax, constraint)
    return weights


def draw_weights(synapse: Synapse, n_in: int, n_rec: int, n_out: int, rng: np.random.RandomState) -> Weights:
    """Draw weights in the tutorial's order: in_rec, rec_rec, rec_out, out_rec.

    Normal with standard deviation 1/sqrt(fan-in), for rec_out Glorot uniform, for the feedback 1; each times its scale.
    Rounded to synapse.dtype_weights and returned as float64 (n_post, n_pre).
    """
    glorot_limit = np.sqrt(3.0 / max(1.0, (n_rec + n_out) / 2.0))
    drawn = {
        "in_rec": rng.randn(n_in, n_rec) / np.sqrt(n_in),
        "rec_rec": rng.randn(n_rec, n_rec) / np.sqrt(n_rec),
        "rec_out": rng.uniform(-glorot_limit, glorot_limit, (n_rec, n_out)),
        "out_rec": rng.randn(n_rec, n_out).T,  # drawn post by pre, unlike the others
    }
    weights = {
        projection: _rounded(getattr(synapse.weight_scale, projection) * values.T, synapse.dtype_weights)
        for projection, values in drawn.items()
    }
    np.fill_diagonal(weights["rec_rec"], 0.0)  # no autapses
    return weights


def _check_finite(synapse: Synapse, weights: Weights) -> None:
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
        require(path.exists(), key, source, "does not exist; give a run directory or its weights.npz")
        with np.load(path / "weights.npz" if path.is_dir() else path, allow_pickle=False) as file:
            names = {key: f"{key}_after" for key in PROJECTIONS} | {"out_rec": "out_rec"}
            return {key: np.asarray(file[name], dtype=np.float64) for key, name in names.items()}
    except (OSError, ValueError, LookupError, NotImplementedError, EOFError, *NOT_AN_ARCHIVE) as error:
        constraint = "must be a run directory or its weights.npz, whole and readable"
        raise ConfigError(key, source, constraint) from error
