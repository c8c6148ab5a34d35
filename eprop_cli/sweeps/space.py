"""The values that a search may choose from: ranges and lists of Hydra's become distributions of Optuna's."""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from eprop_cli.errors import UserError

Space = dict[str, BaseDistribution]  # by key, with its +


def search_space(overrides: Sequence[Override]) -> Space:
    """The distributions of the overrides that have several values; raises UserError for what is no range."""
    space: Space = {}
    for override in overrides:
        if override.is_sweep_override():
            try:
                space[override.get_key_element()] = _distribution(override)
            except (ValueError, TypeError) as error:
                raise UserError(f"{override.input_line}: {' '.join(str(error).split())}") from error
    return space


def _distribution(override: Override) -> BaseDistribution:
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        assert low is not None
        assert high is not None
        return FloatDistribution(float(low), float(high), log=log)
    choices: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
    if isinstance(value, RangeSweep) and not value.shuffle:
        least, step = min(choices), abs(value.step)
        if log:
            raise ValueError("a range has even steps; with log, give an interval")
        if all(isinstance(each, int) for each in choices):
            return IntDistribution(least, max(choices), step=int(step))
        most = Decimal(str(least)) + (len(choices) - 1) * Decimal(str(step))
        return FloatDistribution(float(least), float(most), step=float(step))
    return CategoricalDistribution(choices)


def spelt(key: str, value: Any) -> str:
    """A suggestion as an override."""
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def points(key: str, distribution: BaseDistribution) -> list[Any]:
    """Every value of a distribution; raises UserError if there is no telling them apart."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        bounds = f"interval({distribution.low:g},{distribution.high:g})"
        raise UserError(f"{key}={bounds}: is no list of points, which this sampler needs; give values or range()")
    low, high, step = (Decimal(str(each)) for each in (distribution.low, distribution.high, distribution.step))
    return [float(low + index * step) for index in range(math.floor((high - low) / step) + 1)]
