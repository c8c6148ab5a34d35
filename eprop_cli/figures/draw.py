"""Draw the figures of a run from its directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eprop_cli.errors import UserError
from eprop_cli.figures.base import DEFAULT, Look
from eprop_cli.figures.style import fit, look
from eprop_cli.registry import variant
from eprop_cli.runs.reader import Run


def draw_run(
    run: Run, figures: Sequence[str], formats: Sequence[str], dpi: int, into: Path, plots: Look = DEFAULT, **choice: Any
) -> list[Path]:
    """Draw the named figures of a run into a directory and return their files; what was not recorded is left out."""
    return [
        path for name in figures for path in variant("figure", name).write(run, formats, dpi, into, plots, **choice)
    ]


def figure(
    run: Run,
    name: str,
    *,
    style: str = "default",
    width: float | None = None,
    font: str | None = None,
    **choice: Any,
) -> Figure:
    """A figure of a run, to go on with; of those that there are one of each recorded iteration, the last.

    name: as in plots.figures. style, width (mm), font: as in plots. choice: of dynamics, sequence and neurons.
    Raises UserError if there is no data for it.
    """
    drawing = variant("figure", name)
    with look(style, font):
        figures = [each for _, each in drawing.draw(run, **choice)]
        if not figures:
            raise UserError(f"{run.directory}: {name}: not drawn, it has no data for it")
        return fit(figures[-1], width, drawing.least_width)
