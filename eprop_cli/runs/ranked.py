"""Runs side by side: which of them, in which order, the best, and mean and spread over seeds."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from eprop_cli.columns import HIGHER
from eprop_cli.errors import ConfigError, UserError, legible
from eprop_cli.objectives import parse_objective
from eprop_cli.runs.comparison import (
    MEAN,
    SEED,
    UNREADABLE,
    Opened,
    RunGroup,
    _order,
    differing,
    grouped,
    open_run,
    summarise,
    usual_metric,
)
from eprop_cli.runs.files import COMPLETED
from eprop_cli.runs.reader import Run
from eprop_cli.runs.where import MISSING, parse_where

INDEX = "index"
# Columns of the table and the objectives that they are
SAME = {"final_loss": "loss"}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample; nan of one run) of a metric over seeds; n: runs that have it."""

    mean: float
    deviation: float
    n: int


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in their seed alone.

    values: of Comparison.keys. spreads: of Comparison.metrics. best: index of the best run; None if none is COMPLETED.
    """

    values: tuple[Any, ...]
    spreads: list[Spread]
    best: int | None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    opened: the runs in the order of the table. table: as summarise() gives it; its index numbers the runs from 1 as
    they were found, whatever order and choice. metrics: objectives; the first decides which run is best. keys: those
    that tell groups of seeds apart. seeds: a group each, of runs that are COMPLETED; none where no group has several.
    best: index of the best run; None if there is no telling.
    """

    opened: list[Opened]
    table: pd.DataFrame
    metrics: list[str]
    keys: list[str]
    seeds: list[Seeds]
    best: int | None

    @property
    def runs(self) -> list[Run]:
        """The runs, in the order of the table."""
        return [each.run for each in self.opened]

    @property
    def unreadable(self) -> list[str]:
        """What is the matter with the runs that cannot be read, a line each."""
        return list(self.table.loc[self.table["status"] == UNREADABLE, "error"])

    def run(self, index: int) -> Run:
        """The run of a number."""
        return self.runs[list(self.table.index).index(index)]


def compare(
    runs: Sequence[Run],
    metrics: Sequence[str] = (),
    where: str | None = None,
    sort: str | None = None,
    reverse: bool = False,
) -> Comparison:
    """Compare runs.

    metrics: objectives, as in objectives.py; none: the usual one. where: a condition that runs must meet. sort: a
    metric, best first, or another column or key, ascending; None: as they come; reverse: the other way round.
    Raises UserError with one line for a name that no run knows.
    """
    condition = None if where is None else parse_where(where)
    numbered = dict(enumerate(map(open_run, runs), start=1))
    lookup = _Lookup(numbered)
    if condition is not None:
        for name in condition.names:
            lookup.check("--where", name)
        numbered = {i: each for i, each in numbered.items() if condition.holds(partial(lookup.value, i))}
        if not numbered:
            raise UserError(f"--where {where}: no run of {len(runs)} is so")
    for name in metrics:
        if not any(_is_objective(each, name) for each in numbered.values()):
            raise UserError(f"--metric {name}: {_objective_error(numbered.values(), name)}")
    first = None
    if sort is not None:
        lookup.check("--sort", sort)
        first = SAME.get(sort, sort) if lookup.is_objective(SAME.get(sort, sort)) else None
        numbered = {index: numbered[index] for index in _sorted(lookup, list(numbered), sort, reverse)}
    elif reverse:
        numbered = dict(reversed(numbered.items()))
    opened = list(numbered.values())
    chosen = list(metrics) or list(dict.fromkeys([first or usual_metric(opened), MEAN]))
    table = summarise(opened, chosen)
    table.index = pd.Index(list(numbered), name=INDEX)
    keys = [key for key in differing(opened) if key != SEED]
    indices = {id(each): index for index, each in numbered.items()}
    finished = [each for each in opened if each.record["status"] == COMPLETED]
    groups = grouped(finished, keys)
    several = any(len(group.members) > 1 for group in groups)
    seeds = [_seeds(group, chosen, indices) for group in groups] if several else []
    by = SAME.get(sort or "", sort)
    if by in chosen:
        seeds = _seeds_sorted(seeds, chosen.index(by), lookup.falls(by), reverse)
    comparable = len({each.problem for each in finished}) == 1 or "loss" not in chosen[0]
    best = _best(finished, chosen[0], indices) if comparable and len(opened) > 1 else None
    return Comparison(opened, table, chosen, keys, seeds, best)


