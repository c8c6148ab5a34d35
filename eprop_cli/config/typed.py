"""Give the values of a config the types of their keys, where they nearly have them.

OmegaConf does so for any values and types, and tells what is wrong; it takes several times as long.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

EXACT = 2**53  # up to here, each whole number is a float
SCALARS = (int, float, bool, str)
REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z_]\w*(?:\.\w+)*)\}")  # to a key: from the top, or from where it stands
MISSING_VALUE = "???"
MOST_STEPS = 16  # from one reference to the next

Kind = Any  # a type, or the kinds of a group's keys


class OtherTypeError(Exception):
    """A value is not of its key's type, or the type is none of those that are known here."""


@dataclass(frozen=True)
class _Reference:
    """A key in whose place another's value is wanted."""

    kind: Kind
    path: tuple[str, ...]


def convert(kind: Kind, value: Any) -> Any:
    """Plain values as a kind has them: 1 may be 1.0, outside of lists 1e3 a whole number; references are followed.

    value: as OmegaConf.to_container() gives it without resolving references. Raises OtherTypeError.
    """
    tree = _convert(kind, value, (), False)
    return _follow(tree, tree)


def build(kind: Kind, value: Any) -> Any:
    """What convert() gave, with groups as instances of their dataclasses; raises what making them raises."""
    if (kinds := _kinds(kind)) is not None:
        built = {key: build(each, value[key]) for key, each in kinds.items()}
        return kind(**built) if isinstance(kind, type) else built
    if items := _items(kind):
        return [build(items, item) for item in value]
    if value is not None and (inner := optional(kind)):
        return build(inner, value)
    return value


def optional(kind: Kind) -> Kind:
    """What a kind is unless it is null; None if it is never null, or several others."""
    origin: Any = get_origin(kind)
    others = [each for each in get_args(kind) if each is not NoneType]
    return others[0] if origin in (UnionType, Union) and len(others) == 1 else None


def _convert(kind: Kind, value: Any, place: tuple[str, ...], listed: bool) -> Any:
    if isinstance(value, str) and ("${" in value or value == MISSING_VALUE):
        return _reference(kind, value, place, listed)
    if (kinds := _kinds(kind)) is not None:
        if isinstance(value, dict) and value.keys() == kinds.keys():
            return {key: _convert(each, value[key], (*place, key), listed) for key, each in kinds.items()}
    elif kind is Any:
        return _without_references(value)
    elif type(value) is kind and kind in SCALARS:
        return value
    elif kind is float and type(value) is int and abs(value) < EXACT:
        return float(value)
    elif kind is int and type(value) is float and value.is_integer() and not listed:
        return int(value)
    elif (items := _items(kind)) and isinstance(value, list):
        return [_convert(items, item, place, True) for item in value]
    elif inner := optional(kind):
        return None if value is None else _convert(inner, value, place, listed)
    raise OtherTypeError


def _reference(kind: Kind, value: str, place: tuple[str, ...], listed: bool) -> _Reference:
    match = REFERENCE.fullmatch(value)
    scalar = kind is Any or (optional(kind) or kind) in SCALARS
    if listed or not scalar or match is None or len(match[1]) > len(place):
        raise OtherTypeError
    above = place[: -len(match[1])] if match[1] else ()
    return _Reference(kind, (*above, *match[2].split(".")))


def _without_references(value: Any) -> Any:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _without_references(item)
    elif isinstance(value, str) and ("${" in value or value == MISSING_VALUE):
        raise OtherTypeError
    return value


def _follow(value: Any, tree: Any) -> Any:
    """A value without references into the tree."""
    if isinstance(value, dict):
        return {key: _follow(item, tree) for key, item in value.items()}
    return _find(value, tree, MOST_STEPS) if isinstance(value, _Reference) else value


def _find(reference: _Reference, tree: Any, steps: int) -> Any:
    found = tree
    for key in reference.path:
        if not isinstance(found, dict) or key not in found:
            raise OtherTypeError
        found = found[key]
    if isinstance(found, _Reference) and steps:
        found = _find(found, tree, steps - 1)
    kind = optional(reference.kind) or reference.kind
    if kind is float and type(found) is int:
        return float(found)
    fits = type(found) in SCALARS if kind is Any else type(found) is kind
    if not fits and not (found is None and (kind is Any or kind is not reference.kind)):
        raise OtherTypeError
    return found


def _kinds(kind: Kind) -> Mapping[str, Kind] | None:
    """The kinds of a group's keys, in its order; None of any other kind."""
    if isinstance(kind, Mapping):
        return kind
    return _kinds_of(kind) if isinstance(kind, type) and is_dataclass(kind) else None


@functools.cache
def _kinds_of(schema: Any) -> dict[str, Kind]:
    """As _kinds; raises OtherTypeError where a default means more to OmegaConf than a value: a type, say."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        if not field.init or field.default_factory is not MISSING or schema.__dataclass_params__.frozen:
            raise OtherTypeError
        if field.default is not MISSING and field.default is not None:
            kind = optional(hints[field.name]) or hints[field.name]
            if type(field.default) not in SCALARS or (kind is not Any and type(field.default) is not kind):
                raise OtherTypeError
    return {field.name: hints[field.name] for field in fields(schema)}


def _items(kind: Kind) -> Kind:
    """What the items of a list are; None of any other kind."""
    origin: Any = get_origin(kind)
    return next(iter(get_args(kind)), None) if origin is list else None
