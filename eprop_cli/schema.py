"""Constraints on config values, and typed configs as plain values."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from eprop_cli.errors import require

TIC = 0.001  # ms, NEST's finest time step
MOST = 1e9  # largest parameter of a neuron; far beyond, NEST and the compiled kernels overflow differently
MOST_COUNT = 2**31 - 1
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list, as in [a, b]"}


def to_dict(config: Any) -> dict[str, Any]:
    """A typed config as plain, JSON-able values."""
    container = OmegaConf.to_container(OmegaConf.create({"config": _plain(config)}))
    assert isinstance(container, dict)
    plain: dict[str, Any] = container["config"]
    return plain


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as {"group.key": value}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def numbers(tree: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested dictionaries and lists, with its key."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list):
        for item in tree:
            yield from numbers(item, key)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield key, tree


def check_magnitude(key: str, value: float) -> None:
    """Refuse numbers that nothing can be computed with."""
    require(math.isfinite(value), key, value, "must be a finite number")
    if isinstance(value, int) and key != "seed":
        require(value <= MOST_COUNT, key, value, f"must be at most {MOST_COUNT}")
    if key.startswith("neuron."):
        require(abs(value) <= MOST, key, value, f"must be from {-MOST:g} to {MOST:g}")


def check_kinds(group: Any, key: str, kinds: dict[str, str]) -> None:
    """Check values (those that exist and are not null) to be "positive" or "non-negative"."""
    for name, kind in kinds.items():
        value = getattr(group, name, None)
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                require(item > 0 if kind == "positive" else item >= 0, f"{key}.{name}", value, f"must be {kind}")


def check_choice(key: str, value: Any, choices: Any) -> None:
    """Refuse a value that is not one of the choices."""
    require(value in choices, key, value, f"must be one of {', '.join(choices)}")


def check_multiple(key: str, value: float, unit: float, name: str) -> None:
    """Refuse a value that is not a multiple of a unit."""
    ratio = value / unit
    whole = ratio > 0.5 and math.isclose(ratio, round(ratio), rel_tol=1e-9)
    require(whole, key, value, f"must be a multiple of {name}")


def number_or_list(key: str, value: Any, size: int | None) -> Any:
    """A float, or a list of one float per neuron (size None: no list allowed)."""
    items = value if isinstance(value, list) else [value]
    numeric = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    require(numeric, key, value, "must be a number in ms, or a list with one per neuron")
    if not isinstance(value, list):
        require(value > 0, key, value, "must be positive")
        return float(value)
    require(size is not None, key, value, "must be one number here; give lists under neuron.reg or neuron.ad")
    require(len(value) == size, key, value, f"must have one value per neuron ({size})")
    for item in value:
        require(item > 0, key, value, "must be positive")
    return [float(item) for item in value]
