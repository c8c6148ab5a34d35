"""What a sweep has to know of the engine that its jobs use: the cores it takes, and what it compiles."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from eprop_cli.config.config import Config
from eprop_cli.engines.base import engine_class, make_engine
from eprop_cli.training.base import initial_network


def cores_of_a_job(config: Config, swept: Mapping[str, Sequence[Any]]) -> int:
    """Cores that a job takes at most; swept: values of the keys that have several."""
    own = {key: value for key, value in vars(config.engine).items() if isinstance(value, int)}
    return engine_class(config).cores({key: _most(value, swept.get(f"engine.{key}", ())) for key, value in own.items()})


def compile_engine(config: Config) -> None:
    """Have what the engine compiles on disk and in this process; raises UserError if the config cannot run."""
    wiring, weights = initial_network(config)
    with contextlib.closing(make_engine(config, wiring)) as engine:
        engine.compile(weights)


def _most(value: int, others: Sequence[Any]) -> int:
    return max([value, *(other for other in others if isinstance(other, int))])
