"""Run e-prop learning experiments on the NEST simulator: from the command line, and from Python.

import eprop_cli

run = eprop_cli.run(["experiment=smoke", "task.n_iter=3"], directory="first")
run.metrics
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eprop_cli.api import Run, Sweep, compose, run

    __version__: str

__all__ = ["Run", "Sweep", "__version__", "compose", "run"]


def __getattr__(name: str) -> Any:
    """What is public is imported when it is asked for: the commands answer before."""
    if name == "__version__":
        from eprop_cli.versions import own_version

        return own_version()
    if name in __all__:
        from eprop_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