def _seeds(group: RunGroup, metrics: Sequence[str], indices: dict[int, int]) -> Seeds:
    spreads = []
    for name in metrics:
        values = group.values(name)
        deviation = stdev(values) if len(values) > 1 else math.nan
        spreads.append(Spread(fmean(values) if values else math.nan, deviation, len(values)))
    return Seeds(tuple(group.keyed), spreads, _best(group.members, metrics[0], indices))


def _seeds_sorted(seeds: Sequence[Seeds], place: int, falls: bool, reverse: bool) -> list[Seeds]:
    has = [each for each in seeds if each.spreads[place].n]
    ordered = sorted(has, key=lambda each: each.spreads[place].mean, reverse=falls != reverse)
    return [*ordered, *(each for each in seeds if not each.spreads[place].n)]


def _best(opened: Sequence[Opened], metric: str, indices: dict[int, int]) -> int | None:
    """Index of the run that is best by an objective, of several the first."""
    values = [(each.value(metric), indices[id(each)], each) for each in opened]
    ranked = [(-value if _falls(each, metric) else value, i) for value, i, each in values if not math.isnan(value)]
    return min(ranked)[1] if ranked else None


def _is_objective(opened: Opened, name: str) -> bool:
    try:
        parse_objective(name, opened.better)
    except ConfigError:
        return False
    return True


def _objective_error(opened: Any, name: str) -> str:
    """What objectives there are."""
    better = {key: way for each in opened for key, way in each.better.items()}
    try:
        parse_objective(name, better)
    except ConfigError as error:
        return str(error).partition(": ")[2]
    return "no run has it"


def _falls(opened: Opened, name: str) -> bool:
    """Whether more is better."""
    try:
        return opened.better[parse_objective(SAME.get(name, name), opened.better).column] == HIGHER
    except ConfigError:
        return False


def _sorted(lookup: "_Lookup", indices: Sequence[int], name: str, reverse: bool) -> list[int]:
    """Indices in the order of what a name means; runs without a value come last."""
    values = {index: lookup.value(index, name) for index in indices}
    missing = [index for index, value in values.items() if value is MISSING or value is None or value != value]
    has = [index for index in indices if index not in missing]
    return [*sorted(has, key=lambda index: _order(values[index]), reverse=lookup.falls(name) != reverse), *missing]


class _Lookup:
    """What a name in --where and --sort means: a column of the table, a config key or its last part, an objective."""

    def __init__(self, numbered: dict[int, Opened]) -> None:
        self._opened = numbered
        table = summarise(list(numbered.values()))
        table.index = pd.Index(list(numbered))
        self._rows: dict[int, dict[str, Any]] = {
            index: {INDEX: index, **dict(zip(table.columns, row, strict=True))}
            for index, row in zip(table.index, table.itertuples(index=False), strict=True)
        }
        self._keys = list(dict.fromkeys(key for each in numbered.values() for key in each.config))

    def check(self, option: str, name: str) -> None:
        """Raise UserError if the name means nothing."""
        if name in self._columns or self.is_objective(name) or self._key(name):
            return
        meant = [key for key in self._keys if key.endswith(f".{name}")]
        if len(meant) > 1:
            raise UserError(f"{option} {name}: which of {', '.join(meant)}?")
        known = [*self._columns, *self._keys, *(key.rpartition(".")[2] for key in self._keys)]
        nearest = difflib.get_close_matches(name, dict.fromkeys(known), n=1, cutoff=0.6)
        closest = f"; closest: {nearest[0]}" if nearest else ""
        raise UserError(legible(f"{option} {name}: there is no such key, column or metric{closest}"))

    def value(self, index: int, name: str) -> Any:
        """What a name means in a run; MISSING where it has none."""
        opened = self._opened[index]
        if name in opened.config:
            return opened.config[name]
        if name in self._rows[index]:
            value = self._rows[index][name]
            return MISSING if value is None or value is pd.NA or value != value else value
        if self.is_objective(name):
            value = opened.value(name)
            return MISSING if math.isnan(value) else value
        return opened.config.get(self._key(name), MISSING)

    def is_objective(self, name: str) -> bool:
        """Whether it is one, of some run."""
        return any(_is_objective(each, name) for each in self._opened.values())

    def falls(self, name: str) -> bool:
        """Whether more of it is better."""
        return any(_falls(each, name) for each in self._opened.values())

    @property
    def _columns(self) -> list[str]:
        return list(next(iter(self._rows.values()), {}))

    def _key(self, name: str) -> str:
        """The config key that a name is, or is the last part of."""
        if name in self._keys:
            return name
        meant = [key for key in self._keys if key.endswith(f".{name}")]
        return meant[0] if len(meant) == 1 else ""
