"""Run e-prop learning experiments on the NEST simulator: from the command line, and from Python.

import eprop_cli

run = eprop_cli.run(["experiment=smoke", "task.n_iter=3"], directory="first")
run.metrics
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eprop_cli.api import Run, Sweep, compose, run

__version__ = "0.1.0"
__all__ = ["Run", "Sweep", "__version__", "compose", "run"]


def __getattr__(name: str) -> Any:
    """What is public is imported when it is asked for: the commands answer before."""
    if name in __all__:
        from eprop_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
