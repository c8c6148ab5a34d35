"""Parameters that differ from neuron to neuron: one number for all, a list with one each, or a distribution."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from eprop_cli.errors import ConfigError, require

NORMAL = "normal"
GENERATORS = ("numpy", "nest")
KEYS = ("distribution", "mean", "std", "generator")


class Drawn(list[float]):
    """Values drawn from a distribution, which to_dict() gives in their place: config as the user wrote it."""

    def __init__(self, values: Any, distribution: dict[str, Any]) -> None:
        super().__init__(float(value) for value in values)
        self.distribution = distribution

    def __reduce__(self) -> Any:
        return Drawn, (list(self), self.distribution)


@dataclass(frozen=True)
class Draw:
    """A parameter that is yet to be drawn.

    key: in the config. group, name: where its values belong. size: number of neurons.
    """

    key: str
    group: Any
    name: str
    size: int

    @property
    def distribution(self) -> dict[str, Any]:
        """Distribution, mean, std, generator."""
        found: dict[str, Any] = getattr(self.group, self.name)
        return found


def positive_values(key: str, value: Any, size: int | None) -> Any:
    """Check a parameter that must be positive: a number, a list of one per neuron, or a distribution.

    size: number of neurons; None: neither list nor distribution allowed.
    """
    if isinstance(value, dict):
        _check_distribution(key, value, size)
        return value
    items = value if isinstance(value, list) else [value]
    numeric = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    constraint = "must be a number, a list with one per neuron, or {distribution: normal, mean: M, std: S}"
    require(numeric, key, value, constraint)
    if not isinstance(value, list):
        require(value > 0, key, value, "must be positive")
        return float(value)
    require(size is not None, key, value, "must be one number here; give lists under the population")
    require(len(value) == size, key, value, f"must have one value per neuron ({size})")
    for item in value:
        require(item > 0, key, value, "must be positive")
    return [float(item) for item in value]


def draws(group: Any, sizes: dict[str, int], key: str = "neuron") -> Iterator[Draw]:
    """The parameters of a neuron config that are yet to be drawn. sizes: of the populations."""
    for population, size in sizes.items():
        parameters = getattr(group, population)
        for each in fields(parameters):
            if isinstance(getattr(parameters, each.name), dict):
                yield Draw(f"{key}.{population}.{each.name}", parameters, each.name, size)


def drawn_values(neuron: Any, key: str = "neuron") -> dict[str, list[float]]:
    """The parameters of a neuron config that have been drawn, by their keys."""
    values: dict[str, list[float]] = {}
    for each in fields(neuron):
        value = getattr(neuron, each.name)
        if isinstance(value, Drawn):
            values[f"{key}.{each.name}"] = list(value)
        elif is_dataclass(value):
            values |= drawn_values(value, f"{key}.{each.name}")
    return values


def draw_with_numpy(draw: Draw, seed: int) -> Drawn:
    """Values of a parameter, from a stream of its own; raises ConfigError unless all are positive."""
    words = [seed, *draw.key.encode()]
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))
    distribution = draw.distribution
    return checked(draw, rng.normal(distribution["mean"], distribution["std"], draw.size))


def checked(draw: Draw, values: Any) -> Drawn:
    """Drawn values, all of which must be positive; raises ConfigError."""
    values = np.asarray(values, dtype=np.float64)
    constraint = f"gives {draw.size} values of which one is {values.min():.4g}; all must be positive: lower std"
    require(bool((values > 0).all()), draw.key, draw.distribution, constraint)
    return Drawn(values, draw.distribution)


def _check_distribution(key: str, value: dict[str, Any], size: int | None) -> None:
    require(size is not None, key, value, "must be one number here; give distributions under the population")
    value.setdefault("generator", GENERATORS[0])
    unknown = set(value) ^ set(KEYS)
    require(not unknown, key, value, f"must have the keys {', '.join(KEYS)}")
    if value["distribution"] != NORMAL:
        raise ConfigError(f"{key}.distribution", value["distribution"], f"must be {NORMAL}")
    for name in ("mean", "std"):
        number = isinstance(value[name], int | float) and not isinstance(value[name], bool) and value[name] >= 0
        require(number, f"{key}.{name}", value[name], "must be a number, at least 0")
    choices = f"must be one of {', '.join(GENERATORS)}"
    require(value["generator"] in GENERATORS, f"{key}.generator", value["generator"], choices)
