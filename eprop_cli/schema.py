"""A rule and a unit beside each key of a config, one walker that checks them, and typed configs as plain values."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from eprop_cli.errors import UserError, require

TIC = 0.001  # ms, NEST's finest time step
MOST = 1e9  # largest parameter of a neuron; far beyond, NEST and the compiled kernels overflow differently
LEAST = 1e-12  # that is not 0; far below, exponents overflow
MOST_COUNT = 2**31 - 1
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list, as in [a, b]"}


@dataclass(frozen=True)
class Rule:
    """What a value must be, of a list each item; null is allowed where the key's type has it."""

    text: str
    holds: Callable[[Any], bool]


POSITIVE = Rule("positive", lambda value: value > 0)
NON_NEGATIVE = Rule("non-negative", lambda value: value >= 0)
PROBABILITY = Rule("a probability, from 0 to 1", lambda value: 0 <= value <= 1)


SEED = Rule("from 0 to 4294967295", lambda seed: 0 <= seed < 2**32)


def at_least(least: int, what: str = "") -> Rule:
    """A number from least; what: of what."""
    return Rule(f"at least {least}{what and ' ' + what}", lambda value: value >= least)


def one_of(choices: Sequence[str]) -> Rule:
    """One of some names."""
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def key(*rules: Rule, unit: str = "") -> Any:
    """A key of a config group: the rules that its value must keep, and its unit as in tables and axes."""
    return field(metadata={"rules": rules, "unit": unit})


@dataclass(kw_only=True)
class Group:
    """The keys of a config group. Its rules are checked when it is made; what needs several keys, by its subclass.

    GROUP: its name in the config, with which errors begin.
    """

    GROUP: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_rules(self, self.GROUP)


def check_rules(group: Any, path: str) -> None:
    """Raise ConfigError for the first value that breaks a rule of its key, in nested groups too."""
    for each in fields(group):
        value, name = getattr(group, each.name), f"{path}.{each.name}" if path else each.name
        fits = is_dataclass(value) or not is_dataclass(each.type)  # a reference may have led to anything
        require(fits, name, value, "must be a group of keys")
        for inner in value if isinstance(value, list) else [value]:
            if is_dataclass(inner):
                check_rules(inner, name)
        for rule in each.metadata.get("rules", ()):
            for item in value if isinstance(value, list) else [value]:
                if item is not None:
                    require(rule.holds(item), name, item if isinstance(item, str) else value, f"must be {rule.text}")


def units(group: Any, path: str = "") -> dict[str, str]:
    """Units of the keys of a config, by key, of those that have one."""
    found: dict[str, str] = {}
    for each in fields(group):
        name = f"{path}.{each.name}" if path else each.name
        if each.metadata.get("unit"):
            found[name] = each.metadata["unit"]
        if is_dataclass(inner := getattr(group, each.name, each.type)):
            found |= units(inner, name)
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """A typed config as plain, JSON-able values; raises UserError for what a Config of the user's holds besides."""
    plain = _plain(config, "")
    assert isinstance(plain, dict)
    return plain


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as {"group.key": value}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each key its last part, where that says enough and tells it from the others."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    clear = {key: name != "name" and last.count(name) == 1 for key, name in zip(keys, last, strict=True)}
    return {key: name if clear[key] else key for key, name in zip(keys, last, strict=True)}


def _plain(value: Any, key: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "distribution"):  # values that were drawn from it
        return value.distribution
    if isinstance(value, dict):
        return {name: _plain(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{index}]") for index, item in enumerate(value)]
    raise UserError(f"{key}: is of type {type(value).__name__}, which cannot be written; keep it out of a Config")


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
    if isinstance(value, int) and not key.endswith("seed"):
        most = int(MOST) if key.startswith("neuron.") else MOST_COUNT
        require(value <= most, key, value, f"must be at most {most}")
    if key.startswith("neuron."):
        require(abs(value) <= MOST, key, value, f"must be from {-MOST:g} to {MOST:g}")
        require(value == 0 or abs(value) >= LEAST, key, value, f"must be 0, or at least {LEAST:g} away from it")


def check_choice(key: str, value: Any, choices: Any) -> None:
    """Refuse a value that is not one of the choices."""
    require(value in choices, key, value, f"must be one of {', '.join(choices)}")


def check_multiple(key: str, value: float, unit: float, name: str) -> None:
    """Refuse a value that is not a multiple of a unit."""
    ratio = value / unit
    whole = 0.5 < ratio < math.inf and math.isclose(ratio, round(ratio), rel_tol=1e-9)
    require(whole, key, value, f"must be a multiple of {name}")
