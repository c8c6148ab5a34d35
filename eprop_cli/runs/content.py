"""What each file of a run holds: one schema for each, by which what is read back is checked for its content.

Whatever raises here raises ValueError, with a reason that follows the file's name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from eprop_cli.columns import Column

MOST_BYTES = 2**26  # of run.json; that of a long run with many sessions has some 100 kB
MOST_NUMBER = 2**63 - 1

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(least: int, most: int = MOST_NUMBER) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 that something can be counted with."""
    return _whole(0, 2**31 - 1)(value)


def _number(value: Any) -> bool:
    """A number as in a row: a metric may be nan, or infinite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, float) or abs(value) <= MOST_NUMBER)


def _duration(value: Any) -> bool:
    return _number(value) and math.isfinite(value) and value >= 0


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _dict_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _group(needed: Mapping[str, Check], further: Mapping[str, Check] | None = None) -> Check:
    """A dictionary with these keys, perhaps those further ones, and no others."""
    checks = {**needed, **(further or {})}
    return lambda value: (
        isinstance(value, dict)
        and needed.keys() <= value.keys() <= checks.keys()
        and all(checks[key](item) for key, item in value.items())
    )


def _row(value: Any) -> bool:
    first = {"iteration": _whole(0), "phase": _text}
    return isinstance(value, dict) and all(first.get(key, _number)(item) for key, item in value.items())


def _name(value: Any) -> bool:
    """What becomes a part of a file's name, or of a column's."""
    return isinstance(value, str) and value.isidentifier()


_COLUMN = _group(
    {"name": _name, "label": _text},
    {
        field.name: _optional(_number) if field.name in ("least", "most") else _optional(_text)
        for field in fields(Column)
        if field.name not in ("name", "label")
    },
)
_SESSION = {
    "start": _optional(_text),
    "command": _optional(_list_of(_text)),
    "pid": _optional(_whole(0, 2**31 - 1)),
    "host": _optional(_text),
    "slurm_job": _optional(_text),
    "git_commit": _optional(_text),
    "versions": _optional(_dict_of(_text)),
}
# Entries of run.json that are looked at, but for its format, which is check_format()'s; others may be there, and all of
# these but status may be missing.
RECORD: dict[str, Check] = {
    **_SESSION,
    "status": _text,
    "stop": _optional(_text),
    "seconds": _optional(_dict_of(_duration)),
    "last_row": _optional(_row),
    "error": _optional(_text),
    "columns": _list_of(_COLUMN),
    "populations": _list_of(_group({"name": _name, "label": _text, "size": _whole(1, 2**31 - 1)})),
    "planes": _list_of(lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_count, value))),
    "loss": lambda value: isinstance(value, dict) and _dict_of(_text)(value.get("symbols", {})),
    "sessions": _list_of(_group({}, _SESSION)),
    "resumed": _list_of(_text),  # of format 1
    "is_stream": lambda value: isinstance(value, bool),
    "seed": _optional(_whole(-MOST_NUMBER)),
    "config": lambda value: isinstance(value, dict),
}


def parse_record(text: str) -> dict[str, Any]:
    """What is in a run.json; raises ValueError unless its entries are those of a run."""
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    try:
        record = json.loads(text)
    except RecursionError:
        raise ValueError("it has keys in keys without end") from None
    if not isinstance(record, dict) or not isinstance(record.get("status"), str):
        raise ValueError("it does not say what became of the run")
    for key, holds in RECORD.items():
        if key in record and not holds(record[key]):
            raise ValueError(f"its {key} is not that of a run: {json.dumps(record[key])[:80]}")
    names = [column["name"] for column in record.get("columns") or ()]
    if len(set(names)) < len(names):
        raise ValueError("its columns have a name twice")
    return record


NUMBERS, WHOLE, TEXT = "fiu", "iu", "text"
PLACE = {"sequence": WHOLE, "time": NUMBERS, "neuron": WHOLE}
TABLES: dict[str, dict[str, str]] = {  # columns of the tables in recordings/; those of populations have further numbers
    "weights": {"projection": TEXT, "pre": WHOLE, "post": WHOLE, "time": NUMBERS, "weight": NUMBERS},
    "spikes": {**PLACE, "population": TEXT},
    "windows": {"sequence": NUMBERS, "kind": TEXT, "start": NUMBERS, "stop": NUMBERS},
}


def check_table(frame: Any, name: str) -> None:
    """Raise ValueError unless a table has the columns of its name, with values of their kinds."""
    schema = TABLES.get(name, PLACE)
    for column, kind in schema.items():
        if column not in frame:
            raise ValueError(f"it has no column {column}")
        values = frame[column]
        if kind == TEXT:
            fits = not len(values) or all(isinstance(value, str) for value in values.unique())
        else:
            fits = getattr(values.dtype, "kind", "O") in kind or not len(values)
        if not fits or values.isna().any():
            raise ValueError(f"its column {column} has values that are not {'text' if kind == TEXT else 'numbers'}")
    for column in frame.columns:
        if name not in TABLES and getattr(frame[column].dtype, "kind", "O") not in "fiub":
            raise ValueError(f"its column {column} has values that are not numbers")
