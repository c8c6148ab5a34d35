"""What a sweep has to know of the engine that its jobs use: the cores it takes, and what it compiles."""

from collections.abc import Mapping, Sequence
from typing import Any

from eprop_cli.config.config import Config


def cores_of_a_job(config: Config, swept: Mapping[str, Sequence[Any]]) -> tuple[int, int]:
    """Workers, and threads of each, that a job uses at most; swept: values of the keys that have several."""
    threads = _most(config.kernel.local_num_threads, swept.get("kernel.local_num_threads", ()))
    workers = _most(getattr(config.training, "n_workers", 1), swept.get("training.n_workers", ()))
    return workers, 1 if compiles(config) else threads  # the compiled engine's workers are threads


def compiles(config: Config) -> bool:
    """Whether the engine compiles something when it is used first."""
    return config.engine.name == "compiled"


def compile_engine(config: Config) -> None:
    """Have what the engine compiles on disk and in this process; raises UserError if the config cannot run."""
    if compiles(config):
        from eprop_cli.engines.compiled.engine import compile_kernels  # Numba takes a while to import

        compile_kernels(config)


def _most(value: int, others: Sequence[Any]) -> int:
    return max([value, *(other for other in others if isinstance(other, int))])
