"""Draw initial weights and the synapses they belong to, or take trained ones from a run directory."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eprop_cli.archives import DAMAGES, NUMBERS, Header, read_archive, read_array
from eprop_cli.connectivity.base import FEEDBACK, PLASTIC, ends
from eprop_cli.connectivity.mask import Mask, Wiring, checked_lists, neighbours, of_matrix
from eprop_cli.connectivity.projections import Connectivity, aligned, checked, draw_early
from eprop_cli.connectivity.rule import AFTER, FROM_WEIGHTS, ConnectionRule
from eprop_cli.connectivity.synapses import FROM_FILE, SynapseConfig
from eprop_cli.errors import ConfigError, require
from eprop_cli.formats import check_format
from eprop_cli.values import Weights

MOST = 1e9  # pA; far beyond, sums of weights are no numbers
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """What weights.npz holds of a projection.

    ours: whether a run wrote it, in whose dense projections zeros are synapses too.
    """

    mask: Mask
    values: Floats
    ours: bool


def initial_network(
    connectivity: Connectivity,
    synapse: SynapseConfig,
    sizes: Mapping[str, int],
    seed: int,
    rng: np.random.RandomState,
    known: Mapping[str, Mask] | None = None,
    rescaled: Callable[[Weights], Weights] = lambda drawn: drawn,
) -> tuple[Wiring, Weights]:
    """Synapses and weights that training starts from; later draws from rng do not depend on weights_from.

    sizes: of in, rec, out. known: synapses of a run that is resumed, whose weights its checkpoint has.
    rescaled: what the model family makes of weights that were drawn.
    Raises ConfigError if weights do not fit the network.
    """
    rules, source = connectivity.rules, synapse.weights_from
    trained = _load(source, sizes, rules) if source is not None and known is None else {}
    masks = draw_early(rules, sizes, seed, _from_trained(rules, trained, source) if known is None else known)
    with np.errstate(over="ignore"):  # _check_finite tells
        masks, weights = draw_weights(synapse, rules, masks, sizes, rng)
        weights = rescaled(weights)
    if source is not None and known is None:
        weights = {name: _taken(name, source, trained[name], mask, rules[name]) for name, mask in masks.items()}
    wiring = aligned(masks, connectivity.feedback)
    weights = {
        name: values if values.shape == mask.shape else _listed_values(masks[name], mask, values)
        for (name, mask), values in zip(wiring.items(), weights.values(), strict=True)
    }
    if known is None:
        _check_finite(synapse, weights)
    return wiring, neighbours(weights)


def check_bounds(weights: Weights, bounds: Mapping[str, tuple[float, float]], keys: Mapping[str, str]) -> None:
    """Raise ConfigError unless initial weights lie within the optimizer's bounds.

    keys: projection -> key of bounds that it has for itself.
    """
    for projection, (least, most) in bounds.items():
        low, high = float(weights[projection].min(initial=0.0)), float(weights[projection].max(initial=0.0))
        constraint = f"must not be above the smallest initial weight of {projection} ({low:.4g})"
        require(least <= low, keys.get(projection, "optimizer.Wmin"), least, constraint)
        constraint = f"must not be below the largest initial weight of {projection} ({high:.4g})"
        require(most >= high, keys.get(projection, "optimizer.Wmax"), most, constraint)


def draw_weights(
    synapse: SynapseConfig,
    rules: Mapping[str, ConnectionRule],
    masks: Mapping[str, Mask],
    sizes: Mapping[str, int],
    rng: np.random.RandomState,
) -> tuple[dict[str, Mask], Weights]:
    """Draw weights in the tutorials' order: in_rec, rec_rec, rec_out, out_rec; each times its scale.

    masks: those drawn before; the others are drawn afterwards. Returns all masks, and weights rounded to
    synapse.dtype_weights as float64: (n_post, n_pre) of dense projections, (n,) of others.
    """
    weights = {}
    for projection, rule in rules.items():
        pre, post = ends(projection)
        distribution = getattr(synapse.weight_distribution, projection)
        mask = None if rule.when == AFTER else masks[projection]
        # The feedback is drawn post by pre, the others pre by post.
        shape = (sizes[post], sizes[pre]) if projection == FEEDBACK else (sizes[pre], sizes[post])
        if distribution.startswith(FROM_FILE):
            matrix = _from_file(projection, distribution.removeprefix(FROM_FILE), (sizes[post], sizes[pre]))
            values = matrix if mask is None else mask.take(matrix)
        elif mask is None or _is_whole(projection, mask):
            drawn = DRAWS[distribution](rng, shape)
            values = drawn if projection == FEEDBACK else drawn.T
        else:
            values = LISTED_DRAWS[distribution](rng, mask, projection)
        values = getattr(synapse.weight_scale, projection) * values
        weights[projection] = _rounded(values, synapse.dtype_weights)
    complete = dict(masks)
    for projection, rule in rules.items():
        if rule.when == AFTER:
            pre, post = ends(projection)
            drawn_after = checked(projection, rule.draw(rng, sizes[pre], sizes[post]), sizes)
            complete[projection] = complete.get(projection, drawn_after)
        weights[projection] = (
            complete[projection].take(weights[projection])
            if rule.when == AFTER
            else _of_mask(complete[projection], weights[projection])
        )
    return {name: complete[name] for name in rules}, weights


def _listed_values(before: Mask, mask: Mask, values: Floats) -> Floats:
    """Values of a projection as those of another mask of it."""
    matrix = before.matrix(values) if mask.size else np.zeros((0, 0))
    return mask.take(matrix)


def _is_whole(projection: str, mask: Mask) -> bool:
    """Whether all synapses are there, listed or not.

    What is drawn must not depend on that: a run that goes on knows a projection as a list where its neighbour is one.
    """
    pre, post = ends(projection)
    return mask.size >= mask.n_pre * mask.n_post - (mask.n_pre if pre == post else 0)


def _of_mask(mask: Mask, values: Floats) -> Floats:
    """Values in the mask's shape, from those or from a whole matrix."""
    return values if values.ndim == 1 else mask.take(values)


