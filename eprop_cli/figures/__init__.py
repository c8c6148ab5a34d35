"""Figures, from run directories alone.

from eprop_cli import Run
from eprop_cli.figures import figure

figure(Run("outputs/2026-01-31/12-00-00-000000"), "learning", style="paper", width=88)
"""

from eprop_cli.figures.draw import figure

__all__ = ["figure"]
