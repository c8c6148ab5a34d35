"""Give the values of a config the types of their keys, where they nearly have them.

OmegaConf does so for any values and types, and tells what is wrong; it takes ten times as long.
"""

import functools
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

EXACT = 2**53  # up to here, each whole number is a float

Kind = Any  # a type, or the kinds of a group's keys


class OtherTypeError(Exception):
    """A value is not of its key's type, or the type is none of those that are known here."""


def convert(kind: Kind, value: Any, listed: bool = False) -> Any:
    """A plain value as a kind has it: 1 may be 1.0, and, where it is not listed, 1e3 a whole number.

    Raises OtherTypeError.
    """
    if (kinds := _kinds(kind)) is not None:
        if isinstance(value, dict) and value.keys() == kinds.keys():
            return {key: convert(each, value[key], listed) for key, each in kinds.items()}
    elif kind is Any or (type(value) is kind and kind in (int, float, bool, str)):
        return value
    elif kind is float and type(value) is int and abs(value) < EXACT:
        return float(value)
    elif kind is int and type(value) is float and value.is_integer() and not listed:
        return int(value)
    elif (items := _items(kind)) and isinstance(value, list):
        return [convert(items, item, listed=True) for item in value]
    elif inner := _optional(kind):
        return None if value is None else convert(inner, value, listed)
    raise OtherTypeError


def build(kind: Kind, value: Any) -> Any:
    """What convert() gave, with groups as instances of their dataclasses; raises what making them raises."""
    if (kinds := _kinds(kind)) is not None:
        built = {key: build(each, value[key]) for key, each in kinds.items()}
        return kind(**built) if isinstance(kind, type) else built
    if items := _items(kind):
        return [build(items, item) for item in value]
    if value is not None and (inner := _optional(kind)):
        return build(inner, value)
    return value


def _kinds(kind: Kind) -> Mapping[str, Kind] | None:
    """The kinds of a group's keys, in its order; None of any other kind."""
    if isinstance(kind, Mapping):
        return kind
    return _kinds_of(kind) if isinstance(kind, type) and is_dataclass(kind) else None


@functools.cache
def _kinds_of(schema: type[Any]) -> dict[str, Kind]:
    hints = get_type_hints(schema)
    for field in fields(schema):  # OmegaConf gives what is of any type the type of its default
        if not field.init or (hints[field.name] is Any and field.default_factory is not MISSING):
            raise OtherTypeError
    return {field.name: hints[field.name] for field in fields(schema)}


def _items(kind: Kind) -> Kind:
    """What the items of a list are; None of any other kind."""
    origin: Any = get_origin(kind)
    return get_args(kind)[0] if origin is list else None


def _optional(kind: Kind) -> Kind:
    """What a kind is unless it is null; None if it is never null, or several others."""
    origin: Any = get_origin(kind)
    others = [each for each in get_args(kind) if each is not NoneType]
    return others[0] if origin in (UnionType, Union) and len(others) == 1 else None