def _normal(rng: np.random.RandomState, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Standard deviation 1 / sqrt(n) of the n neurons along the first axis: of a projection forward, its fan-in."""
    drawn: NDArray[np.float64] = rng.randn(*shape) / np.sqrt(shape[0])
    return drawn


def _glorot_uniform(rng: np.random.RandomState, shape: tuple[int, int]) -> NDArray[np.float64]:
    limit = np.sqrt(3.0 / max(1.0, sum(shape) / 2.0))
    return rng.uniform(-limit, limit, shape)


def _listed_normal(rng: np.random.RandomState, mask: Mask, projection: str) -> Floats:
    """As _normal, with the fan-in that each neuron has."""
    _, post = mask.lists
    fan_in = np.full(mask.n_post, mask.n_post) if projection == FEEDBACK else mask.fan_in()
    drawn: Floats = rng.randn(mask.size)
    drawn /= np.sqrt(fan_in)[post]
    return drawn


def _listed_glorot_uniform(rng: np.random.RandomState, mask: Mask, projection: str) -> Floats:
    """As _glorot_uniform, with the fan-in and fan-out that each neuron has."""
    _, post = mask.lists
    mean = (mask.fan_in()[post] + mask.fan_out()[mask.pre]) / 2.0
    drawn: Floats = rng.uniform(-1.0, 1.0, mask.size)
    return drawn * np.sqrt(3.0 / np.maximum(1.0, mean))


DRAWS: dict[str, Callable[[np.random.RandomState, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": _normal,
    "standard_normal": lambda rng, shape: rng.randn(*shape),
    "glorot_uniform": _glorot_uniform,
}
LISTED_DRAWS: dict[str, Callable[[np.random.RandomState, Mask, str], Floats]] = {
    "normal": _listed_normal,
    "standard_normal": lambda rng, mask, projection: rng.randn(mask.size),
    "glorot_uniform": _listed_glorot_uniform,
}


def _from_file(projection: str, path: str, shape: tuple[int, int]) -> Floats:
    """An array of the user's, (n_post, n_pre) as everywhere."""
    key = f"synapse.weight_distribution.{projection}"

    def check(header: Header) -> None:
        constraint = f"must be an array of numbers of shape {shape}, (n_post, n_pre)"
        fits = header.dtype.kind in NUMBERS and header.shape == shape
        require(fits, key, f"{FROM_FILE}{path}", constraint)

    try:
        found = read_array(Path(path), check)
    except DAMAGES as error:
        raise ConfigError(key, f"{FROM_FILE}{path}", "must be a readable .npy file") from error
    values: Floats = found.astype(np.float64)
    return values


def _check_finite(synapse: SynapseConfig, weights: Weights) -> None:
    for projection, values in weights.items():
        key, value = "synapse.weights_from", synapse.weights_from
        if value is None:
            key, value = f"synapse.weight_scale.{projection}", getattr(synapse.weight_scale, projection)
        require(bool(np.isfinite(values).all()), key, value, f"makes weights of {projection} infinite or NaN")


def _rounded(values: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    return np.ascontiguousarray(values.astype(dtype).astype(np.float64))


def _from_trained(
    rules: Mapping[str, ConnectionRule], trained: Mapping[str, Trained], source: str | None
) -> dict[str, Mask]:
    """The masks that come with trained weights, of the projections that ask for them."""
    masks = {}
    for projection, rule in rules.items():
        if rule.when == FROM_WEIGHTS:
            constraint = "needs synapse.weights_from, of which it takes the synapses"
            require(source is not None, rule.key, rule.config.rule, constraint)
            found = trained[projection]
            whole = found.ours or not found.mask.is_dense
            masks[projection] = found.mask if whole else of_matrix(found.values != 0)
    return masks


def _taken(projection: str, source: str, trained: Trained, mask: Mask, rule: ConnectionRule) -> Floats:
    """Trained weights of the synapses that a projection has; raises ConfigError unless it is clear which these are."""
    key = "synapse.weights_from"
    remedy = f"{rule.key}=from_weights takes the synapses from there"
    if not trained.mask.is_dense:
        constraint = f"has other synapses of {projection} than {rule.key} gives; {remedy}"
        require(trained.mask.same_as(mask), key, source, constraint)
        return trained.values if not mask.is_dense else trained.mask.matrix(trained.values)
    zeros = int((trained.values[trained.mask.exists()] == 0).sum())
    asked = not mask.is_dense or trained.ours or getattr(rule.config, "keep_zeros", True)
    constraint = f"has {zeros} zeros in {projection}, which would become synapses; {remedy} without them"
    constraint += f", {rule.key}={{rule: dense, keep_zeros: true}} with them"
    require(asked or zeros == 0, key, source, constraint)
    return mask.take(trained.values)


def _load(source: str, sizes: Mapping[str, int], rules: Mapping[str, ConnectionRule]) -> dict[str, Trained]:
    """What a run directory or its weights.npz holds; raises ConfigError unless it fits the network."""
    path = Path(source)
    key = "synapse.weights_from"
    try:
        require(path.exists(), key, source, "does not exist; give a run directory, its weights.npz, or a .npz of yours")
        path = path / "weights.npz" if path.is_dir() else path
        file = read_archive(path, lambda headers: _check_headers(headers, source, sizes))
        check_format(int(file["format"]) if "format" in file else 1, path)
        found = {name: _trained(name, file, sizes) for name in (*PLASTIC, FEEDBACK)}
    except DAMAGES as error:
        constraint = "must be a run directory, its weights.npz, or a .npz of yours, whole and readable"
        raise ConfigError(key, source, constraint) from error
    for name, trained in found.items():
        _check_shape(name, (trained.mask.n_post, trained.mask.n_pre), source, sizes)
        values = trained.values
        require(bool(np.isfinite(values).all()), key, source, f"makes weights of {name} infinite or NaN")
        most = float(np.abs(values).max(initial=0.0))
        require(most <= MOST, key, source, f"has weights of {name} of up to {most:g}; at most {MOST:g} pA")
        constraint = f"has {name} weights of neurons with themselves, which must be 0"
        require(not (rules[name].without_self and _has_autapses(trained)), key, source, constraint)
    return found


def _name(projection: str, names: Collection[str]) -> str | None:
    """What a projection is called in a file: as a run calls it after training, or plainly; None if it is not there."""
    return next((name for name in (f"{projection}_after", projection) if name in names), None)


def _check_headers(headers: Mapping[str, Header], source: str, sizes: Mapping[str, int]) -> None:
    """Raise ConfigError for what is not there, is larger than the network, or no numbers, before it is read."""
    key = "synapse.weights_from"
    names = {name: _name(name, headers) for name in (*PLASTIC, FEEDBACK)}
    missing = ", ".join(name for name, found in names.items() if found is None)
    constraint = f"lacks {missing}; it needs {', '.join(names)}, each of shape (n_post, n_pre), in pA"
    require(not missing, key, source, constraint)
    for name, found in names.items():
        header = headers[str(found)]
        is_dense, constraint = f"{name}_row" not in headers, f"has {name} weights that are no numbers ({header.dtype})"
        if is_dense:
            _check_shape(name, header.shape, source, sizes)
        require(header.dtype.kind in NUMBERS, key, source, constraint)
        if is_dense:
            continue
        pre, post = ends(name)
        row, targets = headers[f"{name}_row"], headers[f"{name}_post"]
        constraint = f"has {name} weights of {row.shape} rows, but the network needs {(sizes[pre] + 1,)}"
        require(row.shape == (sizes[pre] + 1,), key, source, constraint)
        constraint = f"has {name} weights of {header.shape} for synapses of {targets.shape}"
        require(header.shape == targets.shape and len(header.shape) == 1, key, source, constraint)
        most = sizes[pre] * sizes[post]
        constraint = f"has {header.shape[0]} synapses of {name}, but the network has room for {most}"
        require(header.shape[0] <= most, key, source, constraint)


def _check_shape(name: str, shape: tuple[int, ...], source: str, sizes: Mapping[str, int]) -> None:
    pre, post = ends(name)
    constraint = f"has {name} weights of shape {shape}, but the network needs {(sizes[post], sizes[pre])}"
    require(shape == (sizes[post], sizes[pre]), "synapse.weights_from", source, constraint)


def _has_autapses(trained: Trained) -> bool:
    if trained.mask.is_dense:
        return bool(trained.values.diagonal().any())
    return bool((trained.mask.pre == trained.mask.lists[1]).any())


def _trained(name: str, arrays: Mapping[str, Any], sizes: Mapping[str, int]) -> Trained:
    values = np.asarray(arrays[str(_name(name, arrays))], dtype=np.float64)
    if f"{name}_row" in arrays:
        n_post, n_pre = map(int, arrays[f"{name}_shape"])
        mask = checked_lists(name, arrays[f"{name}_row"], arrays[f"{name}_post"], n_pre, n_post)
    else:
        n_post, n_pre = values.shape
        pre, post = ends(name)
        mask = Mask(n_pre, n_post, autapses=pre != post)
    return Trained(mask, values, "format" in arrays)
