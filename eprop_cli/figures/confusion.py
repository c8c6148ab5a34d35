"""Which class was taken for which, of what was evaluated last."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eprop_cli.figures.base import Drawing
from eprop_cli.figures.style import STYLE
from eprop_cli.runs.files import CONFUSION
from eprop_cli.runs.reader import Run

MOST_NUMBERS = 12  # classes up to which cells have their numbers written in them
DARK = 0.5  # fraction from which on letters are white


class Confusion(Drawing):
    """plots.figures=[confusion]."""

    @staticmethod
    def draw(run: Run) -> Iterator[tuple[str, Figure]]:
        """One figure, of tasks with more than two classes."""
        if (run.directory / CONFUSION).exists():
            yield "confusion", confusion(run.confusion)


@style.context(STYLE)
def confusion(table: pd.DataFrame) -> Figure:
    """Fractions of each class's sequences, and beside them the recall of each class.

    table: as Run.confusion.
    """
    n = int(max(table["actual"].max(), table["predicted"].max())) + 1
    counts = np.zeros((n, n), dtype=int)
    np.add.at(counts, (table["actual"], table["predicted"]), table["sequences"])
    total = counts.sum(axis=1)
    fractions = counts / np.maximum(total, 1)[:, None]
    figure = Figure(figsize=(6.4, 4.8))
    grid = {"width_ratios": [4, 1], "left": 0.09, "right": 0.97, "bottom": 0.11, "top": 0.9, "wspace": 0.08}
    matrix, recall = figure.subplots(1, 2, sharey=True, gridspec_kw=grid)
    matrix.imshow(fractions, "Blues", aspect="auto", vmin=0.0, vmax=1.0, interpolation="none")
    matrix.spines[:].set_visible(True)
    for actual, predicted in zip(*np.nonzero(counts), strict=True) if n <= MOST_NUMBERS else ():
        colour = "white" if fractions[actual, predicted] > DARK else "black"
        matrix.text(predicted, actual, counts[actual, predicted], ha="center", va="center", color=colour)
    matrix.set_xlabel("readout that was largest")
    matrix.set_ylabel("class")
    for axis in (matrix.xaxis, matrix.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=20, integer=True, steps=[1, 2, 5, 10]))
    recall.barh(np.arange(n), np.diag(fractions), color="grey", height=0.7)
    recall.set_xlim(0.0, 1.0)
    recall.set_xlabel("recall")
    recall.tick_params(left=False)
    phase, iteration = table["phase"].iloc[0], table["iteration"].iloc[0]
    accuracy = np.trace(counts) / counts.sum()
    figure.suptitle(f"{phase} after iteration {iteration}: {counts.sum()} sequences, accuracy {accuracy:.3f}")
    return figure
