"""Compute losses and gradients of a batch: one file per engine."""

from importlib.util import find_spec

from eprop_cli.config.config import Config
from eprop_cli.engines.base import Engine
from eprop_cli.engines.limits import check_limits
from eprop_cli.errors import ConfigError


def check_engine(config: Config) -> None:
    """Raise UserError if the config's engine cannot compute it, or what it computes with is not installed."""
    check_limits(config)
    package, remedy = {
        "nest": ("nest", "install nest-simulator 3.10, or use training=data_parallel engine=compiled"),
        "compiled": ("numba", "pip install '.[compiled]' in the checkout"),
    }[config.engine.name]
    if find_spec(package) is None:
        raise ConfigError("engine", config.engine.name, f"needs {package}, which is not installed; {remedy}")
    if getattr(config.training, "backend", None) == "dask" and find_spec("distributed") is None:
        constraint = "needs distributed, which is not installed; pip install '.[dask]' in the checkout"
        raise ConfigError("training.backend", "dask", constraint)


def make_engine(config: Config) -> Engine:
    """The engine that the config names; what it computes with is imported here."""
    if config.engine.name == "compiled":
        from eprop_cli.engines.compiled.engine import CompiledEngine

        return CompiledEngine(config)
    from eprop_cli.engines.nest.engine import NestEngine

    return NestEngine(config)
