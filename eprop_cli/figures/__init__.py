"""Figures, from run directories alone.

from eprop_cli import Run
from eprop_cli.figures import figure

figure(Run("outputs/2026-01-31/12-00-00-000000"), "learning", style="paper", width=88)
"""

import contextlib
import os


def _import_matplotlib() -> None:
    """Import Matplotlib whatever MPLBACKEND says: one that is not installed it would refuse, and none is needed."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:  # what else is drawn in this process is shown where it would have been
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


_import_matplotlib()

from eprop_cli.figures.draw import figure  # noqa: E402  (imports Matplotlib)

__all__ = ["figure"]
